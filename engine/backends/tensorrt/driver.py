"""The parts of the CUDA driver that the runtime uses: a context, a stream, events, memory, a captured graph.

Thin classes over `cuda.bindings.driver`, whose calls used here are the same in 12.x and 13.x. Every failure is a
CudaError that names the call. What is opened here is closed by `close`, once; closing never raises, as nothing could be
done about it, and on a lost device every call fails: it is logged.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import operator
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from cuda.bindings import driver
from numpy.typing import NDArray

from panrt.engine.frame import is_on_device
from panrt.errors import CudaError, CudaStreamError, FrameError

log = logging.getLogger("panrt")

CONTEXT_IS_GONE = ("CUDA_ERROR_CONTEXT_IS_DESTROYED", "CUDA_ERROR_INVALID_CONTEXT")
ALIGNMENT = 256  # of tensors; cuMemAlloc provides and TensorRT requires it

_ATTRIBUTE = "CU_DEVICE_ATTRIBUTE_"
_DEVICE_POINTER = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_POINTER
_NOT_OF_THE_CONTEXT = ("CUDA_ERROR_INVALID_HANDLE", "CUDA_ERROR_INVALID_CONTEXT")
_HINTS = {
    "CUDA_ERROR_OUT_OF_MEMORY": "close other programs on the GPU, or lower the engine's batch or input size",
    "CUDA_ERROR_NO_DEVICE": "no NVIDIA GPU is visible to this process; see CUDA_VISIBLE_DEVICES and `panrt doctor`",
    "CUDA_ERROR_ILLEGAL_ADDRESS": "the process cannot use the GPU any more; start it again and report this",
    "CUDA_ERROR_LAUNCH_FAILED": "the process cannot use the GPU any more; start it again and report this",
}


def _error(call: str, error: Any) -> CudaError:
    name = str(error.name)
    _, text = driver.cuGetErrorString(error)
    hint = f"; {_HINTS[name]}" if name in _HINTS else ""
    return CudaError(name, f"{call}: {name} ({text.decode() if text else 'unknown to this driver'}){hint}.")


def _call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    error, *values = function(*arguments)
    if error:
        raise _error(function.__name__, error)
    return values[0] if values else None


def _release(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> None:
    error, *_ = function(*arguments)
    if error:
        log.warning("%s: %s while closing", function.__name__, error.name)


class Device(NamedTuple):
    """A GPU."""

    handle: Any
    name: str  # as the vendor names it
    compute_capability: str  # "8.7" is Orin
    alignment: int  # of memory that TensorRT works in
    maps_memory: bool  # of the host, to work on it in place
    shares_memory: bool  # with the host, so that mapped memory need not cross a bus: Jetson


def device() -> Device:
    """Return the GPU of the calling thread's context if it has one, else the first. No context is created.

    Raises:
        CudaError: no GPU works.
    """
    _call(driver.cuInit, 0)
    current = _current()
    handle = current[1] if current is not None else _call(driver.cuDeviceGet, 0)

    def attribute(name: str) -> int:
        return int(_call(driver.cuDeviceGetAttribute, getattr(driver.CUdevice_attribute, _ATTRIBUTE + name), handle))

    text: bytes = _call(driver.cuDeviceGetName, 256, handle)
    maps_memory = bool(attribute("CAN_MAP_HOST_MEMORY"))
    return Device(
        handle,
        text.partition(b"\0")[0].decode(),
        f"{attribute('COMPUTE_CAPABILITY_MAJOR')}.{attribute('COMPUTE_CAPABILITY_MINOR')}",
        max(attribute("TEXTURE_ALIGNMENT"), ALIGNMENT),
        maps_memory,
        maps_memory and bool(attribute("INTEGRATED")),
    )


def driver_version() -> tuple[int, int]:
    """Return the newest CUDA version that the driver supports, such as (12, 6)."""
    version = int(_call(driver.cuDriverGetVersion))
    return version // 1000, version % 1000 // 10


def _current() -> tuple[Any, Any] | None:
    """Return the thread's current context and its device; None without one, or if it was destroyed."""
    handle = _call(driver.cuCtxGetCurrent)
    if int(handle) == 0:
        return None
    error, *values = driver.cuCtxGetDevice()
    if error.name in CONTEXT_IS_GONE:
        return None
    if error:
        raise _error("cuCtxGetDevice", error)
    return handle, values[0]


class Context:
    """The context of all work: the one current when this is opened (PyCUDA's, PyTorch's), else the primary one.

    Within `with context:` it is the calling thread's current context. Afterwards the thread's stack of contexts is
    restored, also if an exception leaves the block, so that no PanRT call changes what is current for its caller.
    """

    def __init__(self) -> None:
        self.device = device()
        joined = _current()
        self._handle: Any = 0 if joined is None else joined[0]
        self._is_retained = False
        if joined is None or self._has_primary():
            primary = _call(driver.cuDevicePrimaryCtxRetain, self.device.handle)
            if joined is None or int(primary) == int(self._handle):  # so that it stays when others release it
                self._handle, self._is_retained = primary, True
            else:
                _release(driver.cuDevicePrimaryCtxRelease, self.device.handle)

    def __enter__(self) -> None:
        _call(driver.cuCtxPushCurrent, self._handle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code, *_ = driver.cuCtxPopCurrent()
        if code:  # an error of earlier work, which the next call reports again
            log.debug("cuCtxPopCurrent: %s", code.name)

    def close(self) -> None:
        """Release the primary context; the caller's own is left unchanged."""
        if self._is_retained:
            self._is_retained = False
            _release(driver.cuDevicePrimaryCtxRelease, self.device.handle)

    def _has_primary(self) -> bool:
        error, _, active = driver.cuDevicePrimaryCtxGetState(self.device.handle)
        if error:
            raise _error("cuDevicePrimaryCtxGetState", error)
        return bool(active)


class Stream:
    """A stream that does not synchronise with the default stream."""

    def __init__(self) -> None:
        self.handle = _call(driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self.address = int(self.handle)

    def __cuda_stream__(self) -> tuple[int, int]:
        """Return the stream by the protocol that lets other libraries order their work after it."""
        return 0, self.address

    def wait_for(self, event: Event, other: int) -> None:
        """Order what is queued from now on after what another stream has queued so far; the host does not wait.

        Args:
            event: that may be used for this.
            other: `stream_address` of a stream.

        Raises:
            CudaStreamError: the other stream is not of the current context.
        """
        error, *_ = driver.cuEventRecord(event.handle, other)
        if error.name in _NOT_OF_THE_CONTEXT:
            raise CudaStreamError(
                f"stream: {other:#x} is not a stream of the CUDA context that the session runs in ({error.name}); "
                "make the stream's context current before panrt.load, and the session runs in that one."
            )
        if error:
            raise _error("cuEventRecord", error)
        _call(driver.cuStreamWaitEvent, self.handle, event.handle, 0)

    def upload(self, target: int, source: int, size: int) -> None:
        """Copy from pinned memory to the device."""
        _call(driver.cuMemcpyHtoDAsync, target, source, size, self.handle)

    def download(self, target: int, source: int, size: int) -> None:
        """Copy from the device to pinned memory."""
        _call(driver.cuMemcpyDtoHAsync, target, source, size, self.handle)

    def fill(self, target: int, size: int, value: int) -> None:
        """Set bytes of memory that the device can access."""
        _call(driver.cuMemsetD8Async, target, value, size, self.handle)

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, height: int
    ) -> None:
        """Copy `height` rows of `width` bytes on the device, each a pitch after the previous."""
        rows = driver.CUDA_MEMCPY2D()
        rows.srcMemoryType = rows.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_UNIFIED
        rows.srcDevice, rows.srcPitch = source, source_pitch
        rows.dstDevice, rows.dstPitch = target, target_pitch
        rows.WidthInBytes, rows.Height = width, height
        _call(driver.cuMemcpy2DAsync, rows, self.handle)

    def synchronize(self) -> None:
        """Wait for all work of the stream."""
        _call(driver.cuStreamSynchronize, self.handle)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what `work` queues here without running it. Calls of other threads are not affected.

        Garbage collection is paused: it might find a session in a cycle and close it in this thread, and what that
        frees and waits for would invalidate the capture.

        Raises:
            CudaError, and what `work` raises: nothing is captured, and the stream is unchanged.
        """
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        with _collection_pause:
            _call(driver.cuStreamBeginCapture, self.handle, mode)
            try:
                work()
            except BaseException:
                error, graph = driver.cuStreamEndCapture(self.handle)
                if not error:
                    _release(driver.cuGraphDestroy, graph)
                raise
            graph = _call(driver.cuStreamEndCapture, self.handle)
        try:
            return Graph(self, _call(driver.cuGraphInstantiate, graph, 0))
        finally:
            _release(driver.cuGraphDestroy, graph)

    def close(self) -> None:
        """Destroy it; its work must be done."""
        _release(driver.cuStreamDestroy, self.handle)


class _CollectionPause:
    """Stops the garbage collector while threads are within it, and restores its state after the last one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._was_enabled:
                gc.enable()


_collection_pause = _CollectionPause()


class Graph:
    """Captured work; one call queues all of it."""

    def __init__(self, stream: Stream, handle: Any) -> None:
        self._stream = stream.handle
        self._handle = handle

    def launch(self) -> None:
        """Queue the work on the stream that it was captured from."""
        _call(driver.cuGraphLaunch, self._handle, self._stream)

    def close(self) -> None:
        """Destroy it; its work must be done."""
        _release(driver.cuGraphExecDestroy, self._handle)


class Event:
    """A mark in a stream. Waiting threads sleep instead of spinning, as a robot needs its CPU for other work."""

    def __init__(self) -> None:
        self.handle = _call(driver.cuEventCreate, driver.CUevent_flags.CU_EVENT_BLOCKING_SYNC)

    def record(self, stream: Stream) -> None:
        """Mark what the stream has queued so far."""
        _call(driver.cuEventRecord, self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait for the marked work."""
        _call(driver.cuEventSynchronize, self.handle)

    def seconds_since(self, earlier: Event) -> float:
        """Return the time between two passed marks on the GPU's clock."""
        return float(_call(driver.cuEventElapsedTime, earlier.handle, self.handle)) * 1e-3

    def close(self) -> None:
        """Free the event, whether or not it was passed."""
        _release(driver.cuEventDestroy, self.handle)


class DeviceMemory:
    """A block of device memory, aligned at least as cuMemAlloc does."""

    def __init__(self, size: int, *, alignment: int = ALIGNMENT) -> None:
        self._handle = _call(driver.cuMemAlloc, size + max(alignment - ALIGNMENT, 0))
        self.address = -(-int(self._handle) // alignment) * alignment

    def close(self) -> None:
        """Free the memory, which no work may use any more."""
        _release(driver.cuMemFree, self._handle)


class PinnedMemory:
    """Host memory that the GPU copies from and to without the CPU, or, if mapped, works on in place.

    `array` is (size,) uint8 and must not be used after `close`; `device_address` is 0 unless the memory is mapped.
    """

    def __init__(self, size: int, *, mapped: bool = False) -> None:
        self.address = int(_call(driver.cuMemHostAlloc, size, driver.CU_MEMHOSTALLOC_DEVICEMAP if mapped else 0))
        try:
            self.device_address = int(_call(driver.cuMemHostGetDevicePointer, self.address, 0)) if mapped else 0
        except CudaError:
            self.close()
            raise
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address))

    def close(self) -> None:
        """Free the memory, which no work may use any more."""
        _release(driver.cuMemFreeHost, self.address)


class DeviceArray(NamedTuple):
    """Another library's array on the GPU: uint8, no gaps within a row."""

    address: int
    shape: tuple[int, ...]
    pitch: int  # bytes from the start of a row to that of the next
    owner: object  # keeps it alive


def device_array(thing: object, stream: Stream) -> DeviceArray:
    """Describe an array of another library in place, by DLPack or `__cuda_array_interface__` (PyTorch, CuPy, PyCUDA).

    The stream waits for what that library has queued on the stream that the interface names; the host does not. Called
    within the context of the session.

    Args:
        thing: on the GPU, (H, W, C) or (H, W) uint8, rows from top to bottom without gaps inside.
        stream: that will read it.

    Raises:
        FrameError: it is not such an array; the message describes it.
    """
    from cuda.core.utils import StridedMemoryView  # noqa: PLC0415  # slow to import, and few need it

    name = type(thing).__name__
    if not is_on_device(thing):
        raise FrameError(
            f"frame: got {name} in host memory beside a frame on the GPU; the frames of one submission are all in host "
            "memory or all on the GPU."
        )
    try:
        view = StridedMemoryView.from_any_interface(thing, stream_ptr=stream.address)
    except Exception as error:  # it is the other library's code that runs here
        raise FrameError(f"frame on the GPU: {name} does not share its memory ({error}).") from error
    shape = tuple(view.shape)
    rows = tuple(view.strides or _dense(shape))  # in elements; None: without gaps
    wanted = _dense(shape)
    has_gaps = any(s != w for s, w, side in zip(rows[1:], wanted[1:], shape[1:], strict=True) if side > 1)
    pitch = rows[0] if len(shape) > 1 and shape[0] > 1 else math.prod(shape[1:])
    if view.dtype != np.uint8 or len(shape) < 2 or 0 in shape or has_gaps or pitch < math.prod(shape[1:]):
        raise FrameError(
            f"frame on the GPU: got {name} {shape} {view.dtype}, strides {rows}, expected (H, W, 3) uint8 BGR or "
            "another pixel format, rows from top to bottom and each without gaps; make a contiguous copy of it."
        )
    return DeviceArray(_address_here(int(view.ptr), name), shape, pitch, view)


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of an array without gaps, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _address_here(address: int, name: str) -> int:
    """Return the address at which kernels in the current context access memory of another library."""
    error, *values = driver.cuPointerGetAttribute(_DEVICE_POINTER, address)
    if error.name == "CUDA_ERROR_INVALID_VALUE":
        raise FrameError(
            f"frame on the GPU: the memory of {name} belongs to another CUDA context than the session's, or to none; "
            "make its context current before panrt.load, and the session runs in that one."
        )
    if error:
        raise _error("cuPointerGetAttribute", error)
    return int(values[0])


def stream_address(stream: object) -> int:
    """Return the handle of another library's stream.

    Args:
        stream: an object with `__cuda_stream__`, or the handle as a number; 0 is the legacy default stream.

    Raises:
        CudaStreamError: it is neither.
    """
    protocol: Any = getattr(stream, "__cuda_stream__", lambda: (0, stream))
    try:
        _, address = protocol()
        return operator.index(int(address) if isinstance(address, driver.CUstream) else address)
    except (TypeError, ValueError) as error:
        raise CudaStreamError(
            f"stream: got {type(stream).__name__}, expected an object with __cuda_stream__ or the handle as an int, "
            "such as handle of pycuda.driver.Stream."
        ) from error
