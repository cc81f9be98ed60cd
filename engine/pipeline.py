"""Streams: frames from sources through a session to sinks.

    Source ──frames──▶ Slot ──▶ Session.submit ... collect ──▶ PanopticResult ──▶ Sinks
    (own thread each)           (the thread that iterates)                        (own thread each)

Capture and sinks run in parallel to the session, and the next frames are submitted before a result is returned. If
frames may be dropped ("latest"), only one submission is in flight: a frame that waits behind another only ages.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any, TypeVar

from panrt.engine import forks
from panrt.engine.clock import Clock
from panrt.engine.frame import Frame
from panrt.engine.results.result import PanopticResult
from panrt.engine.results.tracking import DEFAULT_TRACKING, Tracker, TrackingConfig
from panrt.engine.session import Reserves, Session, acting_for
from panrt.engine.sinks.open import SinkTarget, open_sink
from panrt.engine.sinks.same_file import reject_same_files
from panrt.engine.sinks.sink import Context, Item, Sink
from panrt.engine.slot import Policy
from panrt.engine.sources.open import specify
from panrt.engine.sources.source import Source, SourceOptions, Spec
from panrt.engine.status import Meter, StreamStatus
from panrt.errors import StreamError

LOOK_EVERY = 0.1  # seconds between checks of silent sources


def stream(
    source: str | os.PathLike[str] | Iterable[Any] | Spec,
    session: Session,
    *,
    sinks: SinkTarget | Sequence[SinkTarget] = (),
    policy: Policy | None = None,
    options: SourceOptions | None = None,
    in_flight: int | None = None,
    tracker: Tracker | TrackingConfig | None = DEFAULT_TRACKING,
    limit: int | None = None,
    track: bool | None = None,
) -> Stream:
    """Run a session on one or several sources.

    Args:
        source: a URI or path, see `panrt.engine.sources.open`; images, as an iterable of (H, W, 3) uint8 arrays in BGR,
            such as a generator; or a list of these, which take turns and share batches.
        session: from `panrt.load`; the stream does not close it.
        sinks: URIs or paths, see `panrt.engine.sinks.open`, functions that take a result, or sinks; one or several.
        policy: "latest" drops frames that the session cannot keep up with, "block" never drops; by default the first
            for live sources and the second for files. A file under "latest" plays at its own speed.
        options: how the sources behave.
        in_flight: submissions in flight at once; by default the session's capacity under "block", else one.
        tracker: gives things persistent track IDs, see `panrt.engine.results.tracking`: options, with which each source
            gets its own tracker; or a tracker, for a single source; None: each frame has its own IDs.
        limit: number of results after which the stream ends.
        track: deprecated; False means `tracker=None`.

    Returns:
        A stream of results, to be iterated over once. The end of the loop, or of a `with` block, closes sources and
        sinks.

    Raises:
        UnknownSourceError, UnknownSinkError, SourceError, TypeError: a source or sink is invalid.
        SameFileError: a sink would write to the file of a source or of another sink; nothing was written.
        SinkError: a sink cannot be opened; raised by the first step of the iteration.
        SourceError: a source ended with an error; raised by the last step of the iteration.
        ValueError: an option is invalid.
    """
    if track is not None:
        warnings.warn("stream: track is deprecated; use tracker=None for track=False.", DeprecationWarning, 2)
        tracker = tracker if track else None
    options = options or SourceOptions()
    if policy is not None:
        options = replace(options, policy=policy)
    wake = threading.Event()
    sources = _sources(source, options, wake)
    several = sinks if isinstance(sinks, Sequence) and not isinstance(sinks, str) else (sinks,)
    opened = [open_sink(sink) for sink in several]
    reject_same_files(((each.name, each.spec.reads) for each in sources), [sink.spec for sink in opened])
    return Stream(
        sources,
        session,
        opened,
        wake=wake,
        clock=options.clock,
        in_flight=_submissions(in_flight, sources, session),
        trackers=_trackers(tracker, sources, session),
        limit=limit,
    )


class Stream(Iterable[PanopticResult]):
    """A running session with its sources and sinks. Iterate once over it for results, or over `pairs` for frames too.

    The session is reserved for the stream from the first step of the iteration to its end. Several threads may make
    steps, but only one at a time; a concurrent step raises StreamError. `status`, `stop` and `close` may be called from
    any thread; `close` waits for the step of another thread, which then is the last one.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        session: Session,
        sinks: Sequence[Sink],
        *,
        wake: threading.Event,
        clock: Clock,
        in_flight: int,
        trackers: Mapping[str, Tracker],
        limit: int | None,
    ) -> None:
        self._sources = tuple(sources)
        self._session = session
        self._sinks = tuple(sinks)
        self._wake = wake
        self._clock = clock
        self._in_flight = in_flight
        self._trackers = trackers  # by the name of a source
        self._batch = session.model.batch or len(sources)
        self._left = limit  # results still to be computed; None: no limit
        self._meter = Meter(clock)
        self._flying: deque[list[Frame]] = deque()
        self._turn = 0  # the source whose turn it is
        self._looked_at = 0.0
        self._stopping = False
        self._begun = self._closing = self._shutting = self._forked = False
        self._make_locks()
        forks.watch(self)

    def __iter__(self) -> Generator[PanopticResult, None, None]:
        # Only the loop refers to the generator: leaving the loop finalises it, which closes sources and sinks.
        self._begin()
        return _Steps(self, (item.result for item in self._run()))

    def pairs(self) -> Generator[Item, None, None]:
        """Iterate over results with their frames.

        Raises:
            StreamError: the stream has run already.
        """
        self._begin()
        return _Steps(self, self._run())

    @property
    def status(self) -> StreamStatus:
        """The current rate, age and losses; may be read from any thread."""
        sources = tuple(source.status for source in self._sources)
        return self._meter.status(sources, tuple(sink.status for sink in self._sinks))

    @property
    def unread(self) -> bool:
        """Whether the readers of all sinks have left, so that no result is used any more."""
        states = {sink.state for sink in self._sinks}
        return "left" in states and states <= {"left", "failed"}

    def stop(self) -> None:
        """Stop capturing; the iteration ends after the captured frames. May be called in a signal handler."""
        self._stopping = True

    def close(self) -> None:
        """End now: submissions in flight are completed and written by the sinks, which are flushed. Idempotent."""
        self._begun = self._closing = True
        if self._stepping == threading.get_ident():  # from a signal handler within a step: that step ends the stream
            return
        if any(sink.runs_here for sink in self._sinks):  # from a writer: the current step ends the stream
            return
        with self._step_turn:
            self._shut()

    def after_fork(self) -> None:
        """Become unusable in a forked child, which must not touch the files and the session; see `forks`."""
        self._forked = True
        self._make_locks()
        self._meter.after_fork()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Guard one step of the iteration.

        Raises:
            StreamError: another thread makes a step, or the stream belongs to the parent process.
        """
        if self._forked:
            raise StreamError(
                "stream: it belongs to the process from which this one was forked; call panrt.stream in this one."
            )
        if not self._step_turn.acquire(blocking=self._closing):
            if not self._closing:
                raise StreamError("stream: another thread is iterating over it; use one thread at a time.")
            self._step_turn.acquire()
        self._stepping = threading.get_ident()
        try:
            yield
        finally:
            self._stepping = 0
            self._step_turn.release()

    def _make_locks(self) -> None:
        self._step_turn = threading.Lock()
        self._stepping = 0  # the thread that makes a step
        self._shut_turn = threading.RLock()

    def _begin(self) -> None:
        with self._shut_turn:
            if self._begun:
                raise StreamError("stream: it can run only once; call panrt.stream again.")
            self._begun = True

    def _run(self) -> Generator[Item, None, None]:
        try:
            self._start()
            while not self._closing:
                self._submit()
                if self._flying:
                    done = self._collect()
                    self._submit(wait=False)  # the session computes while the caller uses the results
                    yield from done
                elif self._left == 0 or all(source.exhausted for source in self._sources):
                    break
            if self._closing:
                return
            for error in filter(None, (source.error for source in self._sources)):
                raise error
        finally:
            self._shut()

    def _start(self) -> None:
        if isinstance(self._session, Reserves):  # before a sink overwrites a file
            self._session.reserve(self)
        context = Context(self._session.model, lambda: self.status)
        blocking = all(source.policy == "block" for source in self._sources)
        for sink in self._sinks:
            sink.start(context, stream_policy="block" if blocking else "latest")
        for source in self._sources:
            source.start()

    def _submit(self, *, wait: bool = True) -> None:
        """Submit frames until none is left or the session is full; if it is idle, wait for one briefly."""
        while len(self._flying) < self._in_flight:
            self._look_after_sources()
            frames = self._next_frames()
            if not frames and wait and not self._flying and self._left != 0 and not self._closing:
                self._wake.wait(LOOK_EVERY)
                self._wake.clear()
                frames = self._next_frames()
            if not frames:
                return
            with acting_for(self):
                self._session.submit(frames)
            self._flying.append(frames)

    def _next_frames(self) -> list[Frame]:
        """Return up to a batch of frames, taken from the sources in turn."""
        frames: list[Frame] = []
        empty = 0
        most = self._batch if self._left is None else min(self._batch, self._left)
        while len(frames) < most and empty < len(self._sources):
            frame = self._sources[self._turn].take()
            self._turn = (self._turn + 1) % len(self._sources)
            empty = empty + 1 if frame is None else 0
            if frame is not None:
                frames.append(frame)
        if self._left is not None:
            self._left -= len(frames)
        return frames

    def _collect(self) -> list[Item]:
        frames = self._flying[0]
        try:
            with acting_for(self):
                results = self._session.collect()
        except Exception:
            self._flying.clear()  # a failed session has nothing to collect; an interrupted one has
            raise
        self._flying.popleft()
        now = self._clock.now()
        items = []
        drawn = any(sink.wants_overlays for sink in self._sinks)
        for frame, result in zip(frames, results, strict=True):
            tracker = self._trackers.get(frame.source)
            tracked = tracker.update(result) if tracker else result
            item = Item(frame, tracked, tracked.start_overlay() if drawn else None)
            self._meter.add(item.result, now)
            for sink in self._sinks:
                sink.put(item)
            items.append(item)
        return items

    def _look_after_sources(self) -> None:
        if self._stopping:
            for source in self._sources:
                source.stop()
        now = self._clock.now()
        if now - self._looked_at > LOOK_EVERY:
            self._looked_at = now
            for source in self._sources:
                source.notice_stall()

    def _shut(self) -> None:
        if self._forked:
            return
        with self._shut_turn:
            if self._shutting:  # re-entered on this thread by the garbage collector
                return
            self._shutting = True
            try:
                self._shut_parts()
            finally:
                self._shutting = False

    def _shut_parts(self) -> None:
        for source in self._sources:
            source.stop()
        try:
            while self._flying:  # empty if the session failed
                self._collect()
        finally:
            if isinstance(self._session, Reserves):
                self._session.release(self)
            for source in self._sources:
                source.close()
            for sink in self._sinks:
                sink.close()


_Given = TypeVar("_Given")


class _Steps(Generator[_Given, None, None]):
    """A generator whose steps are guarded by `Stream.step`."""

    def __init__(self, stream: Stream, steps: Generator[_Given, None, None]) -> None:
        self._stream = stream
        self._steps = steps

    def send(self, value: None) -> _Given:
        with self._stream.step():
            return self._steps.send(value)

    def throw(self, *error: Any) -> _Given:
        with self._stream.step():
            return self._steps.throw(*error)


@contextmanager
def stop_on_signals(stream: Stream) -> Iterator[None]:
    """Stop a stream, with everything flushed, on the first SIGINT, SIGTERM or SIGHUP; the second has its usual effect.

    An ignored signal (SIGHUP under nohup) stays ignored. Only for the main thread, as all signal handlers in Python.
    """
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        stream.stop()
        restore()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def _several(source: object) -> list[Any]:
    """Return the sources of a list or tuple; a list of images is one source, and so is anything else."""
    if isinstance(source, (list, tuple)) and not any(hasattr(each, "shape") for each in source):
        return list(source)
    return [source]


def _sources(source: object, options: SourceOptions, wake: threading.Event) -> list[Source]:
    """Return a source for each of those that `stream` was given."""
    specs = [specify(each) for each in _several(source)]
    if not specs:
        raise ValueError("source: got none, expected at least one.")
    return [Source(spec, name=_name(specs, number), options=options, wake=wake) for number, spec in enumerate(specs)]


def _submissions(in_flight: int | None, sources: Sequence[Source], session: Session) -> int:
    """Return how many submissions may be in flight."""
    if in_flight is None:
        return session.capacity if all(each.policy == "block" for each in sources) else 1
    if not 1 <= in_flight <= session.capacity:
        raise ValueError(f"in_flight: got {in_flight}, this session accepts 1 to {session.capacity}.")
    return in_flight


def _trackers(
    tracker: Tracker | TrackingConfig | None, sources: Sequence[Source], session: Session
) -> dict[str, Tracker]:
    """Return the tracker of each source, by its name; empty for no tracking."""
    if tracker is None:
        return {}
    if isinstance(tracker, TrackingConfig):
        classes = (*session.model.things, *session.model.stuff)
        return {source.name: Tracker(classes, tracker) for source in sources}
    if not isinstance(tracker, Tracker):
        raise TypeError(f"tracker: got {type(tracker).__name__}, expected a TrackingConfig, a Tracker or None.")
    if len(sources) > 1:
        raise ValueError(
            f"tracker: got one Tracker for {len(sources)} sources, whose frames it would mix up; pass its options, "
            "tracker=TrackingConfig(...), and each source gets its own."
        )
    return {sources[0].name: tracker}


def _name(specs: Sequence[Spec], number: int) -> str:
    """Return the name of a source: its URI, with a number if that is repeated."""
    uri = specs[number].uri
    before = [other.uri for other in specs[:number]].count(uri)
    return f"{uri}#{before + 1}" if before else uri
