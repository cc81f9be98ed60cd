"""Tests that run in a process of their own, whose CUDA driver is the simulated one; `build.run` starts it."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

collect_ignore_glob = [] if "PANRT_SIMCUDA" in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def kernels() -> Any:
    """PanRT's own kernels, built for the host, that queue their work on the simulated streams."""
    from panrt.engine.backends.tensorrt.kernels import Kernels  # noqa: PLC0415
    from tools.simcuda import control  # noqa: PLC0415

    path = Path(os.environ["PANRT_TEST_KERNELS"])
    loaded = Kernels(path)
    hook = ctypes.CDLL(str(path)).hc_set_stream_hook
    hook.argtypes = [ctypes.c_void_p]
    hook(control.address_of("simcuda_enqueue"))
    return loaded


@pytest.fixture
def unloaded_kernels(kernels: Any) -> Iterator[Any]:
    """The same as a new process has them: CUDA has loaded none, and a capture may refuse to."""
    from tools.simcuda import control  # noqa: PLC0415

    hook = ctypes.CDLL(os.environ["PANRT_TEST_KERNELS"]).hc_set_load_hook
    hook.argtypes = [ctypes.c_void_p]
    hook(control.address_of("simcuda_refuses_load"))
    yield kernels
    hook(None)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[ModuleType]:
    """The simulation, new; afterwards nothing may be left over or have been misused without the test saying so."""
    from cuda.bindings import driver  # noqa: PLC0415  # only a process with the simulation can

    from tools.simcuda import control  # noqa: PLC0415

    control.reset()
    before = control.alive()
    yield control
    gc.collect()
    left, findings = control.alive(), control.findings()
    control.reset()
    driver.cuCtxSetCurrent(None)
    assert findings == []
    assert left == before


@pytest.fixture
def own_context(gpu: ModuleType) -> Iterator[None]:
    """The program around PanRT has a CUDA context, the primary one, and makes arrays in it."""
    from cuda.bindings import driver  # noqa: PLC0415

    driver.cuInit(0)
    driver.cuCtxPushCurrent(driver.cuDevicePrimaryCtxRetain(0)[1])
    yield
    driver.cuCtxPopCurrent()
    driver.cuDevicePrimaryCtxRelease(0)
