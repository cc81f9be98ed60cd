"""Parameters and multiply-adds against the published architecture and hand counts."""

from __future__ import annotations

import dataclasses

import pytest

from panrt.model.backbones.efficientnet_lite import EfficientNetLite
from panrt.model.complexity import complexity
from panrt.model.config import (
    CONFIGS,
    FpnConfig,
    SemanticConfig,
    make_config,
    panoptic_fpn_lite,
    panoptic_fpn_r50,
    panoptic_fpn_r101,
)


def giga(value: int) -> float:
    return round(value / 1e9, 1)


@pytest.mark.slow
def test_r50_has_detectron2s_parameters_part_by_part() -> None:
    rows = complexity(panoptic_fpn_r50(), height=800, width=1344)
    assert {row.part: row.parameters for row in rows} == {
        "trunk": 23_454_912,
        "fpn": 3_344_384,
        "rpn head": 593_935,
        "box head": 14_306_705,
        "mask head": 2_643_280,
        "semantic head": 1_630_774,
        "total": 45_973_990,
    }


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((800, 1344), [82.6, 60.9, 53.1, 14.3, 53.0, 32.4, 296]),
        ((512, 1024), [40.3, 29.7, 25.9, 14.3, 53.0, 15.8, 179]),
        ((480, 640), [23.6, 17.4, 15.2, 14.3, 53.0, 9.2, 133]),
    ],
)
def test_r50_needs_the_published_multiply_adds(size: tuple[int, int], expected: list[float]) -> None:
    *parts, total = complexity(panoptic_fpn_r50(), height=size[0], width=size[1])
    assert [giga(row.multiply_adds) for row in parts] == pytest.approx(expected[:-1], abs=0.051)
    assert total.multiply_adds / 1e9 == pytest.approx(expected[-1], abs=0.51)


def test_r101_has_detectron2s_parameters_and_multiply_adds() -> None:
    trunk, *_, total = complexity(panoptic_fpn_r101(), height=800, width=1344)
    assert total.parameters == 64_913_894
    assert giga(trunk.multiply_adds) == pytest.approx(162.2, abs=0.051)


def test_the_lite_network_has_few_parameters_and_multiply_adds() -> None:
    total = complexity(panoptic_fpn_lite(), height=256, width=320)[-1]
    assert 4.1e6 < total.parameters < 4.4e6
    assert total.multiply_adds < 3e9


def test_the_lite_trunk_is_efficientnet_lite0_without_head_and_classifier() -> None:
    trunk = EfficientNetLite()
    affine = [b for name, b in trunk.named_buffers() if name.endswith(("norm.weight", "norm.bias"))]
    assert sum(x.numel() for x in (*trunk.parameters(), *affine)) == 2_958_848


def test_a_padded_image_costs_what_its_padded_size_costs() -> None:
    assert complexity(panoptic_fpn_lite(), height=250, width=290) == complexity(
        panoptic_fpn_lite(), height=256, width=320
    )


def test_separate_networks_cost_two_backbones() -> None:
    def total(name: str) -> int:
        return complexity(make_config(name), height=800, width=1344)[-1].multiply_adds

    *parts, joint = complexity(panoptic_fpn_r50(), height=800, width=1344)
    backbone = parts[0].multiply_adds + parts[1].multiply_adds
    assert total("semantic_fpn_r50") + total("instance_fpn_r50") == joint.multiply_adds + backbone


def test_concatenation_widens_the_predictor_alone() -> None:
    def semantic(config: SemanticConfig) -> int:
        return complexity(make_config("semantic_fpn_r50", semantic=config), height=64, width=64)[-2].parameters

    assert semantic(SemanticConfig(aggregation="concat")) - semantic(SemanticConfig()) == 3 * 128 * 54


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_builds(name: str) -> None:
    config = CONFIGS[name]()
    height, width = config.input_hw
    assert config.name == name
    assert complexity(config, height=height, width=width)[-1].multiply_adds > 0


def test_a_separable_pyramid_is_cheaper() -> None:
    dense = panoptic_fpn_r50()
    separable = dataclasses.replace(dense, fpn=FpnConfig(separable=True))
    fpn = [complexity(config, height=64, width=64)[1].parameters for config in (dense, separable)]
    assert fpn[0] - fpn[1] == 4 * (9 * 256 * 256 - 256 * 256 - 9 * 256)
