"""The panoptic map of a result where a GPU computed it, for a program that goes on in CUDA.

Nothing is copied: the map is in a session's own memory, which the session uses again for a later frame. So it is valid
until the session's next `submit` or call; afterwards it gives a DeviceMapError, and what another library has made of
it before then shows whatever the session writes there.

Reading. The map is complete when `collect` returns, so a stream need not wait before it reads.

Writing it again. The session's next frame must come after what a stream still has to read: call the session's
`wait_for(stream)` before the next `submit`, or synchronise the stream.

Shapes: H x W pixels of the map.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from panrt.errors import DeviceMapError

_CUDA = 2  # DLPack's kDLCUDA


class Lease:
    """The time for which the memory of a session holds one result."""

    def __init__(self) -> None:
        self.ended_by: str | None = None  # None: it still does

    def end(self, why: str) -> None:
        """Whoever uses the memory from now on is told why that is too late."""
        self.ended_by = self.ended_by or why


class DeviceMap:
    """An array (H, W) int32 on a GPU: segment id of each pixel, 0 is void. To be read, not to be written to.

    It has `__cuda_array_interface__` (CuPy, Numba, PyCUDA) and DLPack (CuPy, PyTorch, JAX).
    """

    def __init__(self, address: int, pitch: int, hw: tuple[int, int], *, device: int, lease: Lease) -> None:
        """Show memory of a session.

        Args:
            address: on the device.
            pitch: bytes from a row to the next.
            hw: size of the map.
            device: its number, as CUDA counts.
            lease: until when it holds this map.
        """
        self.shape = hw
        self.strides = (pitch, 4)  # bytes
        self.dtype = np.dtype(np.int32)
        self._address, self._device, self._lease = address, device, lease

    @property
    def address(self) -> int:
        """Where it begins, on the device.

        Raises:
            DeviceMapError: the session has used the memory again, or is closed; so for all that follows.
        """
        if self._lease.ended_by is not None:
            raise DeviceMapError(
                f"result.panoptic_device: this map is gone: {self._lease.ended_by}; copy it before the next submit "
                "(in panrt.stream give in_flight=1), or use result.panoptic."
            )
        return self._address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.dtype.str,
            "data": (self.address, False),  # PyTorch takes no array that calls itself read-only
            "stream": None,  # nothing is left to wait for
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
        """A capsule, as DLPack has it. Nothing is left to wait for, whatever stream its reader names.

        Raises:
            DeviceMapError: see `address`.
            BufferError: a copy is asked for, or memory of another device.
        """
        del stream
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"result.panoptic_device: it is on CUDA device {self._device}, and is not copied.")
        from cuda.core.utils import StridedMemoryView  # noqa: PLC0415  # slow to import, and few need it

        view = StridedMemoryView.from_cuda_array_interface(self, stream_ptr=-1)
        return view.__dlpack__(stream=-1, max_version=max_version)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()  # a result that is copied or goes to another process has its map in host memory alone
