"""A moving test pattern with known pixels, delivered at the rate of a camera."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from panrt.engine.sources.source import Captured, Opening

STEP = 3  # pixels that the pattern moves from frame to frame


def pattern_frames(
    hw: tuple[int, int], fps: float | None, frames: int | None, opening: Opening
) -> Generator[Captured, None, None]:
    """Yield frames of the pattern at `fps` per second (None: unthrottled), endlessly or `frames` of them."""
    wide = _wide(hw)
    started = opening.clock.now()
    index = 0
    while frames is None or index < frames:
        captured_at = None
        if fps is not None:  # each frame has its due time; a late one is delivered late, not skipped
            captured_at = started + index / fps
            if opening.clock.wait(opening.stop, captured_at - opening.clock.now()):
                return
        elif opening.stop.is_set():
            return
        yield Captured(_shifted(wide, hw[1], index), index / (fps or 30.0), captured_at)
        index += 1


def pattern(index: int, hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Return frame `index` of the pattern, (H, W, 3) BGR: eight colour bars with a ramp, moving to the left."""
    return _shifted(_wide(hw), hw[1], index)


def _wide(hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the pattern twice side by side, so that every shift of it is one slice."""
    height, width = hw
    x = np.arange(width)
    bar = (8 * x // width) + 1
    colors = np.stack([(bar >> bit & 1) * 180 for bit in range(3)], axis=1)  # (W, 3)
    ramp = 60 * np.arange(height)[:, None, None] // max(height - 1, 1)
    image = (colors[None] + ramp).astype(np.uint8)
    return np.concatenate([image, image], axis=1)


def _shifted(wide: NDArray[np.uint8], width: int, index: int) -> NDArray[np.uint8]:
    shift = STEP * index % width
    return np.ascontiguousarray(wide[:, shift : shift + width])
