"""The GPU of this machine, asked of its driver; needs no package."""

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

_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR and _INTEGRATED


class Gpu(NamedTuple):
    """A GPU as its driver names it."""

    name: str
    compute_capability: str  # e.g. "8.7"
    driver: str  # the newest CUDA that the driver knows, e.g. "13.0"
    is_integrated: bool  # it shares the host's memory, as on a Jetson
    total_bytes: int  # of its memory
    free_bytes: int  # of that, at the time of asking; of shared memory, what Linux gives without swapping


def find(*, library: str = DRIVER) -> Gpu | None:
    """The first GPU that this process may use; None where there is no driver or no GPU.

    Raises:
        GpuError: the driver does not do what it should.
    """
    driver = _load(library)
    if driver is None:
        return None
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", ctypes.byref(device), 0)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    major, minor, integrated = (_attribute(driver, device, number) for number in (_MAJOR, _MINOR, _INTEGRATED))
    free, total = _memory(driver, device)
    if integrated and (available := _available_bytes()) is not None:
        free = min(available, total)  # the driver does not count what Linux uses as a cache of files
    return Gpu(
        name.value.decode(),
        f"{major}.{minor}",
        "{}.{}".format(*_version(driver)),
        bool(integrated),
        total,
        free,
    )


def jetson_linux() -> tuple[int, str] | None:
    """Number and revision of a Jetson's system, (36, "4.3"); None elsewhere."""
    try:
        said = re.match(r"# R(\d{1,9}) \(release\), REVISION: ([\d.]+)", JETSON_RELEASE.read_text())
    except OSError:
        return None
    return (int(said[1]), said[2]) if said is not None else (0, "unknown")


def is_jetson() -> bool:
    """Whether this machine runs Jetson Linux."""
    return jetson_linux() is not None


def cuda_extra() -> str:
    """The extra of PanRT that has what it talks to this machine's GPU with."""
    system = jetson_linux()
    return "jetpack6" if system is not None and system[0] == JETPACK_6 else "cuda"


def bus_address(*, library: str = DRIVER) -> str | None:
    """Where the GPU of `find` sits on the PCI bus, such as "0000:65:00.0"; None where there is none.

    Raises:
        GpuError: as `find`.
    """
    if find(library=library) is None:
        return None
    driver, device, address = ctypes.CDLL(library), ctypes.c_int(), ctypes.create_string_buffer(32)
    _call(driver, "cuDeviceGet", ctypes.byref(device), 0)
    _call(driver, "cuDeviceGetPCIBusId", address, len(address), device)
    return address.value.decode()


def driver_version(*, library: str = DRIVER) -> tuple[int, int] | None:
    """The newest CUDA that the driver knows, such as (12, 6); None where there is no driver.

    Raises:
        GpuError: the driver does not do what it should.
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


def _attribute(driver: Any, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
    return value.value


def _memory(driver: Any, device: ctypes.c_int) -> tuple[int, int]:
    """Free and total bytes, as the driver counts them."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _context(driver, device):
        _call(driver, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


def _available_bytes() -> int | None:
    """Host memory that a program can have without swapping; None where Linux does not tell."""
    try:
        said = re.search(r"^MemAvailable: +(\d{1,15}) kB$", MEMORY.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(said[1]) * 1024 if said is not None else None


@contextmanager
def _context(driver: Any, device: ctypes.c_int) -> Iterator[None]:
    """The device's own context, which TensorRT uses as well."""
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
        raise GpuError(f"{driver._name}: has no {name}; it is no driver of NVIDIA's, install that again.") from error
    status = function(*arguments)
    if status:
        raise GpuError(f"{name}: CUDA error {status}; nvidia-smi (on Jetson tegrastats) tells more about the GPU.")
