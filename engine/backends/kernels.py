"""The kernels of the plugin library that the runtime launches itself: preparing frames, narrowing maps.

They are launched on the current CUDA context, and can be captured.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine.preprocess import FrameError
from panrt.errors import PanrtError
from panrt.plugins.cuda_api import Code, NarrowMapArgs, PixelFormat, PreprocessArgs, Status, YuvStandard

_FORMATS = {"bgr8": PixelFormat.BGR8, "rgb8": PixelFormat.RGB8, "nv12": PixelFormat.NV12, "yuyv": PixelFormat.YUYV}
_STANDARDS = {"bt601": YuvStandard.BT601, "bt709": YuvStandard.BT709}


class KernelError(PanrtError, RuntimeError):
    """A kernel could not be launched."""


class RawImage(NamedTuple):
    """A picture as a camera gives it, in place of a frame's BGR image: the GPU converts it."""

    data: NDArray[np.uint8]  # rgb8: (H, W, 3); yuyv: (H, W, 2); nv12: (H * 3 / 2, W), chroma below luma
    format: Literal["rgb8", "nv12", "yuyv"]
    standard: Literal["bt601", "bt709"] = "bt601"  # of yuyv and nv12


class Layout(NamedTuple):
    """How the bytes of a frame lie."""

    format: str
    standard: str
    hw: tuple[int, int]
    bytes: int

    def preprocess(
        self, content_hw: tuple[int, int], images_shape: tuple[int, ...], free: NDArray[np.uint8]
    ) -> PreprocessArgs:
        """How frames, one after another, come to network inputs (N, h, w, 3); addresses are left open.

        Args:
            content_hw: the frame's size in the input, from the upper left.
            images_shape: of the inputs.
            free: (3,) BGR of what is left of an input.
        """
        height, width = self.hw
        pitch = width * {"bgr8": 3, "rgb8": 3, "yuyv": 2, "nv12": 1}[self.format]
        return PreprocessArgs(
            pitch=pitch,
            frame_bytes=self.bytes,
            images=images_shape[0],
            format=_FORMATS[self.format],
            standard=_STANDARDS[self.standard],
            height=height,
            width=width,
            resized_height=content_hw[0],
            resized_width=content_hw[1],
            output_height=images_shape[1],
            output_width=images_shape[2],
            border=tuple(free.tolist()),
        )


def layout_of(image: NDArray[np.uint8] | RawImage) -> Layout:
    """The layout of a picture.

    Raises:
        FrameError: it is none of those that there are.
    """
    raw = image if isinstance(image, RawImage) else RawImage(image, "bgr8", "bt601")  # type: ignore[arg-type]
    shape = raw.data.shape
    channels = {"bgr8": (3,), "rgb8": (3,), "yuyv": (2,), "nv12": ()}.get(raw.format)
    if channels is None or raw.standard not in _STANDARDS:
        raise FrameError(
            f"frame: got format {raw.format!r}, standard {raw.standard!r}; see RawImage for what there is."
        )
    lines, odd = (shape[0] * 2 // 3, shape[0] % 3 or shape[1] % 2) if raw.format == "nv12" else (shape[0], 0)
    odd = odd or (raw.format == "yuyv" and shape[1] % 2)
    if raw.data.dtype != np.uint8 or shape[2:] != channels or 0 in shape or odd or (raw.format == "nv12" and lines % 2):
        raise FrameError(f"frame: got {shape} {raw.data.dtype} as {raw.format}; see RawImage for the shapes.")
    return Layout(raw.format, raw.standard, (lines, shape[1]), raw.data.size)


class Kernels:
    """The library's functions."""

    def __init__(self, path: Path) -> None:
        """Load it.

        Raises:
            KernelError: it cannot be loaded, or lacks a kernel.
        """
        try:
            library = ctypes.CDLL(str(path))
            self._preprocess = library.panrt_cuda_preprocess
            self._narrow_map = library.panrt_cuda_narrow_map
        except (OSError, AttributeError) as error:
            raise KernelError(
                f"{path}: not PanRT's plugin library of this version ({error}); build it again."
            ) from error
        for function in (self._preprocess, self._narrow_map):
            function.restype = Status
            function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]

    def preprocess(self, args: PreprocessArgs, stream: int) -> None:
        """Queue the conversion of frames to network inputs."""
        self._check("preprocess", self._preprocess(ctypes.byref(args), ctypes.sizeof(args), stream))

    def narrow_map(self, args: NarrowMapArgs, stream: int) -> None:
        """Queue the conversion of a panoptic map to a narrower type."""
        self._check("narrow_map", self._narrow_map(ctypes.byref(args), ctypes.sizeof(args), stream))

    def _check(self, kernel: str, status: Status) -> None:
        if status.code != Code.OK:
            raise KernelError(f"kernel {kernel}: {(status.message or b'').decode()} (CUDA error {status.cuda_error}).")
