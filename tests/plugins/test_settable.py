"""Version 2 of the ops, whose thresholds are inputs: equal to version 1 with these thresholds, and what only it can do.

Shapes: as in OPS.md.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from panrt.plugins import contract, reference
from panrt.plugins.contract import Detections, PanopticSegments
from panrt.plugins.schema import BOX_DETECTIONS, OPS, PANOPTIC_MERGE, Op
from support.cases import Case, DetectionCase, MergeCase, detection_cases, merge_cases, network_cases
from support.compare import assert_identical

NEVER = np.int32(2**31 - 1)  # pixels: no stuff segment is so large


def split(op: Op, case: Case) -> tuple[list[Any], dict[str, Any]]:
    """The inputs and attributes of version 2 for a case of version 1."""
    inputs, attributes = case.arguments()
    sizes = contract.sizes_of(op, inputs, attributes)
    settings = contract.settings(op, sizes.letters, attributes)
    moved = {name for setting in op.settings for name in setting.attributes}
    return [*inputs, *settings], {name: value for name, value in attributes.items() if name not in moved}


def detections_of(ops: ModuleType, case: DetectionCase) -> Detections:
    inputs, attributes = split(BOX_DETECTIONS, case)
    found: Detections = ops.box_detections_2(*inputs, **attributes)
    return found


def merge_of(ops: ModuleType, case: MergeCase) -> PanopticSegments:
    inputs, attributes = split(PANOPTIC_MERGE, case)
    found: PanopticSegments = ops.panoptic_merge_2(*inputs, **attributes)
    return found


# --- equal to version 1 -----------------------------------------------------------------------------------------------


@given(case=detection_cases)
def test_detections_with_thresholds_as_input_are_those_with_attributes(form: ModuleType, case: DetectionCase) -> None:
    assert_identical(detections_of(form, case), case.run(reference.box_detections))


@given(case=merge_cases)
def test_merge_with_thresholds_as_inputs_is_that_with_attributes(form: ModuleType, case: MergeCase) -> None:
    assert_identical(merge_of(form, case), case.run(reference.panoptic_merge))


@pytest.mark.parametrize("seed", range(2))
def test_both_ops_agree_at_the_size_of_a_network(form: ModuleType, seed: int) -> None:
    *_, detections, merge = network_cases(seed)
    assert_identical(detections_of(form, detections), detections.run(reference.box_detections))
    assert_identical(merge_of(form, merge), merge.run(reference.panoptic_merge))


# --- a threshold per class, a limit per channel -----------------------------------------------------------------------


def test_a_class_with_an_infinite_threshold_leaves_its_places_to_others(ops: ModuleType) -> None:
    """Class 0 scores best everywhere; without it the two places go to class 1, whatever is in its way."""
    logits = np.array([[[3, 2, 0], [3, 1, 0], [3, 0.5, 0]]], np.float32)
    rois = np.array([[[0, 0, 8, 8], [20, 0, 28, 8], [40, 0, 48, 8]]], np.float32)
    arguments = (logits, np.zeros((1, 3, 8), np.float32), rois, np.array([3], np.int32))
    options: dict[str, Any] = {"box_weights": (10.0, 10.0, 5.0, 5.0), "max_detections": 2, "input_hw": (64, 64)}

    def found(*thresholds: float) -> tuple[list[int], list[float]]:
        got = ops.box_detections_2(*arguments, np.array(thresholds, np.float32), **options)
        return got.classes[0].tolist(), got.boxes[0, :, 0].tolist()

    assert found(0.0, 0.0, 0.5)[0] == [0, 0]
    assert found(np.inf, 0.0, 0.5) == ([1, 1], [0.0, 20.0])
    assert ops.box_detections_2(*arguments, np.array([np.inf, np.inf, 0.5], np.float32), **options).count[0] == 0


def test_a_channel_has_a_limit_of_its_own_and_its_pixels_stay_void(ops: ModuleType) -> None:
    """Columns of channels 1, 2 and 3, each of 8 pixels."""
    logits = np.zeros((1, 4, 2, 6), np.float32)
    for channel in (1, 2, 3):
        logits[0, channel, :, 2 * channel - 2 : 2 * channel] = 9.0
    nothing = (np.zeros((1, 0, 4), np.float32), np.zeros((1, 0), np.float32), np.zeros((1, 0), np.int32))
    arguments = (logits, *nothing, np.array([0], np.int32), np.zeros((1, 0, 28, 28), np.float32))

    def found(*limits: int) -> list[int]:
        settings = np.array([0.5, 0.5, 0.5], np.float32), np.array(limits, np.int32)
        got = ops.panoptic_merge_2(*arguments, *settings, input_hw=(8, 24), output_hw=(2, 12))
        rows = got.segments[0, : got.segment_count[0]]
        assert set(np.unique(got.panoptic)) - {0} == set(rows[:, 0].tolist())
        assert int((got.panoptic > 0).sum()) == int(rows[:, 3].sum())
        return [int(category) for category in rows[:, 1]]

    assert found(0, 0, 0, 0) == [1, 2, 3]
    assert found(0, 0, NEVER, 0) == [1, 3]
    assert found(0, NEVER, 8, 9) == [2]
    assert found(NEVER, NEVER, NEVER, NEVER) == []


@given(case=detection_cases)
def test_each_class_has_its_threshold_in_every_form(form: ModuleType, case: DetectionCase) -> None:
    inputs, attributes = split(BOX_DETECTIONS, case)
    rng = np.random.default_rng(case.seed)
    inputs[-1][:-1] = rng.choice(np.array([-1, 0, 0.05, 0.2, 0.5, np.inf, -np.inf], np.float32), case.C)
    assert_identical(form.box_detections_2(*inputs, **attributes), reference.box_detections_2(*inputs, **attributes))


@given(case=merge_cases)
def test_each_channel_has_its_limit_in_every_form(form: ModuleType, case: MergeCase) -> None:
    inputs, attributes = split(PANOPTIC_MERGE, case)
    rng = np.random.default_rng(case.seed)
    inputs[-1][:] = rng.choice(np.array([0, 1, 30, 200, 2**24 + 1, NEVER], np.int32), case.S)
    assert_identical(form.panoptic_merge_2(*inputs, **attributes), reference.panoptic_merge_2(*inputs, **attributes))


def test_without_a_class_the_others_are_found_as_if_it_did_not_exist(ops: ModuleType) -> None:
    """NMS is within a class, so dropping one only frees places."""
    case = dataclasses.replace(network_cases(3)[2], C=5, max_detections=400)
    inputs, attributes = split(BOX_DETECTIONS, case)
    everything = ops.box_detections_2(*inputs, **attributes)
    inputs[-1][2] = np.inf
    got = ops.box_detections_2(*inputs, **attributes)
    for n in range(case.N):
        kept = everything.classes[n, : everything.count[n]] != 2
        assert 0 < kept.sum() < len(kept)
        for field in ("boxes", "scores", "classes"):
            before = getattr(everything, field)[n, : len(kept)][kept]
            np.testing.assert_array_equal(getattr(got, field)[n, : got.count[n]], before)


# --- what is invalid --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "setting", "index", "value", "problem"),
    [
        ("BoxDetections", 0, 1, np.nan, r"thresholds\[1\]: expected a score_threshold not NaN, got"),
        ("BoxDetections", 0, -1, 1.5, r"thresholds\[80\]: expected a nms_threshold at least 0 and at most 1, got"),
        ("PanopticMerge", 0, 0, np.nan, r"thresholds\[0\]: expected a score_threshold not NaN"),
        ("PanopticMerge", 0, 1, -0.1, r"thresholds\[1\]: expected a overlap_threshold at least 0 and at most 1"),
        ("PanopticMerge", 0, 2, 0.0, r"thresholds\[2\]: expected a mask_threshold above 0 and at most 1"),
        ("PanopticMerge", 1, 3, -1, r"stuff_area_limits\[3\]: expected a stuff_area_limit at least 0"),
    ],
)
def test_a_number_outside_its_range_is_an_error_that_names_it(
    python_ops: ModuleType, op: str, setting: int, index: int, value: float, problem: str
) -> None:
    case: Case = network_cases(0)[2 if op == "BoxDetections" else 3]
    inputs, attributes = split(OPS[op], case)
    inputs[len(inputs) - len(OPS[op].settings) + setting][index] = value
    function = {"BoxDetections": "box_detections_2", "PanopticMerge": "panoptic_merge_2"}[op]
    with pytest.raises(ValueError, match=problem):
        getattr(python_ops, function)(*inputs, **attributes)


def test_an_input_of_another_size_is_an_error_that_names_it(python_ops: ModuleType) -> None:
    inputs, attributes = split(BOX_DETECTIONS, network_cases(0)[2])
    inputs[-1] = inputs[-1][1:]
    with pytest.raises(ValueError, match=r"thresholds: expected \(81,\) float32, got \(80,\)"):
        python_ops.box_detections_2(*inputs, **attributes)
