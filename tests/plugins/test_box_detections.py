"""BoxDetections: hand-computed cases, an independent oracle, OPS.md section 6, and agreement of the forms."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from panrt.plugins import reference
from panrt.plugins.contract import Detections
from support import oracles
from support.cases import DetectionCase, detection_cases, network_cases
from support.compare import assert_identical

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def detect(ops: ModuleType, logits: Any, rois: Any, deltas: Any = None, **options: Any) -> Detections:
    """Detections of one image from logits (R, C + 1), RoIs (R, 4) and deltas (R, 4C), which are 0 where not given."""
    class_logits = np.array(logits, np.float32)[None]
    _, R, columns = class_logits.shape
    deltas = np.zeros((R, 4 * (columns - 1))) if deltas is None else deltas
    count = options.pop("count", R)
    defaults: dict[str, Any] = {
        "box_weights": WEIGHTS,
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "max_detections": 4,
        "input_hw": (64, 64),
    }
    detections: Detections = ops.box_detections(
        class_logits,
        np.array(deltas, np.float32)[None],
        np.array(rois, np.float32)[None],
        np.array([count], np.int32),
        **(defaults | options),
    )
    return detections


def rows(detections: Detections) -> list[tuple[int, float, list[float]]]:
    """(class, score, box) of each real detection of the first image."""
    boxes, scores, classes, count = (field[0] for field in detections)
    return list(zip(classes.tolist(), scores.tolist(), boxes.tolist(), strict=True))[:count]


A, B = [0, 0, 16, 16], [8, 0, 24, 16]  # overlap by exactly 1/3
FAR = [40, 40, 50, 60]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_scores_are_the_softmax_without_its_last_column(ops: ModuleType) -> None:
    got = detect(ops, [[math.log(3), math.log(2), math.log(5)]], [A], score_threshold=0.0)
    assert_array_equal(got.classes[0, :2], [0, 1])
    assert_allclose(got.scores[0], [0.3, 0.2, 0, 0], rtol=1e-6)
    assert got.count.tolist() == [2]


def test_large_logits_do_not_overflow(ops: ModuleType) -> None:
    got = detect(ops, [[1e30, 1e30, -1e30]], [A])
    assert [(c, score) for c, score, _ in rows(got)] == [(0, 0.5), (1, 0.5)]


def test_deltas_are_divided_by_the_weights_and_belong_to_their_class(ops: ModuleType) -> None:
    # Class 1's box: centre (8, 8) + (0.5, -0.25) of 16 pixels, twice as wide, half as high, then clipped.
    deltas = [[0, 0, 0, 0, 5, -2.5, 5 * math.log(2), 5 * math.log(0.5)]]
    got = rows(detect(ops, [[1, 0, -50]], [A], deltas, score_threshold=0.2))
    assert [row[0] for row in got] == [0, 1]
    assert_allclose([row[2] for row in got], [A, [0, 0, 32, 8]], atol=1e-5)


def test_detections_come_best_first_over_all_classes(ops: ModuleType) -> None:
    got = rows(detect(ops, np.log([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3], [0.1, 0.4, 0.5]]), [A, FAR, A]))
    assert [(c, round(score, 3)) for c, score, _ in got] == [(0, 0.6), (1, 0.4), (0, 0.2), (1, 0.1)]


def test_a_score_equal_to_the_threshold_is_not_enough(ops: ModuleType) -> None:
    quarters = [[0.0, 0.0, 0.0, 0.0]]  # three classes and the background
    assert rows(detect(ops, quarters, [A], score_threshold=0.25)) == []
    below = float(np.nextafter(np.float32(0.25), np.float32(0)))
    assert [row[:2] for row in rows(detect(ops, quarters, [A], score_threshold=below))] == [
        (0, 0.25),
        (1, 0.25),
        (2, 0.25),
    ]


def test_thresholds_are_rounded_to_float32(ops: ModuleType) -> None:
    quarters = [[0.0, 0.0, 0.0, 0.0]]
    assert rows(detect(ops, quarters, [A], score_threshold=math.nextafter(0.25, 0))) == []
    two = [[5.0, 0.0], [4.0, 0.0]]
    assert len(rows(detect(ops, two, [A, B], nms_threshold=math.nextafter(1 / 3, 0)))) == 2


def test_nms_keeps_a_box_whose_iou_equals_the_threshold(ops: ModuleType) -> None:
    third = float(np.float32(1) / np.float32(3))
    below = float(np.nextafter(np.float32(third), np.float32(0)))
    logits = [[1.0, 0.0], [2.0, 0.0]]
    assert [row[2] for row in rows(detect(ops, logits, [A, B], nms_threshold=third))] == [B, A]
    assert [row[2] for row in rows(detect(ops, logits, [A, B], nms_threshold=below))] == [B]


def test_classes_do_not_suppress_one_another(ops: ModuleType) -> None:
    got = rows(detect(ops, [[0.0, 0.0, -50], [1.0, -50, -50]], [A, A], nms_threshold=0.0))
    assert [(c, box) for c, _, box in got] == [(0, A), (1, A)]


def test_a_suppressed_box_suppresses_nothing(ops: ModuleType) -> None:
    logits = [[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]]
    got = rows(detect(ops, logits, [A, B, [16, 0, 32, 16]], nms_threshold=0.3))
    assert [row[2] for row in got] == [A, [16, 0, 32, 16]]


def test_ties_go_to_the_lower_roi_and_then_to_the_lower_class(ops: ModuleType) -> None:
    got = rows(detect(ops, np.zeros((2, 3)), [FAR, A], max_detections=3))
    assert [(c, box) for c, _, box in got] == [(0, FAR), (1, FAR), (0, A)]
    # Of two equal boxes with equal scores the lower RoI stays: here B moved onto A by -8 pixels of 16.
    deltas = [[0, 0, 0, 0], [-5, 0, 0, 0]]
    got = rows(detect(ops, np.zeros((2, 2)), [A, B], deltas))
    assert got == [(0, 0.5, A)]


def test_background_is_never_a_detection(ops: ModuleType) -> None:
    assert rows(detect(ops, [[-50.0, -50.0, 50.0]], [A])) == []


# --- OPS.md section 6, row by row -------------------------------------------------------------------------------------


def assert_nothing(got: Detections) -> None:
    """No detection, and no trace of one."""
    assert not any(field.any() for field in got)


def test_no_rois_give_nothing(ops: ModuleType) -> None:
    assert_nothing(detect(ops, np.zeros((0, 3)), np.zeros((0, 4))))


@pytest.mark.parametrize(("count", "real"), [(0, 0), (-1, 0), (-(2**31), 0), (1, 1), (2, 2), (3, 2), (2**31 - 1, 2)])
def test_the_count_is_clamped_and_rows_beyond_it_are_never_read(ops: ModuleType, count: int, real: int) -> None:
    logits, rois, deltas = np.zeros((2, 2)), np.array([A, FAR], np.float32), np.zeros((2, 4))
    for array in (logits, rois, deltas):
        array[real:] = math.nan
    got = detect(ops, logits, rois, deltas, count=count)
    assert [row[2] for row in rows(got)] == [A, FAR][:real]
    assert not got.boxes[0, real:].any()


@pytest.mark.parametrize("logit", [math.nan, math.inf])
def test_a_logit_that_is_nan_or_plus_infinity_drops_its_roi(ops: ModuleType, logit: float) -> None:
    assert [row[2] for row in rows(detect(ops, [[9, 9, logit], [1, 0, 0]], [A, FAR], score_threshold=0.5))] == [FAR]


def test_a_logit_of_minus_infinity_is_a_probability_of_zero(ops: ModuleType) -> None:
    got = rows(detect(ops, [[-math.inf, 0, 0]], [A], score_threshold=-1.0))
    assert got == [(1, 0.5, A), (0, 0.0, A)]
    assert_nothing(detect(ops, [[-math.inf, -math.inf, -math.inf]], [A], score_threshold=-1.0))


@pytest.mark.parametrize("delta", [math.nan, -math.inf, math.inf, 3e38])
def test_a_delta_that_overflows_in_any_class_drops_the_whole_roi(ops: ModuleType, delta: float) -> None:
    deltas = np.zeros((2, 8))
    deltas[0, 4] = delta
    got = rows(detect(ops, [[5, -9, 0], [4, -9, 0]], [A, FAR], deltas))
    assert [row[2] for row in got] == [FAR]


@pytest.mark.parametrize("coordinate", [math.nan, math.inf, -math.inf])
def test_a_roi_that_is_not_finite_is_dropped(ops: ModuleType, coordinate: float) -> None:
    got = rows(detect(ops, [[5, 0], [4, 0]], [[0, coordinate, 8, 8], FAR]))
    assert [row[2] for row in got] == [FAR]


def test_a_detection_that_clipping_empties_is_kept_and_overlaps_nothing(ops: ModuleType) -> None:
    outside = [70, 8, 90, 20]
    got = rows(detect(ops, [[5, 0], [4, 0], [3, 0]], [outside, outside, A], nms_threshold=0.0))
    assert [row[2] for row in got] == [[64, 8, 64, 20], [64, 8, 64, 20], A]


def test_boxes_clip_to_the_valid_size(ops: ModuleType) -> None:
    assert rows(detect(ops, [[5, -50]], [[-3, -4, 90, 80]], input_hw=(40, 50)))[0][2] == [0, 0, 50, 40]


def test_rows_beyond_the_candidates_are_zero_and_the_best_stay_where_there_are_more(ops: ModuleType) -> None:
    logits = [[1.0, 0.0], [3.0, 0.0], [2.0, 0.0]]
    rois = [A, FAR, [40, 0, 50, 10]]
    got = detect(ops, logits, rois, max_detections=5)
    assert got.count.tolist() == [3]
    assert not got.boxes[0, 3:].any()
    assert not got.scores[0, 3:].any()
    assert [row[2] for row in rows(detect(ops, logits, rois, max_detections=2))] == [FAR, [40, 0, 50, 10]]


# --- against an independent implementation ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_detections_are_detectron2s(ops: ModuleType, seed: int) -> None:
    case = replace(network_cases(seed)[2], C=5, R=60, rois=("jitter", "inside"), score_threshold=0.2, max_detections=40)
    inputs, options = case.arguments()
    got = case.run(ops.box_detections)
    for n, wanted in enumerate(oracles.detections(*inputs, **options)):
        assert got.count[n] == len(wanted) > 0
        assert_array_equal(got.classes[n, : len(wanted)], [c for _, c, _ in wanted])
        assert_allclose(got.scores[n, : len(wanted)], [score for score, _, _ in wanted], rtol=1e-5)
        assert_allclose(got.boxes[n, : len(wanted)], [box for _, _, box in wanted], atol=1e-3)


# --- agreement and properties -----------------------------------------------------------------------------------------


@given(case=detection_cases)
def test_every_form_gives_the_references_detections(form: ModuleType, case: DetectionCase) -> None:
    assert_identical(case.run(form.box_detections), case.run(reference.box_detections))


@pytest.mark.parametrize("seed", range(3))
def test_every_form_agrees_at_the_size_of_a_network(form: ModuleType, seed: int) -> None:
    case = network_cases(seed)[2]
    assert_identical(case.run(form.box_detections), case.run(reference.box_detections))


@given(case=detection_cases)
def test_detections_are_ordered_and_bounded_and_padding_is_zero(case: DetectionCase) -> None:
    got = case.run(reference.box_detections)
    height, width = case.hw
    for boxes, scores, classes, count in zip(*got, strict=True):
        assert (np.diff(scores[:count]) <= 0).all()
        assert (scores[:count] > np.float32(case.score_threshold)).all()
        assert ((classes >= 0) & (classes < case.C)).all()
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
        assert not any(field[count:].any() for field in (boxes, scores, classes))


@given(case=detection_cases)
def test_detections_do_not_depend_on_threads_or_batch(native: ModuleType, case: DetectionCase) -> None:
    inputs, options = case.arguments()
    whole = native.box_detections(*inputs, **options, threads=1)
    for threads in (2, 5):
        assert_identical(native.box_detections(*inputs, **options, threads=threads), whole)
    for n in range(case.N):
        one = native.box_detections(*(array[n : n + 1] for array in inputs), **options)
        assert_identical(one, Detections(*(field[n : n + 1] for field in whole)))


@given(case=detection_cases)
def test_the_order_of_the_rois_decides_nothing_but_ties(python_ops: ModuleType, case: DetectionCase) -> None:
    case = replace(case, scores="distinct", count="all", poison_logits=(), max_detections=1000)
    (logits, deltas, rois, count), options = case.arguments()
    flipped = (np.ascontiguousarray(array[:, ::-1]) for array in (logits, deltas, rois))
    got = python_ops.box_detections(*flipped, count, **options)
    assert_identical(got, python_ops.box_detections(logits, deltas, rois, count, **options))


def test_inputs_may_be_read_only_and_stay_as_they_are(python_ops: ModuleType) -> None:
    case = network_cases(1)[2]
    inputs, options = case.arguments()
    for array in inputs:
        array.flags.writeable = False
    assert_identical(python_ops.box_detections(*inputs, **options), case.run(reference.box_detections))
