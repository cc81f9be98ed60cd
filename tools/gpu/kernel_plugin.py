"""A plugin of pytest that runs tests/plugins/cuda unchanged on the library under test, and reports each test.

    PANRT_GPU_MACHINE=OUT pytest -p tools.gpu.kernel_plugin tests/plugins/cuda

It takes the place of `SimulatedGpu` before those tests import it. What only the simulation can tell, memory requests,
is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tools import hostcuda
from tools.gpu import absent, checks
from tools.gpu.checks import MissingError, Record
from tools.gpu.machine import REPORT, Machine
from tools.hostcuda import Flavour, SimulatedGpu

PHASE = 1
_MACHINE = Machine.read(Path(os.environ["PANRT_GPU_MACHINE"]))
_END = time.monotonic() + float(os.environ["PANRT_GPU_SECONDS"])
NO_TIME = "no time left"
_cut_off: list[str] = []
# A process for each example would take long in simulation; on a GPU nearly all of the time is the reference's.
_EXAMPLES = 5 if _MACHINE.profile == "small" else 20 if _MACHINE.simulated else 100
settings.register_profile(
    "gpu", max_examples=_EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)  # fmt: skip


class RealGpu(SimulatedGpu):
    """The library under test in a process of its own, restarted after a crash or a sticky error."""

    @property
    def flavour(self) -> str:
        """The flavour of the one library."""
        return "gpu"

    def _start(self) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "tools.gpu.kernel_worker", _MACHINE.out],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )


def _library(flavour: Flavour) -> Path:
    if flavour == "trace":
        pytest.skip("memory requests are counted in simulation only")
    return Path(_MACHINE.kernels)


absent.stand_in("torch")
hostcuda.SimulatedGpu = RealGpu  # type: ignore[misc]  # later imports get this one
hostcuda.kernels = _library


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the runs on another simulation: there is one library here, and it is not that one's."""
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        (others if parameters.get("gpus") == "ptxsim" else chosen).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what there is no time for."""
    checks.running_file(Path(_MACHINE.out) / REPORT).write_text(_name(item.nodeid))
    if time.monotonic() > _END:
        pytest.skip(NO_TIME)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Skip a test that needs what is not installed."""
    try:
        return (yield)
    except MissingError as error:
        pytest.skip(str(error))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write a record for each test, and one more if its teardown fails."""
    if report.when != "call" and report.passed:
        return
    text = ""
    if report.skipped:
        text = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if NO_TIME in text:
            _cut_off.append(report.nodeid)
            return
    elif report.failed:
        text = " ".join(_reason(report.longrepr).split())
    record = Record(PHASE, _name(report.nodeid), report.outcome, round(report.duration, 3), text[-600:])
    checks.append(Path(_MACHINE.out) / REPORT, record)


def pytest_sessionfinish() -> None:
    """Say how many tests there was no time for."""
    if _cut_off:
        record = Record(PHASE, "all tests of the kernels")
        record.note(f"{len(_cut_off)} tests did not run for lack of time; give more --seconds")
        checks.append(Path(_MACHINE.out) / REPORT, record)


def _name(nodeid: str) -> str:
    return nodeid.removeprefix("tests/plugins/cuda/")


def _reason(longrepr: Any) -> str:
    crash = getattr(longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else longrepr)
