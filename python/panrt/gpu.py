"""The GPU of this machine, asked of its driver; needs no package."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from panrt.errors import PanrtError

DRIVER = "libcuda.so.1"


class GpuError(PanrtError, RuntimeError):
    """The driver is there, but refuses a call."""


class Gpu(NamedTuple):
    """A GPU as its driver names it."""

    name: str
    compute_capability: str  # e.g. "8.7"
    driver: str  # the newest CUDA that the driver knows, e.g. "13.0"
    free_bytes: int  # of its memory, at the time of asking


def find(*, library: str = DRIVER) -> Gpu | None:
    """The first GPU that this process may use; None where there is no driver or no GPU.

    Raises:
        GpuError: the driver does not do what it should.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    count, version, device, major, minor = (ctypes.c_int() for _ in range(5))
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    _call(driver, "cuDeviceGet", ctypes.byref(device), 0)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    for attribute, value in ((75, major), (76, minor)):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return Gpu(
        name.value.decode(),
        f"{major.value}.{minor.value}",
        f"{version.value // 1000}.{version.value % 1000 // 10}",
        _free_bytes(driver, device),
    )


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


def _free_bytes(driver: Any, device: ctypes.c_int) -> int:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _context(driver, device):
        _call(driver, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


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
    status = driver[name](*arguments)
    if status:
        raise GpuError(f"{name}: CUDA error {status}; nvidia-smi (on Jetson tegrastats) tells more about the GPU.")
