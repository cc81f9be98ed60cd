"""Semantic segmentation quality: IoU per class, its mean (mIoU) and its frequency-weighted mean (fwIoU).

Shapes: H, W map size, C classes. A semantic map holds a class index 0..C-1 per pixel. IoU = TP / (TP + FP + FN) in
pixels over the whole set; means are over the classes that occur in either map, as in mmsegmentation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from panrt.model.metric_table import nan_to_none, percent, text_table

ClassMap = npt.NDArray[np.integer[Any]]  # (H, W)
Confusion = npt.NDArray[np.int64]  # (C, C + 1): pixels by true class and predicted class, last column: no class

IGNORED = 255  # the usual label of pixels without a ground truth


class SemanticIou(NamedTuple):
    """The result for a set of images, as fractions."""

    miou: float
    fwiou: float  # weighted by the pixels of each class in the ground truth
    pixel_accuracy: float
    per_class: tuple[float, ...]  # (C,) NaN where a class does not occur

    def table(self, names: Sequence[str]) -> str:
        """Return aligned text in percent, a row for each class and for the means."""
        rows = [(name, percent(iou)) for name, iou in zip(names, self.per_class, strict=True)]
        means = [("mIoU", self.miou), ("fwIoU", self.fwiou), ("pixel accuracy", self.pixel_accuracy)]
        return text_table(("", "IoU"), rows + [(name, percent(value)) for name, value in means])

    def to_json(self) -> dict[str, object]:
        """Return plain data for `json.dumps`."""
        per_class = [None if math.isnan(iou) else iou for iou in self.per_class]
        return {**nan_to_none(self._asdict()), "per_class": per_class}


def confusion_matrix(truth: ClassMap, prediction: ClassMap, *, classes: int, ignored: int = IGNORED) -> Confusion:
    """Count the pixels of one image by true and predicted class; the counts of several images add up.

    Args:
        truth: (H, W) class indices, or `ignored` for pixels without ground truth.
        prediction: (H, W) class indices. Other values are not classes, and count as wrong on every labelled pixel.
        classes: C.
        ignored: label of pixels that do not count.

    Raises:
        ValueError: the sizes differ or the ground truth holds another label.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"prediction: expected the size of the ground truth, {truth.shape}, got {prediction.shape}.")
    counted = truth != ignored
    true_classes, predicted_classes = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    if true_classes.size and not 0 <= true_classes.min() <= true_classes.max() < classes:
        raise ValueError(
            f"ground truth: expected classes 0 to {classes - 1} or {ignored} (ignored), "
            f"got {true_classes.min()} to {true_classes.max()}."
        )
    predicted_classes[(predicted_classes < 0) | (predicted_classes >= classes)] = classes
    pairs = true_classes * (classes + 1) + predicted_classes
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def semantic_iou(confusion: Confusion) -> SemanticIou:
    """Turn a confusion matrix into IoUs; without any pixel they are NaN."""
    truth, prediction = confusion.sum(axis=1), confusion.sum(axis=0)[:-1]
    correct = np.diagonal(confusion)
    union = truth + prediction - correct
    occurs, total = union > 0, truth.sum()
    iou = correct / np.where(occurs, union, np.nan)
    if total == 0:
        return SemanticIou(math.nan, math.nan, math.nan, tuple(iou.tolist()))
    return SemanticIou(
        miou=float(iou[occurs].mean()),
        fwiou=float((iou[occurs] * truth[occurs]).sum() / total),
        pixel_accuracy=float(correct.sum() / total),
        per_class=tuple(iou.tolist()),
    )


def evaluate(pairs: Iterable[tuple[ClassMap, ClassMap]], *, classes: int, ignored: int = IGNORED) -> SemanticIou:
    """Compute the semantic IoU of a stream of (ground truth, prediction) maps; see `confusion_matrix`."""
    confusion = np.zeros((classes, classes + 1), np.int64)
    for truth, prediction in pairs:
        confusion += confusion_matrix(truth, prediction, classes=classes, ignored=ignored)
    return semantic_iou(confusion)
