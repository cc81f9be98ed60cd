"""The status of a stream, from any thread at any time: rate, age and losses."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from panrt.engine.clock import MONOTONIC, Clock
from panrt.engine.results.result import PanopticResult
from panrt.engine.sources.source import SourceStatus, State
from panrt.engine.uri import redact_all

WINDOW = 2.0  # seconds over which the rate is computed
SILENCE = 10.0  # seconds without a result that count as trouble
SAMPLES = 512  # results over which ages are computed

_BROKEN = "hung", "waiting", "failed"


@dataclass(frozen=True)
class SinkStatus:
    """A sink at one moment; when idle, `offered == written + dropped + failed + waiting`."""

    name: str
    state: str  # "open", "hung", "waiting" (to retry), "failed", "left" (by its reader) or "closed"
    offered: int
    written: int  # can be read back
    dropped: int  # in favour of newer ones, or while the sink was hung or waiting
    failed: int  # the writer raised an error, or lost them later
    waiting: int  # in the queue, or in a video fragment that is not complete yet
    error: str  # the last one
    keeps: bool  # whether it must receive every result ("block")
    gaps: int = 0  # times that it continued after results were lost
    files: tuple[str, ...] = ()  # that it writes, by their actual names; of videos the newest of each source

    @property
    def lost(self) -> int:
        """The number of results that were dropped or failed."""
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

    at: float  # seconds of `time.monotonic()`
    elapsed: float  # seconds since it began
    results: int
    fps: float  # recent results per second
    age: Ages | None  # None before the first result
    inference: float  # seconds, mean of the last results
    last_result_at: float | None  # seconds of `time.monotonic()`
    sources: tuple[SourceStatus, ...]
    sinks: tuple[SinkStatus, ...]

    @property
    def dropped(self) -> int:
        """The number of captured frames that were dropped in favour of newer ones."""
        return sum(source.dropped for source in self.sources)

    @property
    def healthy(self) -> bool:
        """Whether there is no `trouble`."""
        return not self.trouble

    @property
    def trouble(self) -> tuple[str, ...]:
        """Every fault: a source without frames, a sink that accepts no results, a session that hangs."""
        troubles = [
            f"{source.name}: {source.state.value} ({source.reason})"
            for source in self.sources
            if source.state not in (State.LIVE, State.ENDED)
        ]
        troubles += [f"{sink.name}: {sink.state} ({sink.error})" for sink in self.sinks if sink.state in _BROKEN]
        since = self.at - self.elapsed if self.last_result_at is None else self.last_result_at
        if any(source.state is State.LIVE for source in self.sources) and self.at - since > SILENCE:
            troubles.append(f"no result for {self.at - since:.0f} s although frames arrive")
        return tuple(troubles)

    def redacted(self) -> StreamStatus:
        """Return a copy that may be sent over a network: no text in it holds the login of a URI."""
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
        """Return plain data for JSON."""
        facts = asdict(self)
        facts["age"] = self.age._asdict() if self.age else None
        for source, data in zip(self.sources, facts["sources"], strict=True):
            data["state"] = source.state.value
            data["history"] = [{"state": t.state.value, "at": t.at, "reason": t.reason} for t in source.history]
        return facts | {"dropped": self.dropped, "trouble": list(self.trouble)}


def _shown_name(name: str) -> str:
    """Return a name without a login; the number of a repeated URI is kept."""
    uri, mark, number = name.rpartition("#")
    return f"{redact_all(uri)}{mark}{number}" if mark and number.isdecimal() else redact_all(name)


class Meter:
    """Counts results and their times; written by the stream, read from any thread."""

    def __init__(self, clock: Clock = MONOTONIC) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._started = clock.now()
        self._results = 0
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=SAMPLES)  # when, age, inference

    def after_fork(self) -> None:
        """Stay readable in a forked child; see `forks`."""
        self._lock = threading.Lock()

    def add(self, result: PanopticResult, now: float) -> None:
        """Count a result that was collected at `now`."""
        with self._lock:
            self._results += 1
            self._recent.append((now, now - result.captured_at, result.timings.inference))

    def status(self, sources: tuple[SourceStatus, ...], sinks: tuple[SinkStatus, ...]) -> StreamStatus:
        """Return the figures now."""
        now = self._clock.now()
        with self._lock:
            results, recent = self._results, list(self._recent)
        ages = sorted(age for _, age, _ in recent)
        late = [when for when, _, _ in recent if when >= now - WINDOW]
        # n results span n - 1 intervals; the rate of a stream that stopped falls as time passes.
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
