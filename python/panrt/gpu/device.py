"""The GPUs of this machine, as their driver reports them; no package is needed."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from panrt.errors import GpuError

DRIVER = "libcuda.so.1"
JETSON_RELEASE = Path("/etc/nv_tegra_release")  # only Jetson Linux has it
JETPACK_6 = 36  # the number of its Jetson Linux
MEMORY = Path("/proc/meminfo")

# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR, _INTEGRATED, _CAN_MAP_HOST_MEMORY
_MAJOR, _MINOR, _INTEGRATED, _MAPS = 75, 76, 18, 19
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class Identity(NamedTuple):
    """The identity of a GPU, known without a context on it."""

    name: str
    compute_capability: str  # e.g. "8.7"
    is_integrated: bool  # it shares the host's memory, as on a Jetson
    maps_memory: bool  # of the host


class Gpu(NamedTuple):
    """A GPU as its driver names it."""

    name: str
    compute_capability: str  # e.g. "8.7"
    driver: str  # the newest CUDA version that the driver supports, e.g. "13.0"
    is_integrated: bool  # it shares the host's memory, as on a Jetson
    total_bytes: int  # of its memory
    free_bytes: int  # of that, when asked; of shared memory, what Linux gives without swapping


def find(*, library: str = DRIVER) -> Gpu | None:
    """Return the first GPU that this process may use; None without a driver or a GPU.

    Raises:
        GpuError: a call of the driver failed.
    """
    driver = _load(library)
    if driver is None or driver.cuInit(0) or not _count(driver):
        return None
    device = _device(driver, 0)
    identity = _identity(driver, device)
    free, total = _memory(driver, device)
    if identity.is_integrated and (available := _available_bytes()) is not None:
        free = min(available, total)  # the driver does not count what Linux uses as a cache of files
    return Gpu(
        identity.name,
        identity.compute_capability,
        "{}.{}".format(*_version(driver)),
        identity.is_integrated,
        total,
        free,
    )


def visible(*, library: str = DRIVER) -> tuple[Identity, ...]:
    """Return every GPU that this process may use, in CUDA's order; none without a driver.

    Raises:
        GpuError: a call of the driver failed, the first one perhaps: the driver does not start.
    """
    driver = _load(library)
    if driver is None or (status := driver.cuInit(0)) == _NO_DEVICE:
        return ()
    _check("cuInit", status)
    return tuple(_identity(driver, _device(driver, index)) for index in range(_count(driver)))


def jetson_linux() -> tuple[int, str] | None:
    """Return number and revision of a Jetson's system, (36, "4.3"); None elsewhere."""
    try:
        said = re.match(r"# R(\d{1,9}) \(release\), REVISION: ([\d.]+)", JETSON_RELEASE.read_text())
    except OSError:
        return None
    return (int(said[1]), said[2]) if said is not None else (0, "unknown")


def is_jetson() -> bool:
    """Return whether this machine runs Jetson Linux."""
    return jetson_linux() is not None


def cuda_extra() -> str:
    """Return the PanRT extra that contains the CUDA bindings for this machine."""
    system = jetson_linux()
    return "jetpack6" if system is not None and system[0] == JETPACK_6 else "cuda"


def bus_address(*, library: str = DRIVER) -> str | None:
    """Return the PCI address of the GPU of `find`, such as "0000:65:00.0"; None without one.

    Raises:
        GpuError: as `find`.
    """
    if find(library=library) is None:
        return None
    driver, address = ctypes.CDLL(library), ctypes.create_string_buffer(32)
    _call(driver, "cuDeviceGetPCIBusId", address, len(address), _device(driver, 0))
    return address.value.decode()


def driver_version(*, library: str = DRIVER) -> tuple[int, int] | None:
    """Return the newest CUDA version that the driver supports, such as (12, 6); None without a driver.

    Raises:
        GpuError: a call of the driver failed.
    """
    driver = _load(library)
    return None if driver is None else _version(driver)


def _load(library: str) -> Any:
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None


def _version(driver: Any) -> tuple[int, int]:
    version = ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def _count(driver: Any) -> int:
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    return count.value


def _device(driver: Any, index: int) -> ctypes.c_int:
    device = ctypes.c_int()
    _call(driver, "cuDeviceGet", ctypes.byref(device), index)
    return device


def _identity(driver: Any, device: ctypes.c_int) -> Identity:
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    major, minor, integrated, maps = (
        _attribute(driver, device, number) for number in (_MAJOR, _MINOR, _INTEGRATED, _MAPS)
    )
    return Identity(name.value.decode(), f"{major}.{minor}", bool(integrated), bool(maps))


def _attribute(driver: Any, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
    return value.value


def _memory(driver: Any, device: ctypes.c_int) -> tuple[int, int]:
    """Return free and total bytes, as the driver counts them."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _context(driver, device):
        _call(driver, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


def _available_bytes() -> int | None:
    """Return host memory available without swapping; None if Linux does not report it."""
    try:
        said = re.search(r"^MemAvailable: +(\d{1,15}) kB$", MEMORY.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(said[1]) * 1024 if said is not None else None


@contextmanager
def _context(driver: Any, device: ctypes.c_int) -> Iterator[None]:
    """Make the device's primary context current, which TensorRT uses as well."""
    context = ctypes.c_void_p()
    _call(driver, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        _call(driver, "cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            _call(driver, "cuCtxPopCurrent_v2", ctypes.byref(context))
    finally:
        _call(driver, "cuDevicePrimaryCtxRelease_v2", device)


def _call(driver: Any, name: str, *arguments: Any) -> None:
    try:
        function = driver[name]
    except AttributeError as error:
        raise GpuError(f"{driver._name}: has no {name}; it is not an NVIDIA driver, install that again.") from error
    _check(name, function(*arguments))


def _check(name: str, status: int) -> None:
    if status:
        raise GpuError(f"{name}: CUDA error {status}; nvidia-smi (on Jetson tegrastats) tells more about the GPU.")
