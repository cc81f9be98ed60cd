"""Measure a session: a throughput run, and a fixed-rate run.

In the throughput run each frame starts when the previous one is done; the figures show what the engine can do. In the
fixed-rate run frames arrive at a fixed rate, whether or not the session is ready, and the newest is taken; the figures
show what a robot would see: the age of a frame when its result is ready, and the number of dropped frames.

Times are in seconds, in reports in milliseconds.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine.bench.machine import Machine, machine, resident_bytes
from panrt.engine.bench.power import Power, PowerMeter, open_sensor
from panrt.engine.frame import Frame
from panrt.engine.session import Session
from panrt.formats import plan_file

Progress = Callable[[int, int], None]  # frames done, frames in all


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """The length of a measurement, and the rate of its fixed-rate run."""

    frames: int = 200  # of each run
    warm_up: int = 20  # frames before the runs, not measured
    rate: float = 30.0  # frames per second of the fixed-rate run; 0: no such run

    def __post_init__(self) -> None:
        if self.frames < 1 or self.warm_up < 0:
            raise ValueError(f"frames, warm_up: got {self.frames} and {self.warm_up}, expected at least 1 and 0.")
        if self.rate < 0 or not math.isfinite(self.rate):
            raise ValueError(f"rate: got {self.rate}, expected frames per second, or 0 for no fixed-rate run.")


class Spread(NamedTuple):
    """Percentiles, maximum and mean of the values of a run."""

    p50: float
    p90: float
    p99: float
    max: float
    mean: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Summarise at least one value; a percentile is the smallest value that its share does not exceed."""
        ordered = sorted(values)
        p50, p90, p99 = (ordered[max(math.ceil(share * len(ordered)) - 1, 0)] for share in (0.5, 0.9, 0.99))
        return Spread(p50, p90, p99, ordered[-1], sum(ordered) / len(ordered))


class Run(NamedTuple):
    """One run of a session over some frames."""

    latencies: tuple[float, ...]  # frame in, result out, of each measured frame
    ages: tuple[float, ...]  # fixed rate: from capture to result; else empty
    stages: dict[str, float]  # mean of each, by the session's names
    seconds: float  # from the first frame to the last result
    cpu_seconds: float  # of all threads in that time
    dropped: int  # fixed rate: frames that arrived and were dropped
    power: Power | None = None  # if there is a sensor

    @property
    def joules_per_frame(self) -> float | None:
        """Energy of a result, waiting included; None without readings."""
        if self.power is None or self.power.mean_watts is None:
            return None
        return self.power.mean_watts * self.seconds / len(self.latencies)

    @property
    def frames_per_second(self) -> float:
        """Results per second."""
        return len(self.latencies) / self.seconds


class Benchmark(NamedTuple):
    """Everything that a report shows."""

    model: str  # file name
    model_sha256: str
    name: str  # of the network
    precision: str
    backend: str
    input_hw: tuple[int, int]
    frame_hw: tuple[int, int]
    config: BenchmarkConfig
    throughput: Run
    fixed_rate: Run | None
    resident: tuple[int, int]  # bytes in RAM before and after the runs
    machine: Machine
    when: str  # UTC
    threads: int | None = None  # of a session on the CPU
    gpu_memory: str | None = None  # of network inputs and outputs of a session on a GPU
    tf32: bool | None = None  # whether an engine's float32 layers may round their inputs to TF32; None: not an engine


def run_benchmark(
    session: Session,
    frames: Sequence[NDArray[np.uint8]],
    config: BenchmarkConfig,
    *,
    path: Path,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure a session.

    Args:
        session: open, and used for nothing else meanwhile.
        frames: (H, W, 3) uint8 BGR of one size, in memory; taken in turn, repeatedly.
        config: length and rate of the runs.
        path: of the model's file, for its hash.
        progress: called after each frame.

    Raises:
        ValueError: there are no frames, or they differ in size.
        PlanFileError: the sidecar of an engine cannot be read.
    """
    if not frames:
        raise ValueError("frames: none to measure with.")
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"frames: of {len({frame.shape for frame in frames})} sizes; measure with one size.")
    total = config.warm_up + config.frames * (2 if config.rate else 1)
    report = progress or (lambda done, of: None)
    for index in range(config.warm_up):
        session(frames[index % len(frames)])
        report(index + 1, total)
    before = resident_bytes()
    found = machine()
    throughput, fixed_rate = _runs(session, frames, config, lambda done: report(config.warm_up + done, total))
    model = session.model
    return Benchmark(
        model=path.name,
        model_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        name=model.name,
        precision=model.precision,
        backend=session.backend,
        input_hw=model.sizes.input_hw,
        frame_hw=(frames[0].shape[0], frames[0].shape[1]),
        config=config,
        throughput=throughput,
        fixed_rate=fixed_rate,
        resident=(before, resident_bytes()),
        machine=found,
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        threads=getattr(session, "threads", None),
        gpu_memory=getattr(session, "gpu_memory", None),
        tf32=plan_file.read(path).options.tf32 if path.suffix == plan_file.SUFFIX else None,
    )


def _runs(
    session: Session, frames: Sequence[NDArray[np.uint8]], config: BenchmarkConfig, progress: Callable[[int], None]
) -> tuple[Run, Run | None]:
    """Measure both runs, with their power if a sensor exists."""
    sensor = open_sensor(session.backend)
    try:
        with PowerMeter(sensor) as meter:
            throughput = _throughput_run(session, frames, config.frames, progress)
        throughput = throughput._replace(power=meter.power)
        if not config.rate:
            return throughput, None
        with PowerMeter(sensor) as meter:
            fixed_rate = _fixed_rate_run(
                session, frames, config.frames, config.rate, lambda done: progress(config.frames + done)
            )
        return throughput, fixed_rate._replace(power=meter.power)
    finally:
        if sensor is not None:
            sensor.close()


def _throughput_run(
    session: Session, frames: Sequence[NDArray[np.uint8]], count: int, progress: Callable[[int], None]
) -> Run:
    latencies, stages = [], _Stages()
    cpu, start = time.process_time(), time.perf_counter()
    for index in range(count):
        began = time.perf_counter()
        result = session(frames[index % len(frames)])
        latencies.append(time.perf_counter() - began)
        stages.add(session, result.timings._asdict())
        progress(index + 1)
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    return Run(tuple(latencies), (), stages.means(), seconds, used, dropped=0)


def _fixed_rate_run(
    session: Session,
    frames: Sequence[NDArray[np.uint8]],
    count: int,
    rate: float,
    progress: Callable[[int], None],
) -> Run:
    """Let frame i arrive at i / rate, and take the newest that has arrived, as from a slot that keeps one frame."""
    latencies, ages, stages, dropped = [], [], _Stages(), 0
    cpu, start = time.process_time(), time.monotonic()
    last = -1
    for done in range(count):
        now = time.monotonic() - start
        newest = math.floor(now * rate)
        if newest <= last:  # it was taken already: wait for the next
            newest = last + 1
            time.sleep(max(newest / rate - now, 0.0))
        dropped += newest - last - 1
        last = newest
        captured = start + newest / rate
        began = time.monotonic()
        result = session(Frame(frames[newest % len(frames)], newest, captured))
        ended = time.monotonic()
        latencies.append(ended - began)
        ages.append(ended - captured)
        stages.add(session, result.timings._asdict())
        progress(done + 1)
    seconds, used = time.monotonic() - start, time.process_time() - cpu
    return Run(tuple(latencies), tuple(ages), stages.means(), seconds, used, dropped)


class _Stages:
    """Sums of the stages of frames."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._frames = 0

    def add(self, session: Session, timings: Mapping[str, float]) -> None:
        """Add a frame: the session's stages if it has any, in place of the inference as a whole."""
        split = session.stages
        parts = {name: seconds for name, seconds in timings.items() if name != "inference" or not split}
        for name, seconds in (*parts.items(), *split.items()):
            self._sums[name] = self._sums.get(name, 0.0) + seconds
        self._frames += 1

    def means(self) -> dict[str, float]:
        return {name: total / self._frames for name, total in self._sums.items()}
