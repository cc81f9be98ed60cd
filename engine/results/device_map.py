"""The panoptic map of a result in GPU memory, for a program that continues in CUDA.

The map is not copied: it is memory of the session, which reuses it for a later frame. So it is valid until the
session's next `submit` or call; afterwards it raises DeviceMapError, and an array that another library made of it
before then shows later frames.

Reading. The map is complete when `collect` returns, so a CUDA stream need not wait before it reads.

Reuse. The session's next frame must be ordered after the reads of a CUDA stream: call the session's `wait_for(stream)`
before the next `submit`, or synchronise the stream.

Shapes: H x W pixels of the map.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from panrt.errors import DeviceMapError

_CUDA = 2  # DLPack's kDLCUDA


class Lease:
    """The period during which a session's memory holds one result."""

    def __init__(self) -> None:
        self.ended_by: str | None = None  # None: it has not ended

    def end(self, why: str) -> None:
        """End the period; later uses of the memory raise an error with this reason."""
        self.ended_by = self.ended_by or why


class DeviceMap:
    """A read-only array (H, W) int32 on a GPU: segment ID of each pixel, 0 is void.

    It has `__cuda_array_interface__` (CuPy, Numba, PyCUDA) and DLPack (CuPy, PyTorch, JAX).
    """

    def __init__(self, address: int, pitch: int, hw: tuple[int, int], *, device: int, lease: Lease) -> None:
        """Describe memory of a session.

        Args:
            address: on the device.
            pitch: bytes from one row to the next.
            hw: size of the map.
            device: CUDA device ordinal.
            lease: the period for which it holds this map.
        """
        self.shape = hw
        self.strides = (pitch, 4)  # bytes
        self.dtype = np.dtype(np.int32)
        self._address, self._device, self._lease = address, device, lease

    @property
    def address(self) -> int:
        """The address on the device.

        Raises:
            DeviceMapError: the session has reused the memory, or is closed; the methods below raise it too.
        """
        if self._lease.ended_by is not None:
            raise DeviceMapError(
                f"result.panoptic_device: this map is no longer valid: {self._lease.ended_by}; copy it before the next "
                "submit (in panrt.stream pass in_flight=1), or use result.panoptic."
            )
        return self._address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.dtype.str,
            "data": (self.address, False),  # PyTorch rejects arrays marked as read-only
            "stream": None,  # the map is complete
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self._device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a DLPack capsule. The map is complete, so the reader's stream need not wait.

        Raises:
            DeviceMapError: see `address`.
            BufferError: a copy is requested, or memory of another device.
        """
        del stream
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"result.panoptic_device: it is on CUDA device {self._device} and cannot be copied.")
        from cuda.core.utils import StridedMemoryView  # noqa: PLC0415  # slow to import and rarely needed

        view = StridedMemoryView.from_cuda_array_interface(self, stream_ptr=-1)
        return view.__dlpack__(stream=-1, max_version=max_version)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()  # a copied or pickled result has its map in host memory only
