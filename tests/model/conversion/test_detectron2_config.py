"""detectron2's YAML gives the network that detectron2 would build, or an error that names the key."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from panrt.errors import ConfigFileError
from panrt.model.config import (
    BoxHeadConfig,
    FpnConfig,
    InstanceConfig,
    MaskHeadConfig,
    MergeConfig,
    PanopticFPNConfig,
    ResNetConfig,
    RpnConfig,
    SemanticConfig,
    panoptic_fpn_r50,
)
from panrt.model.conversion import detectron2_keys as keys
from panrt.model.conversion.described import Described
from panrt.model.conversion.detectron2_config import DEEPEST_CHAIN, read_detectron2_config
from panrt.model.data.classes import COCO

LEAF = '_BASE_: "Base-Panoptic-FPN.yaml"\nMODEL:\n  WEIGHTS: "detectron2://ImageNetPretrained/MSRA/R-{0}.pkl"\n' \
       "  RESNETS:\n    DEPTH: {0}\n"  # fmt: skip
SCHEDULE_3X = "SOLVER:\n  STEPS: (210000, 250000)\n  MAX_ITER: 270000\n"
ZOO: dict[str, tuple[str, Literal[50, 101]]] = {
    "panoptic_fpn_R_50_1x.yaml": (LEAF.format(50), 50),
    "panoptic_fpn_R_50_3x.yaml": (LEAF.format(50) + SCHEDULE_3X, 50),
    "panoptic_fpn_R_101_3x.yaml": (LEAF.format(101) + SCHEDULE_3X, 101),
}


def read(folder: Path, text: str, name: str = "config.yaml") -> Described:
    path = folder / name
    path.write_text(text)
    return read_detectron2_config(path)


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """{"FPN.NORM": "GN"} -> {"MODEL": {"FPN": {"NORM": "GN"}}}."""
    content: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = keys.written(key).split(".")
        table = content
        for name in path:
            table = table.setdefault(name, {})
        table[last] = value
    return content


def changed(folder: Path, **settings: Any) -> PanopticFPNConfig:
    """Read a zoo configuration with some keys set; `__` stands for a dot."""
    content = {"_BASE_": "Base-Panoptic-FPN.yaml"} | nested({k.replace("__", "."): v for k, v in settings.items()})
    return read(folder, yaml.safe_dump(content)).config


# The zoo


@pytest.mark.parametrize("name", ZOO)
def test_the_zoos_configurations_are_panrts(tmp_path: Path, name: str) -> None:
    text, depth = ZOO[name]
    described = read(tmp_path, text, name)
    assert described.config == dataclasses.replace(
        panoptic_fpn_r50(), name=name.removesuffix(".yaml"), trunk=ResNetConfig(depth=depth)
    )
    assert not described.rgb
    assert described.notes == (f"Base-Panoptic-FPN.yaml is detectron2's, as there is no such file beside {name}",)


def test_a_dump_with_every_key_is_the_same(tmp_path: Path) -> None:
    """As detectron2 writes it beside its checkpoints: nothing is derived, tuples are tagged."""
    base = keys.BASES["Base-Panoptic-FPN.yaml"]
    fixed = {
        key: value
        for table in (keys.FIXED, keys.FIXED_INSTANCES, keys.FIXED_STUFF)
        for key, (value, _) in table.items()
    }
    ignored = {name.rstrip(".") if not name.endswith(".") else f"{name}X": 3 for name in keys.IGNORED}
    content = nested({**fixed, **keys.READ, **base, **ignored})
    content["MODEL"]["ROI_BOX_HEAD"]["BBOX_REG_WEIGHTS"] = (10.0, 10.0, 5.0, 5.0)
    text = yaml.dump(content)
    assert "!!python/tuple" in text
    described = read(tmp_path, text)
    assert described.config == panoptic_fpn_r50()
    assert described.notes == ()


def test_bases_on_the_disk_come_before_the_built_in_ones(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "Base-RCNN-FPN.yaml").write_text("_BASE_: ../top.yaml\nTEST: {DETECTIONS_PER_IMAGE: 7}\n")
    (tmp_path / "top.yaml").write_text(
        "_BASE_: Base-Panoptic-FPN.yaml\nTEST: {DETECTIONS_PER_IMAGE: 5}\nMODEL: {FPN: {NORM: GN}}\n"
    )
    found = read(tmp_path, "_BASE_: bases/Base-RCNN-FPN.yaml\nMODEL: {RESNETS: {DEPTH: 152}}\n").config
    assert found.instance is not None
    assert found.fpn is not None
    assert isinstance(found.trunk, ResNetConfig)
    assert (found.instance.box.max_detections, found.fpn.norm, found.trunk.depth) == (7, "group", 152)


def test_the_last_of_several_bases_counts(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("MODEL: {META_ARCHITECTURE: PanopticFPN, MASK_ON: true}\n")
    found = read(tmp_path, "_BASE_: [Base-RCNN-FPN.yaml, own.yaml]\n").config
    assert found == panoptic_fpn_r50()


def test_texts_may_be_python_literals(tmp_path: Path) -> None:
    text = LEAF.format(50) + '  ANCHOR_GENERATOR:\n    SIZES: "((16,), (32,), (64,), (128,), (256,))"\n'
    instance = read(tmp_path, text).config.instance
    assert instance is not None
    assert instance.rpn.anchor_sizes == (16, 32, 64, 128, 256)


def test_a_fine_tuned_network_is_read_whole(tmp_path: Path) -> None:
    text = """
_BASE_: Base-Panoptic-FPN.yaml
MODEL:
  WEIGHTS: ./output/model_final.pth
  PIXEL_MEAN: [1.0, 2.0, 3.0]
  PIXEL_STD: [57.375, 57.120, 58.395]
  RESNETS: {DEPTH: 101, STRIDE_IN_1X1: false, NORM: GN}
  FPN: {NORM: GN, FUSE_TYPE: avg, OUT_CHANNELS: 192}
  ANCHOR_GENERATOR: {SIZES: [[24], [48], [96], [192], [384]], ASPECT_RATIOS: [[0.25, 0.5, 1.0, 2.0, 4.0]]}
  RPN: {PRE_NMS_TOPK_TEST: 500, POST_NMS_TOPK_TEST: 300, NMS_THRESH: 0.65, CONV_DIMS: [-1, 128, -1]}
  ROI_HEADS: {NUM_CLASSES: 4, SCORE_THRESH_TEST: 0.3, NMS_THRESH_TEST: 0.4}
  ROI_BOX_HEAD:
    {NUM_CONV: 4, NUM_FC: 1, NORM: GN, CONV_DIM: 128, FC_DIM: 512, POOLER_SAMPLING_RATIO: 2, POOLER_RESOLUTION: 5,
     BBOX_REG_WEIGHTS: [20.0, 20.0, 10.0, 10.0]}
  ROI_MASK_HEAD: {NORM: GN, NUM_CONV: 3, CONV_DIM: 64, POOLER_SAMPLING_RATIO: 2, POOLER_RESOLUTION: 10}
  SEM_SEG_HEAD: {NUM_CLASSES: 6, CONVS_DIM: 64, NORM: ""}
  PANOPTIC_FPN: {COMBINE: {OVERLAP_THRESH: 0.6, STUFF_AREA_LIMIT: 1024, INSTANCES_CONFIDENCE_THRESH: 0.7}}
INPUT: {FORMAT: RGB, MIN_SIZE_TEST: 600, MAX_SIZE_TEST: 1000}
TEST: {DETECTIONS_PER_IMAGE: 50}
DATASETS:
  TRAIN: ("mine_train",)
  TEST: ("mine_val",)
"""
    described = read(tmp_path, text, "mine.yaml")
    config = described.config
    assert described.rgb
    assert [c.name for c in config.classes.things] == ["thing 0", "thing 1", "thing 2", "thing 3"]
    assert [c.name for c in config.classes.stuff] == ["stuff 1", "stuff 2", "stuff 3", "stuff 4", "stuff 5"]
    assert config == PanopticFPNConfig(
        name="mine",
        classes=config.classes,
        input_hw=(608, 1024),
        pixel_mean=(3.0, 2.0, 1.0),
        pixel_std=(58.395, 57.120, 57.375),
        trunk=ResNetConfig(depth=101, stride_in_1x1=False, norm="group"),
        fpn=FpnConfig(width=192, norm="group", fusion="average"),
        instance=InstanceConfig(
            rpn=RpnConfig(
                anchor_sizes=(24, 48, 96, 192, 384),
                aspect_ratios=(0.25, 0.5, 1.0, 2.0, 4.0),
                pre_nms_top_k=500,
                post_nms_top_k=300,
                nms_threshold=0.65,
                conv_widths=(0, 128, 128),
            ),
            roi=dataclasses.replace(InstanceConfig().roi, sampling_ratio=2),
            box=BoxHeadConfig(
                pooled_size=5, hidden=512, box_weights=(20, 20, 10, 10), score_threshold=0.3, nms_threshold=0.4,
                max_detections=50, convolutions=4, width=128, norm="group", layers=1,
            ),
            mask=MaskHeadConfig(pooled_size=10, width=64, convolutions=3, norm="group"),
        ),
        semantic=SemanticConfig(width=64, norm="none"),
        merge=MergeConfig(score_threshold=0.7, overlap_threshold=0.6, stuff_area_limit=1024),
    )  # fmt: skip


# Keys


def test_every_key_has_one_meaning() -> None:
    tables = [set(keys.READ), set(keys.FIXED), set(keys.FIXED_INSTANCES), set(keys.FIXED_STUFF), set(keys.IGNORED)]
    assert sum(map(len, tables)) == len(set.union(*tables))
    known = set.union(*tables[:4])
    assert [key for key in known if keys.is_ignored(key)] == []
    assert [key for base in keys.BASES.values() for key in base if key not in known] == []


@pytest.mark.parametrize("key", [*keys.FIXED, *keys.FIXED_INSTANCES, *keys.FIXED_STUFF])
def test_a_key_that_is_supported_at_one_value_is_named_at_another(tmp_path: Path, key: str) -> None:
    _, supported = {**keys.FIXED, **keys.FIXED_INSTANCES, **keys.FIXED_STUFF}[key]
    other: Any = not supported if isinstance(supported, bool) else ["other"] if isinstance(supported, list) else 77
    other = "Other" if isinstance(supported, str) else other
    with pytest.raises(ConfigFileError) as caught:
        changed(tmp_path, **{key: other})
    assert str(caught.value).startswith(f"{tmp_path / 'config.yaml'}: {keys.written(key)}: got {other!r}, expected ")


OTHERS: dict[str, Any] = {
    "META_ARCHITECTURE": "SemanticSegmentor",
    "PIXEL_MEAN": [1.0, 2.0, 3.0],
    "PIXEL_STD": [1.0, 2.0, 3.0],
    "RESNETS.DEPTH": 152,
    "RESNETS.NORM": "GN",
    "RESNETS.STRIDE_IN_1X1": False,
    "FPN.NORM": "BN",
    "FPN.FUSE_TYPE": "avg",
    "ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]],
    "ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0]],
    "RPN.CONV_DIMS": [64, -1],
    "ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [1.0, 2.0, 3.0, 4.0],
    "ROI_BOX_HEAD.NORM": "SyncBN",
    "ROI_MASK_HEAD.NORM": "FrozenBN",
    "SEM_SEG_HEAD.NORM": "",
    "INPUT.FORMAT": "RGB",
    "RESNETS.WIDTH_PER_GROUP": 32,
    "ROI_BOX_HEAD.NUM_FC": 3,
    "SEM_SEG_HEAD.CONVS_DIM": 64,
}
# These change names alone, or have to change together.
NOT_ALONE = {
    "DATASETS.TRAIN",
    "DATASETS.TEST",
    "ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
    "ROI_MASK_HEAD.POOLER_SAMPLING_RATIO",
}


@pytest.mark.parametrize("key", [key for key in keys.READ if key not in NOT_ALONE])
def test_every_key_that_is_read_changes_the_network(tmp_path: Path, key: str) -> None:
    default = {**keys.READ, **keys.BASES["Base-Panoptic-FPN.yaml"]}[key]
    other = OTHERS.get(key, default * 0.9 if isinstance(default, float) else 2)
    before = read(tmp_path, "_BASE_: Base-Panoptic-FPN.yaml\n")
    after = read(tmp_path, yaml.safe_dump({"_BASE_": "Base-Panoptic-FPN.yaml"} | nested({key: other})))
    assert (before.config, before.rgb) != (after.config, after.rgb)


@pytest.mark.parametrize("key", [key for key in keys.READ if not key.startswith("DATASETS")])
@pytest.mark.parametrize("value", ["nonsense", -3, [], [[]], 1e300, float("nan"), None, True, {"A": 1}])
def test_a_value_of_another_kind_is_named(tmp_path: Path, key: str, value: Any) -> None:
    if value is True and isinstance(keys.READ[key], bool):
        return
    with pytest.raises(ConfigFileError) as caught:
        changed(tmp_path, **{key: value})
    assert keys.written(key) in str(caught.value)


@pytest.mark.parametrize("key", keys.IGNORED)
def test_a_key_that_changes_nothing_is_ignored(tmp_path: Path, key: str) -> None:
    key = f"{key}ANY" if key.endswith(".") else key
    assert changed(tmp_path, **{key: [1, {"A": "x"}]}) == changed(tmp_path)


def test_an_unknown_key_is_named_with_its_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"config\.yaml: MODEL\.POINT_HEAD\.NAME: got 'X', but detectron2 has no"):
        changed(tmp_path, POINT_HEAD__NAME="X")


def test_both_heads_sample_alike(tmp_path: Path) -> None:
    expected = r"MODEL\.ROI_MASK_HEAD\.POOLER_SAMPLING_RATIO: got 0, expected 2, as for boxes"
    with pytest.raises(ConfigFileError, match=expected):
        changed(tmp_path, ROI_BOX_HEAD__POOLER_SAMPLING_RATIO=2)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("ANCHOR_GENERATOR.SIZES", [[32, 64]] * 5, "one size for each of 5 levels"),
        ("ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0]] * 4 + [[2.0]], "the same ratios for all levels"),
        ("RESNETS.DEPTH", 18, "50 or 101 or 152"),
        ("RESNETS.NORM", "LN", "'GN' or 'BN'"),
        ("INPUT.FORMAT", "L", "'BGR' or 'RGB'"),
        ("ROI_BOX_HEAD.NUM_FC", 0, "a whole number from 1 to 8"),
    ],
)
def test_what_no_network_of_panrt_has_is_named(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigFileError, match=expected):
        changed(tmp_path, **{key: value})


def test_defaults_that_do_not_fit_name_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"begin it with _BASE_: Base-Panoptic-FPN\.yaml"):
        read(tmp_path, "MODEL: {META_ARCHITECTURE: PanopticFPN}\n")


def test_a_single_branch_is_read_too(tmp_path: Path) -> None:
    semantic = changed(tmp_path, META_ARCHITECTURE="SemanticSegmentor", ROI_HEADS__NAME="Other")
    assert semantic.instance is None
    assert len(semantic.classes.things) == 0
    instance = changed(tmp_path, META_ARCHITECTURE="GeneralizedRCNN", SEM_SEG_HEAD__NAME="Other")
    assert instance.semantic is None
    assert instance.classes.things == COCO.things


def test_the_input_size_is_padded(tmp_path: Path) -> None:
    assert changed(tmp_path, INPUT__MIN_SIZE_TEST=640, INPUT__MAX_SIZE_TEST=1066).input_hw == (640, 1088)
    assert changed(tmp_path, INPUT__MIN_SIZE_TEST=900, INPUT__MAX_SIZE_TEST=500).input_hw == (512, 512)
    assert changed(tmp_path, INPUT__MIN_SIZE_TEST=0).input_hw == (800, 1344)


def test_classes_of_other_data_are_not_taken_for_cocos_in_silence(tmp_path: Path) -> None:
    text = LEAF.format(50) + "DATASETS: {TRAIN: [mine_train], TEST: [mine_val]}\n"
    described = read(tmp_path, text)
    assert described.config.classes == COCO
    assert "are taken for COCO's, but the data set is mine_train, mine_val" in described.notes[-1]


# Chains


def test_a_remote_base_is_never_opened(tmp_path: Path) -> None:
    for address in ("https://example.org/Base-Panoptic-FPN.yaml", "detectron2://x.yaml", "file:///etc/x.yaml"):
        with pytest.raises(ConfigFileError, match=r"is a remote address, which is never opened; download the file"):
            read(tmp_path, f"_BASE_: {address}\n")


def test_a_circle_of_bases_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("_BASE_: config.yaml\n")
    with pytest.raises(ConfigFileError, match=r"in a circle: config\.yaml -> b\.yaml -> config\.yaml"):
        read(tmp_path, "_BASE_: b.yaml\n")


def test_a_chain_is_bounded(tmp_path: Path) -> None:
    for index in range(DEEPEST_CHAIN + 1):
        (tmp_path / f"{index}.yaml").write_text(f"_BASE_: {index + 1}.yaml\n")
    with pytest.raises(ConfigFileError, match=f"more than {DEEPEST_CHAIN} files"):
        read(tmp_path, "_BASE_: 0.yaml\n")


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("none.yaml", "there is no file .*none.yaml; put it there"),
        ("/etc/passwd", r"got /etc/passwd, expected a \.yaml file"),
        ("5", "got 5, expected the path"),
        ("{a: 1}", "expected the path"),
        ("''", "expected the path"),
    ],
)
def test_a_base_that_is_none_is_named(tmp_path: Path, base: str, message: str) -> None:
    with pytest.raises(ConfigFileError, match=f"_BASE_: .*{message}"):
        read(tmp_path, f"_BASE_: {base}\n")


@pytest.mark.parametrize("make", [lambda: "(" * 299, lambda: "-" * 299 + "1", lambda: "[" * 250 + "]" * 250])
def test_a_text_that_is_no_literal_is_a_text(tmp_path: Path, make: Callable[[], str]) -> None:
    assert changed(tmp_path, OUTPUT_DIR=make(), SOLVER__NAME=make()) == changed(tmp_path)
