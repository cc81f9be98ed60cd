"""The simulated driver's functions as symbols, for what is linked with libcuda as PyCUDA is."""

from __future__ import annotations

import ctypes
import os
from types import ModuleType

import pytest

from tools.simcuda import control

CUDA = ctypes.CDLL(os.environ["PANRT_SIMCUDA"])
NOT_SUPPORTED = 801


def test_contexts_are_pushed_and_popped_by_symbols(gpu: ModuleType) -> None:
    context, popped, device = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    assert CUDA.cuInit(0) == 0
    assert CUDA.cuDeviceGet(ctypes.byref(device), 0) == 0
    assert CUDA.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
    assert CUDA.cuCtxPushCurrent_v2(context) == 0
    assert control.contexts() == [context.value]
    assert CUDA.cuCtxGetDevice(ctypes.byref(device)) == 0  # of two versions, the first
    assert CUDA.cuCtxPopCurrent_v2(ctypes.byref(popped)) == 0
    assert popped.value == context.value
    assert CUDA.cuDevicePrimaryCtxRelease_v2(device) == 0
    assert gpu.take_log()[-3:] == ["cuCtxGetDevice", "cuCtxPopCurrent", "cuDevicePrimaryCtxRelease"]


@pytest.mark.parametrize(
    "name",
    ["cuArrayCreate_v2", "cuTexRefSetArray", "cuProfilerStart", "cuMemcpy3D_v2"],
)
def test_what_is_not_simulated_is_there_and_says_so(gpu: ModuleType, name: str) -> None:
    assert getattr(CUDA, name)(*[ctypes.c_void_p()] * 6) == NOT_SUPPORTED
    assert gpu.take_log() == [name.removesuffix("_v2")]
