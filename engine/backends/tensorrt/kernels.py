"""The kernels of the plugin library that the runtime launches itself: they prepare frames, compact maps and draw.

They are launched in the current CUDA context, and can be captured.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt.driver import DeviceArray
from panrt.engine.frame import Frame, PixelFormat, YuvStandard
from panrt.engine.pixel_formats import SHAPES, check_format, check_pixels, has_shape_of
from panrt.errors import FrameError, KernelError
from panrt.plugins import cuda_api
from panrt.plugins.cuda_api import Code, NarrowMapArgs, OverlayArgs, PreprocessArgs, Status

_ALIGNMENT = {"bgr8": 1, "rgb8": 1, "nv12": 2, "yuyv": 4}  # of a frame and of its pitch, in bytes
_BYTES = {"bgr8": 3, "rgb8": 3, "nv12": 1, "yuyv": 2}  # of a pixel in its row; of luma for nv12


class Layout(NamedTuple):
    """The memory layout of a frame."""

    format: PixelFormat
    standard: YuvStandard
    hw: tuple[int, int]
    bytes: int

    def preprocess(
        self, content_hw: tuple[int, int], images_shape: tuple[int, ...], free: NDArray[np.uint8]
    ) -> PreprocessArgs:
        """Return arguments that turn consecutive frames into network inputs (N, h, w, 3); addresses are left open.

        Args:
            content_hw: the frame's size in the input, from the upper left.
            images_shape: of the inputs.
            free: (3,) BGR of the rest of an input.
        """
        height, width = self.hw
        return PreprocessArgs(
            pitch=width * _BYTES[self.format],
            frame_bytes=self.bytes,
            images=images_shape[0],
            format=cuda_api.PixelFormat[self.format.upper()],
            standard=cuda_api.YuvStandard[self.standard.upper()],
            height=height,
            width=width,
            resized_height=content_hw[0],
            resized_width=content_hw[1],
            output_height=images_shape[1],
            output_width=images_shape[2],
            border=tuple(free.tolist()),
        )


def layout_of(frame: Frame) -> Layout:
    """Return the layout of a frame.

    Raises:
        FrameError: its image does not have its pixel format.
    """
    check_pixels(frame)
    return Layout(frame.pixel_format, frame.yuv_standard, frame.hw, frame.image.size)


def layout_on_device(frame: Frame, array: DeviceArray) -> Layout:
    """Return the layout of a frame whose image is another library's array on the GPU.

    Raises:
        FrameError: the array does not have the frame's pixel format, or the kernel cannot read it in place.
    """
    check_format(frame)
    kind, alignment = frame.pixel_format, _ALIGNMENT[frame.pixel_format]
    if not has_shape_of(kind, array.shape):
        raise FrameError(f"frame on the GPU: got {array.shape} as {kind}, expected {SHAPES[kind]} uint8.")
    if array.address % alignment or array.pitch % alignment:
        raise FrameError(
            f"frame on the GPU: {kind} at {array.address:#x} with rows {array.pitch} bytes apart, expected "
            f"multiples of {alignment}; make a contiguous copy of it."
        )
    rows, width = array.shape[:2]
    return Layout(kind, frame.yuv_standard, (rows * 2 // 3 if kind == "nv12" else rows, width), rows * array.pitch)


class Kernels:
    """The functions of the plugin library."""

    def __init__(self, path: Path) -> None:
        """Load the library.

        Raises:
            KernelError: it cannot be loaded, or lacks a kernel.
        """
        try:
            library = ctypes.CDLL(str(path))
            self._preprocess = library.panrt_cuda_preprocess
            self._narrow_map = library.panrt_cuda_narrow_map
            self._overlay = library.panrt_cuda_overlay
            self._prepare = library.panrt_cuda_prepare
        except (OSError, AttributeError) as error:
            raise KernelError(
                f"{path}: not PanRT's plugin library of this version ({error}); build it again."
            ) from error
        self._prepare.restype, self._prepare.argtypes = Status, []
        for function in (self._preprocess, self._narrow_map, self._overlay):
            function.restype = Status
            function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]

    def prepare(self) -> None:
        """Load every kernel of the library into the current context, since a capture may not, and check its arithmetic.

        Raises:
            KernelError: a kernel cannot be loaded, or was compiled with fast math.
        """
        self._check("library", self._prepare())

    def preprocess(self, args: PreprocessArgs, stream: int) -> None:
        """Queue the conversion of frames to network inputs."""
        self._check("preprocess", self._preprocess(ctypes.byref(args), ctypes.sizeof(args), stream))

    def narrow_map(self, args: NarrowMapArgs, stream: int) -> None:
        """Queue the conversion of a panoptic map to a compact type."""
        self._check("narrow_map", self._narrow_map(ctypes.byref(args), ctypes.sizeof(args), stream))

    def overlay(self, args: OverlayArgs, stream: int) -> None:
        """Queue the drawing of panoptic maps over frames."""
        self._check("overlay", self._overlay(ctypes.byref(args), ctypes.sizeof(args), stream))

    def _check(self, kernel: str, status: Status) -> None:
        if status.code != Code.OK:
            raise KernelError(f"kernel {kernel}: {(status.message or b'').decode()} (CUDA error {status.cuda_error}).")
