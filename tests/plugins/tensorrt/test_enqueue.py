"""The plugins run: TensorRT's steps around their classes, and below them the CUDA kernels, simulated on the CPU.

What the kernels compute is tested in tests/plugins/cuda; here a tensor that goes to the wrong argument, a size, an
attribute or a workspace that is not passed on would show. `tools.gpu` has the cases and holds the plugins; it does the
same on a GPU.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from tools import hostcuda
from tools.gpu import plugin_calls
from tools.gpu.machine import Machine
from tools.gpu.plugin_cases import PluginCase, cases

Array = NDArray[Any]
EXACT = ("RpnProposals", "PanopticMerge")  # on the CPU, which rounds as the reference does


@pytest.fixture(scope="module")
def machine() -> Machine:
    kernels = hostcuda.kernels("plain")
    plugins = plugin_calls.build_simulated(kernels)
    ctypes.CDLL(str(kernels)).hc_require_loaded(1)  # as in a capture: a plugin that is attached has loaded its kernels
    calls = str(plugin_calls.build())
    return Machine(out="", simulated=True, kernels=str(kernels), plugins=str(plugins), plugin_calls=calls, expected="")


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Of 0xCD bytes, aligned as CUDA's memory is."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(size + 256, 0xCD, np.uint8)
    start = -raw.ctypes.data % 256
    return np.asarray(raw[start : start + size].view(dtype).reshape(shape))


def placed(array: Array) -> Array:
    copy = aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_plugin_gives_what_the_reference_gives(machine: Machine, case: PluginCase) -> None:
    tensors = [*case.inputs, *case.outputs]
    layouts = [case.layout_of(tensor) for tensor in tensors]
    described = [(tensor.shape, tensor.dtype, layout) for tensor, layout in zip(tensors, layouts, strict=True)]
    plugin = plugin_calls.Plugin(machine, case.op, described, inputs=len(case.inputs), attributes=case.attributes)
    wanted = [plugin_calls.arrays_for(layout, tensor) for layout, tensor in zip(layouts, tensors, strict=True)]
    count = len(case.inputs)
    arrays = [placed(array) for array in wanted[:count]] + [aligned(a.shape, a.dtype) for a in wanted[count:]]
    workspace = aligned((plugin.workspace_bytes + 1,), np.uint8)[1:]  # TensorRT promises no alignment
    plugin.enqueue([array.ctypes.data for array in arrays], workspace.ctypes.data, 0)
    plugin.close()
    for number, (found, right) in enumerate(zip(arrays, wanted, strict=True)):
        if number < count or case.op in EXACT or right.dtype == np.int32:
            assert_array_equal(found, right)
        else:
            limit = case.tolerance * float(np.abs(right.astype(np.float32)).max(initial=1))
            assert_allclose(found.astype(np.float32), right.astype(np.float32), rtol=0, atol=limit)
