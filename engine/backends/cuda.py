"""What the runtime asks of the CUDA driver, and no more: a context, a stream, events, memory, a captured graph.

Straight on `cuda.bindings.driver`, whose calls used here are the same in 12.x and 13.x. Every failure is a CudaError
that names the call. What is opened here is closed by `close`, once; closing never raises, for nothing could be done
about it, and a lost device refuses it all: it is logged.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from cuda.bindings import driver
from numpy.typing import NDArray

from panrt.engine.preprocess import FrameError
from panrt.errors import PanrtError

log = logging.getLogger("panrt")

ALIGNMENT = 256  # of tensors; what cuMemAlloc gives and TensorRT asks for

_ATTRIBUTE = "CU_DEVICE_ATTRIBUTE_"
_HINTS = {
    "CUDA_ERROR_OUT_OF_MEMORY": "close other programs on the GPU, or lower the engine's batch or input size",
    "CUDA_ERROR_NO_DEVICE": "no NVIDIA GPU is visible to this process; see CUDA_VISIBLE_DEVICES and `panrt doctor`",
    "CUDA_ERROR_ILLEGAL_ADDRESS": "the process cannot use the GPU any more; start it again and report this",
    "CUDA_ERROR_LAUNCH_FAILED": "the process cannot use the GPU any more; start it again and report this",
}


class CudaError(PanrtError, RuntimeError):
    """The CUDA driver refused a call."""

    def __init__(self, call: str, error: Any) -> None:
        self.name = str(error.name)
        _, text = driver.cuGetErrorString(error)
        hint = _HINTS.get(self.name)
        super().__init__(
            f"{call}: {self.name} ({text.decode() if text else 'unknown to this driver'})"
            + (f"; {hint}." if hint else ".")
        )


def _call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    error, *values = function(*arguments)
    if error:
        raise CudaError(function.__name__, error)
    return values[0] if values else None


def _release(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> None:
    error, *_ = function(*arguments)
    if error:
        log.warning("%s: %s while closing", function.__name__, error.name)


class Device(NamedTuple):
    """A GPU."""

    handle: Any
    name: str  # as its maker calls it
    compute_capability: str  # "8.7" is Orin
    alignment: int  # of memory that TensorRT works in
    maps_memory: bool  # of the host, and works on it in place
    shares_memory: bool  # with the host, so that what is mapped need not cross a bus: Jetson


def device() -> Device:
    """The GPU of the calling thread's context, where it has one, else the first one. No context is made.

    Raises:
        CudaError: there is none that works.
    """
    _call(driver.cuInit, 0)
    handle = _device_of_thread()
    if handle is None:
        handle = _call(driver.cuDeviceGet, 0)

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


def _device_of_thread() -> Any:
    """The device of the calling thread's context; None where it has none, or one that another thread has closed."""
    if int(_call(driver.cuCtxGetCurrent)) == 0:
        return None
    error, *values = driver.cuCtxGetDevice()
    if error.name in ("CUDA_ERROR_CONTEXT_IS_DESTROYED", "CUDA_ERROR_INVALID_CONTEXT"):
        _call(driver.cuCtxSetCurrent, driver.CUcontext(0))
        return None
    if error:
        raise CudaError("cuCtxGetDevice", error)
    return values[0]


class Context:
    """Where work runs: the calling thread's context where it has one (PyCUDA's, PyTorch's), else the primary one."""

    def __init__(self) -> None:
        self.device = device()
        self._entered = threading.local()
        self._handle = _call(driver.cuCtxGetCurrent)
        self._is_joined = int(self._handle) != 0
        self._is_retained = False
        if not self._is_joined or self._has_primary():
            primary = _call(driver.cuDevicePrimaryCtxRetain, self.device.handle)
            if not self._is_joined or int(primary) == int(self._handle):  # it must not go when others close theirs
                self._handle, self._is_retained = primary, True
            else:
                _release(driver.cuDevicePrimaryCtxRelease, self.device.handle)
        try:
            self.enter()
        except CudaError:
            self.close()
            raise

    def enter(self) -> None:
        """Make it the calling thread's current one, as all that follows needs it."""
        _call(driver.cuCtxSetCurrent, self._handle)
        self._entered.by_this_thread = True

    def enter_once(self) -> None:
        """The same, but in a thread's first call alone: for work between two that `enter`."""
        if not getattr(self._entered, "by_this_thread", False):
            self.enter()

    def close(self) -> None:
        """Let go of it; one that was the caller's stays as it is."""
        if self._is_retained:
            self._is_retained = False
            if not self._is_joined:
                _release(driver.cuCtxSetCurrent, driver.CUcontext(0))
            _release(driver.cuDevicePrimaryCtxRelease, self.device.handle)

    def _has_primary(self) -> bool:
        error, _, active = driver.cuDevicePrimaryCtxGetState(self.device.handle)
        if error:
            raise CudaError("cuDevicePrimaryCtxGetState", error)
        return bool(active)


class Stream:
    """Work in order, beside the default stream's and not after it."""

    def __init__(self) -> None:
        self.handle = _call(driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self.address = int(self.handle)

    def __cuda_stream__(self) -> tuple[int, int]:
        """The protocol by which other libraries order their work after ours."""
        return 0, self.address

    def upload(self, target: int, source: int, size: int) -> None:
        """Copy from pinned memory to the device."""
        _call(driver.cuMemcpyHtoDAsync, target, source, size, self.handle)

    def download(self, target: int, source: int, size: int) -> None:
        """Copy from the device to pinned memory."""
        _call(driver.cuMemcpyDtoHAsync, target, source, size, self.handle)

    def fill(self, target: int, size: int, value: int) -> None:
        """Set bytes that the device sees."""
        _call(driver.cuMemsetD8Async, target, value, size, self.handle)

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, height: int
    ) -> None:
        """Copy `height` rows of `width` bytes on the device, each begun a pitch after the one before."""
        rows = driver.CUDA_MEMCPY2D()
        rows.srcMemoryType = rows.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_UNIFIED
        rows.srcDevice, rows.srcPitch = source, source_pitch
        rows.dstDevice, rows.dstPitch = target, target_pitch
        rows.WidthInBytes, rows.Height = width, height
        _call(driver.cuMemcpy2DAsync, rows, self.handle)

    def synchronize(self) -> None:
        """Wait for all of it."""
        _call(driver.cuStreamSynchronize, self.handle)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what `work` queues here, which thereby does not run. Calls of other threads are not affected.

        Raises:
            CudaError, and whatever `work` raises: nothing is captured, and the stream is as before.
        """
        _call(driver.cuStreamBeginCapture, self.handle, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
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
        """Its work must be done."""
        _release(driver.cuStreamDestroy, self.handle)


class Graph:
    """Work that was captured; one call queues all of it."""

    def __init__(self, stream: Stream, handle: Any) -> None:
        self._stream = stream.handle
        self._handle = handle

    def launch(self) -> None:
        """Queue it on the stream that it was captured from."""
        _call(driver.cuGraphLaunch, self._handle, self._stream)

    def close(self) -> None:
        """Its work must be done."""
        _release(driver.cuGraphExecDestroy, self._handle)


class Event:
    """A mark in a stream. Who waits for it sleeps: on a robot, the CPU has other things to do than to spin."""

    def __init__(self) -> None:
        self.handle = _call(driver.cuEventCreate, driver.CUevent_flags.CU_EVENT_BLOCKING_SYNC)

    def record(self, stream: Stream) -> None:
        """Mark what the stream has queued so far."""
        _call(driver.cuEventRecord, self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait for that."""
        _call(driver.cuEventSynchronize, self.handle)

    def seconds_since(self, earlier: Event) -> float:
        """Between two marks that have been passed, on the GPU's clock."""
        return float(_call(driver.cuEventElapsedTime, earlier.handle, self.handle)) * 1e-3

    def close(self) -> None:
        """Whether or not it was passed."""
        _release(driver.cuEventDestroy, self.handle)


class DeviceMemory:
    """A block of device memory, aligned as cuMemAlloc has it, or better."""

    def __init__(self, size: int, *, alignment: int = ALIGNMENT) -> None:
        self._handle = _call(driver.cuMemAlloc, size + max(alignment - ALIGNMENT, 0))
        self.address = -(-int(self._handle) // alignment) * alignment

    def close(self) -> None:
        """No work may use it any more."""
        _release(driver.cuMemFree, self._handle)


class PinnedMemory:
    """Host memory that the GPU copies from and to without the CPU; mapped, it works on it in place.

    `array` is (size,) uint8, to be forgotten before `close`; `device_address` is 0 unless it is mapped.
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
        """No work may use it any more."""
        _release(driver.cuMemFreeHost, self.address)


class DeviceArray(NamedTuple):
    """Somebody else's array on the GPU, rows of bytes one `pitch` apart."""

    address: int
    pitch: int
    owner: object  # keeps it alive


def device_array(thing: object, stream: Stream, *, shape: Sequence[int]) -> DeviceArray:
    """See an array of another library where it is, by DLPack or `__cuda_array_interface__` (PyTorch, CuPy, PyCUDA).

    Whatever its library has queued on it comes first: the stream waits for that, the host does not.

    Args:
        thing: (H, W, 3) uint8 on the GPU, each row without gaps.
        stream: that will read it.
        shape: that it must have.

    Raises:
        FrameError: it is not such an array; the message says what it is.
    """
    from cuda.core.utils import StridedMemoryView  # noqa: PLC0415  # slow to import, and few need it

    view = StridedMemoryView.from_any_interface(thing, stream_ptr=stream.address)
    found = tuple(view.shape)
    strides = tuple(view.strides or np.cumprod((1, *found[:0:-1]))[::-1].tolist())  # in elements; None: without gaps
    if not view.is_device_accessible or found != tuple(shape) or view.dtype != np.uint8 or strides[1:] != (3, 1):
        raise FrameError(
            f"frame on the GPU: got {found} {view.dtype}, strides {strides}, expected {tuple(shape)} uint8 BGR, each "
            "row without gaps: frames on the GPU have the size of the network's input."
        )
    return DeviceArray(int(view.ptr), strides[0], view)


def is_on_device(thing: object) -> bool:
    """Whether another library says that its array is on a GPU."""
    if hasattr(thing, "__cuda_array_interface__"):
        return True
    if isinstance(thing, np.ndarray) or not hasattr(thing, "__dlpack_device__"):
        return False
    kind, _ = thing.__dlpack_device__()
    return int(kind) in (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
