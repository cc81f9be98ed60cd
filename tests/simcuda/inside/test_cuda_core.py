"""cuda.core, NVIDIA's own object layer, works on the simulated driver: the simulation answers whoever speaks to it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from cuda.core import Device, EventOptions, Kernel, LaunchConfig, LegacyPinnedMemoryResource, ObjectCode, launch


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """cuda.core keeps context and modules for the rest of the process, so they are there before anything is counted."""
    Device(0).set_current()
    return ObjectCode.from_cubin(b"an image that nobody reads").get_kernel("scale")


def test_cuda_core_copies_launches_captures_and_tells_the_time(kernel: Kernel) -> None:
    device = Device(0)
    stream = device.create_stream()
    pinned = LegacyPinnedMemoryResource().allocate(64, stream=stream)
    floats: Any = (ctypes.c_float * 16).from_address(int(pinned.handle))
    host = np.frombuffer(floats, np.float32)  # NumPy 1 reads DLPack only
    host[:] = 3
    memory = device.allocate(64, stream=stream)
    start = stream.record(options=EventOptions(timing_enabled=True))
    memory.copy_from(pinned, stream=stream)
    launch(stream, LaunchConfig(grid=1, block=16), kernel, memory, memory, np.float32(2))
    memory.copy_to(pinned, stream=stream)
    end = stream.record(options=EventOptions(timing_enabled=True))
    assert (host == 3).all()
    stream.sync()
    assert (host == 6).all()
    assert end - start >= 0

    builder = device.create_graph_builder()
    builder.begin_building("thread_local")
    launch(builder, LaunchConfig(grid=1, block=16), kernel, memory, memory, np.float32(2))
    graph = builder.end_building().complete()
    for _ in range(2):
        graph.launch(stream)
    memory.copy_to(pinned, stream=stream)
    stream.sync()
    assert (host == 24).all()

    graph.close()
    builder.close()
    memory.close(stream)
    stream.sync()
    del start, end, host
    pinned.close()
    stream.close()
