"""Phase 7: the kernels under compute-sanitizer's tools and under ncu, where these are installed and work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from tools.gpu.checks import Checks, MissingError, Record
from tools.gpu.machine import Machine

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
FOUND = 86  # the exit status of compute-sanitizer if it found something
UNABLE = re.compile(r"not supported|ERR_NVGPUCTRPERM|LibraryNotLoaded|Unable to|unable to|No CUDA|permission", re.ASCII)
METRICS = (
    "gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,"
    "sm__throughput.avg.pct_of_peak_sustained_elapsed,launch__registers_per_thread"
)


def run(checks: Checks, machine: Machine) -> None:
    """Write one record per tool."""
    calls = [sys.executable, "-m", "tools.gpu.tool_calls", machine.out]
    with checks.check("the calls run without a tool"):
        status, text = _run(calls, checks.seconds_left)
        if status != 0:
            raise AssertionError(f"status {status}: {_tail(text)}")
    for tool in TOOLS:
        with checks.check(f"compute-sanitizer {tool}") as check:
            command = [_tool(machine, "compute-sanitizer"), "--tool", tool, "--error-exitcode", str(FOUND), *calls]
            _judge(check, *_run(command, checks.seconds_left))
    with checks.check("ncu") as check:
        command = [_tool(machine, "ncu"), "--metrics", METRICS, "--csv", "--page", "raw", "--clock-control", "none"]
        status, text = _run([*command, *calls], checks.seconds_left)
        (machine.folder / "ncu.csv").write_text(text)
        if status != 0:
            check.note(f"does not work here, status {status}: {_tail(text)}")
        else:
            check.figures["kernels"] = len(re.findall(r'^"\d+",', text, re.MULTILINE))  # rows begin with a number


def _tool(machine: Machine, name: str) -> str:
    """Return a tool's path.

    Raises:
        MissingError: it is missing.
    """
    if machine.simulated and not machine.tools:
        raise MissingError("the stand-ins are no GPU that a tool could look at")
    found = shutil.which(name, path=machine.tools or os.environ.get("PATH"))
    if found is None and not machine.tools:
        found = shutil.which(name, path="/usr/local/cuda/bin")
    if found is None:
        raise MissingError(f"{name} is missing; it comes with the CUDA toolkit")
    return found


def _judge(check: Record, status: int, text: str) -> None:
    """Read compute-sanitizer's summary.

    Raises:
        AssertionError: it found something, or its program failed.
    """
    summary = re.findall(r"^=+ ((?:ERROR|RACECHECK|LEAK) SUMMARY: .*)$", text, re.MULTILINE)
    check.detail = "; ".join(summary)
    if status == 0:
        if not summary:
            raise AssertionError(f"no summary: {_tail(text)}")
    elif status != FOUND and UNABLE.search(text):
        check.note(f"does not work here, status {status}: {_tail(text)}")
    else:
        first = re.search(r"^=+ (?!COMPUTE-SANITIZER)(\S.*)$", text, re.MULTILINE)
        raise AssertionError(f"{check.detail or f'status {status}'}; first: {first[1] if first else _tail(text)}")


def _run(command: list[str], seconds: float) -> tuple[int, str]:
    """Run a command and return its status and all that it wrote.

    Raises:
        AssertionError: it took too long.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(seconds - 1, 1),
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"did not end within {error.timeout:.0f} s") from error
    print(done.stdout)
    return done.returncode, done.stdout


def _tail(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:])[-400:]
