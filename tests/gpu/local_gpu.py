"""The kernels of this process's device behind the functions of support/cuda_ops.py, for phases that look at one call
many times. `RealGpu` of kernel_plugin.py is the other way: a process of its own, one call at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.device import Stream
from gpu.kernel_worker import Buffers
from gpu.machine import Machine, load_kernels
from panrt.plugins.cuda_api import Status
from support import hostcuda
from support.hostcuda import LaunchError, Struct

Arrays = list[NDArray[Any]]


def ops(machine: Machine) -> ModuleType:
    """Return support.cuda_ops, asking the library under test for the sizes of workspaces."""
    hostcuda.kernels = lambda flavour: Path(machine.kernels)
    from support import cuda_ops  # noqa: PLC0415  # takes the name above when it is first imported

    return cuda_ops


class Call:
    """A call of the C interface whose buffers are on the device."""

    def __init__(self, library: ctypes.CDLL, function: str, struct: Struct) -> None:
        self.buffers = Buffers(library)
        self._struct = self.buffers.fill(struct)
        self._function = getattr(library, function)
        self._function.restype = Status
        self.scratch = struct.fields.get("workspace")

    def queue(self, stream: Stream) -> None:
        """Put its kernels on a stream.

        Raises:
            LaunchError: they were refused.
        """
        size = ctypes.c_size_t(ctypes.sizeof(self._struct))
        status: Status = self._function(ctypes.byref(self._struct), size, ctypes.c_void_p(stream.address))
        if status.code != 0:
            raise LaunchError(status.code, status.message.decode(), "")

    def results(self) -> list[bytes]:
        """Return what the outputs hold, without the workspace."""
        outputs = zip(self.buffers.outputs, self.buffers.download(), strict=True)
        return [array.tobytes() for (_, out), array in outputs if out is not self.scratch]


class LocalGpu:
    """Runs calls once each; `watch` sees every one before its results are fetched."""

    def __init__(self, machine: Machine, stream: Stream, watch: Callable[[str, Call], None] | None = None) -> None:
        self.stream = stream
        self._library = load_kernels(machine)
        self._watch = watch

    def launch(self, function: str, struct: Struct, order: object = None) -> Arrays:
        """As `SimulatedGpu.launch`; the GPU orders its threads itself."""
        del order
        with self.opened(function, struct) as call:
            call.queue(self.stream)
            self.stream.synchronize()
            if self._watch is not None:
                self._watch(function, call)
            return call.buffers.download()

    @contextmanager
    def opened(self, function: str, struct: Struct) -> Iterator[Call]:
        """Place a call's buffers, and free them."""
        call = Call(self._library, function, struct)
        try:
            yield call
        finally:
            call.buffers.close()


def differing_bytes(one: list[bytes], other: list[bytes]) -> int:
    """Count them."""
    return sum(
        int(np.count_nonzero(np.frombuffer(a, np.uint8) != np.frombuffer(b, np.uint8)))
        for a, b in zip(one, other, strict=True)
    )
