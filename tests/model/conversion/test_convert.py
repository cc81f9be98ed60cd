"""A checkpoint becomes a network by whatever describes it, or an error says what to give."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.golden import recipe
from panrt.errors import CheckpointError, ConfigFileError
from panrt.model import PanopticFPN
from panrt.model.config import (
    BoxHeadConfig,
    FpnConfig,
    InstanceConfig,
    MaskHeadConfig,
    PanopticFPNConfig,
    ResNetConfig,
    RpnConfig,
    SemanticConfig,
    panoptic_fpn_r50,
)
from panrt.model.conversion.convert import Conversion, convert
from panrt.model.conversion.mmdetection_config import published
from panrt.model.conversion.structure import class_counts, with_structure
from panrt.model.conversion.tensor_names import detectron2_name, is_mmdetection, mmdetection_name
from panrt.model.data.classes import COCO, ClassTable
from panrt.model.weight_files import Weights
from support import mmdetection

ZOO = "Detectron2 Model Zoo"
SOURCE = Path("model_final.pth")
Tensors = Mapping[str, Tensor]


@pytest.fixture(scope="module")
def r50() -> Tensors:
    return {name: torch.from_numpy(array) for name, array in recipe.state_dict(50).items()}


@pytest.fixture(scope="module")
def few(r50: Tensors) -> Tensors:
    """The same for 4 things and 3 stuff."""
    rows = {
        "roi_heads.box_predictor.cls_score": 5,
        "roi_heads.box_predictor.bbox_pred": 16,
        "roi_heads.mask_head.predictor": 4,
        "sem_seg_head.predictor": 4,
    }
    return {name: tensor[: rows.get(name.rpartition(".")[0])] for name, tensor in r50.items()}


def converted(tensors: Tensors, author: str = "", **options: Any) -> Conversion:
    return convert(Weights(dict(tensors), author), options.pop("source", SOURCE), **options)


def yaml_file(folder: Path, more: str = "") -> str:
    path = folder / "mine.yaml"
    path.write_text(f"_BASE_: Base-Panoptic-FPN.yaml\nMODEL:\n  RESNETS: {{DEPTH: 50}}\n{more}")
    return str(path)


# What describes the network


def test_weights_of_the_zoo_describe_themselves(r50: Tensors) -> None:
    conversion = converted(r50, ZOO)
    assert conversion.model.config == panoptic_fpn_r50()
    assert conversion.framework == "detectron2"
    assert conversion.description == "its weights and detectron2's model zoo"


def test_weights_of_others_need_a_configuration(r50: Tensors, tmp_path: Path) -> None:
    expected = (
        r"model_final\.pth: the weights do not show thresholds, anchors and pixel statistics; .*--config config\.yaml"
    )
    with pytest.raises(CheckpointError, match=expected):
        converted(r50)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(CheckpointError, match=rf"--config {tmp_path}/config\.yaml, which detectron2 writes beside"):
        converted(r50, source=tmp_path / "model_final.pth")


@pytest.mark.parametrize("change", ["few", "syncbn", "grouped"])
def test_other_weights_by_the_zoos_author_need_a_configuration_too(r50: Tensors, few: Tensors, change: str) -> None:
    tensors = dict(few if change == "few" else r50)
    if change == "syncbn":
        for level in (2, 3, 4, 5):
            for name in (f"backbone.fpn_lateral{level}", f"backbone.fpn_output{level}"):
                bias = tensors.pop(f"{name}.bias")
                tensors |= {f"{name}.norm.{p}": bias for p in ("weight", "bias", "running_mean", "running_var")}
    if change == "grouped":
        tensors["backbone.bottom_up.res2.0.conv2.weight"] = torch.zeros(256, 8, 3, 3)
    with pytest.raises(CheckpointError, match="the weights do not show thresholds"):
        converted(tensors, ZOO)


def test_no_panoptic_fpn_is_an_error(r50: Tensors) -> None:
    with pytest.raises(CheckpointError, match=r"these are none of PanRT's known networks"):
        converted({"layer.weight": torch.zeros(1)})


def test_a_configuration_by_name_takes_the_classes_of_the_weights(few: Tensors) -> None:
    conversion = converted(few, config="panoptic_fpn_r50")
    classes = conversion.model.config.classes
    assert [category.name for category in classes.things] == ["thing 0", "thing 1", "thing 2", "thing 3"]
    assert [category.name for category in classes.stuff] == ["stuff 1", "stuff 2", "stuff 3"]
    assert "give --names" in conversion.notes[-1]


def test_names_are_given_by_a_file(few: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"thing_classes": list("abcd"), "stuff_classes": ["things", *"efg"]}))
    conversion = converted(few, config="panoptic_fpn_r50", names=path)
    classes = conversion.model.config.classes
    assert [category.name for category in classes.things + classes.stuff] == list("abcdefg")
    assert conversion.notes == ()
    path.write_text(json.dumps(["a", "b"]))
    with pytest.raises(ConfigFileError, match="2 names for 4 things and 3 stuff, expected 7"):
        converted(few, config="panoptic_fpn_r50", names=path)


def test_a_configuration_of_other_classes_is_named(few: Tensors, tmp_path: Path) -> None:
    expected = (
        r"trained on 4 things and 3 stuff, while mine has 80 and 53, by mine\.yaml; give the configuration of these"
    )
    with pytest.raises(CheckpointError, match=expected):
        converted(few, config=yaml_file(tmp_path))
    more = "  ROI_HEADS: {NUM_CLASSES: 4}\n  SEM_SEG_HEAD: {NUM_CLASSES: 4}\n"
    assert len(converted(few, config=yaml_file(tmp_path, more)).model.config.classes.things) == 4


def test_a_configuration_of_another_framework_is_named(r50: Tensors, tmp_path: Path) -> None:
    for config in ("mmdetection", "config.py"):
        with pytest.raises(CheckpointError, match=rf"weights of detectron2, but {config} is a configuration of mmdet"):
            converted(r50, config=config)
    theirs = {"backbone.conv1.weight": torch.zeros(1), "semantic_head.conv_logits.bias": torch.zeros(4)}
    for config in ("panoptic_fpn_r50", "config.yaml"):
        with pytest.raises(CheckpointError, match=rf"weights of mmdetection, but {config} is a configuration of detec"):
            converted(theirs, config=config)


def test_weights_of_mmdetection_without_a_configuration_name_the_cure() -> None:
    theirs = {"backbone.conv1.weight": torch.zeros(1), "roi_head.bbox_head.fc_cls.bias": torch.zeros(5)}
    with pytest.raises(
        CheckpointError, match=r"without a configuration; give it: --config FILE\.py.*--config mmdetection "
    ):
        converted(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["mmdetection", "mmdetection-caffe"])
def test_a_bare_state_dict_of_mmdetection_takes_its_structure_from_the_weights(style: str) -> None:
    tensors = mmdetection.tensors(mmdetection.shapes(things=3, stuff=2, blocks=(3, 4, 23, 3)))
    model = converted(tensors, config=style).model
    expected = published(style).config
    assert model.config == dataclasses.replace(
        expected,
        trunk=ResNetConfig(depth=101, stride_in_1x1=style == "mmdetection-caffe"),
        classes=model.config.classes,
    )
    stem = tensors["backbone.conv1.weight"]
    found = model.state_dict()["backbone.trunk.stem.conv1.weight"]
    assert torch.equal(found, stem.flip(1) if style == "mmdetection" else stem)


def test_a_missing_tensor_of_mmdetection_has_mmdetections_name() -> None:
    tensors = mmdetection.tensors(mmdetection.shapes(things=80, stuff=53))
    del tensors["semantic_head.conv_upsample_layers.3.conv.1.gn.weight"]
    tensors["rpn_head.rpn_cls.weight"] = torch.zeros(1, 256, 1, 1)
    with pytest.raises(CheckpointError) as caught:
        converted(tensors, config="mmdetection")
    assert "semantic_head.conv_upsample_layers.3.conv.1.gn.weight: missing" in str(caught.value)
    assert "rpn_head.rpn_cls.weight: got shape (1, 256, 1, 1), expected (3, 256, 1, 1)" in str(caught.value)


# Structure


CONFIGS = [
    PanopticFPNConfig(name="plain"),
    PanopticFPNConfig(name="deep", trunk=ResNetConfig(depth=101, groups=32, width_per_group=8)),
    PanopticFPNConfig(
        name="group",
        trunk=ResNetConfig(norm="group"),
        fpn=FpnConfig(width=64, norm="group"),
        instance=InstanceConfig(
            rpn=RpnConfig(conv_widths=(64, 32)),
            box=BoxHeadConfig(convolutions=4, width=32, norm="group", layers=1, hidden=48, pooled_size=5),
            mask=MaskHeadConfig(width=32, convolutions=2, norm="group"),
        ),
        semantic=SemanticConfig(width=32, norm="none"),
        classes=ClassTable(COCO.things[:3], COCO.stuff[:4]),
    ),
    PanopticFPNConfig(
        name="batch",
        fpn=FpnConfig(width=48, norm="batch"),
        instance=InstanceConfig(
            rpn=RpnConfig(conv_widths=(32,)),
            box=BoxHeadConfig(layers=3, hidden=32),
            mask=MaskHeadConfig(width=48, convolutions=0),
        ),
        semantic=SemanticConfig(width=48, norm="batch"),
    ),
    PanopticFPNConfig(name="stuff", instance=None),
    PanopticFPNConfig(name="things", semantic=None),
]


def shapes_of(config: PanopticFPNConfig, name: Callable[[str], str]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = PanopticFPN(config).state_dict()
    found = {name(ours): tuple(tensor.shape) for ours, tensor in state.items()}
    assert len(found) == len(state)
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_the_structure_is_seen_in_the_shapes(config: PanopticFPNConfig) -> None:
    start = dataclasses.replace(PanopticFPNConfig(name=config.name), classes=config.classes)
    found = with_structure(start, shapes_of(config, detectron2_name), detectron2_name)
    if config.instance is not None and config.instance.box.convolutions == 0:  # the width of no convolution
        assert found.instance is not None
        box = dataclasses.replace(found.instance.box, width=config.instance.box.width)
        found = dataclasses.replace(found, instance=dataclasses.replace(found.instance, box=box))
    assert found == config


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_names_of_mmdetection_are_one_for_each_tensor(config: PanopticFPNConfig) -> None:
    name = mmdetection_name(config)
    shapes = shapes_of(config, name)
    assert is_mmdetection(shapes)
    assert not any(found.startswith(("instance.", "semantic.", "backbone.trunk", "backbone.fpn")) for found in shapes)
    things = len(config.classes.things) if config.instance is not None else None
    stuff = len(config.classes.stuff) if config.semantic is not None else None
    assert class_counts(shapes, name) == (things, stuff)


def test_mmdetections_names_and_shapes_are_those_of_its_modules() -> None:
    config = dataclasses.replace(published("mmdetection").config, classes=COCO)
    found = shapes_of(config, mmdetection_name(config))
    assert found == mmdetection.shapes(things=80, stuff=53)
