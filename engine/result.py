"""What the engine says about a frame.

Shapes: H x W pixels of the panoptic map. Boxes are (x0, y0, x1, y1) in pixels of the map, half-open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Segment(NamedTuple):
    """One thing, or all of one kind of stuff."""

    id: int  # its value in the panoptic map, from 1
    category_id: int  # as the data set of the model numbers its classes
    name: str
    is_thing: bool
    score: float  # 0 for stuff
    area: int  # pixels of the map
    box: tuple[int, int, int, int]


class Timings(NamedTuple):
    """Where the time of a frame went, in seconds."""

    preprocess: float  # frame -> network input
    inference: float  # network input -> panoptic map and segments
    postprocess: float  # -> PanopticResult


@dataclass(frozen=True, eq=False)
class PanopticResult:
    """The panoptic map of a frame, and its segments."""

    panoptic: NDArray[np.int32]  # (H, W), segment id of each pixel, 0 is void
    segments: tuple[Segment, ...]
    timings: Timings
    frame_index: int = 0
    captured_at: float = 0.0  # seconds of `time.monotonic()`
    media_time: float | None = None
    source: str = ""
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # RGB by segment id
