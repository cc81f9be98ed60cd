"""The process behind `SimulatedGpu`: loads a library of simulated kernels and answers calls on stdin and stdout."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.plugins.cuda_api import Status
from tools.hostcuda import MAX_BUFFERS, MAX_LAUNCHES, At, Out, Reply, Request, Struct, TotalCounts, Trace, Traffic


class Device:
    """Buffers of one call."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.buffers: list[int] = []
        self.outputs: list[tuple[int, Out]] = []

    def upload(self, array: NDArray[Any], offset: int = 0) -> int:
        """A device buffer of just this size."""
        array = np.ascontiguousarray(array)
        pointer = self._allocate(array.nbytes, offset)
        ctypes.memmove(pointer, array.ctypes.data, array.nbytes)
        return pointer

    def reserve(self, out: Out) -> int:
        """A device buffer that is read back after the call."""
        if out.copy is not None:
            pointer = self.upload(out.copy, out.offset)
        else:
            pointer = self._allocate(int(np.prod(out.shape)) * np.dtype(out.dtype).itemsize, out.offset)
        self.outputs.append((pointer, out))
        return pointer

    def download(self) -> list[NDArray[Any]]:
        """Return the contents of the outputs."""
        results = []
        for pointer, out in self.outputs:
            array = np.empty(out.shape, out.dtype)
            ctypes.memmove(array.ctypes.data, pointer, array.nbytes)
            results.append(array)
        return results

    def close(self) -> None:
        """Free all."""
        for pointer in self.buffers:
            self.library.hc_free(pointer)

    def value(self, value: Any) -> Any:
        """A field of a struct, or an argument."""
        match value:
            case np.ndarray():
                return self.upload(value)
            case At():
                return self.upload(*value)
            case Out():
                return self.reserve(value)
            case Struct():
                return self.fill(value)
            case _:
                return value

    def fill(self, struct: Struct) -> ctypes.Structure:
        """The struct with device pointers in it."""
        filled = struct.kind()
        for name, *_ in struct.kind._fields_:  # buffers are numbered in the order of the fields
            if name not in struct.fields:
                continue
            given = struct.fields[name]
            if isinstance(given, (list, tuple)) and not isinstance(given, (At, Out)):
                for i, item in enumerate(given):
                    getattr(filled, name)[i] = self.value(item)
            elif isinstance(given, str):  # the buffer of another field
                setattr(filled, name, getattr(filled, given))
            else:
                setattr(filled, name, self.value(given))
        return filled

    def _allocate(self, size: int, offset: int) -> int:
        pointer: int = self.library.hc_malloc(offset + size)
        self.buffers.append(pointer)
        return pointer + offset


def argument(value: Any) -> Any:
    """A plain argument with its C type."""
    match value:
        case int():
            return ctypes.c_int(value)
        case float():
            return ctypes.c_float(value)
    raise TypeError(f"expected an int or float, got {value!r}")


def traffic_of(counts: Any) -> dict[int, Traffic]:
    """Return the traffic of each buffer that was accessed."""
    rows = [Traffic(*(getattr(counts[i], name) for name, *_ in counts[i]._fields_)) for i in range(MAX_BUFFERS)]
    return {i: row for i, row in enumerate(rows) if row.requests}


def kernel_names(library: ctypes.CDLL) -> dict[int, str]:
    """Return the kernels' names by address, from the library's symbol table, as kernels are not exported."""
    listed = subprocess.run(["nm", "-C", "--defined-only", library._name], capture_output=True, text=True, check=True)
    rows = (line.split(" ", 2) for line in listed.stdout.splitlines())
    return {int(address, 16): name for address, kind, name in rows if kind in "tTW"}


def trace_of(address: int, names: dict[int, str]) -> Trace:
    """Counts as the library has them."""
    counts = TotalCounts.from_address(address)
    scalars = ("shared_requests", "shared_passes", "shared_ideal_passes", "atomics")
    numbers: dict[str, Any] = {name: getattr(counts, name) for name in scalars}
    return Trace(traffic_of(counts.reads), traffic_of(counts.writes), kernel=names.get(counts.kernel, ""), **numbers)


def answer(library: ctypes.CDLL, request: Request, names: dict[int, str]) -> Reply:
    """Do one call."""
    device = Device(library)
    assert library.hc_set_order(request.order[0].encode(), request.order[1]), request.order
    is_traced = hasattr(library, "hc_trace_reset")
    launches = library.hc_launches()
    library.hc_report()
    try:
        function = getattr(library, request.function)
        if request.as_struct:
            structs = [device.fill(struct) for struct in request.arguments]
            if is_traced:
                library.hc_trace_reset()
            function.restype = Status
            status = function(
                *(part for s in structs for part in (ctypes.byref(s), ctypes.c_size_t(ctypes.sizeof(s)), None))
            )
            code, message = status.code, status.message.decode()
        else:
            values = [device.value(value) for value in request.arguments]
            if is_traced:
                library.hc_trace_reset()
            pointers = [isinstance(value, (np.ndarray, Out)) for value in request.arguments]
            typed = [
                ctypes.c_void_p(value) if is_pointer else argument(value)
                for value, is_pointer in zip(values, pointers, strict=True)
            ]
            code, message = function(*typed), request.function
        trace = None
        if is_traced:
            numbers = range(min(library.hc_launches() - launches, MAX_LAUNCHES))
            each = tuple(trace_of(library.hc_trace_launch(ctypes.c_int(number)), names) for number in numbers)
            trace = replace(trace_of(library.hc_trace_totals(), names), launches=each)
        report = library.hc_report().decode()
        return Reply(device.download(), code, message, report, library.hc_launches() - launches, trace)
    finally:
        device.close()


def main() -> None:
    """Answer until stdin ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints goes to stderr
    library = ctypes.CDLL(sys.argv[1])
    library.hc_malloc.restype = ctypes.c_void_p
    library.hc_malloc.argtypes = (ctypes.c_size_t,)
    library.hc_free.argtypes = (ctypes.c_void_p,)
    library.hc_report.restype = ctypes.c_char_p
    library.hc_set_order.restype = ctypes.c_bool
    library.hc_launches.restype = ctypes.c_longlong
    names: dict[int, str] = {}
    if hasattr(library, "hc_trace_totals"):
        names = kernel_names(library)
        library.hc_trace_totals.restype = ctypes.c_void_p
        library.hc_trace_launch.restype = ctypes.c_void_p
    while True:
        try:
            request: Request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(answer(library, request, names), replies)
        replies.flush()


if __name__ == "__main__":
    main()
