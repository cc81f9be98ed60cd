"""The one abstraction over backends: pixels in, panoptic results out.

A session owns a loaded model, its buffers and its threads. Frames go in by `submit` and their results come out of
`collect` in the same order; calling the session does both. Several threads may share one session if each takes its
turn: a session is not locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from panrt.engine.colors import Rgb
from panrt.engine.frame import Frame
from panrt.engine.result import PanopticResult
from panrt.errors import PanrtError
from panrt.model_file import ModelFile

Preprocess: TypeAlias = Literal["host", "gpu"]


class SessionError(PanrtError, RuntimeError):
    """A session is used out of turn: closed, called between submit and collect, or filled beyond its capacity."""


class Session(Protocol):
    """A model, ready to run."""

    @property
    def model(self) -> ModelFile:
        """What the file says about itself."""
        ...

    @property
    def backend(self) -> str:
        """One of "cpu", "tensorrt" and "rtx"."""
        ...

    @property
    def capacity(self) -> int:
        """How many submissions may wait for their `collect` at once; one more is an error."""
        ...

    @property
    def stages(self) -> Mapping[str, float]:
        """Seconds that each part of the last inference took, by name; empty where the backend does not tell."""
        ...

    def __call__(self, frame: Frame | NDArray[np.uint8]) -> PanopticResult:
        """The result of one frame of any size; an array is (H, W, 3) uint8 BGR."""
        ...

    def submit(self, frames: Sequence[Frame]) -> None:
        """Start on 1 to `model.batch` frames (any number where the batch is 0) and return without waiting."""
        ...

    def collect(self) -> tuple[PanopticResult, ...]:
        """Wait for the oldest submission; a result for each of its frames, in order."""
        ...

    def close(self) -> None:
        """Free everything; what is in flight is waited for and dropped. Twice is fine."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Drawing(Protocol):
    """A picture that a session draws meanwhile."""

    def picture(self) -> NDArray[np.uint8]:
        """Wait for it: (H, W, 3) BGR, the frame with colours and borders but without names; not to be written to.

        May be called from any thread, again and again, and after the session went on or was closed.
        """
        ...


@runtime_checkable
class Draws(Protocol):
    """A session that can draw results where their frames and maps are, with the pixels of `PanopticResult.overlay`."""

    def draw(self, image: int, colors: Mapping[int, Rgb]) -> Drawing | None:
        """Begin to draw a frame of what was collected last, before the next submit; None where it is not there.

        Args:
            image: which of those that were submitted together.
            colors: (R, G, B) of every segment of the result, by its id.
        """
        ...
