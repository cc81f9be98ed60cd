"""Panoptic quality (PQ), exactly as the COCO panoptic API computes it. Needs NumPy only.

Shapes: H, W map size, C categories. Qualities are fractions from 0 to 1.

    quality = evaluate(((truth, session(frame)) for frame, truth in labelled_frames), categories)
    print(quality.table())

Per category, over all images: SQ = sum of IoU / TP, RQ = TP / (TP + FP/2 + FN/2), PQ = SQ * RQ. All, Things and Stuff
are means over the categories that occur (TP + FP + FN > 0), so the mean of PQ is not the product of the other two.
Source: Kirillov et al., "Panoptic Segmentation", CVPR 2019, and panopticapi's `evaluation.py`; `segment_matching` has
the rules.

Stricter than panopticapi with what it accepts silently: an id that is 0 or listed twice, an unknown category of the
ground truth and a stated area below an overlap are errors. Where it divides by zero (an average over no category) or
gives 0 (a category that does not occur), the quality is NaN, in JSON None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from panrt.model.metric_table import nan_to_none, percent, text_table
from panrt.model.panoptic_map import Category, PanopticMap, Prediction
from panrt.model.segment_matching import Comparison, compare, match_segments


@dataclass(frozen=True)
class PanopticStatistics:
    """Counts per category, in the order of the categories. The statistics of several images or processes add up."""

    images: int
    true_positives: npt.NDArray[np.int64]  # (C,)
    false_positives: npt.NDArray[np.int64]  # (C,)
    false_negatives: npt.NDArray[np.int64]  # (C,)
    iou_sum: npt.NDArray[np.float64]  # (C,), over the true positives

    @classmethod
    def empty(cls, categories: int) -> PanopticStatistics:
        """Return the statistics of no image."""
        tp, fp, fn = np.zeros((3, categories), np.int64)
        return cls(0, tp, fp, fn, np.zeros(categories))

    def __add__(self, other: PanopticStatistics) -> PanopticStatistics:
        """Return the statistics of both sets of images."""
        return PanopticStatistics(
            self.images + other.images,
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.iou_sum + other.iou_sum,
        )


class Average(NamedTuple):
    """Means over the categories that occur; NaN if none does."""

    pq: float
    sq: float
    rq: float
    categories: int  # that occur


class CategoryQuality(NamedTuple):
    """The quality of one category; NaN if it does not occur."""

    category: Category
    pq: float
    sq: float
    rq: float
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True)
class PanopticQuality:
    """The panoptic quality of a set of images."""

    images: int
    all: Average
    things: Average
    stuff: Average
    per_category: tuple[CategoryQuality, ...]

    def table(self, *, per_category: bool = False) -> str:
        """Return aligned text in percent; `per_category` adds a row for each category that occurs."""
        averages = (("All", self.all), ("Things", self.things), ("Stuff", self.stuff))
        rows = [(name, *map(percent, (a.pq, a.sq, a.rq)), str(a.categories)) for name, a in averages]
        text = text_table(("", "PQ", "SQ", "RQ", "N"), rows)
        if per_category:
            details = [
                (q.category.name, *map(percent, (q.pq, q.sq, q.rq)), *map(str, (q.tp, q.fp, q.fn)))
                for q in self.per_category
                if q.tp + q.fp + q.fn > 0
            ]
            text += "\n\n" + text_table(("", "PQ", "SQ", "RQ", "TP", "FP", "FN"), details)
        return text

    def to_json(self) -> dict[str, object]:
        """Return plain data for `json.dumps`, qualities as fractions."""
        return {
            "images": self.images,
            "all": nan_to_none(self.all._asdict()),
            "things": nan_to_none(self.things._asdict()),
            "stuff": nan_to_none(self.stuff._asdict()),
            "per_category": [nan_to_none({**q._asdict(), "category": q.category._asdict()}) for q in self.per_category],
        }


def evaluate(pairs: Iterable[tuple[PanopticMap, Prediction]], categories: Sequence[Category]) -> PanopticQuality:
    """Compute the panoptic quality of a stream of (ground truth, prediction) pairs, one image at a time.

    Args:
        pairs: consumed lazily, so that predictions may be made on the way.
        categories: of the data set; the segments on both sides use their ids.

    Raises:
        PanopticFormatError: see `image_statistics`.
    """
    statistics = PanopticStatistics.empty(len(categories))
    for truth, prediction in pairs:
        statistics += image_statistics(truth, prediction, categories)
    return panoptic_quality(statistics, categories)


def image_statistics(truth: PanopticMap, prediction: Prediction, categories: Sequence[Category]) -> PanopticStatistics:
    """Count the true positives, false positives and false negatives of one image.

    Raises:
        PanopticFormatError: the maps differ in size; the predicted map and its segments do not hold the same ids; a
            category is unknown; an id is 0 or listed twice; a stated area is below an overlap.
    """
    return comparison_statistics(compare(truth, prediction, {category.id for category in categories}), categories)


def comparison_statistics(comparison: Comparison, categories: Sequence[Category]) -> PanopticStatistics:
    """Count the true positives, false positives and false negatives of one comparison, of images or of tubes."""
    index = {category.id: i for i, category in enumerate(categories)}
    tp, fp, fn = np.zeros((3, len(categories)), np.int64)
    iou_sum = np.zeros(len(categories))
    matches, missed, spurious = match_segments(comparison)
    for true_id, _, iou in matches:
        c = index[comparison.truth[true_id].category_id]
        tp[c] += 1
        iou_sum[c] += iou
    for predicted_id in spurious:
        fp[index[comparison.prediction[predicted_id].category_id]] += 1
    for true_id in missed:
        fn[index[comparison.truth[true_id].category_id]] += 1
    return PanopticStatistics(1, tp, fp, fn, iou_sum)


def panoptic_quality(statistics: PanopticStatistics, categories: Sequence[Category]) -> PanopticQuality:
    """Turn counts into qualities.

    Raises:
        ValueError: the statistics are of another number of categories.
    """
    tp, fp, fn = statistics.true_positives, statistics.false_positives, statistics.false_negatives
    if len(tp) != len(categories):
        raise ValueError(f"statistics: expected {len(categories)} categories, got {len(tp)}.")
    occurs = tp + fp + fn > 0
    size = np.where(occurs, tp + 0.5 * fp + 0.5 * fn, np.nan)
    pq = statistics.iou_sum / size
    sq = np.where(occurs, statistics.iou_sum / np.maximum(tp, 1), np.nan)
    rq = tp / size

    def average(chosen: npt.NDArray[np.bool_]) -> Average:
        chosen = chosen & occurs
        if not chosen.any():
            return Average(math.nan, math.nan, math.nan, 0)
        return Average(float(pq[chosen].mean()), float(sq[chosen].mean()), float(rq[chosen].mean()), int(chosen.sum()))

    is_thing = np.array([category.is_thing for category in categories], dtype=bool)
    return PanopticQuality(
        images=statistics.images,
        all=average(occurs),
        things=average(is_thing),
        stuff=average(~is_thing),
        per_category=tuple(map(CategoryQuality, categories, *(a.tolist() for a in (pq, sq, rq, tp, fp, fn)))),
    )
