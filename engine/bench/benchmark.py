"""How fast a session is: as fast as it goes, and at the pace of a camera.

Back to back, every frame waits for the one before and nothing else; the figures say what the engine can do. Paced,
frames come at a fixed rate whether the session is ready or not, and the newest one that is there is taken; the figures
say what a robot would see: how old a frame is when its result is there, and how many were never looked at.

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
    frames: int = 200  # of each run
    warm_up: int = 20  # frames before, not measured
    rate: float = 30.0  # frames a second of the paced run; 0: no paced run

    def __post_init__(self) -> None:
        if self.frames < 1 or self.warm_up < 0:
            raise ValueError(f"frames, warm_up: got {self.frames} and {self.warm_up}, expected at least 1 and 0.")
        if self.rate < 0 or not math.isfinite(self.rate):
            raise ValueError(f"rate: got {self.rate}, expected frames a second, or 0 for no paced run.")


class Spread(NamedTuple):
    """Of the values of a run."""

    p50: float
    p90: float
    p99: float
    max: float
    mean: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """At least one value; a percentile is the smallest value that so many percent do not exceed."""
        ordered = sorted(values)
        p50, p90, p99 = (ordered[max(math.ceil(share * len(ordered)) - 1, 0)] for share in (0.5, 0.9, 0.99))
        return Spread(p50, p90, p99, ordered[-1], sum(ordered) / len(ordered))


class Run(NamedTuple):
    """One run of a session over some frames."""

    latencies: tuple[float, ...]  # frame in, result out, of each measured frame
    ages: tuple[float, ...]  # paced: from capture to result; empty back to back
    stages: dict[str, float]  # mean of each, the session's own names
    seconds: float  # from the first frame to the last result
    cpu_seconds: float  # of all threads in that time
    dropped: int  # paced: frames that came and were not looked at
    power: Power | None = None  # where there is a sensor

    @property
    def joules_per_frame(self) -> float | None:
        """What a result cost, waiting included; None where nothing was read."""
        if self.power is None or self.power.mean_watts is None:
            return None
        return self.power.mean_watts * self.seconds / len(self.latencies)

    @property
    def frames_per_second(self) -> float:
        """Results a second."""
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
    back_to_back: Run
    paced: Run | None
    resident: tuple[int, int]  # bytes in RAM before and after the runs
    machine: Machine
    when: str  # UTC
    threads: int | None = None  # of the session, where it runs on the CPU
    gpu_memory: str | None = None  # that network inputs and outputs are in, where it runs on a GPU
    tf32: bool | None = None  # whether an engine's float32 layers may round their inputs to TF32; None: no engine


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
        session: open, and used by nobody else meanwhile.
        frames: (H, W, 3) uint8 BGR of one size, in memory; taken in turn, again and again.
        config: how long and how fast.
        path: of the model's file, for its hash.
        progress: told after each frame.

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
    sensor = open_sensor(session.backend)
    try:
        with PowerMeter(sensor) as meter:
            fast = _back_to_back(session, frames, config.frames, lambda done: report(config.warm_up + done, total))
        fast, paced = fast._replace(power=meter.power), None
        if config.rate:
            before_pace = config.warm_up + config.frames
            with PowerMeter(sensor) as meter:
                paced = _paced(session, frames, config.frames, config.rate, lambda n: report(before_pace + n, total))
            paced = paced._replace(power=meter.power)
    finally:
        if sensor is not None:
            sensor.close()
    model = session.model
    return Benchmark(
        model=path.name,
        model_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        name=model.name,
        precision=model.precision,
        backend=session.backend,
        input_hw=model.input_hw,
        frame_hw=(frames[0].shape[0], frames[0].shape[1]),
        config=config,
        back_to_back=fast,
        paced=paced,
        resident=(before, resident_bytes()),
        machine=found,
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        threads=getattr(session, "threads", None),
        gpu_memory=getattr(session, "gpu_memory", None),
        tf32=plan_file.read(path).options.tf32 if path.suffix == plan_file.SUFFIX else None,
    )


def _back_to_back(
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


def _paced(
    session: Session,
    frames: Sequence[NDArray[np.uint8]],
    count: int,
    rate: float,
    progress: Callable[[int], None],
) -> Run:
    """Frame i is there at i / rate; the newest that is there is taken, as from a slot that keeps one frame."""
    latencies, ages, stages, dropped = [], [], _Stages(), 0
    cpu, start = time.process_time(), time.monotonic()
    last = -1
    for done in range(count):
        now = time.monotonic() - start
        newest = math.floor(now * rate)
        if newest <= last:  # it was looked at already: wait for the next
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
    """Adds up where the time of frames went."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._frames = 0

    def add(self, session: Session, timings: Mapping[str, float]) -> None:
        """The session's own split where it has one, in place of the inference as a whole."""
        split = session.stages
        parts = {name: seconds for name, seconds in timings.items() if name != "inference" or not split}
        for name, seconds in (*parts.items(), *split.items()):
            self._sums[name] = self._sums.get(name, 0.0) + seconds
        self._frames += 1

    def means(self) -> dict[str, float]:
        return {name: total / self._frames for name, total in self._sums.items()}
