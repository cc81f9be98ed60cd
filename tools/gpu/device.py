"""CUDA as the phases use it: a context, streams, memory between canaries, events, captured graphs.

On `cuda.bindings.driver` and apart from `panrt.engine.backends.tensorrt.driver`, which is among the things under test.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from numpy.typing import NDArray

CANARY_BYTES = 64 << 10  # on both sides of a buffer
CANARY, POISON = 0xA5, 0xCD
THREAD_LOCAL = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class CudaCallError(Exception):
    """A call of the driver failed."""

    def __init__(self, name: str, error: Any) -> None:
        super().__init__(f"{name}: {error.name}")
        self.name = str(error.name)


class CanaryError(Exception):
    """A kernel wrote outside its buffer."""


def call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """Call the driver; its one result, if it has one."""
    error, *values = function(*arguments)
    if error:
        raise CudaCallError(function.__name__, error)
    return values[0] if values else None


def open_context() -> None:
    """Make the first GPU's primary context, which PyTorch uses too, the calling thread's."""
    call(cu.cuInit, 0)
    call(cu.cuCtxSetCurrent, call(cu.cuDevicePrimaryCtxRetain, call(cu.cuDeviceGet, 0)))


def sticky_error() -> str | None:
    """Return the error that every call gives from now on, or None."""
    error, *_ = cu.cuCtxSynchronize()
    return error.name if error else None


def attribute(name: str) -> int:
    """Return CU_DEVICE_ATTRIBUTE_<name> of the first GPU."""
    which = getattr(cu.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
    return int(call(cu.cuDeviceGetAttribute, which, call(cu.cuDeviceGet, 0)))


class Stream:
    """A stream that does not wait for the default one."""

    def __init__(self) -> None:
        self.handle = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self.address = int(self.handle)

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        call(cu.cuStreamSynchronize, self.handle)

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Record what the block queues; the graph can be launched after it."""
        graph = Graph(self)
        call(cu.cuStreamBeginCapture, self.handle, THREAD_LOCAL)
        try:
            yield graph
        except BaseException:
            error, captured = cu.cuStreamEndCapture(self.handle)  # leaves the stream usable
            if not error:
                cu.cuGraphDestroy(captured)
            raise
        captured = call(cu.cuStreamEndCapture, self.handle)
        graph.finish(captured)

    def close(self) -> None:
        """Destroy it; its work must be done."""
        call(cu.cuStreamDestroy, self.handle)


class Graph:
    """Captured work."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._handle: Any = None
        self.nodes = 0

    def finish(self, captured: Any) -> None:
        """Make it executable."""
        error, _, count = cu.cuGraphGetNodes(captured)
        if error:
            raise CudaCallError("cuGraphGetNodes", error)
        self.nodes = int(count)
        self._handle = call(cu.cuGraphInstantiate, captured, 0)
        call(cu.cuGraphDestroy, captured)

    def launch(self) -> None:
        """Queue it."""
        call(cu.cuGraphLaunch, self._handle, self._stream.handle)

    def close(self) -> None:
        """Destroy it; its work must be done."""
        call(cu.cuGraphExecDestroy, self._handle)


class Event:
    """A mark in a stream."""

    def __init__(self) -> None:
        self.handle = call(cu.cuEventCreate, cu.CUevent_flags.CU_EVENT_DEFAULT)

    def record(self, stream: Stream) -> None:
        """Mark what was queued so far."""
        call(cu.cuEventRecord, self.handle, stream.handle)

    def seconds_since(self, earlier: Event) -> float:
        """Return the time between two marks, on the GPU's clock, after waiting for this one."""
        call(cu.cuEventSynchronize, self.handle)
        return float(call(cu.cuEventElapsedTime, earlier.handle, self.handle)) * 1e-3


class Buffer:
    """Device memory of just a size, some bytes from where memory is aligned, with canaries before and after it."""

    def __init__(self, size: int, *, canary: int = CANARY_BYTES, offset: int = 0) -> None:
        self.size = size
        self._before, self._after = canary + offset, canary
        self._begin = int(call(cu.cuMemAlloc, self._before + size + self._after))
        self.address = self._begin + self._before

    def write(self, array: NDArray[Any]) -> None:
        """Fill it with an array of its size, and the canaries."""
        inside = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if inside.size != self.size:
            raise ValueError(f"array: got {inside.size} bytes, expected {self.size}.")
        before, after = (np.full(length, CANARY, np.uint8) for length in (self._before, self._after))
        whole = np.concatenate([before, inside, after])
        if whole.size:
            call(cu.cuMemcpyHtoD, self._begin, whole.ctypes.data, whole.size)
            # From pageable memory that may return before the bytes have arrived, and other streams do not wait for it.
            call(cu.cuCtxSynchronize)

    def poison(self) -> None:
        """Fill it with what no kernel writes."""
        self.write(np.full(self.size, POISON, np.uint8))

    def read(self) -> NDArray[np.uint8]:
        """Return its bytes.

        Raises:
            CanaryError: something was written beside it.
        """
        whole = np.empty(self._before + self.size + self._after, np.uint8)
        if whole.size:
            call(cu.cuMemcpyDtoH, whole.ctypes.data, self._begin, whole.size)
        before, inside, after = np.split(whole, [self._before, self._before + self.size])
        touched = (np.flatnonzero(before != CANARY) - self._before).tolist()
        touched += (np.flatnonzero(after != CANARY) + self.size).tolist()
        if touched:
            raise CanaryError(
                f"{len(touched)} bytes outside a buffer of {self.size} bytes were written, the first at offset "
                f"{touched[0]}"
            )
        return inside

    def close(self) -> None:
        """Free the memory, which no work may use any more."""
        call(cu.cuMemFree, self._begin)


def host_view(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return memory as an array; of the device only if it is simulated."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
    return np.asarray(raw.view(dtype).reshape(shape))
