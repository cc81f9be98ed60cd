"""Configurations survive JSON and refuse what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from panrt.model.config import (
    CONFIGS,
    BoxHeadConfig,
    EfficientNetLiteConfig,
    FpnConfig,
    InstanceConfig,
    ResNetConfig,
    RpnConfig,
    from_json,
    make_config,
    to_json,
)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_survives_json(name: str) -> None:
    config = make_config(name)
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def damaged(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = json.loads(json.dumps(to_json(make_config("panoptic_fpn_r50"))))
    change(data)
    return dict(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("trunk"), "config: missing field trunk of PanopticFPNConfig"),
        (lambda data: data["fpn"].update(widht=9), "config: fpn: unknown field widht of FpnConfig"),
        (lambda data: data["trunk"].update(depth=51), "config: trunk.depth: got 51, expected 50 or 101 or 152"),
        (lambda data: data["trunk"].update(type="VGG"), "config: trunk: got type 'VGG', expected one of ResNetConfig"),
        (lambda data: data["fpn"].update(width="256"), "config: fpn.width: got '256', expected an integer"),
        (lambda data: data.update(pixel_std=[1, 2]), r"config: pixel_std: got \[1, 2\], expected a list of 3"),
        (
            lambda data: data["merge"].update(score_threshold=float("nan")),
            "score_threshold: got nan, expected a number",
        ),
        (lambda data: data.update(instance=None, semantic=None), "neither instance nor semantic branch"),
    ],
)
def test_a_damaged_configuration_is_refused_by_field(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(damaged(change))


def test_a_file_of_an_earlier_release_lacks_later_fields() -> None:
    data = json.loads(json.dumps(to_json(make_config("panoptic_fpn_r50"))))
    assert "norm" not in data["trunk"]
    assert set(data["instance"]["box"]) == {
        "type", "pooled_size", "hidden", "box_weights", "score_threshold", "nms_threshold", "max_detections",
    }  # fmt: skip
    assert from_json(data) == make_config("panoptic_fpn_r50")


def test_a_later_field_is_written_where_it_is_used() -> None:
    config = make_config(
        "panoptic_fpn_r50",
        trunk=ResNetConfig(norm="group"),
        instance=InstanceConfig(
            rpn=RpnConfig(conv_widths=(0, 64), min_scale=0.016),
            box=BoxHeadConfig(convolutions=4, norm="group", suppression="all_classes", score_threshold=0.6),
        ),
    )
    data = json.loads(json.dumps(to_json(config)))
    assert data["trunk"]["norm"] == "group"
    assert data["instance"]["rpn"]["conv_widths"] == [0, 64]
    assert from_json(data) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RpnConfig(conv_widths=()), "conv_widths: got 0 values, expected 1 to 16"),
        (lambda: RpnConfig(conv_widths=(0,) * 17), "conv_widths: got 17 values"),
        (lambda: RpnConfig(min_scale=2), "min_scale: got 2, expected 0 to 1"),
        (lambda: BoxHeadConfig(suppression="all_classes"), "score_threshold: got 0.05, expected at least 0.5"),
        (lambda: BoxHeadConfig(suppression="none"),  # type: ignore[arg-type]
         "suppression: got 'none', expected per_class or all_classes"),
        (lambda: ResNetConfig(norm="group", width_per_group=48), "a multiple of 32 channels, .* are 48"),
        (lambda: ResNetConfig(norm="layer"),  # type: ignore[arg-type]
         "norm: got 'layer', expected frozen_batch or group"),
        (lambda: FpnConfig(fusion="max"),  # type: ignore[arg-type]
         "fusion: got 'max', expected sum or average"),
        (lambda: make_config("panoptic_fpn_r50", instance=InstanceConfig(box=BoxHeadConfig(width=48, norm="group"))),
         "BoxHeadConfig: group norm needs a width that is a multiple of 32"),
    ],
)  # fmt: skip
def test_later_fields_are_checked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="got 'panoptic_fpn_r18', expected one of panoptic_fpn_r50, panoptic_fpn_r101"):
        make_config("panoptic_fpn_r18")


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(TypeError, match="backbone"):
        make_config("panoptic_fpn_r50", backbone="r18")


def test_a_dilated_trunk_has_no_pyramid() -> None:
    with pytest.raises(ValueError, match="set fpn=None or output_stride=32"):
        make_config("panoptic_fpn_r50", trunk=ResNetConfig(output_stride=16))


def test_instances_need_a_pyramid() -> None:
    with pytest.raises(ValueError, match="set instance=None"):
        make_config("panoptic_fpn_r50", fpn=None)
    with pytest.raises(ValueError, match="only a semantic branch on a ResNet"):
        make_config("semantic_dilated_r50", trunk=EfficientNetLiteConfig())


def test_overrides_replace_whole_fields() -> None:
    assert make_config("panoptic_fpn_r50", fpn=FpnConfig(width=128)).fpn == FpnConfig(width=128)
