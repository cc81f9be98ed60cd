"""The mapping from pixels of a panoptic map to those of its frame.

The map shows the whole frame (`panrt.engine.preprocess`), so a pixel of the frame has the segment of the map's pixel in
which its centre lies: along an axis of H pixels and h of the map, pixel i lies in (2 i + 1) h // (2 H), in integers.
Overlays follow the same rule, so that masks and overlays agree to the pixel. If the file's output has another size than
its valid input, `place` rounds the map to whole pixels, and the frame's edge may be half a pixel of the map off.

Shapes: H x W pixels of the frame, h x w of the map. Boxes are (x0, y0, x1, y1), half-open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine.results.segment import Segment

Ids = NDArray[np.int32]
Counts = NDArray[np.int64]

_LONGEST_TABLE = 1 << 20  # entries of a table by id; ids of a hostile writer may be far larger


def map_pixels(length: int, frame_length: int) -> Counts:
    """Return the map's pixel of each pixel of the frame along an axis, (frame_length,)."""
    indices: Counts = (2 * np.arange(frame_length, dtype=np.int64) + 1) * length // (2 * frame_length)
    return indices


def frame_edges(length: int, frame_length: int) -> Counts:
    """Return the frame's first pixel in each pixel of the map along an axis, then the frame's length, (length + 1,).

    It is the inverse of `map_pixels`: the frame's pixels in pixel k of the map are `edges[k]` to `edges[k + 1] - 1`.
    """
    # the smallest i with (2 i + 1) length >= 2 k frame_length
    edges: Counts = -((length - 2 * frame_length * np.arange(length + 1, dtype=np.int64)) // (2 * length))
    return edges


def resize_ids(panoptic: Ids, hw: tuple[int, int]) -> Ids:
    """Return the map, (h, w), at another size, (H, W)."""
    columns = panoptic.take(map_pixels(panoptic.shape[1], hw[1]), axis=1)
    return columns.take(map_pixels(panoptic.shape[0], hw[0]), axis=0)


class Part(NamedTuple):
    """The part of a mask in which all its pixels are."""

    mask: NDArray[np.bool_]  # (height, width)
    top: int  # its place in the frame
    left: int


def part_of(panoptic: Ids, segment: Segment, hw: tuple[int, int]) -> Part:
    """Return the pixels of the frame that a segment of the map has."""
    height, width = panoptic.shape
    x0, y0, x1, y1 = segment.box
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if x0 >= x1 or y0 >= y1:
        return Part(np.zeros((0, 0), np.bool_), 0, 0)
    rows, columns = frame_edges(height, hw[0])[y0 : y1 + 1], frame_edges(width, hw[1])[x0 : x1 + 1]
    mask = (panoptic[y0:y1, x0:x1] == segment.id).repeat(np.diff(columns), axis=1).repeat(np.diff(rows), axis=0)
    return Part(mask, int(rows[0]), int(columns[0]))


def mask_of(panoptic: Ids, segment: Segment, hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels of the frame that a segment of the map has, (H, W)."""
    mask, part = np.zeros(hw, np.bool_), part_of(panoptic, segment, hw)
    height, width = part.mask.shape
    mask[part.top : part.top + height, part.left : part.left + width] = part.mask
    return mask


def relabelled(panoptic: Ids, values: Mapping[int, int], other: int) -> Ids:
    """Return the value of each pixel's id, (h, w), and `other` for void and ids that have none."""
    known = {0: other} | dict(values)
    ids = np.array(sorted(known), np.int64)
    new = np.array([known[number] for number in ids.tolist()], np.int32)
    if ids[0] == 0 and ids[-1] < _LONGEST_TABLE:
        table = np.full(int(ids[-1]) + 2, other, np.int32)
        table[ids] = new
        labels: Ids = table.take(panoptic, mode="clip")
    else:
        at = np.searchsorted(ids, panoptic).clip(max=len(ids) - 1)
        labels = np.where(ids[at] == panoptic, new[at], np.int32(other))
    return labels


def frame_segments(panoptic: Ids, segments: Sequence[Segment], hw: tuple[int, int]) -> tuple[Segment, ...]:
    """Return segments of the map with area and tight box in the frame; those of which no pixel is left are omitted."""
    found = _extents(panoptic, hw)
    places = {number: place for place, number in enumerate(found.ids.tolist())}
    boxes, areas = found.boxes.tolist(), found.areas.tolist()
    kept = ((segment, places[segment.id]) for segment in segments if segment.id in places)
    return tuple(segment._replace(area=areas[at], box=tuple(boxes[at])) for segment, at in kept)


class _Extents(NamedTuple):
    """The segments that have pixels in the frame."""

    ids: Counts  # (n,), ascending
    areas: Counts  # (n,)
    boxes: Counts  # (n, 4)


def _extents(panoptic: Ids, hw: tuple[int, int]) -> _Extents:
    """Measure every segment in the frame, by the runs of equal ids in the map's rows: there are few of them."""
    height, width = panoptic.shape
    flat = np.ascontiguousarray(panoptic).reshape(-1)
    begins_run = np.empty(flat.size, np.bool_)
    begins_run[1:] = flat[1:] != flat[:-1]
    begins_run[::width] = True
    starts = np.flatnonzero(begins_run)
    row, first = np.divmod(starts, width)
    last = np.append(starts[1:], flat.size) - row * width
    rows, columns = frame_edges(height, hw[0]), frame_edges(width, hw[1])
    x0, y0, x1, y1 = columns[first], rows[row], columns[last], rows[row + 1]
    areas, ids = (x1 - x0) * (y1 - y0), flat[starts].astype(np.int64)
    kept = np.flatnonzero((areas > 0) & (ids != 0))
    if not len(kept):
        return _Extents(*(np.zeros(shape, np.int64) for shape in ((0,), (0,), (0, 4))))
    kept = kept[np.argsort(ids[kept], kind="stable")]
    ids = ids[kept]
    groups = np.flatnonzero(np.diff(ids, prepend=ids[0] - 1))
    low = (np.minimum.reduceat(side[kept], groups) for side in (x0, y0))
    high = (np.maximum.reduceat(side[kept], groups) for side in (x1, y1))
    return _Extents(ids[groups], np.add.reduceat(areas[kept], groups), np.stack([*low, *high], axis=1))
