"""The parts of a session that all backends share: turns of callers, number and order of submissions, and closing.

A backend begins work, finishes it and frees itself; this module decides who may request that. The rules are in the
docstring of `Session`.

Two locks, always taken in this order: one for `submit`, one for `collect`, so that one thread can submit while another
waits for a result. A call and `close` take both. No lock is held between calls.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType, TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from panrt.engine import forks
from panrt.engine.conversion import as_frame
from panrt.engine.frame import Frame
from panrt.engine.nvtx_ranges import nvtx_range
from panrt.engine.results.result import PanopticResult
from panrt.engine.session import current_user
from panrt.errors import SessionBusyError, SessionClosedError, SessionError, SessionForkedError
from panrt.formats.metadata import FileThresholds, ModelFile
from panrt.formats.thresholds import Thresholds, settings

log = logging.getLogger("panrt")

Work = TypeVar("Work")  # what a backend keeps of a submission
_Self = TypeVar("_Self", bound="SessionBase[Any]")


class Submission(NamedTuple):
    """A submission that waits for its `collect`."""

    user: object  # whose it is: a thread, or a stream
    frames: tuple[Frame, ...]
    work: Any


class SessionBase(ABC, Generic[Work]):
    """The part of `panrt.engine.session.Session` that does not depend on the backend."""

    converts_frames = False

    def __init__(
        self,
        *,
        name: str,
        capacity: int,
        batch: int,
        model: ModelFile,
        shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    ) -> None:
        """Begin a session, ready once the backend's part is set up.

        Args:
            name: its file, for messages.
            capacity: how many submissions may wait.
            batch: frames per submission, at most; 0 for any number.
            model: the metadata of the file.
            shapes: of the network's inputs for thresholds, by name; none if they are fixed.
        """
        self.model = model
        self._shapes = shapes
        self.settings = settings(model, shapes)  # replaced as a whole; `_begin` reads it once
        self.capacity = capacity
        self._name = name
        self._most_frames = batch
        self._waiting: deque[Submission] = deque()
        self._make_locks()
        self._closing = self._closed = False
        self._pid = os.getpid()
        self._forked = False
        self._reserved_for: weakref.ref[object] | None = None
        self._submitted: weakref.WeakSet[object] = weakref.WeakSet()  # users that have done so
        self._refused: weakref.WeakSet[object] = weakref.WeakSet()  # whose last submit failed
        self._collected: weakref.WeakSet[object] = weakref.WeakSet()  # that have collected submissions of their own
        forks.watch(self)

    # The backend's part; never called by two threads at once, but for `_begin` beside `_finish`.

    @abstractmethod
    def _begin(self, frames: tuple[Frame, ...]) -> Work:
        """Start work on frames, at most a batch, without waiting."""

    @abstractmethod
    def _finish(self, work: Work, frames: tuple[Frame, ...]) -> tuple[PanopticResult, ...]:
        """Wait for the oldest work; called again for it after an interrupt."""

    @abstractmethod
    def _free(self) -> None:
        """Wait for what is in flight and free everything; called once."""

    def _compute(self, frame: Frame) -> PanopticResult:
        """Return the result of one frame while nothing else waits."""
        frames = (frame,)
        return self._finish(self._begin(frames), frames)[0]

    # What users call

    def __call__(self, frame: Any) -> PanopticResult:
        """Return the result of one frame of any size: a `Frame`, or an image as `panrt.engine.conversion` lists them.

        Raises:
            SessionError: submissions wait for their collect; SessionBusyError if they are another user's.
            FrameError: the argument is not a frame.
        """
        with self._inside(), self._submitting, self._collecting:
            self._check_usable()
            self._check_turn(current_user())
            if self._waiting:
                raise SessionError("session: called while submissions wait for their collect; collect them first.")
            return self._compute(as_frame(frame))

    @nvtx_range("submit")
    def submit(self, frames: Sequence[Frame]) -> None:
        """Start work on frames and return without waiting; see `panrt.engine.session.Session`.

        Raises:
            SessionError: `capacity` submissions wait already; SessionBusyError if they are another user's.
            FrameError, ValueError: the arguments are not 1 to `model.batch` frames.
        """
        with self._inside(), self._submitting:
            user = current_user()
            self._submitted.add(user)
            try:
                self._check_usable()
                self._check_turn(user)
                if len(self._waiting) >= self.capacity:
                    raise SessionError(
                        f"session: {self.capacity} submissions wait for their collect already; collect one."
                    )
                most = self._most_frames
                if not frames or (most and len(frames) > most):
                    wanted = f"1 to {most}, the batch of {self._name}" if most else "at least 1"
                    raise ValueError(f"frames: got {len(frames)}, expected {wanted}.")
                frames = tuple(frames)
                self._waiting.append(Submission(user, frames, self._begin(frames)))
            except BaseException:
                self._refused.add(user)
                raise
            self._refused.discard(user)

    @nvtx_range("collect")
    def collect(self) -> tuple[PanopticResult, ...]:
        """Wait for the oldest submission; return a result for each of its frames, in order.

        Raises:
            SessionError: nothing was submitted; SessionBusyError if what waits is another user's.
        """
        with self._inside(), self._collecting:
            self._check_usable()
            user = current_user()
            self._check_reserved(user)
            if not self._waiting:
                raise SessionError("session: there is nothing to collect; submit first.")
            submission = self._waiting[0]
            owner = submission.user
            pairs = user in self._submitted and owner in self._collected  # both collect what they submit themselves
            if user is not owner and (pairs or user in self._refused):
                raise SessionBusyError("session: the waiting submission is another thread's, which has to collect it.")
            try:
                results = self._finish(submission.work, submission.frames)
            except Exception:
                self._waiting.popleft()  # there is no collecting it; after an interrupt there is
                raise
            self._waiting.popleft()
            if user is owner:
                self._collected.add(user)
            return results

    @property
    def thresholds(self) -> FileThresholds:
        """See `panrt.engine.session.Session`."""
        return self.settings.thresholds

    @thresholds.setter
    def thresholds(self, chosen: Thresholds | FileThresholds | None) -> None:
        self._check_usable()
        self.settings = settings(self.model, self._shapes, thresholds=chosen, classes=self.settings.classes)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """See `panrt.engine.session.Session`."""
        return self.settings.classes

    @classes.setter
    def classes(self, chosen: Sequence[str] | None) -> None:
        self._check_usable()
        self.settings = settings(self.model, self._shapes, thresholds=self.settings.thresholds, classes=chosen)

    def wait_for(self, stream: object) -> None:
        """Raise SessionError: a session without a GPU has no stream; see `panrt.engine.session.Session`."""
        del stream
        raise SessionError(f"session: {self._name} runs on the CPU, which has no CUDA stream to wait for.")

    def reserve(self, user: object) -> None:
        """Reserve the session; see `panrt.engine.session.Reserves`."""
        with self._inside(), self._submitting, self._collecting:
            self._check_usable()
            self._check_turn(user)
            self._reserved_for = weakref.ref(user)

    def release(self, user: object) -> None:
        """Release the session; uncollected submissions are awaited and dropped. See `panrt.engine.session.Reserves`."""
        if self._closing or self._forked:
            return
        with self._inside(), self._submitting, self._collecting:
            if self._reserved_for is None or self._reserved_for() is not user:
                return
            self._reserved_for = None
            while self._waiting and not self._closed:
                submission = self._waiting.popleft()
                try:
                    self._finish(submission.work, submission.frames)
                except Exception as error:  # nobody waits for its result
                    log.debug("%s: a submission that was dropped: %s", self._name, error)

    def close(self) -> None:
        """Wait for submissions in flight, drop them and free everything. Idempotent, and for any thread."""
        self._closing = True
        if not self._forked and threading.get_ident() not in self._threads_inside:
            with self._inside():
                pass  # which closes when it ends

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def after_fork(self) -> None:
        """Become unusable in a forked child; see `forks`."""
        self._forked = True
        self._make_locks()

    # Turns

    def _make_locks(self) -> None:
        self._submitting = threading.Lock()
        self._collecting = threading.Lock()
        self._threads_inside: set[int] = set()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Guard a call: no other call of the same thread may interrupt it, and a `close` takes effect after it."""
        thread = threading.get_ident()
        if thread in self._threads_inside:
            raise SessionError("session: called from within another call of the same thread, as by a signal handler.")
        self._threads_inside.add(thread)
        try:
            yield
        finally:
            try:
                if self._closing and not self._forked:
                    self._close()
            finally:
                self._threads_inside.discard(thread)

    def _close(self) -> None:
        with self._submitting, self._collecting:
            if not self._closed:
                self._closed = True
                self._waiting.clear()
                self._free()

    def _check_usable(self) -> None:
        if self._forked:
            raise SessionForkedError(
                f"session: {self._name} was opened by process {self._pid}, from which this one was forked, and its "
                'threads do not survive that; call panrt.load in this process, or start it with the method "spawn".'
            )
        if self._closing:
            raise SessionClosedError(f"session: {self._name} is closed; panrt.load opens it again.")

    def _check_turn(self, user: object) -> None:
        self._check_reserved(user)
        if self._waiting and self._waiting[0].user is not user:
            raise SessionBusyError(
                "session: submissions of another thread wait for their collect; collect them first, or open another "
                "session with panrt.load."
            )

    def _check_reserved(self, user: object) -> None:
        holder = self._reserved_for() if self._reserved_for is not None else None
        if holder is not None and holder is not user:
            raise SessionBusyError(
                "session: a stream runs on it; wait for the stream's end, or open another session with panrt.load."
            )
