"""Placing a frame of any size in the network's input.

The frame keeps its aspect ratio. It is placed in the upper left of the input's valid part and fills it along at least
one axis; the rest gets the colour that the network normalises to zero. The part of the panoptic map that shows the
frame is in the same place.

Shapes: H x W pixels of a frame, h x w of the network's input.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from panrt.errors import FrameError

AREA_BELOW = 0.5  # a frame that shrinks further is averaged, so that no pixel is skipped


class Placement(NamedTuple):
    """The size of a frame in input and map, (height, width)."""

    content_hw: tuple[int, int]  # of the network's input
    map_hw: tuple[int, int]  # of the panoptic map


def place(frame_hw: tuple[int, int], valid_hw: tuple[int, int], output_hw: tuple[int, int]) -> Placement:
    """Return the placement of a frame in an input with this valid part, and in the map of that part."""
    scale = min(valid / side for valid, side in zip(valid_hw, frame_hw, strict=True))
    content = [min(max(round(side * scale), 1), valid) for side, valid in zip(frame_hw, valid_hw, strict=True)]
    shown = [
        min(max(round(side * output / valid), 1), output)
        for side, valid, output in zip(content, valid_hw, output_hw, strict=True)
    ]
    return Placement((content[0], content[1]), (shown[0], shown[1]))


def check_frame(image: NDArray[np.uint8]) -> None:
    """Raise FrameError unless it is (H, W, 3) uint8 with at least a pixel."""
    if not isinstance(image, np.ndarray):
        raise FrameError(
            f"frame: got {type(image).__name__}, expected a NumPy array (H, W, 3) of uint8, BGR"
            + ("; only engines of `panrt build` take arrays on the GPU." if _is_on_gpu(image) else ".")
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise FrameError(
            f"frame: got {image.shape} {image.dtype}, expected (H, W, 3) uint8, BGR"
            + ("; cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) makes one of a grey frame." if image.ndim == 2 else ".")
        )


def _is_on_gpu(image: object) -> bool:
    return hasattr(image, "__cuda_array_interface__")


def fill(image: NDArray[np.uint8], placement: Placement, free: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Write a frame to its place in the input.

    Args:
        image: (H, W, 3) uint8.
        placement: `place` of it.
        free: (3,) uint8, for pixels of the input without a frame.
        target: (h, w, 3) uint8, completely overwritten.
    """
    height, width = placement.content_hw
    content = target[:height, :width]
    if image.shape[:2] == placement.content_hw:
        content[...] = image
    else:
        shrinks = height < AREA_BELOW * image.shape[0]
        cv2.resize(
            np.ascontiguousarray(image),
            (width, height),
            dst=content,
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
    target[height:] = free
    target[:height, width:] = free
