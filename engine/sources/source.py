"""A source: a thread that captures frames, with its state and counts.

    connecting ──▶ live ◀──▶ stalled ──▶ reconnecting ──▶ live ... ──▶ ended

A source never invents a frame: while none arrive, its state is stalled or reconnecting. Frames wait for their reader in
a slot, which counts those that it drops.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine import forks, threads
from panrt.engine.clock import MONOTONIC, Clock
from panrt.engine.frame import Frame, PixelFormat, YuvStandard
from panrt.engine.nvtx_ranges import nvtx_range
from panrt.engine.pixel_formats import PIXEL_FORMATS
from panrt.engine.slot import POLICIES, Policy, Slot
from panrt.engine.uri import redact_all
from panrt.errors import SourceDeniedError, SourceError, SourceRefusedError, UnknownSourceError
from panrt.formats.records import legible

LOG = logging.getLogger("panrt.sources")
HISTORY = 64  # transitions that are kept
_NAMED = 3  # files that the final message names


class State(enum.Enum):
    """The state of a source."""

    CONNECTING = "connecting"  # opened, no frame yet
    LIVE = "live"
    STALLED = "stalled"  # connected, but no frame for `stall_after` seconds
    RECONNECTING = "reconnecting"  # lost, trying again
    ENDED = "ended"


class Transition(NamedTuple):
    """A change of a source's state."""

    state: State
    at: float  # seconds of the clock
    reason: str


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The options of a source; times in seconds.

    Raises:
        ValueError: a value is invalid; the message names it.
    """

    policy: Policy | None = None  # None: "latest" for live sources, "block" for files
    depth: int = 4  # frames that may wait under "block"; one under "latest"
    timeout: float = 5.0  # to open, and for each read: after that the source is lost
    stall_after: float = 1.0
    reconnect: bool = True  # to a live source that delivered frames and is lost
    backoff: tuple[float, float] = (0.25, 5.0)  # first and longest wait between attempts; it doubles
    loop: bool = False  # files: start again at their end
    rtsp_transport: str = "tcp"  # or "udp"
    pixel_format: PixelFormat = "bgr8"  # of frames: "nv12" and "yuyv" leave the conversion to the session
    native: bool = False  # frames in the camera's own format, if it is known, whatever `pixel_format` is
    clock: Clock = MONOTONIC

    def __post_init__(self) -> None:
        if self.policy is not None and self.policy not in POLICIES:
            raise ValueError(f"policy: got {self.policy!r}, expected {' or '.join(POLICIES)}.")
        if self.rtsp_transport not in ("tcp", "udp"):
            raise ValueError(f"rtsp_transport: got {self.rtsp_transport!r}, expected tcp or udp.")
        if self.pixel_format not in PIXEL_FORMATS:
            raise ValueError(f"pixel_format: got {self.pixel_format!r}, expected one of {', '.join(PIXEL_FORMATS)}.")
        for name in ("depth", "timeout", "stall_after"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a positive number.")
        if not 0 < self.backoff[0] <= self.backoff[1]:
            raise ValueError(f"backoff: got {self.backoff}, expected a positive first wait, then one at least as long.")


class Captured(NamedTuple):
    """An image read from a source, with its times and format."""

    image: NDArray[np.uint8]  # shaped by `pixel_format`, see `Frame`
    media_time: float | None = None  # seconds on the clock of the file or stream
    captured_at: float | None = None  # seconds of the clock; None: now
    pixel_format: PixelFormat = "bgr8"
    yuv_standard: YuvStandard = "bt601"
    file_name: str = ""  # of an image file, without its folder


@dataclass
class Opening:
    """The state that a source shares with its reader. `stop` is set when the reader must end."""

    options: SourceOptions
    realtime: bool  # a file plays at its own speed
    stop: threading.Event = field(default_factory=threading.Event)
    damaged: int = 0  # packets that could not be decoded, and files that were not read in full; counted by the reader
    files: int = 1  # to be read one after the other
    problems: dict[str, SourceError] = field(default_factory=dict)  # by text, of files that were not read in full

    @property
    def clock(self) -> Clock:
        """The clock that a reader waits by."""
        return self.options.clock

    def note(self, error: SourceError) -> None:
        """Count a file that was not read in full. The source ends with `problem`, after its other files."""
        self.damaged += 1
        self.problems.setdefault(str(error), error)
        LOG.warning("%s", error)

    @property
    def problem(self) -> SourceError | None:
        """The error for all files that were not read in full; None if all were."""
        if not self.problems:
            return None
        first = next(iter(self.problems.values()))
        if self.files == 1:
            return first
        more = f" And {len(self.problems) - _NAMED} more." if len(self.problems) > _NAMED else ""
        texts = " ".join(list(self.problems)[:_NAMED])
        return type(first)(f"{len(self.problems)} of {self.files} files could not be read in full. {texts}{more}")


# Opens the source, yields its images, and closes it when the generator is closed. Raises SourceError.
Reader = Callable[[Opening], Generator[Captured, None, None]]


@dataclass(frozen=True)
class Spec:
    """A source as its URI specifies it."""

    uri: str  # without credentials, for messages
    reader: Reader
    live: bool  # delivers frames at its own rate, whether or not they are taken
    lasting: bool = False  # has no natural end: one that ends is lost, and is reconnected
    pixel_formats: tuple[PixelFormat, ...] = ("bgr8",)  # that it can deliver
    native: PixelFormat | None = None  # the one of these that needs no conversion; None: unknown
    reads: tuple[Path, ...] = ()  # the files and folders that it reads


@dataclass(frozen=True)
class SourceStatus:
    """A source at one moment. `captured == delivered + dropped + waiting`."""

    name: str
    uri: str
    state: State
    reason: str  # of the state
    captured: int
    delivered: int
    dropped: int
    waiting: int
    damaged: int  # packets that could not be decoded, files that were not read in full
    reconnects: int
    unexpected: int  # errors other than SourceError; a lasting source reconnects after each
    last_frame_at: float | None  # seconds of the clock
    history: tuple[Transition, ...]


class Source:
    """Captures frames from one URI in its own thread until it ends or is stopped.

    Created by `open_source`. One reader takes frames with `take`; `status` may be read from any thread.
    """

    def __init__(
        self, spec: Spec, *, name: str = "", options: SourceOptions | None = None, wake: threading.Event | None = None
    ) -> None:
        options = options or SourceOptions()
        if options.native and spec.native is not None:
            options = replace(options, pixel_format=spec.native)
        if options.pixel_format not in spec.pixel_formats:
            raise UnknownSourceError(
                f"{spec.uri}: gives no frames in {options.pixel_format}, but in {' or '.join(spec.pixel_formats)}."
            )
        self.name = legible(name or spec.uri)
        self.spec = spec
        self.policy: Policy = options.policy or ("latest" if spec.live else "block")
        self._options = options
        self._clock = options.clock
        self._opening = Opening(options, realtime=self.policy == "latest")
        depth = 1 if self.policy == "latest" else options.depth
        self._slot: Slot[Frame] = Slot(self.policy, depth=depth, wake=wake)
        self._lock = threading.Lock()  # guards the five below
        self._state = State.CONNECTING
        self._history: deque[Transition] = deque(maxlen=HISTORY)
        self._last_frame_at: float | None = None
        self._error: Exception | None = None
        self._reconnects = 0
        self._unexpected = 0
        self._captured = 0
        self._enter(State.CONNECTING, "opening")
        self._thread = threading.Thread(target=self._run, name=f"source {self.name}", daemon=True)
        forks.watch(self)

    def start(self) -> Source:
        """Begin to capture.

        Raises:
            ThreadLimitError: the system starts no more threads.
        """
        threads.start(self._thread)
        return self

    def take(self, timeout: float | None = 0.0) -> Frame | None:
        """Return the next frame; None if none came within `timeout` seconds, or the source is `exhausted`."""
        frame = self._slot.take(timeout)
        if frame is None or self.spec.live or self._opening.realtime:
            return frame
        # A frame of a file could have been read at any time, so it does not age in the slot.
        return replace(frame, captured_at=self._clock.now())

    @property
    def exhausted(self) -> bool:
        """Whether the source has ended and every frame is taken."""
        return self._slot.exhausted

    @property
    def error(self) -> Exception | None:
        """The error that ended it; None after its natural end."""
        return self._error

    @property
    def status(self) -> SourceStatus:
        """State and counters now."""
        self.notice_stall()
        counts = self._slot.counts
        with self._lock:
            return SourceStatus(
                name=self.name,
                uri=self.spec.uri,
                state=self._state,
                reason=self._history[-1].reason,
                captured=counts.put,
                delivered=counts.taken,
                dropped=counts.dropped,
                waiting=counts.waiting,
                damaged=self._opening.damaged,
                reconnects=self._reconnects,
                unexpected=self._unexpected,
                last_frame_at=self._last_frame_at,
                history=tuple(self._history),
            )

    def notice_stall(self) -> None:
        """Enter the stalled state if it is due; the capturing thread cannot, as it waits for the frame."""
        with self._lock:
            now = self._clock.now()
            silent = now - (self._last_frame_at or now)
            late = self._state is State.LIVE and silent > self._options.stall_after
        if late and self._slot.counts.waiting == 0:
            self._enter(State.STALLED, f"no frame for {self._options.stall_after:g} s", only_from=State.LIVE)

    def stop(self) -> None:
        """Stop capturing; captured frames can still be taken."""
        self._opening.stop.set()
        self._slot.close()

    def close(self) -> None:
        """Stop and wait for the thread. Idempotent."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(2 * self._options.timeout + 1)

    def after_fork(self) -> None:
        """Become ended in a forked child; see `forks`."""
        self._lock = threading.Lock()
        self._opening.stop = threading.Event()
        self._opening.stop.set()
        self._slot.after_fork()
        self._error = SourceError(f"{self.spec.uri}: it belongs to the process from which this one was forked.")
        self._enter(State.ENDED, "forked")

    def __enter__(self) -> Source:
        return self if self._thread.is_alive() else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        first_wait, longest_wait = self._options.backoff
        wait = first_wait
        reason = "stopped"
        try:
            while not self._opening.stop.is_set():
                seen = self._captured
                problem = self._read()
                if self._opening.stop.is_set():
                    self._error = self._opening.problem
                    break
                if problem is None:
                    problem = self._opening.problem
                if problem is None or not self._may_return(problem):
                    self._error = problem
                    reason = _reason(problem) if problem else "end of source"
                    break
                wait = first_wait if self._captured > seen else min(2 * wait, longest_wait)
                with self._lock:
                    self._reconnects += 1
                self._enter(State.RECONNECTING, _reason(problem))
                self._clock.wait(self._opening.stop, wait)
        except Exception as error:  # a bug: report it to the reader of the frames rather than end the thread silently
            self._error = error
            reason = _reason(error)
        finally:
            self._enter(State.ENDED, reason)
            self._slot.close()

    def _read(self) -> Exception | None:
        """Capture until the source ends; return the error, or None after its natural end."""
        captures: Generator[Captured, None, None] | None = None
        try:
            captures = self.spec.reader(self._opening)
            while (captured := _next(captures)) is not None:
                if not self._hand_over(captured):
                    return None
        except SourceError as error:
            return error
        except Exception as error:  # a bug, or an undocumented error of a library: a lasting source reconnects
            self._unexpected += 1
            return error
        finally:
            if captures is not None:
                captures.close()
        if self.spec.lasting:
            return SourceRefusedError(f"{self.spec.uri}: the stream ended.")
        return None

    def _hand_over(self, captured: Captured) -> bool:
        now = self._clock.now()
        with self._lock:
            self._last_frame_at = now
        if self._state is not State.LIVE:
            self._enter(State.LIVE, "receiving frames")
        captured_at = now if captured.captured_at is None else captured.captured_at
        frame = Frame(
            captured.image,
            self._captured,
            captured_at,
            captured.media_time,
            self.name,
            captured.pixel_format,
            captured.yuv_standard,
            captured.file_name,
        )
        if not self._slot.put(frame):
            return False
        self._captured += 1
        with self._lock:  # time spent waiting for the reader is not a stall
            self._last_frame_at = self._clock.now()
        return True

    def _may_return(self, problem: Exception) -> bool:
        was_live = self._captured > 0
        return self.spec.lasting and self._options.reconnect and was_live and not isinstance(problem, SourceDeniedError)

    def _enter(self, state: State, reason: str, *, only_from: State | None = None) -> None:
        with self._lock:
            if only_from is not None and self._state is not only_from:
                return
            self._state = state
            self._history.append(Transition(state, self._clock.now(), reason))
        level = logging.WARNING if state in (State.STALLED, State.RECONNECTING) else logging.INFO
        LOG.log(level, "%s: %s (%s)", self.name, state.value, reason)


def _reason(problem: Exception) -> str:
    """Return the reason of a state from an error; the text of an unexpected error may hold an address."""
    return str(problem) if isinstance(problem, SourceError) else redact_all(f"{type(problem).__name__}: {problem}")


@nvtx_range("capture")
def _next(captures: Generator[Captured, None, None]) -> Captured | None:
    return next(captures, None)
