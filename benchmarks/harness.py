"""Fair timing on a noisy machine: contenders take turns, medians are compared, memory is read in a fresh process."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

Run = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """The times of one contender, in milliseconds; the others are compared with the first contender."""

    contender: str
    median_ms: float
    best_ms: float
    rounds: int
    ratio: float  # own median over the first contender's
    peak_mb: float | None = None  # resident memory above the start of a call, results included


def interleave(contenders: Mapping[str, Run], *, seconds: float, at_least: int = 5) -> list[Timing]:
    """Time the contenders in turns for about `seconds` in all, after one call each to warm up."""
    for run in contenders.values():
        run()
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    started = time.perf_counter()
    rounds = 0
    while rounds < at_least or time.perf_counter() - started < seconds:
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            samples[name].append(1e3 * (time.perf_counter() - begin))
        rounds += 1
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    reference = next(iter(medians.values()))
    return [
        Timing(name, medians[name], min(taken), rounds, medians[name] / reference) for name, taken in samples.items()
    ]


def peak_memory(run: Run) -> float:
    """Megabytes by which resident memory rises at most during one call. Linux only; call it in a fresh process."""
    before = _resident_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    result = run()
    peak = _resident_kb("VmHWM")
    del result
    return max(peak - before, 0) / 1024


def in_fresh_process(module: str, arguments: Sequence[str]) -> str:
    """Standard output of `python -m module arguments`."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _resident_kb(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}; peak memory can be measured on Linux only")


def machine() -> dict[str, object]:
    """Describe the machine of the measurement."""
    packages = ("panrt", "numpy", "onnxruntime", "torch", "torchvision")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version for name in packages if (version := _version(name))},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write_json(path: Path, measured: Mapping[str, Sequence[Timing]], about: Mapping[str, object]) -> None:
    """The table and the machine, for scripts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    workloads = {name: [asdict(timing) for timing in timings] for name, timings in measured.items()}
    path.write_text(json.dumps({"machine": about, "workloads": workloads}, indent=1) + "\n")
