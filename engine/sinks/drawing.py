"""Annotated frames, for the sinks that show them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from panrt.engine.pixel_formats import bgr
from panrt.engine.results.overlay import write_names
from panrt.engine.sinks.sink import Item


def annotated(item: Item, *, scale: int = 1) -> NDArray[np.uint8]:
    """Return the frame, enlarged `scale` times, with its segments drawn over it, (H, W, 3) BGR."""
    if item.drawing is not None and scale == 1:
        image: NDArray[np.uint8] = item.drawing.overlay().copy()
        write_names(image, item.result.panoptic, item.result.map_segments)
        return image
    frame: NDArray[Any] = bgr(item.frame)
    if scale > 1:  # before drawing, so that names and borders stay sharp
        frame = cv2.resize(frame, (scale * frame.shape[1], scale * frame.shape[0]), interpolation=cv2.INTER_CUBIC)
    return item.result.overlay(frame)
