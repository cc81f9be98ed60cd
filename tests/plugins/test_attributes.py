"""The attributes of an op as keyword arguments, in the forms that pass them on."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from panrt.model.custom_ops import KERNELS
from panrt.plugins import native
from panrt.plugins.attributes import complete
from panrt.plugins.schema import BOX_DETECTIONS, PANOPTIC_MERGE, PYRAMID_ROI_ALIGN
from support import cuda_form
from support.cases import network_cases

CASE = replace(network_cases(1)[3], N=1, K=4, S=4, quarter_hw=(12, 10), padding=(0, 0), output_hw=None, count="all")


def network_merge(*inputs: Any, **attributes: Any) -> Any:
    return KERNELS.panoptic_merge(*(torch.from_numpy(array) for array in inputs), **attributes)


forms = pytest.mark.parametrize(
    "merge", [native.panoptic_merge, network_merge, cuda_form.panoptic_merge], ids=["native", "network", "cuda"]
)


@forms
def test_a_missing_attribute_is_named_with_its_meaning(merge: Callable[..., Any]) -> None:
    inputs, attributes = CASE.arguments()
    del attributes["overlap_threshold"]
    with pytest.raises(
        TypeError,
        match=r"panoptic_merge: the attribute overlap_threshold \(float, largest occluded share of an instance\) is "
        "missing; expected input_hw, output_hw, score_threshold, overlap_threshold, stuff_area_limit, mask_threshold",
    ):
        merge(*inputs, **attributes)


@forms
def test_an_attribute_that_the_op_has_not_is_named(merge: Callable[..., Any]) -> None:
    inputs, attributes = CASE.arguments()
    attributes["overlap_treshold"] = attributes.pop("overlap_threshold")
    with pytest.raises(TypeError, match="panoptic_merge: got 'overlap_treshold', which is not an attribute of it; exp"):
        merge(*inputs, **attributes)


@forms
def test_an_attribute_with_a_default_may_be_omitted(merge: Callable[..., Any]) -> None:
    inputs, attributes = CASE.arguments()
    expected = merge(*inputs, **attributes)
    assert attributes.pop("mask_threshold") == PANOPTIC_MERGE.defaults["mask_threshold"]
    assert [array.tolist() for array in merge(*inputs, **attributes)] == [array.tolist() for array in expected]


def test_the_type_checker_knows_the_attributes() -> None:
    inputs, attributes = CASE.arguments()
    boxes, logits = inputs[1], inputs[0]
    with pytest.raises(TypeError, match="expected a number"):
        native.box_detections(
            logits[0],
            logits[0],
            boxes,
            inputs[4],
            box_weights=(10, 10, 5, 5),
            score_threshold="0.5",  # type: ignore[arg-type]
            nms_threshold=0.5,
            max_detections=3,
            input_hw=attributes["input_hw"],
        )
    with pytest.raises(TypeError, match="the attribute output_size"):
        native.pyramid_roi_align([logits], boxes, strides=[4], sampling_ratio=0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'threshold'"):
        native.pyramid_roi_align([logits], boxes, strides=[4], sampling_ratio=0, output_size=2, threshold=1)  # type: ignore[call-arg]


def test_given_attributes_replace_defaults() -> None:
    given = {"strides": [4], "output_size": 7, "sampling_ratio": 0, "min_level": 3}
    assert complete(PYRAMID_ROI_ALIGN, given) == {**given, "canonical_size": 224.0, "canonical_level": 4}
    with pytest.raises(TypeError, match=r"box_detections: the attribute box_weights \(Sequence\[float\]"):
        complete(BOX_DETECTIONS, {})


def test_the_signature_that_help_shows_has_each_attribute() -> None:
    shown = str(inspect.signature(native.pyramid_roi_align))
    assert "strides: 'Sequence[int]', output_size: 'int', sampling_ratio: 'int', canonical_size: 'float' = 224" in shown
    assert typing.get_type_hints(native.pyramid_roi_align)["output_size"] is int
    assert "min_level: 'int' = 2, layout: 'Layout' = 'NCHW', threads: 'int | None' = None) ->" in shown
