"""mmdetection's configurations give its networks, or an error that names the entry."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from panrt.errors import ConfigFileError
from panrt.model.config import ResNetConfig
from panrt.model.conversion.described import Described
from panrt.model.conversion.mmdetection_config import described_in_checkpoint, published, read_mmdetection_config
from panrt.model.data.classes import COCO
from support.mmdetection import MODEL, changed, config_text

RPN, ROI, TEST = "rpn_head", "roi_head", "test_cfg"


def read(folder: Path, model: Any, **others: Any) -> Described:
    path = folder / "panoptic_fpn.py"
    path.write_text(config_text(model, **others))
    return read_mmdetection_config(path)


def test_mmdetections_own_configuration_is_the_published_network(tmp_path: Path) -> None:
    described = read(tmp_path, MODEL)
    expected = published("mmdetection")
    assert described.config == dataclasses.replace(expected.config, name="panoptic_fpn")
    assert described.rgb
    assert described.notes == ()
    config = described.config
    assert (config.pixel_mean, config.pixel_std) == ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
    assert config.trunk == ResNetConfig(stride_in_1x1=False)
    assert config.instance is not None
    assert config.instance.box.box_weights == (10.0, 10.0, 5.0, 5.0)
    assert config.instance.rpn.anchor_sizes == (32.0, 64.0, 128.0, 256.0, 512.0)


def test_mmdetection_2_writes_other_entries(tmp_path: Path) -> None:
    """Thresholds of the detections among those of the fusion, statistics beside the model, as its first release had."""
    model = copy.deepcopy(MODEL)
    del model["data_preprocessor"]
    rcnn = model[TEST]["rcnn"]
    model[TEST]["panoptic"].update(rcnn)
    model[TEST]["rcnn"] = {
        "score_thr": 0.05,
        "nms": {"type": "nms", "iou_threshold": 0.5},
        "max_per_img": 100,
        "mask_thr_binary": 0.5,
    }
    model["semantic_head"]["num_classes"] = 54
    model["pretrained"] = None
    statistics = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
    assert read(tmp_path, model, img_norm_cfg=statistics) == read(tmp_path, MODEL)


def test_the_caffe_style_is_bgr_with_another_stride(tmp_path: Path) -> None:
    statistics = {
        "type": "DetDataPreprocessor", "mean": [103.530, 116.280, 123.675], "std": [1.0, 1.0, 1.0],
        "bgr_to_rgb": False, "pad_size_divisor": 32,
    }  # fmt: skip
    model = changed("backbone.style", "caffe", changed("data_preprocessor", statistics))
    described = read(tmp_path, model)
    expected = published("mmdetection-caffe")
    assert not described.rgb
    assert described.config == dataclasses.replace(expected.config, name="panoptic_fpn")


def test_other_networks_are_read(tmp_path: Path) -> None:
    model = changed("backbone.depth", 101)
    for path, value in {
        "neck.norm_cfg": {"type": "GN", "num_groups": 32},
        "rpn_head.anchor_generator.scales": [4],
        "roi_head.bbox_head.type": "mmdet.models.roi_heads.bbox_heads.convfc_bbox_head.Shared4Conv1FCBBoxHead",
        "roi_head.bbox_head.norm_cfg": {"type": "SyncBN"},
        "roi_head.bbox_head.num_classes": 3,
        "roi_head.mask_head.num_classes": 3,
        "semantic_head.num_stuff_classes": 2,
        "semantic_head.num_classes": 3,
        "panoptic_fusion_head.num_things_classes": 3,
        "panoptic_fusion_head.num_stuff_classes": 2,
        "test_cfg.rcnn.nms.class_agnostic": False,
        "test_cfg.rcnn.score_thr": 0.3,
        "test_cfg.panoptic.stuff_area_limit": 100,
    }.items():
        model = changed(path, value, model)
    described = read(tmp_path, model)
    config, instance = described.config, described.config.instance
    assert config.fpn is not None
    assert instance is not None
    assert isinstance(config.trunk, ResNetConfig)
    assert (config.trunk.depth, config.fpn.norm, config.merge.stuff_area_limit) == (101, "group", 100)
    assert instance.rpn.anchor_sizes == (16.0, 32.0, 64.0, 128.0, 256.0)
    box = instance.box
    assert (box.convolutions, box.layers, box.norm) == (4, 1, "batch")
    assert (box.suppression, box.score_threshold, config.merge.score_threshold) == ("per_class", 0.3, 0.3)
    assert [category.name for category in config.classes.things] == ["thing 0", "thing 1", "thing 2"]
    assert described.notes == (
        "names of 3 things and 2 stuff are not known, so they are numbered; give --names to name them",
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("type", "MaskRCNN"),
        ("backbone.type", "Res2Net"),
        ("backbone.depth", 18),
        ("backbone.depth", None),
        ("backbone.style", "other"),
        ("backbone.deep_stem", True),
        ("backbone.dcn", {"type": "DCNv2"}),
        ("backbone.strides", [1, 2, 2, 1]),
        ("backbone.norm_cfg.type", "LN"),
        ("neck.add_extra_convs", "on_input"),
        ("neck.num_outs", 6),
        ("neck.type", "PAFPN"),
        (f"{RPN}.anchor_generator.center_offset", 0.5),
        (f"{RPN}.anchor_generator.scales", [8, 16]),
        (f"{RPN}.anchor_generator.strides", [8, 16, 32, 64, 128]),
        (f"{RPN}.bbox_coder.target_means", [0.1, 0, 0, 0]),
        (f"{RPN}.bbox_coder.target_stds", [0.1, 0.1, 0.2, 0.2]),
        (f"{RPN}.bbox_coder.clip_border", False),
        (f"{RPN}.bbox_coder.add_ctr_clamp", True),
        (f"{ROI}.type", "CascadeRoIHead"),
        (f"{ROI}.bbox_roi_extractor.roi_layer.aligned", False),
        (f"{ROI}.bbox_roi_extractor.roi_layer.type", "RoIPool"),
        (f"{ROI}.bbox_roi_extractor.finest_scale", 28),
        (f"{ROI}.bbox_head.type", "DoubleConvFCBBoxHead"),
        (f"{ROI}.bbox_head.bbox_coder.target_stds", [0, 1, 1, 1]),
        (f"{ROI}.mask_head.upsample_cfg", {"type": "carafe"}),
        (f"{ROI}.mask_head.num_classes", 79),
        (f"{ROI}.mask_iou_head", {"type": "MaskIoUHead"}),
        ("semantic_head.start_level", 1),
        ("semantic_head.norm_cfg.num_groups", 16),
        ("panoptic_fusion_head.type", "MaskFormerFusionHead"),
        (f"{TEST}.rcnn.nms.type", "soft_nms"),
        (f"{TEST}.rcnn.mask_thr_binary", 0.4),
        (f"{TEST}.rcnn.score_thr", 0.4),  # with suppression over all classes
        (f"{TEST}.rpn.min_bbox_size", 5),
        (f"{TEST}.rpn.nms_pre", 0),
        (f"{TEST}.panoptic.mask_overlap", 2),
        ("data_preprocessor.pad_size_divisor", 1),
        ("data_preprocessor.mean", [1.0]),
        ("unknown", 5),
    ],
)
def test_what_panrt_does_not_have_is_named(tmp_path: Path, path: str, value: Any) -> None:
    with pytest.raises(ConfigFileError) as caught:
        read(tmp_path, changed(path, value))
    assert "panoptic_fpn.py: " in str(caught.value)
    assert path.rsplit(".", 1)[-1].replace("score_thr", "score_threshold") in str(caught.value)


@pytest.mark.parametrize("path", ["backbone.init_cfg", "rpn_head.loss_cls", "train_cfg", "backbone.frozen_stages"])
def test_what_only_a_training_reads_is_ignored(tmp_path: Path, path: str) -> None:
    assert read(tmp_path, changed(path, {"type": "Other"})) == read(tmp_path, MODEL)


def test_a_file_that_is_derived_from_others_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"_base_: .*writes to its working directory"):
        read(tmp_path, MODEL, _base_=["../mask_rcnn.py"])


def test_a_checkpoint_names_its_network_and_classes() -> None:
    names = [category.name for category in COCO.things + COCO.stuff]
    source = Path("epoch_12.pth")
    for meta in (
        {"cfg": config_text(MODEL), "dataset_meta": {"classes": names}},
        {"config": config_text(MODEL), "CLASSES": tuple(names)},
    ):
        described = described_in_checkpoint(meta, source)
        assert described is not None
        assert described.config == dataclasses.replace(published("mmdetection").config, name="epoch_12")
    other = described_in_checkpoint({"cfg": config_text(MODEL), "CLASSES": [*names[:-1], "carpet"]}, source)
    assert other is not None
    assert other.config.classes.stuff[-1].name == "carpet"
    assert described_in_checkpoint({"epoch": 12}, source) is None
    with pytest.raises(
        ConfigFileError, match=r"epoch_12\.pth: the configuration in it: model\.backbone\.depth: got 18"
    ):
        described_in_checkpoint({"cfg": config_text(changed("backbone.depth", 18))}, source)
