"""How a stream is doing: rate, age and losses, at any moment and from any thread."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from panrt.engine.clock import MONOTONIC, Clock
from panrt.engine.results.result import PanopticResult
from panrt.engine.sources.source import SourceStatus, State
from panrt.engine.uri import redact_all

WINDOW = 2.0  # seconds over which the rate is taken
SILENCE = 10.0  # seconds without a result that are not normal
SAMPLES = 512  # results over which ages are taken

_BROKEN = "hung", "waiting", "failed"


@dataclass(frozen=True)
class SinkStatus:
    """A sink at one moment. `offered == written + dropped + failed + waiting`, once it is at rest."""

    name: str
    state: str  # "open", "hung", "waiting" (to try again), "failed", "left" (by who read it) or "closed"
    offered: int
    written: int  # can be read back
    dropped: int  # gave way to newer ones, or came while the sink did not work
    failed: int  # the sink tried and raised, or lost it later
    waiting: int  # for the sink, or in a piece of a video that is not whole yet
    error: str  # the last one
    keeps: bool  # it is promised every result ("block")
    gaps: int = 0  # times that it went on after results were lost
    files: tuple[str, ...] = ()  # that it writes, by their real names; of videos the newest of each source

    @property
    def lost(self) -> int:
        """Results that are not where they should be."""
        return self.dropped + self.failed


class Ages(NamedTuple):
    """Seconds from the capture of a frame to its result, over the last results."""

    last: float
    median: float
    p99: float
    worst: float


@dataclass(frozen=True)
class StreamStatus:
    """A stream at one moment."""

    at: float  # seconds of `time.monotonic()`, when it was asked for
    elapsed: float  # seconds since it began
    results: int
    fps: float  # results a second, of late
    age: Ages | None  # None before the first result
    inference: float  # seconds, mean of the last results
    last_result_at: float | None  # seconds of `time.monotonic()`
    sources: tuple[SourceStatus, ...]
    sinks: tuple[SinkStatus, ...]

    @property
    def dropped(self) -> int:
        """Frames that were captured and gave way to newer ones."""
        return sum(source.dropped for source in self.sources)

    @property
    def healthy(self) -> bool:
        """Whether there is no `trouble`."""
        return not self.trouble

    @property
    def trouble(self) -> tuple[str, ...]:
        """What does not go as it should: a source without frames, a sink that does not take, a session that hangs."""
        troubles = [
            f"{source.name}: {source.state.value} ({source.reason})"
            for source in self.sources
            if source.state not in (State.LIVE, State.ENDED)
        ]
        troubles += [f"{sink.name}: {sink.state} ({sink.error})" for sink in self.sinks if sink.state in _BROKEN]
        since = self.at - self.elapsed if self.last_result_at is None else self.last_result_at
        if any(source.state is State.LIVE for source in self.sources) and self.at - since > SILENCE:
            troubles.append(f"no result for {self.at - since:.0f} s although frames come")
        return tuple(troubles)

    def redacted(self) -> StreamStatus:
        """The same, fit to be sent over a network: no text in it holds the login of a URI."""
        sources = tuple(
            replace(
                source,
                name=_shown_name(source.name),
                uri=redact_all(source.uri),
                reason=redact_all(source.reason),
                history=tuple(step._replace(reason=redact_all(step.reason)) for step in source.history),
            )
            for source in self.sources
        )
        sinks = tuple(replace(sink, name=_shown_name(sink.name), error=redact_all(sink.error)) for sink in self.sinks)
        return replace(self, sources=sources, sinks=sinks)

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        facts = asdict(self)
        facts["age"] = self.age._asdict() if self.age else None
        for source, data in zip(self.sources, facts["sources"], strict=True):
            data["state"] = source.state.value
            data["history"] = [{"state": t.state.value, "at": t.at, "reason": t.reason} for t in source.history]
        return facts | {"dropped": self.dropped, "trouble": list(self.trouble)}


def _shown_name(name: str) -> str:
    """A name without a login; the number of a URI that comes again stays behind it."""
    uri, mark, number = name.rpartition("#")
    return f"{redact_all(uri)}{mark}{number}" if mark and number.isdecimal() else redact_all(name)


class Meter:
    """Keeps count of results; written by the stream, read by anyone."""

    def __init__(self, clock: Clock = MONOTONIC) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._started = clock.now()
        self._results = 0
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=SAMPLES)  # when, age, inference

    def after_fork(self) -> None:
        """Be readable in a forked child; see `forks`."""
        self._lock = threading.Lock()

    def add(self, result: PanopticResult, now: float) -> None:
        """A result came at `now`."""
        with self._lock:
            self._results += 1
            self._recent.append((now, now - result.captured_at, result.timings.inference))

    def status(self, sources: tuple[SourceStatus, ...], sinks: tuple[SinkStatus, ...]) -> StreamStatus:
        """The figures now."""
        now = self._clock.now()
        with self._lock:
            results, recent = self._results, list(self._recent)
        ages = sorted(age for _, age, _ in recent)
        late = [when for when, _, _ in recent if when >= now - WINDOW]
        # Between n results there are n - 1 intervals; a stream that stopped slows down with the time that passes.
        span = max(now - late[0], 1e-9) if late else WINDOW
        return StreamStatus(
            at=now,
            elapsed=now - self._started,
            results=results,
            fps=len(late) / span if len(late) > 1 else len(late) / WINDOW,
            age=Ages(recent[-1][1], ages[len(ages) // 2], ages[len(ages) * 99 // 100], ages[-1]) if recent else None,
            inference=sum(row[2] for row in recent) / len(recent) if recent else 0.0,
            last_result_at=recent[-1][0] if recent else None,
            sources=sources,
            sinks=sinks,
        )
