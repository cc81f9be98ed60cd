"""The machine of a measurement, which decides whether two figures are comparable."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

_PACKAGES = ("panrt", "numpy", "onnxruntime", "opencv-python-headless", "av", "tensorrt", "tensorrt-rtx", "cuda-core")


class Machine(NamedTuple):
    """The description of a machine; empty fields are unknown."""

    processor: str
    threads: int  # that this process may use
    clock_mhz: float | None  # of the first core, when asked
    governor: str  # that sets the clock
    load: float  # runnable processes in the last minute: near 0 on a quiet machine
    gpus: tuple[str, ...]
    power_mode: str  # of a Jetson
    system: str
    versions: dict[str, str]

    def lines(self) -> list[tuple[str, str]]:
        """Return what is known as labels and texts."""
        clock = f", {self.clock_mhz:.0f} MHz" if self.clock_mhz is not None else ""
        governor = f", governor {self.governor}" if self.governor else ""
        rows = [
            ("processor", f"{self.processor}, {self.threads} threads{clock}{governor}, load {self.load:.1f}"),
            ("GPU", ", ".join(self.gpus)),
            ("power mode", self.power_mode),
            ("system", self.system),
            ("versions", ", ".join(f"{name} {number}" for name, number in self.versions.items())),
        ]
        return [(label, text) for label, text in rows if text]


def machine() -> Machine:
    """Describe this machine as it is now."""
    frequency = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    clock = _read(frequency / "scaling_cur_freq")
    return Machine(
        processor=cpu_name(),
        threads=usable_threads(),
        clock_mhz=int(clock) / 1000 if clock.isdigit() else None,
        governor=_read(frequency / "scaling_governor"),
        load=os.getloadavg()[0],
        gpus=tuple(_asked("nvidia-smi", "--query-gpu=name,clocks.sm,power.draw", "--format=csv,noheader")),
        power_mode=power_mode(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions=dict(_versions()),
    )


def power_mode() -> str:
    """Return a Jetson's power mode; empty elsewhere."""
    return " ".join(_asked("nvpmodel", "-q"))


def cpu_name() -> str:
    """Return the processor's name."""
    return cpu_info().get("model name") or platform.processor() or platform.machine()


def cpu_info() -> dict[str, str]:
    """Return the fields of /proc/cpuinfo for the first core."""
    rows = (line.partition(":") for line in _read(Path("/proc/cpuinfo")).partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in rows}


def usable_threads() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 if the system does not report it."""
    fields = _read(Path("/proc/self/statm")).split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _asked(*command: str) -> list[str]:
    """Return the lines that a vendor's program prints; none if it is not installed or fails."""
    if shutil.which(command[0]) is None:
        return []
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in said.stdout.splitlines() if line.strip()] if said.returncode == 0 else []
