"""Masks as COCO's run-length encoding, which pycocotools, FiftyOne, CVAT and others read.

The runs of a mask are counted down its columns, from left to right, alternately of zeros and of ones, beginning with
zeros. The compressed form writes each count, from the fourth on as its difference to the count before the last, in
groups of 5 bits, the lowest first, as characters from "0" on; a sixth bit says that another group follows.

Shapes: H x W pixels of a mask.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

_BITS = 5
_MORE = 1 << _BITS
_FIRST = ord("0")
_GROUPS = 7  # of a count and its sign: 35 bits


class Rle(TypedDict):
    """A compressed mask, as `pycocotools.mask.decode` takes it."""

    size: tuple[int, int]  # H, W
    counts: str


def encode(part: NDArray[np.bool_], *, place: tuple[int, int], hw: tuple[int, int]) -> Rle:
    """Return a mask, (H, W), compressed.

    Args:
        part: (h, w), the part of the mask in which all its pixels are.
        place: (top, left) of the part.
        hw: (H, W).
    """
    return Rle(size=hw, counts=_compressed(_run_lengths(part, place, hw)))


def _run_lengths(part: NDArray[np.bool_], place: tuple[int, int], hw: tuple[int, int]) -> Counts:
    """Return the lengths of runs of equal pixels, those of zeros first, which may be none."""
    (height, width), (rows, columns), (top, left) = hw, part.shape, place
    padded = np.zeros((columns, rows + 2), np.bool_)  # of each column: its pixels between two zeros
    padded[:, 1:-1] = part.T
    flat = padded.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1])  # before each run of ones, then at its last
    column, row = np.divmod(changes, rows + 2)
    edges = (left + column) * height + top + row
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2])  # a run that ends where the next column's begins
    edges = np.delete(edges, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    ends = height * width
    edges = edges[:-1] if len(edges) and edges[-1] == ends else edges
    lengths: Counts = np.concatenate([edges, [ends]]) - np.concatenate([[0], edges])
    return lengths.astype(np.int64)


def _compressed(counts: Counts) -> str:
    values = counts.copy()
    values[3:] -= counts[1:-2]
    digits = np.zeros((len(values), _GROUPS), np.uint8)
    used = np.zeros((len(values), _GROUPS), np.bool_)
    going = np.ones(len(values), np.bool_)
    for group in range(_GROUPS):
        low = values & (_MORE - 1)
        values = values >> _BITS
        used[:, group] = going
        ends = values == np.where(low & (_MORE >> 1), -1, 0)  # the sign is that of the highest bit written
        going = going & ~ends
        digits[:, group] = low + np.where(going, _MORE, 0) + _FIRST
    return digits[used].tobytes().decode("ascii")
