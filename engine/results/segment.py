"""A segment of a panoptic map.

Shapes: boxes are (x0, y0, x1, y1), half-open.
"""

from __future__ import annotations

from typing import NamedTuple


class Segment(NamedTuple):
    """A thing, or all stuff of one class.

    Area and box are in pixels of the frame in `PanopticResult.segments`, and of the map in `map_segments`.
    """

    id: int  # its value in the panoptic map, from 1
    category_id: int  # in the numbering of the model's data set
    name: str
    is_thing: bool
    score: float  # 0 for stuff
    area: int  # in pixels
    box: tuple[int, int, int, int]
