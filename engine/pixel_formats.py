"""Pixel formats of frames, and their conversion to BGR on the host; the GPU's kernel gives the same result.

Shapes: H x W pixels of a frame.
"""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from panrt.engine.frame import Frame, PixelFormat, YuvStandard
from panrt.engine.preprocess import check_frame
from panrt.errors import FrameError

PIXEL_FORMATS: tuple[PixelFormat, ...] = get_args(PixelFormat)
YUV_STANDARDS: tuple[YuvStandard, ...] = get_args(YuvStandard)

SHAPES: dict[PixelFormat, str] = {
    "bgr8": "(H, W, 3)",
    "rgb8": "(H, W, 3)",
    "yuyv": "(H, W, 2), W even",
    "nv12": "(H * 3 / 2, W), H and W even",
}
# OpenCV converts by BT.601, with the arithmetic of plugins/include/panrt/yuv.h.
_BT601 = {"yuyv": cv2.COLOR_YUV2BGR_YUY2, "nv12": cv2.COLOR_YUV2BGR_NV12}
# BT.709, limited range: coefficients of yuv.h, times 2^20.
_Y, _R_V, _G_U, _G_V, _B_U = 1220542, 1880097, -223347, -558891, 2214593


def check_pixels(frame: Frame) -> None:
    """Raise FrameError unless the image has the shape of its pixel format and at least one pixel."""
    image, kind = frame.image, frame.pixel_format
    check_format(frame)
    if kind == "bgr8":
        check_frame(image)
        return
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and has_shape_of(kind, image.shape)):
        found = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise FrameError(f"frame: got {found} as {kind}, expected {SHAPES[kind]} uint8.")


def check_format(frame: Frame) -> None:
    """Raise FrameError unless the pixel format and YUV standard of a frame are known."""
    if frame.pixel_format not in PIXEL_FORMATS or frame.yuv_standard not in YUV_STANDARDS:
        raise FrameError(
            f"frame: got pixel_format {frame.pixel_format!r}, yuv_standard {frame.yuv_standard!r}; expected one of "
            f"{', '.join(PIXEL_FORMATS)} and {', '.join(YUV_STANDARDS)}."
        )


def has_shape_of(kind: PixelFormat, shape: tuple[int, ...]) -> bool:
    """Return whether an array of this shape holds at least one pixel in a format."""
    if len(shape) < 2 or 0 in shape:
        return False
    rows, width = shape[:2]
    return {
        "bgr8": shape[2:] == (3,),
        "rgb8": shape[2:] == (3,),
        "yuyv": shape[2:] == (2,) and width % 2 == 0,
        "nv12": len(shape) == 2 and rows % 3 == 0 and width % 2 == 0,  # H is even: 2 / 3 of a multiple of 3
    }[kind]


def bgr(frame: Frame) -> NDArray[np.uint8]:
    """Return a frame in (H, W, 3) BGR; its own image if that is BGR already.

    Raises:
        FrameError: the image does not have the shape of its pixel format.
    """
    check_pixels(frame)
    image, kind = frame.image, frame.pixel_format
    if kind == "bgr8":
        return image
    if kind == "rgb8":
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), np.uint8)
    if frame.yuv_standard == "bt601":
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), _BT601[kind]), np.uint8)
    height, width = frame.hw
    if kind == "nv12":
        return _bt709(image[:height], image[height:].reshape(height // 2, 1, width // 2, 2))
    return _bt709(image[..., 0], image[..., 1].reshape(height, 1, width // 2, 2))


def _bt709(luma: NDArray[np.uint8], chroma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert (H, W) luma and (h, 1, W / 2, 2) U and V, one row for H / h rows of luma, to (H, W, 3) BGR."""
    height, width = luma.shape
    bright = np.maximum(luma.astype(np.int32) - 16, 0) * _Y + (1 << 19)
    bright = bright.reshape(chroma.shape[0], height // chroma.shape[0], width // 2, 2)
    cb, cr = (chroma[..., i, None].astype(np.int32) - 128 for i in (0, 1))  # (h, 1, W / 2, 1)
    picture = np.empty((*bright.shape, 3), np.uint8)
    for channel, tint in enumerate((_B_U * cb, _G_U * cb + _G_V * cr, _R_V * cr)):
        picture[..., channel] = np.clip((bright + tint) >> 20, 0, 255)
    return picture.reshape(height, width, 3)
