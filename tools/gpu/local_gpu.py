"""Calls of the kernels on this process's device, for phases that run one many times: buffers are placed once.

`RealGpu` of kernel_plugin.py is the other way: a process of its own, and new buffers for each call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.plugins.cuda_api import Status
from tools import hostcuda
from tools.gpu.device import Stream
from tools.gpu.kernel_worker import Buffers
from tools.gpu.machine import Machine, load_kernels
from tools.hostcuda import LaunchError, Out, Struct
from tools.kernel_workloads import Call as Work


class Launch(NamedTuple):
    """A call of the C interface: the function and its arguments, with arrays for pointers."""

    function: str
    struct: Struct


def launch_of(machine: Machine, work: Work) -> Launch:
    """Return what a function of tools/cuda_ops.py would launch on the library under test."""
    hostcuda.kernels = lambda flavour: Path(machine.kernels)
    from tools import cuda_ops  # noqa: PLC0415  # takes the name above when it is first imported

    recorder = _Recorder()
    getattr(cuda_ops, work.function)(*work.inputs, **work.options, gpu=recorder)
    (launch,) = recorder.launches
    return launch


class _Recorder:
    """Stands for a `SimulatedGpu`: keeps what it is to launch, and gives outputs of the right shapes."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []

    def launch(self, function: str, struct: Struct, order: object) -> list[NDArray[Any]]:
        del order  # a GPU orders its threads itself
        self.launches.append(Launch(function, struct))
        fields = (struct.fields.get(name) for name, *_ in struct.kind._fields_)
        return [np.empty(out.shape, out.dtype) for out in fields if isinstance(out, Out)]


class Call:
    """A launch whose buffers are on the device."""

    def __init__(self, library: ctypes.CDLL, launch: Launch, *, bare: bool) -> None:
        self.function = launch.function
        self._buffers = Buffers(library, bare=bare)
        self._struct = self._buffers.fill(launch.struct)
        self._library = library
        self._scratch = launch.struct.fields.get("workspace")

    def queue(self, stream: Stream) -> None:
        """Put its kernels on a stream.

        Raises:
            LaunchError: they were rejected.
        """
        function = getattr(self._library, self.function)
        function.restype = Status
        size = ctypes.c_size_t(ctypes.sizeof(self._struct))
        status: Status = function(ctypes.byref(self._struct), size, ctypes.c_void_p(stream.address))
        if status.code != 0:
            raise LaunchError(status.code, status.message.decode(), "")

    def rewind(self) -> None:
        """Fill the outputs with poison."""
        self._buffers.rewind()

    def results(self) -> list[NDArray[Any]]:
        """Return the outputs without the workspace; their canaries must be whole."""
        outputs = zip(self._buffers.outputs, self._buffers.download(), strict=True)
        return [array for (_, out), array in outputs if out is not self._scratch]

    def check_inputs(self) -> None:
        """Check that inputs are unchanged."""
        self._buffers.check_inputs()

    def close(self) -> None:
        """Free everything; its work must be done."""
        self._buffers.close()


@contextmanager
def opened(machine: Machine, launch: Launch, *, bare: bool = False) -> Iterator[Call]:
    """Place a call's buffers, `bare` as in `Buffers`, and free them."""
    call = Call(load_kernels(machine), launch, bare=bare)
    try:
        yield call
    finally:
        call.close()


def same_bytes(one: list[NDArray[Any]], other: list[NDArray[Any]]) -> bool:
    """Compare outputs, NaN or not."""
    return [array.tobytes() for array in one] == [array.tobytes() for array in other]
