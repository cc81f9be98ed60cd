"""mmdetection's configurations of Panoptic FPN as configurations of PanRT.

What mmdetection computes in another way than detectron2, and what PanRT does about it:

* its images are RGB and scaled by the standard deviations (`style="pytorch"`, stride in the 3x3), or BGR and not scaled
  (`style="caffe"`, stride in the 1x1): `pixel_std`, `ResNetConfig.stride_in_1x1`;
* deltas are scaled by standard deviations (0.1, 0.1, 0.2, 0.2), the inverse of detectron2's weights: `box_weights`;
* deltas shrink a side to 16/1000 at most: `min_scale`;
* an RoI of side 56 (`finest_scale`) is the smallest of the second finest level's half: `RoiConfig(56, 2)`. mmdetection
  adds 1e-6 to the ratio of the sides where PyramidRoiAlign adds 1e-8, so that a side within 5e-7 of a boundary, some
  steps of float32, may be of the next level;
* boxes suppress boxes of all classes: `suppression="all_classes"`; their scores are compared with 0.6 before that;
* the semantic channel of the things is the last (`checkpoints.from_mmdetection` reorders them).

Sources: mmdetection's `configs/_base_/models/mask-rcnn_r50_fpn.py`, `configs/panoptic_fpn/`, `ResNet`, `FPN`,
`AnchorGenerator`, `RPNHead`, `DeltaXYWHBBoxCoder`, `SingleRoIExtractor`, `FCNMaskHead`, `PanopticFPNHead`,
`HeuristicFusionHead`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from panrt.errors import ConfigFileError
from panrt.formats import records
from panrt.model.config import (
    BoxHeadConfig,
    FpnConfig,
    InstanceConfig,
    MaskHeadConfig,
    MergeConfig,
    Norm,
    PanopticFPNConfig,
    ResNetConfig,
    RoiConfig,
    RpnConfig,
    SemanticConfig,
    Suppression,
)
from panrt.model.conversion.class_names import class_table, table_of
from panrt.model.conversion.described import Described
from panrt.model.conversion.python_config import read_assignments
from panrt.model.conversion.yaml_files import read_text
from panrt.model.data.classes import COCO, ClassTable

PUBLISHED = ("mmdetection", "mmdetection-caffe")  # names of the network of mmdetection's own models
_WANTED = ("model", "img_norm_cfg", "_base_")
_RATIO_CLIP = 16 / 1000  # of DeltaXYWHBBoxCoder.decode
_STRIDES = [4, 8, 16, 32, 64]
_TRAINING = (
    *("init_cfg", "pretrained", "frozen_stages", "norm_eval", "with_cp", "zero_init_residual", "train_cfg"),
    *("loss_cls", "loss_bbox", "loss_mask", "loss_seg", "loss_panoptic", "predict_box_type"),
)


def published(name: str) -> Described:
    """Return the network of mmdetection's own Panoptic FPN models, with a ResNet-50, by a name of `PUBLISHED`."""
    is_caffe = name == "mmdetection-caffe"
    return Described(
        PanopticFPNConfig(
            name="mmdetection_panoptic_fpn",
            classes=COCO,
            pixel_std=(1.0, 1.0, 1.0) if is_caffe else (57.375, 57.120, 58.395),
            trunk=ResNetConfig(stride_in_1x1=is_caffe),
            instance=InstanceConfig(
                rpn=RpnConfig(min_scale=_RATIO_CLIP),
                roi=RoiConfig(canonical_size=56.0, canonical_level=2),
                box=BoxHeadConfig(score_threshold=0.6, min_scale=_RATIO_CLIP, suppression="all_classes"),
            ),
            merge=MergeConfig(score_threshold=0.6),
        ),
        rgb=not is_caffe,
        notes=(),
    )


def read_mmdetection_config(path: Path) -> Described:
    """Read a configuration that mmdetection wrote, with all values written out.

    Raises:
        ConfigFileError: the file cannot be read, is derived from others, or describes a network that PanRT does not
            have; the message names the entry.
        OSError: from the file system.
    """
    return _read(read_text(path), str(path), path.stem, {})


def described_in_checkpoint(meta: Mapping[str, Any], source: Path) -> Described | None:
    """Return what mmdetection stored of a training in its checkpoint, if it did.

    Args:
        meta: the entry `meta` of the checkpoint.
        source: the checkpoint, for messages.

    Raises:
        ConfigFileError: as for `read_mmdetection_config`.
    """
    text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), None)
    if text is None:
        return None
    return _read(text, f"{source}: the configuration in it", source.stem, meta)


def _read(text: str, source: str, name: str, meta: Mapping[str, Any]) -> Described:
    values = read_assignments(text, source=source, wanted=_WANTED)
    if "_base_" in values:
        raise ConfigFileError(
            f"{source}: _base_: the file is derived from others; give the one that mmdetection writes to its working "
            "directory, which has all values written out."
        )
    if not isinstance(values.get("model"), dict):
        raise ConfigFileError(f"{source}: expected an entry model=dict(...).")
    return _Network(values, source).describe(name, meta)


class _Entry:
    """A dictionary of the configuration, checked as it is read; `end` rejects what nobody read."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ConfigFileError(f"{where}: got {records.shown(value)}, expected dict(...).")
        self.left = {key: item for key, item in value.items() if key not in _TRAINING}
        self.where = where

    def fail(self, key: str, value: object, expected: str) -> NoReturn:
        raise ConfigFileError(f"{self.where}.{key}: got {records.shown(value)}, expected {expected}.")

    def take(self, key: str, default: Any) -> Any:
        return self.left.pop(key, default)

    def entry(self, key: str, default: Mapping[str, Any] | None = None) -> _Entry:
        return _Entry(self.left.pop(key, {} if default is None else dict(default)), f"{self.where}.{key}")

    def fixed(self, **supported: Any) -> None:
        """Check entries that PanRT supports at one value only, which is mmdetection's default too."""
        for key, value in supported.items():
            found = self.take(key, value)
            if found != value or isinstance(found, bool) != isinstance(value, bool):
                self.fail(key, found, f"{value!r}, the only value that PanRT supports")

    def type(self, *known: str) -> str:
        """Return the type, which newer configurations write with its module."""
        value = self.take("type", known[0])
        name = value.rsplit(".", 1)[-1] if isinstance(value, str) else value
        if name not in known:
            self.fail("type", value, " or ".join(known))
        return str(name)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        found = self.take(key, default)
        value = records.whole(found)
        if value is None or not low <= value <= high:
            self.fail(key, found, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        found = self.take(key, default)
        value = records.real(found)
        if value is None or not low <= value <= high:
            self.fail(key, found, f"a number from {low:g} to {high:g}")
        return value

    def numbers(self, key: str, default: list[float], count: int | None = None) -> list[float]:
        found = self.take(key, default)
        values = [records.real(item) for item in found] if isinstance(found, list) else []
        if None in values or not values or (count is not None and len(values) != count):
            self.fail(key, found, f"{count or 'some'} numbers")
        return [value for value in values if value is not None]

    def flag(self, key: str, default: bool) -> bool:
        found = self.take(key, default)
        if not isinstance(found, bool):
            self.fail(key, found, "True or False")
        return found

    def norm(self, default: str | None = None) -> Norm:
        """Return the kind of the entry `norm_cfg`."""
        value = self.take("norm_cfg", None if default is None else {"type": default})
        if value is None:
            return "none"
        norm = _Entry(value, f"{self.where}.norm_cfg")
        kind = norm.type("BN", "SyncBN", "MMSyncBN", "GN", "GroupNorm", "BatchNorm2d", "SyncBatchNorm")
        norm.take("requires_grad", True)
        if kind in ("GN", "GroupNorm"):
            norm.fixed(num_groups=32)
        norm.fixed(eps=1e-5)
        norm.end()
        return "group" if kind in ("GN", "GroupNorm") else "batch"

    def end(self) -> None:
        for key, value in self.left.items():
            raise ConfigFileError(
                f"{self.where}.{records.legible(key)}: got {records.shown(value)}, which PanRT does not support; if "
                "it changes nothing at inference, delete it."
            )


class _Network:
    """The entry `model`."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = values
        self.model = _Entry(values["model"], f"{source}: model")
        self.source = source

    def describe(self, name: str, meta: Mapping[str, Any]) -> Described:
        model = self.model
        model.type("PanopticFPN")
        mean, std, rgb = self._statistics()
        trunk, (fpn, width) = self._trunk(), self._neck()
        test = model.entry("test_cfg")
        rcnn, panoptic = test.entry("rcnn"), test.entry("panoptic")
        rpn = self._rpn(test.entry("rpn"), width)
        for key in ("score_thr", "nms", "max_per_img", "mask_thr_binary"):  # older files have them there
            if key in panoptic.left:
                rcnn.left[key] = panoptic.left.pop(key)
        things, roi, box, mask = self._heads(rcnn)
        stuff, semantic = self._semantic_head()
        fusion = model.entry("panoptic_fusion_head")
        fusion.type("HeuristicFusionHead")
        fusion.fixed(num_things_classes=things, num_stuff_classes=stuff, test_cfg=None)
        fusion.end()
        merge = MergeConfig(
            score_threshold=box.score_threshold,
            overlap_threshold=panoptic.number("mask_overlap", 0.5, 0, 1),
            stuff_area_limit=panoptic.whole("stuff_area_limit", 4096, 0, 2**30),
        )
        for entry in (rcnn, panoptic, test):
            entry.end()
        model.end()
        notes: list[str] = []
        try:
            config = PanopticFPNConfig(
                name=name if records.line(name, longest=100) else "mmdetection_panoptic_fpn",
                classes=_classes(meta, things, stuff, notes),
                pixel_mean=mean,
                pixel_std=std,
                trunk=trunk,
                fpn=fpn,
                instance=InstanceConfig(rpn=rpn, roi=roi, box=box, mask=mask),
                semantic=semantic,
                merge=merge,
            )
        except ValueError as error:
            raise ConfigFileError(f"{self.source}: {error}") from error
        return Described(config, rgb, tuple(notes))

    def _statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float], bool]:
        """Mean and standard deviation in BGR order, and whether the network takes RGB."""
        if "data_preprocessor" in self.model.left:
            entry = self.model.entry("data_preprocessor")
            entry.type("DetDataPreprocessor")
            entry.fixed(pad_size_divisor=32, pad_value=0, rgb_to_bgr=False, boxtype2tensor=True, non_blocking=False)
            for key in ("pad_mask", "mask_pad_value", "pad_seg", "seg_pad_value", "batch_augments"):
                entry.take(key, None)
            key = "bgr_to_rgb"
        else:
            entry = _Entry(self.values.get("img_norm_cfg"), f"{self.source}: img_norm_cfg")
            key = "to_rgb"
        rgb = entry.flag(key, default=False)
        mean, std = (entry.numbers(which, [], 3)[:: -1 if rgb else 1] for which in ("mean", "std"))
        entry.end()
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), rgb

    def _trunk(self) -> ResNetConfig:
        entry = self.model.entry("backbone")
        is_resnext = entry.type("ResNet", "ResNeXt") == "ResNeXt"
        groups = entry.whole("groups", 1, 1, 256) if is_resnext else 1
        width = entry.whole("base_width", 4, 1, 1024) if is_resnext else 64
        found = entry.take("depth", None)
        depth: Any = found if type(found) is int else None
        if depth not in (50, 101, 152):
            entry.fail("depth", found, "50, 101 or 152")
        style = entry.take("style", "pytorch")
        if style not in ("pytorch", "caffe"):
            entry.fail("style", style, "'pytorch' or 'caffe'")
        norm = entry.norm("BN")
        entry.fixed(
            in_channels=3, stem_channels=None, base_channels=64, num_stages=4, strides=[1, 2, 2, 2],
            dilations=[1, 1, 1, 1], out_indices=[0, 1, 2, 3], deep_stem=False, avg_down=False, conv_cfg=None,
            dcn=None, stage_with_dcn=[False] * 4, plugins=None,
        )  # fmt: skip
        entry.end()
        return ResNetConfig(
            depth=depth,
            stride_in_1x1=style == "caffe",
            groups=groups,
            width_per_group=width if groups > 1 else 64,
            norm="group" if norm == "group" else "frozen_batch",
        )

    def _neck(self) -> tuple[FpnConfig, int]:
        entry = self.model.entry("neck")
        entry.type("FPN")
        width, norm = entry.whole("out_channels", 256, 1, 8192), entry.norm()
        entry.fixed(
            in_channels=[256, 512, 1024, 2048], num_outs=5, start_level=0, end_level=-1, add_extra_convs=False,
            relu_before_extra_convs=False, no_norm_on_lateral=False, conv_cfg=None, act_cfg=None,
            upsample_cfg={"mode": "nearest"},
        )  # fmt: skip
        entry.end()
        return FpnConfig(width=width, norm=norm), width

    def _rpn(self, test: _Entry, width: int) -> RpnConfig:
        head = self.model.entry("rpn_head")
        head.type("RPNHead")
        layers = head.whole("num_convs", 1, 1, 16)
        own = head.whole("feat_channels", 256, 1, 8192)
        head.fixed(in_channels=width, num_classes=1, reg_decoded_bbox=False)
        anchors = head.entry("anchor_generator")
        anchors.type("AnchorGenerator")
        anchors.fixed(
            strides=_STRIDES, base_sizes=None, scale_major=True, octave_base_scale=None, scales_per_octave=None,
            centers=None, center_offset=0.0, use_box_type=False,
        )  # fmt: skip
        (scale,) = anchors.numbers("scales", [8], 1)
        ratios = anchors.numbers("ratios", [0.5, 1.0, 2.0])
        anchors.end()
        _, stds = _coder(head.entry("bbox_coder"))
        if stds != [1.0] * 4:
            head.fail("bbox_coder.target_stds", stds, "[1.0, 1.0, 1.0, 1.0], as PanRT's RpnProposals has no weights")
        head.end()
        most = test.take("max_num", 1000)  # before mmdetection 2.4
        nms_threshold, _ = _nms(test, 0.7)
        config = RpnConfig(
            anchor_sizes=tuple(scale * stride for stride in _STRIDES),
            aspect_ratios=tuple(ratios),
            pre_nms_top_k=test.whole("nms_pre", 1000, 1, 16384),
            post_nms_top_k=test.whole("max_per_img", most, 1, 100_000),
            nms_threshold=nms_threshold,
            conv_widths=(0,) if (layers, own) == (1, width) else (own,) * layers,
            min_scale=_RATIO_CLIP,
        )
        test.fixed(min_bbox_size=0, nms_across_levels=False)
        test.take("nms_post", None)  # before mmdetection 2.4, of a level: not used there either
        test.end()
        return config

    def _heads(self, test: _Entry) -> tuple[int, RoiConfig, BoxHeadConfig, MaskHeadConfig]:
        heads = self.model.entry("roi_head")
        heads.type("StandardRoIHead")
        heads.fixed(shared_head=None)
        roi, pooled = _extractor(heads.entry("bbox_roi_extractor"), 7)
        mask_roi, mask_pooled = _extractor(heads.entry("mask_roi_extractor"), 14)
        if mask_roi != roi:
            heads.fail("mask_roi_extractor", "another sampling_ratio or finest_scale", "those of bbox_roi_extractor")
        nms_threshold, suppression = _nms(test, 0.5)
        test.fixed(mask_thr_binary=0.5)
        score_threshold = test.number("score_thr", 0.05, 0, 1)
        most = test.whole("max_per_img", 100, 1, 10_000)
        things, box = _box_head(heads.entry("bbox_head"), pooled)
        mask = _mask_head(heads.entry("mask_head"), mask_pooled, things)
        heads.end()
        try:
            box_config = BoxHeadConfig(
                **box,
                score_threshold=score_threshold,
                nms_threshold=nms_threshold,
                max_detections=most,
                min_scale=_RATIO_CLIP,
                suppression=suppression,
            )
        except ValueError as error:
            raise ConfigFileError(f"{test.where}: {error}") from error
        return things, roi, box_config, mask

    def _semantic_head(self) -> tuple[int, SemanticConfig]:
        entry = self.model.entry("semantic_head")
        entry.type("PanopticFPNHead")
        channels = entry.whole("num_classes", 54, 2, 254)
        stuff = entry.whole("num_stuff_classes", channels - 1, 1, 253)
        width, norm = entry.whole("inner_channels", 128, 1, 8192), entry.norm("GN")
        entry.fixed(start_level=0, end_level=4, conv_cfg=None)
        for key in ("num_things_classes", "in_channels", "fg_range", "bg_range"):
            entry.take(key, None)
        entry.end()
        return stuff, SemanticConfig(width=width, norm=norm)


def _coder(entry: _Entry) -> tuple[list[float], list[float]]:
    """Means and standard deviations of the deltas."""
    entry.type("DeltaXYWHBBoxCoder")
    means, stds = entry.numbers("target_means", [0.0] * 4, 4), entry.numbers("target_stds", [1.0] * 4, 4)
    if any(means) or min(stds) <= 0:
        entry.fail("target_means", means, "zeros, and positive target_stds")
    entry.fixed(clip_border=True, add_ctr_clamp=False, ctr_clamp=32, use_box_type=False)
    entry.end()
    return means, stds


def _nms(test: _Entry, default: float) -> tuple[float, Suppression]:
    """Return the threshold of the entry `nms`, and whose boxes are suppressed."""
    if "nms_thr" in test.left:  # before mmdetection 2.4
        return test.number("nms_thr", default, 0, 1), "per_class"
    nms = test.entry("nms", {"type": "nms", "iou_threshold": default})
    nms.type("nms")
    threshold = nms.number("iou_threshold", nms.take("iou_thr", default), 0, 1)
    agnostic = nms.flag("class_agnostic", default=False)
    nms.take("split_thr", None)  # a matter of memory
    nms.end()
    return threshold, "all_classes" if agnostic else "per_class"


def _extractor(entry: _Entry, size: int) -> tuple[RoiConfig, int]:
    entry.type("SingleRoIExtractor")
    entry.take("out_channels", None)
    finest = entry.number("finest_scale", 56, 1, 4096)
    entry.fixed(featmap_strides=_STRIDES[:4])
    layer = entry.entry("roi_layer")
    layer.type("RoIAlign")
    pooled = layer.whole("output_size", size, 1, 64)
    ratio = layer.whole("sampling_ratio", layer.take("sample_num", 0), 0, 64)
    layer.fixed(pool_mode="avg", aligned=True, use_torchvision=False)
    layer.end()
    entry.end()
    return RoiConfig(canonical_size=finest, canonical_level=2, sampling_ratio=ratio), pooled


_BOX_HEADS = {"Shared2FCBBoxHead": (0, 2), "Shared4Conv1FCBBoxHead": (4, 1)}  # convolutions and linear layers


def _box_head(entry: _Entry, pooled: int) -> tuple[int, dict[str, Any]]:
    convolutions, layers = _BOX_HEADS[entry.type(*_BOX_HEADS)]
    things = entry.whole("num_classes", 80, 1, 10_000)
    _, stds = _coder(entry.entry("bbox_coder", {"target_stds": [0.1, 0.1, 0.2, 0.2]}))
    found = {
        "pooled_size": pooled,
        "hidden": entry.whole("fc_out_channels", 1024, 1, 8192),
        "convolutions": convolutions,
        "width": entry.whole("conv_out_channels", 256, 1, 8192),
        "norm": entry.norm(),
        "layers": layers,
        "box_weights": tuple(1 / std for std in stds),
    }
    entry.fixed(roi_feat_size=pooled, with_avg_pool=False, conv_cfg=None, reg_decoded_bbox=False)
    entry.take("in_channels", None)
    entry.take("reg_class_agnostic", None)  # the weights show it
    entry.end()
    return things, found


def _mask_head(entry: _Entry, pooled: int, things: int) -> MaskHeadConfig:
    entry.type("FCNMaskHead")
    config = MaskHeadConfig(
        pooled_size=pooled,
        width=entry.whole("conv_out_channels", 256, 1, 8192),
        convolutions=entry.whole("num_convs", 4, 0, 64),
        norm=entry.norm(),
    )
    entry.fixed(
        num_classes=things, conv_kernel_size=3, conv_cfg=None, upsample_cfg={"type": "deconv", "scale_factor": 2},
        predictor_cfg={"type": "Conv"},
    )  # fmt: skip
    for key in ("in_channels", "roi_feat_size", "class_agnostic"):  # the weights show the last
        entry.take(key, None)
    entry.end()
    return config


def _classes(meta: Mapping[str, Any], things: int, stuff: int, notes: list[str]) -> ClassTable:
    """The classes that the checkpoint names, or as many as there are."""
    found = meta.get("CLASSES")
    data_set = meta.get("dataset_meta")
    if isinstance(data_set, dict):
        found = data_set.get("classes", data_set.get("CLASSES"))
    names = [records.line(name, longest=200) for name in found] if isinstance(found, list | tuple) else []
    if len(names) == things + stuff and all(names):
        listed = [str(name) for name in names]
        return table_of(listed[:things], listed[things:])
    return class_table(things, stuff, data_sets=(), notes=notes)
