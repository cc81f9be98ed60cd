"""The phases, and their processes: each has its own time limit, and none can take another one down."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.gpu import checks
from tools.gpu.checks import Record
from tools.gpu.machine import REPORT, Machine

POLL_SECONDS = 0.1


class Phase(NamedTuple):
    """A phase of the table in docs/gpu_validation.md."""

    number: int
    module: str  # whose run(checks, machine) does the work
    title: str
    seconds: int  # its share of the whole


PHASES = (
    Phase(0, "tools.gpu.phase_device", "the device", 10),
    Phase(1, "tools.gpu.phase_kernels", "kernels against the reference", 70),
    Phase(2, "tools.gpu.phase_repeats", "repeated merges beside a busy stream", 20),
    Phase(3, "tools.gpu.phase_plugins", "plugin classes, first launches in captures", 15),
    Phase(4, "tools.gpu.phase_session", "the TensorRT session on stand-in engines", 80),
    Phase(5, "tools.gpu.phase_quality", "panoptic quality by precision", 50),
    Phase(6, "tools.gpu.phase_timings", "timings", 60),
    Phase(7, "tools.gpu.phase_tools", "compute-sanitizer and ncu", 90),
)
SECONDS = sum(phase.seconds for phase in PHASES)


def run_all(
    machine: Machine, phases: Sequence[Phase], *, seconds: float, progress: Callable[[Record], None]
) -> list[Record]:
    """Run phases one after another, in `seconds` at most; time that one leaves goes to those after it.

    Args:
        machine: written to its folder already.
        phases: some of PHASES.
        seconds: for all of them.
        progress: called with each record as it appears.
    """
    scale = seconds / sum(phase.seconds for phase in phases)
    report = machine.folder / REPORT
    end = time.monotonic()
    for phase in phases:
        end += scale * phase.seconds
        run_phase(machine, phase, seconds=end - time.monotonic(), progress=progress)
    return checks.read(report)


def run_phase(
    machine: Machine,
    phase: Phase,
    *,
    seconds: float,
    progress: Callable[[Record], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run one phase in its own process, and add a record if that fails."""
    report, log = machine.folder / REPORT, machine.folder / f"phase_{phase.number}.log"
    command = [sys.executable, "-m", "tools.gpu.run_phase", str(phase.number), phase.module, str(machine.folder)]
    shown = len(checks.read(report))
    started = clock()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"{seconds:.3f}"],
            env=machine.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts can be ended with it
        )
        try:
            while True:
                try:
                    status: int | None = process.wait(timeout=POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    status = None
                records = checks.read(report)
                for record in records[shown:]:
                    progress(record)
                shown = len(records)
                if status is not None or clock() - started > seconds:
                    break
        finally:
            _end(process)
    if (text := _verdict(status, seconds, report, log)) is not None:
        record = Record(phase.number, "the phase ends", "failed", round(clock() - started, 3), text)
        checks.append(report, record)
        progress(record)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _verdict(status: int | None, seconds: float, report: Path, log: Path) -> str | None:
    """Say how a process ended that did not end well; a lost device has been reported by the phase itself."""
    if status in (0, checks.LOST):
        return None
    running = checks.running_file(report)
    name = running.read_text() if running.exists() else ""
    where = f" in {name!r}" if name else ""
    if status is None:
        return f"ran past its {seconds:.0f} s{where}; a hang, or --seconds is too small for this machine"
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
    return f"{how}{where}: {tail[-600:]}"
