"""The overhead of the runtime itself, measured with a session that costs nothing, and its behaviour on a live source.

    python -m benchmarks.pipeline overhead                 the cost of the pipeline and one JSON sink per frame
    python -m benchmarks.pipeline live --seconds 300       60 frames per second into a session that computes 25

Overhead is the processor time of the whole process per frame, with capture and sink threads, and the time by the
clock, each minus that of a run that calls the session on the same frames without a pipeline. Linux only.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import panrt
from benchmarks.harness import machine
from panrt import TrackingConfig
from panrt.engine.frame import Frame
from panrt.engine.sources.pattern import pattern
from tools.null_session import NullSession

BAR_MS = 0.5
SETTLE = 10.0  # seconds after which memory counts as settled


class Overhead(NamedTuple):
    """The overhead of one set-up, medians over the rounds."""

    setup: str
    clock_ms: float  # per frame, without the session
    processor_ms: float  # likewise, of all threads together


def overhead(*, frames: int, rounds: int, folder: Path) -> list[Overhead]:
    """A 320x256 pattern through the pipeline, with and without a JSON sink and tracking."""
    hw = 256, 320
    setups = {
        "pipeline": ((), None),
        "pipeline, JSON sink": ((str(folder / "overhead.jsonl"),), None),
        "pipeline, JSON sink, tracking": ((str(folder / "overhead.jsonl"),), TrackingConfig()),
    }
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in setups}
    still = Frame(pattern(0, hw))
    for _ in range(rounds):
        session = NullSession(fixed_map=True)
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(frames):
            session(still)
        alone = time.perf_counter() - clock, time.process_time() - processor
        for name, (sinks, tracker) in setups.items():
            uri = f"test://{hw[1]}x{hw[0]}@max?frames={frames}"
            clock, processor = time.perf_counter(), time.process_time()
            results = sum(1 for _ in panrt.stream(uri, session, sinks=sinks, policy="block", tracker=tracker))
            spent = time.perf_counter() - clock, time.process_time() - processor
            if results != frames:
                raise RuntimeError(f"{name}: {results} results of {frames} frames")
            samples[name].append((spent[0] - alone[0], spent[1] - alone[1]))
    per_frame = 1e3 / frames
    return [
        Overhead(name, *(per_frame * statistics.median(column) for column in zip(*taken, strict=True)))
        for name, taken in samples.items()
    ]


@dataclasses.dataclass(frozen=True)
class Live:
    """The result of a run on a live source."""

    seconds: float
    source_fps: float
    inference_ms: float
    results: int
    captured: int
    delivered: int
    dropped: int
    age_bar_ms: float  # two frame periods and inference
    age_median_ms: float
    age_p99_ms: float
    age_worst_ms: float
    over_bar: int  # results that were older than the bar
    rss_settled_mb: float
    rss_least_mb: float  # after it settled
    rss_most_mb: float
    every_drop_counted: bool


def live(*, seconds: float, source_fps: float, inference: float, folder: Path) -> Live:
    """A live source into a session that is slower, with a JSON sink and a video."""
    session = NullSession(seconds=inference)
    frames = round(seconds * source_fps)
    uri = f"test://320x256@{source_fps:g}?frames={frames}"
    ages: list[float] = []
    memory: list[float] = []
    started = looked = time.monotonic()
    sinks = [str(folder / "live.jsonl"), str(folder / "live.mp4")]
    with panrt.stream(uri, session, sinks=sinks) as stream:
        for result in stream:
            now = time.monotonic()
            ages.append(now - result.captured_at)
            if now - looked >= 1.0:
                looked = now
                if now - started >= min(SETTLE, seconds / 2):
                    memory.append(_rss_mb())
        source = stream.status.sources[0]
    age = np.sort(1e3 * np.array(ages))
    bar = 1e3 * (2 / source_fps + inference)
    return Live(
        seconds=seconds,
        source_fps=source_fps,
        inference_ms=1e3 * inference,
        results=len(ages),
        captured=source.captured,
        delivered=source.delivered,
        dropped=source.dropped,
        age_bar_ms=bar,
        age_median_ms=float(np.median(age)),
        age_p99_ms=float(np.quantile(age, 0.99)),
        age_worst_ms=float(age[-1]),
        over_bar=int((age > bar).sum()),
        rss_settled_mb=memory[0],
        rss_least_mb=min(memory),
        rss_most_mb=max(memory),
        every_drop_counted=source.captured == frames == len(ages) + source.dropped,
    )


def _rss_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "live"))
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("out"), help="Folder for what is written.")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.what == "overhead":
        rows = overhead(frames=2000, rounds=options.rounds, folder=options.output)
        for row in rows:
            print(f"  {row.setup:<32} {row.clock_ms:7.3f} ms clock  {row.processor_ms:7.3f} ms processor, per frame")
        print(f"  bar: {BAR_MS} ms with one JSON sink")
        facts: dict[str, object] = {"overhead": [row._asdict() for row in rows]}
    else:
        run = live(seconds=options.seconds, source_fps=60.0, inference=0.040, folder=options.output)
        facts = {"live": dataclasses.asdict(run)}
        for name, value in facts["live"].items():  # type: ignore[attr-defined]
            print(f"  {name:<20} {value:.1f}" if isinstance(value, float) else f"  {name:<20} {value}")
    path = options.output / f"pipeline_{options.what}.json"
    path.write_text(json.dumps({"machine": machine(), **facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
