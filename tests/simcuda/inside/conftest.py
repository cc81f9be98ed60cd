"""Tests that run in a process of their own, whose CUDA driver is the simulated one; `build.run` starts it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from types import ModuleType

import pytest

collect_ignore_glob = [] if "PANRT_SIMCUDA" in os.environ else ["test_*.py"]


@pytest.fixture(autouse=True)
def gpu() -> Iterator[ModuleType]:
    """The simulation, new; afterwards nothing may be left over or have been misused without the test saying so."""
    from cuda.bindings import driver  # noqa: PLC0415  # only a process with the simulation can

    from simcuda import control  # noqa: PLC0415

    control.reset()
    before = control.alive()
    yield control
    gc.collect()
    left, findings = control.alive(), control.findings()
    control.reset()
    driver.cuCtxSetCurrent(None)
    assert findings == []
    assert left == before
