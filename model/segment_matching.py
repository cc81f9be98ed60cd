"""Match predicted segments to the ground truth, by the rules of the COCO panoptic API.

Shapes: H, W map size. Areas and overlaps are in pixels. Source: Kirillov et al., "Panoptic Segmentation", CVPR 2019,
section 4.1, and, where the paper leaves room, panopticapi's `evaluation.py`, by which published numbers are computed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import NamedTuple

import numpy as np

from panrt.errors import PanopticFormatError
from panrt.model.panoptic_map import VOID, IdMap, PanopticMap, Prediction, some

MATCH_IOU = 0.5  # exclusive: above one half, at most one prediction can match a segment
IGNORED_FRACTION = 0.5  # exclusive: a prediction with a larger share than this in void and crowd is no false positive

Overlaps = Mapping[
    tuple[int, int], int
]  # (true id, predicted id) -> common pixels; pairs that do not overlap are absent


class Region(NamedTuple):
    """The part of a segment that matching needs."""

    category_id: int
    area: int  # pixels
    is_crowd: bool = False


class Comparison(NamedTuple):
    """The segments of two maps, or tubes of two clips, and their overlaps. Void (id 0) is in the overlaps alone."""

    truth: Mapping[int, Region]  # by id, in the order of the annotation
    prediction: Mapping[int, Region]  # by id
    overlaps: Overlaps


class Match(NamedTuple):
    """A true positive."""

    true_id: int
    predicted_id: int
    iou: float  # 0.5 < iou <= 1


class Matching(NamedTuple):
    """The verdict on every segment; ignored ones are in none of the lists."""

    matches: list[Match]  # true positives
    missed: list[int]  # false negatives, true ids
    spurious: list[int]  # false positives, predicted ids


def compare(truth: PanopticMap, prediction: Prediction, known_categories: Container[int]) -> Comparison:
    """Bring two maps and their segments together, and check them against each other.

    As in panopticapi, the truth is not checked: a segment without a pixel can only be missed, and pixels whose
    id is not listed are neither void nor a segment. A prediction has to be consistent.

    Raises:
        PanopticFormatError: the maps differ in size; the predicted map and its segments do not hold the same ids; a
            category is unknown; an id is 0 or listed twice.
    """
    overlaps = count_overlaps(truth.panoptic, prediction.panoptic)
    true_areas, predicted_areas = _sum_areas(overlaps)

    _check("ground truth", [(s.id, s.category_id) for s in truth.segments], known_categories)
    _check("prediction", [(s.id, s.category_id) for s in prediction.segments], known_categories)
    listed = {segment.id for segment in prediction.segments}
    if unlisted := predicted_areas.keys() - listed - {VOID}:
        raise PanopticFormatError(
            f"prediction: ids {some(unlisted)} are in the map but not among the segments; "
            "list them or set their pixels to 0 (void)."
        )
    if absent := listed - predicted_areas.keys():
        raise PanopticFormatError(
            f"prediction: segments {some(absent)} have no pixel in the map; drop them from the list."
        )
    true_regions = {
        s.id: Region(s.category_id, true_areas.get(s.id, 0) if s.area is None else s.area, s.is_crowd)
        for s in truth.segments
    }
    predicted_regions = {s.id: Region(s.category_id, predicted_areas[s.id]) for s in prediction.segments}
    return Comparison(true_regions, predicted_regions, overlaps)


def match_segments(comparison: Comparison) -> Matching:
    """Match the segments: each is a true positive, a false negative or a false positive, or is ignored.

    * A pair matches if the categories are equal, the truth is no crowd and IoU > 0.5. What the prediction puts on void
      does not count: IoU = overlap / (true area + predicted area - overlap - overlap of the prediction with void).
    * An unmatched true segment is a false negative, unless it is a crowd.
    * An unmatched prediction is a false positive, unless more than half of it is on void and on the crowd of its
      category. Of several crowds of one category only the last one listed counts, as in panopticapi.

    Raises:
        PanopticFormatError: the stated area of a true segment is smaller than its overlap with a prediction.
    """
    truth, prediction, overlaps = comparison
    matches: list[Match] = []
    for (true_id, predicted_id), overlap in overlaps.items():
        if true_id not in truth or predicted_id not in prediction:
            continue
        true_category, true_area, is_crowd = truth[true_id]
        predicted_category, predicted_area, _ = prediction[predicted_id]
        if is_crowd or true_category != predicted_category:
            continue
        if true_area < overlap:
            raise PanopticFormatError(
                f"ground truth: segment {true_id} is stated to have {true_area} pixels, "
                f"but the map has at least {overlap}; correct its area."
            )
        union = true_area + predicted_area - overlap - overlaps.get((VOID, predicted_id), 0)
        if overlap / union > MATCH_IOU:
            matches.append(Match(true_id, predicted_id, overlap / union))

    matched_truth = {match.true_id for match in matches}
    missed = [i for i, region in truth.items() if i not in matched_truth and not region.is_crowd]

    crowds = {region.category_id: i for i, region in truth.items() if region.is_crowd}  # the last one stays
    spurious = []
    for i in prediction.keys() - {match.predicted_id for match in matches}:
        category_id, area, _ = prediction[i]
        ignored = overlaps.get((VOID, i), 0)
        if category_id in crowds:
            ignored += overlaps.get((crowds[category_id], i), 0)
        if ignored / area <= IGNORED_FRACTION:
            spurious.append(i)
    return Matching(matches, missed, spurious)


def count_overlaps(truth: IdMap, prediction: IdMap) -> dict[tuple[int, int], int]:
    """Count the pixels of each (true id, predicted id), void included.

    Panoptic maps are flat, so runs of equal pixels are counted, which are far fewer than the pixels.

    Raises:
        PanopticFormatError: a map is not a two-dimensional integer array, the sizes differ or an id is out of range.
    """
    for name, ids in (("ground truth", truth), ("prediction", prediction)):
        if ids.ndim != 2 or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
            raise PanopticFormatError(f"{name}: expected an (H, W) map of integer ids, got {ids.shape} {ids.dtype}.")
    if truth.shape != prediction.shape:
        raise PanopticFormatError(
            f"prediction: expected the size of the ground truth, (H, W) = {truth.shape}, got {prediction.shape}; "
            "resize predicted maps by nearest neighbour."
        )
    true_ids, predicted_ids = truth.ravel(), prediction.ravel()
    changes = (true_ids[1:] != true_ids[:-1]) | (predicted_ids[1:] != predicted_ids[:-1])
    starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
    lengths = np.diff(starts, append=true_ids.size)

    true_runs, predicted_runs = true_ids[starts].astype(np.int64), predicted_ids[starts].astype(np.int64)
    for name, runs in (("ground truth", true_runs), ("prediction", predicted_runs)):
        if runs.min() < VOID or runs.max() >= 1 << 31:
            raise PanopticFormatError(f"{name}: expected ids from 0 to 2**31 - 1, got {runs.min()} to {runs.max()}.")
    pairs, pair_of_run = np.unique((true_runs << 32) | predicted_runs, return_inverse=True)
    pixels = np.bincount(pair_of_run, weights=lengths).astype(np.int64)  # exact: float64 holds 2**53 pixels
    return {(pair >> 32, pair & 0xFFFFFFFF): count for pair, count in zip(pairs.tolist(), pixels.tolist(), strict=True)}


def _sum_areas(overlaps: Overlaps) -> tuple[dict[int, int], dict[int, int]]:
    """Return the area in pixels of every true and of every predicted id, void included."""
    true_areas: dict[int, int] = {}
    predicted_areas: dict[int, int] = {}
    for (true_id, predicted_id), pixels in overlaps.items():
        true_areas[true_id] = true_areas.get(true_id, 0) + pixels
        predicted_areas[predicted_id] = predicted_areas.get(predicted_id, 0) + pixels
    return true_areas, predicted_areas


def _check(name: str, segments: list[tuple[int, int]], known_categories: Container[int]) -> None:
    seen = {VOID}
    for segment_id, category_id in segments:
        if segment_id in seen:
            problem = "is void and cannot be a segment" if segment_id == VOID else "is listed twice"
            raise PanopticFormatError(f"{name}: id {segment_id} {problem}; give every segment its own id.")
        if category_id not in known_categories:
            raise PanopticFormatError(
                f"{name}: segment {segment_id} has the unknown category {category_id}; "
                "use the category ids of the data set, not class indices."
            )
        seen.add(segment_id)
