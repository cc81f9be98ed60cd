"""A picture on its way through the runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Frame:
    """One captured picture, with what is needed to tell how old it is and what was lost before it."""

    image: NDArray[np.uint8]  # (H, W, 3) BGR
    index: int = 0  # of all frames that its source captured, dropped ones among them
    captured_at: float = 0.0  # seconds of `time.monotonic()`, when the source had it
    media_time: float | None = None  # seconds on the clock of the file or stream, where it has one
    source: str = ""  # the name of the source
