"""Properties of CUDA devices as data: `facts/*.json`, which simcuda follows, and how to record one from a real device.

source              where the values come from: "measured", or what is documented, what somebody's device reported and
                    what is assumed
name, driver_version, memory_bytes, attributes      as cuDeviceGetName, cuDriverGetVersion, cuDeviceTotalMem and
                                                    cuDeviceGetAttribute give them
alignment           bytes: of addresses of cuMemAlloc (device) and cuMemHostAlloc (pinned), of cuMemAllocPitch's pitch
fresh_memory        "zeros", or "undefined": whatever was there; of device, pinned and mapped memory
module_loading      "LAZY" or "EAGER", where CUDA_MODULE_LOADING says nothing
capture             what a thread-local capture does to an allocation, to the loading of a module, and to the first
                    launch of a kernel that is loaded lazily: `refused` or `allowed`
seconds_per_work    that a copy or launch takes beside its bytes
bytes_per_second    of a copy to the device, of the device's own memory, and of mapped memory that a kernel reads
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

FOLDER = Path(__file__).parent / "facts"
ATTRIBUTES = (
    "ASYNC_ENGINE_COUNT", "CAN_MAP_HOST_MEMORY", "CLOCK_RATE", "COMPUTE_CAPABILITY_MAJOR", "COMPUTE_CAPABILITY_MINOR",
    "COMPUTE_MODE", "CONCURRENT_KERNELS", "CONCURRENT_MANAGED_ACCESS", "COOPERATIVE_LAUNCH", "GLOBAL_MEMORY_BUS_WIDTH",
    "HOST_REGISTER_SUPPORTED", "INTEGRATED", "L2_CACHE_SIZE", "MANAGED_MEMORY", "MAX_BLOCKS_PER_MULTIPROCESSOR",
    "MAX_BLOCK_DIM_X", "MAX_BLOCK_DIM_Y", "MAX_BLOCK_DIM_Z", "MAX_GRID_DIM_X", "MAX_GRID_DIM_Y", "MAX_GRID_DIM_Z",
    "MAX_REGISTERS_PER_BLOCK", "MAX_REGISTERS_PER_MULTIPROCESSOR", "MAX_SHARED_MEMORY_PER_BLOCK",
    "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN", "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR", "MAX_THREADS_PER_BLOCK",
    "MAX_THREADS_PER_MULTIPROCESSOR", "MEMORY_CLOCK_RATE", "MEMORY_POOLS_SUPPORTED", "MULTIPROCESSOR_COUNT",
    "PAGEABLE_MEMORY_ACCESS", "STREAM_PRIORITIES_SUPPORTED", "TEXTURE_ALIGNMENT", "TEXTURE_PITCH_ALIGNMENT",
    "TOTAL_CONSTANT_MEMORY", "UNIFIED_ADDRESSING", "WARP_SIZE",
)  # fmt: skip

MEBIBYTE = 1 << 20
BYTES = 256 * MEBIBYTE  # in which bandwidth is measured: more than any cache holds
RUNS = 5  # of which the fastest counts

# out[i] = a * in[i], one element a thread. simcuda takes the kernel of this name from kernels.cpp.
SCALE = b"""
.version 6.4
.target sm_75
.address_size 64
.visible .entry scale(.param .u64 to, .param .u64 from, .param .f32 factor)
{
    .reg .u32 %r<5>;
    .reg .u64 %d<6>;
    .reg .f32 %f<4>;
    ld.param.u64 %d1, [to];
    ld.param.u64 %d2, [from];
    ld.param.f32 %f1, [factor];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r4, %r1, %r2, %r3;
    mul.wide.u32 %d3, %r4, 4;
    add.u64 %d4, %d2, %d3;
    add.u64 %d5, %d1, %d3;
    ld.global.f32 %f2, [%d4];
    mul.f32 %f3, %f1, %f2;
    st.global.f32 [%d5], %f3;
    ret;
}
\0"""


def path(name: str) -> Path:
    """The file of a device, "rtx4090"; what ends with .json is a path already."""
    return Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    """Read the facts of a device."""
    return cast(dict[str, Any], json.loads(path(name).read_text()))


def write(facts: dict[str, Any], file: Path) -> None:
    """Make a file of facts, as simcuda reads it."""
    file.write_text(json.dumps(facts, indent=2) + "\n")


def measure_facts() -> dict[str, Any]:
    """Measure the first device that the CUDA driver shows, which takes about a second and half a gigabyte at most.

    The thread's current context is unchanged. A CUDA error that is not a finding raises RuntimeError.
    """
    from cuda.bindings import driver as cu  # noqa: PLC0415  # it needs a driver

    _ok(cu.cuInit(0))
    device = _ok(cu.cuDeviceGet(0))
    with _Device(cu, device) as gpu:
        copied, seconds = gpu.rate(gpu.copy)
        return {
            "source": "measured",
            "name": _ok(cu.cuDeviceGetName(256, device)).partition(b"\0")[0].decode(),
            "driver_version": _ok(cu.cuDriverGetVersion()),
            "memory_bytes": int(_ok(cu.cuDeviceTotalMem(device))),
            "attributes": {
                name: _ok(cu.cuDeviceGetAttribute(getattr(cu.CUdevice_attribute, _PREFIX + name), device))
                for name in ATTRIBUTES
            },
            "alignment": {
                "device": gpu.alignment(gpu.device_memory),
                "pinned": gpu.alignment(gpu.pinned_memory),
                "pitch": gpu.pitch(),
            },
            "fresh_memory": {
                "device": gpu.fresh(gpu.device_memory),
                "pinned": gpu.fresh(gpu.pinned_memory),
                "mapped": gpu.fresh(gpu.mapped_memory),
            },
            "module_loading": gpu.loading(),
            "capture": {
                "allocation": gpu.captured(gpu.allocate),
                "module_load": gpu.captured(gpu.load),
                "first_launch": gpu.captured(gpu.launch_first),
            },
            "seconds_per_work": seconds,
            "bytes_per_second": {
                "copy": copied,
                "device": 2 * gpu.rate(gpu.copy_inside)[0],  # it reads and writes
                "mapped": gpu.rate(gpu.read_mapped)[0],
            },
        }


_PREFIX = "CU_DEVICE_ATTRIBUTE_"


def _ok(result: tuple[Any, ...]) -> Any:
    error, *values = result
    if error:
        raise RuntimeError(f"the CUDA driver answered {error.name}")
    return values[0] if len(values) == 1 else values


class _Device:
    """A device while it is measured: its primary context, a stream, and memory that is freed at the end."""

    def __init__(self, cu: Any, device: Any) -> None:
        self.cu = cu
        self._device = device
        self._resources = ExitStack()

    def __enter__(self) -> _Device:
        cu = self.cu
        with ExitStack() as resources:
            context = _ok(cu.cuDevicePrimaryCtxRetain(self._device))
            resources.callback(cu.cuDevicePrimaryCtxRelease, self._device)
            _ok(cu.cuCtxPushCurrent(context))
            resources.callback(cu.cuCtxPopCurrent)
            self._stream = _ok(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
            resources.callback(cu.cuStreamDestroy, self._stream)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.cu.cuStreamSynchronize(self._stream)
        self._resources.close()

    # Memory

    @contextmanager
    def device_memory(self, size: int) -> Iterator[int]:
        memory = _ok(self.cu.cuMemAlloc(size))
        try:
            yield int(memory)
        finally:
            self.cu.cuMemFree(memory)

    @contextmanager
    def pinned_memory(self, size: int, flags: int = 0) -> Iterator[int]:
        memory = _ok(self.cu.cuMemHostAlloc(size, flags))
        try:
            yield int(memory)
        finally:
            self.cu.cuMemFreeHost(memory)

    def mapped_memory(self, size: int) -> Any:
        return self.pinned_memory(size, self.cu.CU_MEMHOSTALLOC_DEVICEMAP)

    def alignment(self, allocate: Callable[[int], Any]) -> int:
        """The greatest power of 2 that divides the addresses of some small blocks."""
        addresses = 0
        with ExitStack() as resources:
            for size in (1, 3, 100, 1000, 4096, 5000, 70_000):
                addresses |= resources.enter_context(allocate(size))
        return addresses & -addresses

    def pitch(self) -> int:
        """Return the bytes from one row of one byte to the next."""
        memory, pitch = _ok(self.cu.cuMemAllocPitch(1, 2, 4))
        self.cu.cuMemFree(memory)
        return int(pitch)

    def fresh(self, allocate: Callable[[int], Any]) -> str:
        """Return the contents of a block that was used, freed and allocated again, or that is new."""
        found = set()
        for _ in range(3):
            with allocate(MEBIBYTE) as memory:
                held = (ctypes.c_char * MEBIBYTE)()
                _ok(self.cu.cuMemcpy(ctypes.addressof(held), memory, MEBIBYTE))
                found.add(any(held.raw))
                _ok(self.cu.cuMemsetD8Async(memory, 0xA5, MEBIBYTE, self._stream))
                _ok(self.cu.cuStreamSynchronize(self._stream))
        return "undefined" if True in found else "zeros"

    # Captures

    def loading(self) -> str:
        lazy = self.cu.CUmoduleLoadingMode.CU_MODULE_LAZY_LOADING
        return "LAZY" if _ok(self.cu.cuModuleGetLoadingMode()) == lazy else "EAGER"

    def captured(self, attempt: Callable[[ExitStack], Callable[[], Any]]) -> str:
        """Return whether the driver allows a call that `attempt` prepares while this thread captures."""
        cu = self.cu
        with ExitStack() as resources:
            call = attempt(resources)
            _ok(cu.cuStreamBeginCapture(self._stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
            error = call()
            ended, graph = cu.cuStreamEndCapture(self._stream)
            if not ended:
                cu.cuGraphDestroy(graph)
        return "refused" if error or ended else "allowed"

    def allocate(self, resources: ExitStack) -> Callable[[], Any]:
        def call() -> Any:
            error, memory = self.cu.cuMemAlloc(MEBIBYTE)
            if not error:
                resources.callback(self.cu.cuMemFree, memory)
            return error

        return call

    def load(self, resources: ExitStack) -> Callable[[], Any]:
        def call() -> Any:
            error, module = self.cu.cuModuleLoadData(SCALE)
            if not error:
                resources.callback(self.cu.cuModuleUnload, module)
            return error

        return call

    def launch_first(self, resources: ExitStack) -> Callable[[], Any]:
        """A kernel that was looked up in a library, which does not load it, is launched."""
        kernel = self._kernel(resources)
        memory = resources.enter_context(self.device_memory(MEBIBYTE))
        return lambda: self._launch(kernel, memory, memory, MEBIBYTE)

    def _kernel(self, resources: ExitStack) -> Any:
        cu = self.cu
        library = _ok(cu.cuLibraryLoadData(SCALE, [], [], 0, [], [], 0))
        resources.callback(cu.cuLibraryUnload, library)
        return _ok(cu.cuLibraryGetKernel(library, b"scale"))

    def _launch(self, kernel: Any, to: int, source: int, size: int) -> Any:
        values, types = (to, source, 1.0), (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float)
        grid = size // 4 // 256
        function = self.cu.CUfunction(int(kernel))  # the driver takes a CUkernel for one
        return self.cu.cuLaunchKernel(function, grid, 1, 1, 256, 1, 1, 0, self._stream, (values, types), 0)[0]

    # Speed

    def rate(self, prepare: Callable[[ExitStack], Callable[[int], None]]) -> tuple[float, float]:
        """Return the bytes per second of work on so many bytes, and its constant seconds."""
        with ExitStack() as resources:
            queue = prepare(resources)
            queue(BYTES)  # loads what is loaded lazily
            half, whole = (min(self._seconds(queue, size) for _ in range(RUNS)) for size in (BYTES // 2, BYTES))
        spent = max(whole - half, 1e-9)
        return BYTES / 2 / spent, max(half - spent, 0.0)

    def _seconds(self, queue: Callable[[int], None], size: int) -> float:
        cu = self.cu
        before, after = (_ok(cu.cuEventCreate(0)) for _ in range(2))
        _ok(cu.cuEventRecord(before, self._stream))
        queue(size)
        _ok(cu.cuEventRecord(after, self._stream))
        _ok(cu.cuStreamSynchronize(self._stream))
        milliseconds: float = _ok(cu.cuEventElapsedTime(before, after))
        cu.cuEventDestroy(before)
        cu.cuEventDestroy(after)
        return milliseconds * 1e-3

    def copy(self, resources: ExitStack) -> Callable[[int], None]:
        to = resources.enter_context(self.device_memory(BYTES))
        source = resources.enter_context(self.pinned_memory(BYTES))
        return lambda size: _ok(self.cu.cuMemcpyHtoDAsync(to, source, size, self._stream))

    def copy_inside(self, resources: ExitStack) -> Callable[[int], None]:
        to, source = (resources.enter_context(self.device_memory(BYTES)) for _ in range(2))
        return lambda size: _ok(self.cu.cuMemcpyDtoDAsync(to, source, size, self._stream))

    def read_mapped(self, resources: ExitStack) -> Callable[[int], None]:
        kernel = self._kernel(resources)
        to = resources.enter_context(self.device_memory(BYTES))
        source = int(_ok(self.cu.cuMemHostGetDevicePointer(resources.enter_context(self.mapped_memory(BYTES)), 0)))
        return lambda size: _ok((self._launch(kernel, to, source, size),))
