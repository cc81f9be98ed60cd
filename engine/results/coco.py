"""The COCO panoptic format: a PNG whose colours are ids, and a record of its segments.

Shapes: H x W pixels of the image. Boxes are (x0, y0, x1, y1), half-open; COCO's are x, y, width, height.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.engine.results.segment import Segment

MOST_IDS = 1 << 24  # that three bytes of colour tell apart


def segments_info(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """Return the records of segments, in pixels of the image."""
    return [
        {
            "id": segment.id,
            "category_id": segment.category_id,
            "isthing": int(segment.is_thing),
            "area": segment.area,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
            "score": segment.score,
        }
        for segment in segments
        for x0, y0, x1, y1 in (segment.box,)
    ]


def id_image(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return ids, (H, W), as colours, (H, W, 3) BGR: id = R + 256 G + 256^2 B.

    Raises:
        ValueError: an id needs more than three bytes.
    """
    largest = int(ids.max(initial=0))
    if largest >= MOST_IDS:
        raise ValueError(f"to_coco: got the segment id {largest}, expected less than {MOST_IDS}, the colours of a PNG.")
    image = np.empty((*ids.shape, 3), np.uint8)
    for channel, shift in enumerate((16, 8, 0)):
        np.copyto(image[..., channel], ids >> shift & 0xFF, casting="unsafe")
    return image


def image_number(file_name: str) -> int | None:
    """Return the number that COCO gives an image file: 139 for 000000000139.jpg; None if its name is no number."""
    stem = PurePath(file_name).stem
    return int(stem) if re.fullmatch("[0-9]{1,15}", stem) else None
