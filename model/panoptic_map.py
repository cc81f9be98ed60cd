"""The input of the panoptic metrics: an id map with the list of its segments, and the categories of the data set.

Shapes: H, W map size. A map holds one segment id per pixel; id 0 is void, the unlabelled rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from panrt.errors import PanopticFormatError

VOID = 0

IdMap = npt.NDArray[np.integer[Any]]  # (H, W), 0 <= id < 2**31


class Category(NamedTuple):
    """A category of the data set."""

    id: int
    name: str
    is_thing: bool


class Segment(NamedTuple):
    """A segment of the ground truth."""

    id: int
    category_id: int
    area: int | None = None  # pixels, as the annotation states it; None: counted in the map
    is_crowd: bool = False


class PanopticMap(NamedTuple):
    """An id map and its segments: the ground truth of an image."""

    panoptic: IdMap  # (H, W)
    segments: Sequence[Segment]


class PredictedSegment(Protocol):
    """A segment of a prediction: anything with an id and a category of the data set."""

    @property
    def id(self) -> int: ...
    @property
    def category_id(self) -> int: ...


class Prediction(Protocol):
    """An id map and its segments: a `PanopticMap`, the result of a session, anything of that form."""

    @property
    def panoptic(self) -> IdMap: ...
    @property
    def segments(self) -> Sequence[PredictedSegment]: ...


def semantic_map(labelled: Prediction, categories: Sequence[Category]) -> npt.NDArray[np.int64]:
    """Return for each pixel (H, W) the index in `categories` of its segment's category, -1 on void.

    Raises:
        PanopticFormatError: a pixel has an id that no segment has, or a segment an unknown category.
    """
    index = {category.id: i for i, category in enumerate(categories)}
    meaning = {VOID: -1}
    for segment in labelled.segments:
        if segment.category_id not in index:
            raise PanopticFormatError(f"segment {segment.id}: category {segment.category_id} is unknown.")
        meaning[segment.id] = index[segment.category_id]
    ids, lengths = runs(labelled.panoptic)
    if unknown := set(np.unique(ids).tolist()) - meaning.keys():
        raise PanopticFormatError(f"map: ids {some(unknown)} have pixels but no segment.")
    classes = np.array([meaning[i] for i in ids.tolist()], np.int64)
    by_pixel: npt.NDArray[np.int64] = np.repeat(classes, lengths).reshape(labelled.panoptic.shape)
    return by_pixel


def runs(panoptic: IdMap) -> tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.intp]]:
    """Return a map row by row as runs of equal ids, far fewer than pixels: the id and the length of each."""
    flat = panoptic.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1)) if flat.size else np.zeros(0, np.intp)
    return flat[starts], np.diff(starts, append=flat.size)


def areas(panoptic: IdMap) -> dict[int, int]:
    """Return the number of pixels of each id of a map, void included."""
    ids, lengths = runs(panoptic)
    found, places = np.unique(ids, return_inverse=True)
    pixels = np.bincount(places.ravel(), weights=lengths)  # exact: float64 holds 2**53 pixels
    return dict(zip(found.tolist(), pixels.astype(np.int64).tolist(), strict=True))


def some(ids: Iterable[int], limit: int = 8) -> str:
    """Return the first of some ids, for messages."""
    ordered = sorted(ids)
    return ", ".join(map(str, ordered[:limit])) + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")
