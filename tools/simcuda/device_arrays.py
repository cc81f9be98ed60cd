"""Arrays on the simulated GPU in the interfaces of other libraries."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from numpy.typing import NDArray

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]
CUDA = 2  # DLPack's number


class OnDevice:
    """Device memory that is filled by work of a stream of its own, whose order the consumer must keep."""

    def __init__(self, image: NDArray[np.uint8], *, pitch: int = 0) -> None:
        height, row = len(image), image[0].size
        self.shape = image.shape
        self.dtype = image.dtype
        self.pitch = pitch or row
        self.stream = cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING)[1]
        self.memory = int(cu.cuMemAlloc(height * self.pitch)[1])
        self._pinned = int(cu.cuMemHostAlloc(height * self.pitch, 0)[1])
        rows = np.ctypeslib.as_array((ctypes.c_uint8 * (height * self.pitch)).from_address(self._pinned))
        rows.reshape(height, self.pitch)[:, :row] = image.reshape(height, -1)
        error = cu.cuMemcpyHtoDAsync(self.memory, self._pinned, height * self.pitch, self.stream)[0]
        assert error == cu.CUresult.CUDA_SUCCESS

    def close(self) -> None:
        cu.cuStreamSynchronize(self.stream)
        cu.cuStreamDestroy(self.stream)
        cu.cuMemFree(self.memory)
        cu.cuMemFreeHost(self._pinned)


class CudaArray(OnDevice):
    """An array with the interface of CuPy and Numba; PyCUDA's names no stream."""

    names_stream = True

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": np.dtype(self.dtype).str,
            "data": (self.memory, False),
            "strides": (self.pitch, *self.shape[2:], 1),
            "stream": int(self.stream) if self.names_stream else None,
            "version": 3,
        }


class DlpackArray(OnDevice):
    """An array with the interface of PyTorch and JAX."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, 0

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        if stream is not None and stream != -1:  # what the consumer queues there comes after what is queued here
            event = cu.cuEventCreate(cu.CUevent_flags.CU_EVENT_DISABLE_TIMING)[1]
            cu.cuEventRecord(event, self.stream)
            cu.cuStreamWaitEvent(stream, event, 0)
            cu.cuEventDestroy(event)
        rows = np.empty((self.shape[0], self.pitch), self.dtype)[:, : math.prod(self.shape[1:])]
        array = np.lib.stride_tricks.as_strided(rows, self.shape, (self.pitch, *self.shape[2:], 1))
        capsule = array.__dlpack__()  # valid except for the place of its memory
        tensor = _pointer_of(capsule, b"dltensor")
        ctypes.c_uint64.from_address(tensor).value = self.memory
        ctypes.c_int32.from_address(tensor + 8).value = CUDA
        return capsule
