"""The one abstraction over backends: pixels in, panoptic results out.

A session owns a loaded model, its buffers and its threads. Frames go in by `submit` and their results come out of
`collect` in the same order; calling the session does both. Several threads may share one session if each takes its
turn: a session is not locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from panrt.engine.frame import Frame
from panrt.engine.result import PanopticResult
from panrt.errors import PanrtError
from panrt.model_file import ModelFile


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
        """The result of one frame, (H, W, 3) uint8 BGR of any size."""
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
