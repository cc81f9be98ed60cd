"""Semantic IoU against a hand-computed case and hotcoco."""

from __future__ import annotations

import json
import math

import hotcoco.semantic
import numpy as np
import pytest

from panrt.model.semantic_iou import IGNORED, confusion_matrix, evaluate, semantic_iou

TRUTH = np.array([[0, 0, 0, 1, 1, IGNORED]], np.uint8)
PREDICTION = np.array([[0, 0, 1, 1, 255, 2]], np.uint8)


def test_the_confusion_matrix_counts_pixels_with_a_ground_truth() -> None:
    assert confusion_matrix(TRUTH, PREDICTION, classes=3).tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]


def test_iou_and_its_means_are_those_computed_by_hand() -> None:
    result = evaluate([(TRUTH, PREDICTION)], classes=3)
    assert result.per_class[:2] == pytest.approx((2 / 3, 1 / 3))
    assert math.isnan(result.per_class[2])
    assert result.miou == pytest.approx(1 / 2)
    assert result.fwiou == pytest.approx((3 * 2 / 3 + 2 * 1 / 3) / 5)
    assert result.pixel_accuracy == pytest.approx(3 / 5)
    assert result.table(["a", "b", "c"]).splitlines()[2:] == [
        "a               66.7",
        "b               33.3",
        "c                  -",
        "mIoU            50.0",
        "fwIoU           53.3",
        "pixel accuracy  60.0",
    ]
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["per_class"][2] is None


def test_a_class_that_is_only_predicted_counts_with_zero() -> None:
    result = evaluate([(np.array([[0, 0]]), np.array([[0, 1]]))], classes=2)
    assert result.per_class == (0.5, 0.0)
    assert result.miou == 0.25


@pytest.mark.parametrize("seed", range(10))
def test_a_random_set_equals_hotcoco(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths, predictions = rng.integers(0, 7, size=(2, 4, 12, 9), dtype=np.uint8)
    truths[rng.random(truths.shape) < 0.2] = IGNORED
    predictions[truths == 3] = 0
    result = evaluate(zip(truths, predictions, strict=True), classes=8)
    peer = hotcoco.semantic.SemanticEval(8, ignore_index=IGNORED)
    for truth, prediction in zip(truths, predictions, strict=True):
        peer.update(truth, prediction)
    metrics = dict(zip(hotcoco.semantic.METRIC_NAMES, peer.stats, strict=True))
    got = (result.miou, result.fwiou, result.pixel_accuracy)
    assert got == pytest.approx((metrics["mIoU"], metrics["fwIoU"], metrics["aAcc"]), rel=0, abs=1e-12)


def test_the_iou_of_nothing_is_nan() -> None:
    result = semantic_iou(np.zeros((2, 3), np.int64))
    assert all(math.isnan(value) for value in (result.miou, result.fwiou, result.pixel_accuracy, *result.per_class))


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected the size of the ground truth, \(1, 6\), got \(1, 5\)"):
        confusion_matrix(TRUTH, PREDICTION[:, 1:], classes=3)
    with pytest.raises(ValueError, match=r"expected classes 0 to 0 or 255 \(ignored\), got 0 to 1"):
        confusion_matrix(TRUTH, PREDICTION, classes=1)
