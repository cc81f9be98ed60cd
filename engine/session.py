"""The interface of all backends: frames in, panoptic results out.

A session owns a loaded model, its buffers and its threads. Frames are passed to `submit`, their results returned by
`collect` in the same order; calling the session does both. How threads share a session, how it is closed and what
a forked process may do with it is the same for every backend: see `Session`.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from panrt import errors
from panrt.engine.frame import Frame
from panrt.engine.results.result import PanopticResult
from panrt.formats.metadata import FileThresholds, ModelFile
from panrt.formats.thresholds import Thresholds

Preprocess: TypeAlias = Literal["host", "gpu"]
GpuMemory: TypeAlias = Literal["auto", "mapped", "device"]


class Session(Protocol):
    """A model, ready to run.

    Threads. Calling a session is safe from any number of threads: calls take turns, and each returns the result of its
    own frame. `submit` and `collect` are for one user at a time, a thread or a stream. While its submissions wait,
    `submit` and calls of others raise SessionBusyError, and so does the `collect` of a thread that submits itself; no
    thread ever gets the result of another one. A thread that only collects may serve another one that only submits.
    While a stream runs, the session is reserved for it. To work in parallel, open a session for each thread or stream.

    Closing. `close` may be called from any thread. A call in progress on another thread ends first; one that still
    waits for its turn raises SessionClosedError, as does every later one. Called from within a call of the same thread
    (by a signal handler), `close` takes effect when that call ends.

    Forking. A session belongs to the process that opened it. In a forked child every use raises SessionForkedError;
    `close` and the end of the child return at once and do not touch the parent's resources.
    """

    @property
    def model(self) -> ModelFile:
        """The metadata of the file."""
        ...

    @property
    def backend(self) -> str:
        """One of "cpu", "tensorrt" and "rtx"."""
        ...

    @property
    def capacity(self) -> int:
        """The number of submissions that may wait for their `collect`; one more is an error."""
        ...

    @property
    def converts_frames(self) -> bool:
        """Whether frames in NV12 and YUYV are converted on the GPU, at no cost for the CPU."""
        ...

    @property
    def stages(self) -> Mapping[str, float]:
        """Seconds that each part of the last inference took, by name; empty if the backend does not report them."""
        ...

    @property
    def thresholds(self) -> FileThresholds:
        """The thresholds in effect for the next submission: the file's own, or those that were set.

        They may be set at any time, from any thread, while a stream runs too: `session.thresholds =
        panrt.Thresholds(instance_score=0.6)`. Thresholds that are not given, and all with None, are the file's own.
        Frames that were submitted before keep those with which they were submitted. Setting them raises ValueError if
        one is out of range, and ThresholdsFixedError if the file or engine cannot change it.
        """
        ...

    @thresholds.setter
    def thresholds(self, chosen: Thresholds | FileThresholds | None) -> None: ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes that the next submission finds, things and stuff; None: all.

        They may be set as `thresholds` may. A thing of another class is dropped before suppression, as if the network
        had not detected it: it takes no place among the detections, and no pixels. Pixels of other stuff stay void.
        Setting them raises ValueError for a name that is not a class of the file.
        """
        ...

    @classes.setter
    def classes(self, chosen: Sequence[str] | None) -> None: ...

    def __call__(self, frame: Frame | NDArray[np.uint8] | Any) -> PanopticResult:
        """Return the result of one frame of any size; an array is BGR, `Frame(image, pixel_format="rgb8")` is RGB.

        Grey and RGBA arrays, floats from 0 to 1, images of Pillow and tensors are converted; see
        `panrt.engine.conversion`.
        """
        ...

    def submit(self, frames: Sequence[Frame]) -> None:
        """Start work on 1 to `model.batch` frames (any number if the batch is 0) without waiting."""
        ...

    def collect(self) -> tuple[PanopticResult, ...]:
        """Wait for the oldest submission; return a result for each of its frames, in order."""
        ...

    def wait_for(self, stream: object) -> None:
        """Let the next submit's work come after what a CUDA stream has queued so far; the host does not wait.

        Needed for a stream that fills a frame on the GPU whose array does not name the stream, and for one that reads
        a `panoptic_device`, whose memory a later frame reuses.

        Args:
            stream: an object with `__cuda_stream__`, or its handle as an int; 0 is the legacy default stream.

        Raises:
            SessionError: the session runs on the CPU.
            CudaStreamError: it is not a stream of the CUDA context that the session runs in.
        """
        ...

    def close(self) -> None:
        """Wait for submissions in flight, drop them and free everything. Idempotent."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Reserves(Protocol):
    """A session that a stream can reserve."""

    def reserve(self, user: object) -> None:
        """Serve this user alone, until `release`.

        Raises:
            SessionBusyError: another user has it.
            SessionClosedError, SessionForkedError: it cannot be used.
        """
        ...

    def release(self, user: object) -> None:
        """Serve every user again, if this user had reserved it."""
        ...


_acting = threading.local()


@contextmanager
def acting_for(user: object) -> Iterator[None]:
    """Make the calls of this thread count as those of `user`, whose work may move between threads: a stream."""
    before = getattr(_acting, "user", None)
    _acting.user = user
    try:
        yield
    finally:
        _acting.user = before


def current_user() -> object:
    """Return the user that this thread calls for: itself, outside of `acting_for`."""
    return getattr(_acting, "user", None) or threading.current_thread()


def __getattr__(name: str) -> Any:
    """Find the exceptions that were defined here up to 0.1."""
    if name.startswith("Session") and name in errors.__all__:
        warnings.warn(f"panrt.engine.session.{name} is deprecated; use panrt.{name}.", DeprecationWarning, 2)
        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
