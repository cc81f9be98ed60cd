"""Results drawn over frames: colours and borders by the kernel, names by OpenCV.

Shapes: H x W pixels of a frame, h x w of the panoptic map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from panrt.engine.conversion import to_bgr
from panrt.engine.results.colors import Rgb
from panrt.engine.results.painter import OPACITY
from panrt.engine.results.segment import Segment
from panrt.formats import records
from panrt.plugins import native

BORDER_EVERY = 500  # pixels of the shorter side for each pixel that a border is wide
SMALLEST = 0.002  # share of the map under which a segment gets no name
SPILLS = 1.2  # how much wider than a thing its name may be and still stand on it
FONT = cv2.FONT_HERSHEY_SIMPLEX
LONGEST_NAME = 200  # characters of a name that are drawn
LOOKED_AT = 128 * 128  # pixels of a map, at least, before it is thinned out to find room for names


def draw(
    frame: NDArray[np.uint8],
    panoptic: NDArray[np.int32],
    colors: Mapping[int, Rgb],
    *,
    opacity: float = OPACITY,
    border: bool = True,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Return the frame with the colours and borders of the segments, as `PanopticResult.overlay` describes it."""
    frame = to_bgr(frame)
    return native.overlay(
        np.ascontiguousarray(frame),
        np.ascontiguousarray(panoptic),
        color_table(colors, max(colors, default=0) + 1),
        opacity=opacity,
        border=border_width(frame.shape[:2]) if border else 0,
        threads=threads,
    )


def color_table(colors: Mapping[int, Rgb], count: int) -> NDArray[np.uint8]:
    """Return (count, 3) BGR by id; an id without a colour is black."""
    table = np.zeros((count, 3), np.uint8)
    for segment_id, (red, green, blue) in colors.items():
        table[segment_id] = blue, green, red
    return table


def border_width(hw: tuple[int, ...]) -> int:
    """Return the width of a border in an image of this size, in pixels."""
    return max(1, round(min(hw) / BORDER_EVERY))


def write_names(image: NDArray[np.uint8], panoptic: NDArray[np.int32], segments: Sequence[Segment]) -> None:
    """Write names in white on a darkened box: within the segment if there is room, else above a thing."""
    height, width = image.shape[:2]
    map_height, map_width = panoptic.shape
    size = min(max(0.35, min(height, width) / 1200), 2.0)
    thickness = max(1, round(1.5 * size))
    pad = thickness + 1
    for segment in segments:
        if segment.area < SMALLEST * map_height * map_width:
            continue
        x0, y0, x1, _ = segment.box
        room = (x1 - x0) * width / map_width
        name = drawable(segment.name)
        text = f"{name} {segment.score:.2f}" if segment.is_thing else name
        (text_width, text_height), baseline = cv2.getTextSize(text, FONT, size, thickness)
        if segment.is_thing and text_width > room:
            text = name
            (text_width, text_height), baseline = cv2.getTextSize(text, FONT, size, thickness)
        if segment.is_thing and text_width > SPILLS * room:
            x, y = (x0 + x1) / 2 * width / map_width, y0 * height / map_height - text_height / 2 - pad
        else:
            column, row = _roomiest(panoptic, segment)
            x, y = column * width / map_width, row * height / map_height
        left = min(max(round(x - text_width / 2), pad), max(width - text_width - pad, pad))
        bottom = min(max(round(y + text_height / 2), text_height + pad), max(height - baseline - pad, 1))
        box = image[max(bottom - text_height - pad, 0) : bottom + pad, left - pad : left + text_width + pad]
        box //= 3
        cv2.putText(image, text, (left, bottom), FONT, size, (255, 255, 255), thickness, cv2.LINE_AA)


def drawable(text: str) -> str:
    """Return text as OpenCV can draw it: on half of a surrogate pair it crashes, on a null byte it raises."""
    return "".join(character if records.line(character) else "?" for character in text[:LONGEST_NAME])


def _roomiest(panoptic: NDArray[np.int32], segment: Segment) -> tuple[float, float]:
    """Return (x, y) in the map where the segment is widest."""
    x0, y0, x1, y1 = segment.box
    step = max(1, math.isqrt((x1 - x0) * (y1 - y0) // LOOKED_AT))
    mask = (panoptic[y0:y1:step, x0:x1:step] == segment.id).astype(np.uint8)
    # its edge counts as an edge of the segment, so that a name does not touch the border of the image
    distance = cv2.distanceTransform(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L1, 3)
    row, column = divmod(int(distance.argmax()), distance.shape[1])
    return x0 + (column - 0.5) * step, y0 + (row - 0.5) * step
