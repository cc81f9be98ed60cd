"""Whatever a program has for an image, as a frame: the one place where it is converted, for sessions, streams, predict.

    array or tensor     (H, W, 3), also (H, W), (H, W, 1) and (H, W, 4); uint8, or floats from 0 to 1
    tensor of PyTorch   also (C, H, W), as torchvision has it
    image of Pillow     of any 8-bit mode, turned upright by its EXIF orientation
    `Frame`             unchanged, in its own pixel format
    array on a GPU      unchanged, for a session on that GPU

Grey gets three equal channels and transparency is dropped. Colours are BGR as OpenCV has them, or RGB if that is asked
for by name; Pillow's are RGB and known to be so. Nothing else is guessed: integers of other sizes and floats beyond 0
to 1 are errors that say how to convert them.

Shapes: H x W pixels, C channels.
"""

from __future__ import annotations

import time
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from panrt.engine.frame import Frame, is_on_device
from panrt.errors import FrameError
from panrt.formats.records import shown

ColorOrder: TypeAlias = Literal["bgr8", "rgb8"]
COLOR_ORDERS: tuple[ColorOrder, ...] = ("bgr8", "rgb8")
_CHANNELS = 1, 3, 4
_EXPECTED = "expected an array of (H, W, 3) uint8 in BGR, grey, with an alpha channel, or floats from 0 to 1"


def as_frame(image: object, *, pixel_format: ColorOrder = "bgr8", name: str = "frame") -> Frame:
    """Return an image as a frame that was captured now; a `Frame` is returned unchanged.

    Args:
        image: see the top of this file.
        pixel_format: the order of an array's colours.
        name: of the image in messages.

    Raises:
        FrameError: it is none of these; the message says what it is and how to convert it.
        ValueError: the pixel format is unknown.
    """
    if isinstance(image, Frame):
        return image
    if is_on_device(image):
        return Frame(image, captured_at=time.monotonic(), pixel_format=pixel_format)  # type: ignore[arg-type]
    return Frame(to_bgr(image, pixel_format=pixel_format, name=name), captured_at=time.monotonic())


def to_bgr(image: object, *, pixel_format: ColorOrder = "bgr8", name: str = "frame") -> NDArray[np.uint8]:
    """Return an image as (H, W, 3) uint8 BGR: itself if it is that already.

    Args:
        image: see the top of this file; in the memory of the CPU.
        pixel_format: the order of an array's colours.
        name: of the image in messages.

    Raises:
        FrameError, ValueError: as `as_frame`.
    """
    if pixel_format not in COLOR_ORDERS:
        raise ValueError(f"pixel_format: got {pixel_format!r}, expected {' or '.join(COLOR_ORDERS)}.")
    if _is_a(image, "PIL.Image", "Image"):
        return np.ascontiguousarray(_of_pillow(image, name)[..., ::-1])
    array = _of_tensor(image, name) if _is_a(image, "torch", "Tensor") else image
    if not isinstance(array, np.ndarray):
        if not hasattr(array, "__array__"):
            raise FrameError(f"{name}: got {shown(image)}, {_EXPECTED}, an image of Pillow or a tensor of PyTorch.")
        array = np.asarray(array)
    return _of_array(array, pixel_format, name)


def _is_a(image: object, module: str, name: str) -> bool:
    """Return whether an object is of a class of a library, which need not be imported, nor installed."""
    return any(kind.__module__ == module and kind.__name__ == name for kind in type(image).__mro__)


def _of_pillow(image: Any, name: str) -> NDArray[np.uint8]:
    from PIL import ImageOps  # noqa: PLC0415  # optional, and installed if there is such an image

    if image.mode.startswith(("I", "F")):
        raise FrameError(
            f"{name}: got an image of Pillow in mode {image.mode}, whose range is unknown, expected one of 8 bits; "
            'scale its values to 0 to 255 and convert it with .convert("L").'
        )
    try:
        array: NDArray[np.uint8] = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # Pillow decodes here, and its PNG reader raises the last
        raise FrameError(f"{name}: Pillow cannot convert this image of mode {image.mode} to RGB: {error}.") from error
    if 0 in array.shape:
        raise FrameError(f"{name}: got an image of Pillow without pixels, {array.shape}.")
    return array


def _of_tensor(tensor: Any, name: str) -> NDArray[Any]:
    """Return a tensor of PyTorch as an array with channels last."""
    if tensor.device.type != "cpu":
        raise FrameError(f"{name}: got a tensor on {tensor.device}, expected one on the CPU; use .cpu().")
    if str(tensor.dtype) == "torch.bfloat16":  # which NumPy has not
        tensor = tensor.float()
    array: NDArray[Any] = tensor.detach().numpy()
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] in _CHANNELS else array


def _of_array(array: NDArray[Any], pixel_format: ColorOrder, name: str) -> NDArray[np.uint8]:
    """Return an array with channels last as (H, W, 3) uint8 BGR."""
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in _CHANNELS):
        raise FrameError(f"{name}: got {array.shape} {array.dtype}, {_EXPECTED}{_advice_on_shape(array.shape)}.")
    pixels = _as_bytes(array, name)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if pixels.shape[2] == 3 and pixel_format == "bgr8":
        return pixels
    return np.ascontiguousarray(pixels[..., :3] if pixel_format == "bgr8" else pixels[..., 2::-1])


def _advice_on_shape(shape: tuple[int, ...]) -> str:
    if 0 in shape:
        return "; it has no pixels"
    if len(shape) == 3 and shape[0] in _CHANNELS:
        return "; image.transpose(1, 2, 0) puts the channels last"
    if len(shape) == 4:
        return "; pass the images of a batch one by one, or as a list"
    return ""


def _as_bytes(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Return the values of an array, of any shape, from 0 to 255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        cure = "(image >> 8).astype(np.uint8) converts 16 bits" if array.dtype == np.uint16 else "convert it to uint8"
        raise FrameError(f"{name}: got {array.shape} {array.dtype}, {_EXPECTED}; {cure}.")
    least, greatest = float(array.min()), float(array.max())
    if not (least >= 0.0 and greatest <= 1.0):  # also if one is a NaN
        raise FrameError(
            f"{name}: got floats from {least:g} to {greatest:g}, expected 0 to 1; divide values up to 255 by 255, and "
            "pass an image before its normalisation, which the network does itself."
        )
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
