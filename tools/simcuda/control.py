"""Control of the simulated driver from inside its process: failures, schedules, the log of calls, live objects."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from tools.simcuda import facts

_library = ctypes.CDLL(os.environ["PANRT_SIMCUDA"])
_library.simcuda_busy_seconds.restype = ctypes.c_double
for _name in ("simcuda_take_log", "simcuda_alive", "simcuda_findings", "simcuda_contexts"):
    getattr(_library, _name).restype = ctypes.c_size_t
    getattr(_library, _name).argtypes = [ctypes.c_char_p, ctypes.c_size_t]
_library.simcuda_fact.restype = ctypes.c_size_t
_library.simcuda_mapped_accesses.restype = ctypes.c_uint64

OUT_OF_MEMORY = 2
ILLEGAL_ADDRESS = 700
LAUNCH_FAILED = 719
UNKNOWN = 999

Schedule = Literal["lazy", "eager", "random"]
SCHEDULES: tuple[Schedule, ...] = ("lazy", "eager", "random")

ALLOCATIONS = {
    "cuMemAlloc",
    "cuMemAllocAsync",
    "cuMemHostAlloc",
    "cuMemHostRegister",
    "cuStreamCreate",
    "cuEventCreate",
}
# Calls that wait for the device, or that CUDA lets wait for it.
SYNCHRONISATIONS = ALLOCATIONS | {
    "cuCtxSynchronize", "cuStreamSynchronize", "cuEventSynchronize", "cuMemFree", "cuMemFreeHost", "cuMemcpyHtoD",
    "cuMemcpyDtoH", "cuMemcpyDtoD", "cuMemcpy", "cuMemsetD8", "cuModuleLoadData", "cuLibraryLoadData",
}  # fmt: skip


class Range(ctypes.Structure):
    """Memory that work touches."""

    _fields_ = (("address", ctypes.c_uint64), ("bytes", ctypes.c_uint64))


KERNEL: Callable[[Callable[[Any], int]], Callable[..., int]] = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


def _lines(function: Callable[[ctypes.Array[ctypes.c_char], int], int]) -> list[str]:
    size = 1 << 16
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = function(buffer, size)
        if length < size:
            return buffer.value.decode().splitlines()
        size = length + 1


def reset() -> None:
    """All but live resources as at first."""
    _library.simcuda_reset()


def schedule(kind: Schedule, seed: int = 0) -> None:
    """Choose when queued work runs."""
    _library.simcuda_schedule(SCHEDULES.index(kind), ctypes.c_uint(seed))


def fail(entry_point: str, error: int = UNKNOWN, *, nth: int = 1, sticks: bool = False) -> None:
    """Let the nth call from now of an entry point ("*": any) return an error; where it sticks, so do all after it."""
    _library.simcuda_fail(entry_point.encode(), nth, error, int(sticks))


def failed() -> bool:
    """Return whether that has happened."""
    return bool(_library.simcuda_failed())


def kill(error: int = LAUNCH_FAILED) -> None:
    """Lose the device."""
    _library.simcuda_kill(error)


def use_facts(name: str) -> None:
    """Be the device of `facts/NAME.json`; a path is taken for one."""
    _library.simcuda_use_facts(str(facts.path(name)).encode())


def set_fact(name: str, value: object) -> None:
    """Change one thing that the device does: set_fact("alignment.device", 512)."""
    _library.simcuda_set_fact(name.encode(), str(value).encode())


def fact(name: str) -> str:
    """Return a fact of the device, from its file."""
    (value,) = _lines(lambda buffer, size: int(_library.simcuda_fact(name.encode(), buffer, size)))
    return value


def set_memory(size: int) -> None:
    """Set the bytes of device memory."""
    set_fact("memory_bytes", size)


def set_attribute(attribute: Any, value: int) -> None:
    """Change what the device says of itself."""
    set_fact(f"attributes.{attribute.name.removeprefix('CU_DEVICE_ATTRIBUTE_')}", value)


def set_name(name: str) -> None:
    """Change the device's name."""
    set_fact("name", name)


def seed(number: int) -> None:
    """Choose what fresh memory holds, where the facts leave it open."""
    _library.simcuda_seed(ctypes.c_uint64(number))


def watch_mapped() -> None:
    """Count, by the page, what kernels touch of mapped memory."""
    _library.simcuda_watch_mapped()


def mapped_accesses() -> int:
    """Return the bytes of host memory that the device has accessed since the last reset."""
    return int(_library.simcuda_mapped_accesses())


def guard() -> None:
    """Let a host that follows a device pointer crash."""
    _library.simcuda_guard(1)


def take_log() -> list[str]:
    """The calls since the log was last taken."""
    return _lines(_library.simcuda_take_log)


def count_calls() -> Counter[str]:
    """The same, counted."""
    return Counter(take_log())


def alive() -> dict[str, int]:
    """Return the number of live resources of each kind."""
    pairs = (line.rsplit(" ", 1) for line in _lines(_library.simcuda_alive))
    return {kind: int(count) for kind, count in pairs}


def findings() -> list[str]:
    """Return the misuses that were found."""
    return _lines(_library.simcuda_findings)


def contexts() -> list[int]:
    """The calling thread's stack of contexts, the current one first."""
    return [int(line, 16) for line in _lines(_library.simcuda_contexts)]


def busy_seconds() -> float:
    """Return how long the device has worked."""
    return float(_library.simcuda_busy_seconds())


def address_of(function: str) -> int:
    """Return the address of an entry point of simcuda.h, for libraries that call it."""
    return ctypes.cast(getattr(_library, function), ctypes.c_void_p).value or 0


def launch(
    stream: int, name: str, kernel: Callable[..., int], argument: int, touched: Sequence[tuple[int, int]]
) -> int:
    """Queue a kernel that touches (address, bytes); `kernel` must be a KERNEL that outlives its work."""
    ranges = (Range * len(touched))(*(Range(*area) for area in touched))
    return int(
        _library.simcuda_launch(
            ctypes.c_void_p(stream),
            name.encode(),
            kernel,
            ctypes.c_void_p(argument),
            ranges,
            ctypes.c_size_t(len(ranges)),
        )
    )
