"""Pictures of results, for the sinks that show them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from panrt.engine.sinks.sink import Item


def annotated(item: Item) -> NDArray[np.uint8]:
    """The frame with its segments drawn over it, (H, W, 3) BGR."""
    return item.result.overlay(item.frame.image)
