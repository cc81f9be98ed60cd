"""Checkpoints as mmdetection writes them: configurations, names and shapes of tensors, and what its formulas give.

The formulas are written in NumPy, one function for each of mmdetection's, from its documentation and sources, and share
nothing with PanRT. Boxes are (x0, y0, x1, y1).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Config = dict[str, Any]

# mmdetection 3's, with all values written out.
MODEL: Config = {
    "type": "PanopticFPN",
    "data_preprocessor": {
        "type": "DetDataPreprocessor",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
        "pad_size_divisor": 32,
        "pad_mask": True,
        "mask_pad_value": 0,
        "pad_seg": True,
        "seg_pad_value": 255,
    },
    "backbone": {
        "type": "ResNet",
        "depth": 50,
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "frozen_stages": 1,
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "norm_eval": True,
        "style": "pytorch",
        "init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet50"},
    },
    "neck": {"type": "FPN", "in_channels": [256, 512, 1024, 2048], "out_channels": 256, "num_outs": 5},
    "rpn_head": {
        "type": "RPNHead",
        "in_channels": 256,
        "feat_channels": 256,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [8],
            "ratios": [0.5, 1.0, 2.0],
            "strides": [4, 8, 16, 32, 64],
        },
        "bbox_coder": {
            "type": "DeltaXYWHBBoxCoder",
            "target_means": [0.0, 0.0, 0.0, 0.0],
            "target_stds": [1.0, 1.0, 1.0, 1.0],
        },
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
    },
    "roi_head": {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": {
            "type": "SingleRoIExtractor",
            "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
            "out_channels": 256,
            "featmap_strides": [4, 8, 16, 32],
        },
        "bbox_head": {
            "type": "Shared2FCBBoxHead",
            "in_channels": 256,
            "fc_out_channels": 1024,
            "roi_feat_size": 7,
            "num_classes": 80,
            "bbox_coder": {
                "type": "DeltaXYWHBBoxCoder",
                "target_means": [0.0, 0.0, 0.0, 0.0],
                "target_stds": [0.1, 0.1, 0.2, 0.2],
            },
            "reg_class_agnostic": False,
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "mask_roi_extractor": {
            "type": "SingleRoIExtractor",
            "roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0},
            "out_channels": 256,
            "featmap_strides": [4, 8, 16, 32],
        },
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": 4,
            "in_channels": 256,
            "conv_out_channels": 256,
            "num_classes": 80,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        },
    },
    "train_cfg": {"rpn": {"allowed_border": -1}, "rcnn": {"mask_size": 28}},
    "test_cfg": {
        "rpn": {"nms_pre": 1000, "max_per_img": 1000, "nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 0},
        "rcnn": {
            "score_thr": 0.6,
            "nms": {"type": "nms", "iou_threshold": 0.5, "class_agnostic": True},
            "max_per_img": 100,
            "mask_thr_binary": 0.5,
        },
        "panoptic": {"mask_overlap": 0.5, "stuff_area_limit": 4096},
    },
    "semantic_head": {
        "type": "PanopticFPNHead",
        "num_things_classes": 80,
        "num_stuff_classes": 53,
        "in_channels": 256,
        "inner_channels": 128,
        "start_level": 0,
        "end_level": 4,
        "norm_cfg": {"type": "GN", "num_groups": 32, "requires_grad": True},
        "conv_cfg": None,
        "loss_seg": {"type": "CrossEntropyLoss", "ignore_index": 255, "loss_weight": 0.5},
    },
    "panoptic_fusion_head": {"type": "HeuristicFusionHead", "num_things_classes": 80, "num_stuff_classes": 53},
}


def changed(path: str, value: Any, model: Config = MODEL) -> Config:
    """Return the configuration with one entry set, e.g. "neck.out_channels"."""
    model = copy.deepcopy(model)
    *parents, last = path.split(".")
    table = model
    for name in parents:
        table = table.setdefault(name, {})
    table[last] = value
    return model


def config_text(model: Config, **others: Any) -> str:
    """Return a file as mmdetection dumps one: `dict(...)` in keyword form, and what a training needs besides."""
    assignments = {
        "default_scope": "mmdet",
        "model": model,
        "train_pipeline": [{"type": "LoadImageFromFile"}],
        **others,
    }
    rows = [f"{name} = {_dict(value)}" for name, value in assignments.items()]
    return "\n".join([*rows, "gpu_ids = range(0, 8)", "lr = 0.02 * 2", "work_dir = './work_dirs/x'", ""])


def _dict(value: Any) -> str:
    if isinstance(value, dict):
        return f"dict(\n    {', '.join(f'{name}={_dict(item)}' for name, item in value.items())})"
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_dict, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}, )"
    return repr(value)


def shapes(*, things: int, stuff: int, blocks: tuple[int, ...] = (3, 4, 6, 3)) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of mmdetection's tensors, without counters of batch normalisation."""
    found: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = shape
        if bias:
            found[f"{name}.bias"] = (shape[1],) if name.endswith("upsample") else shape[:1]

    def norm(name: str, channels: int, *, batch: bool) -> None:
        for part in ("weight", "bias", *(("running_mean", "running_var") if batch else ())):
            found[f"{name}.{part}"] = (channels,)

    layer("backbone.conv1", 64, 3, 7, 7, bias=False)
    norm("backbone.bn1", 64, batch=True)
    before = 64
    for stage, count in enumerate(blocks):
        mid, after = 64 * 2**stage, 256 * 2**stage
        for block in range(count):
            name = f"backbone.layer{stage + 1}.{block}"
            sizes = ((mid, before, 1, 1), (mid, mid, 3, 3), (after, mid, 1, 1))
            for index, size in enumerate(sizes, start=1):
                layer(f"{name}.conv{index}", *size, bias=False)
                norm(f"{name}.bn{index}", size[0], batch=True)
            if block == 0:
                layer(f"{name}.downsample.0", after, before, 1, 1, bias=False)
                norm(f"{name}.downsample.1", after, batch=True)
            before = after
        layer(f"neck.lateral_convs.{stage}.conv", 256, after, 1, 1)
        layer(f"neck.fpn_convs.{stage}.conv", 256, 256, 3, 3)
        for step in range(max(1, stage)):
            name = f"semantic_head.conv_upsample_layers.{stage}.conv.{step}"
            layer(f"{name}.conv", 128, 128 if step else 256, 3, 3, bias=False)
            norm(f"{name}.gn", 128, batch=False)
    layer("rpn_head.rpn_conv", 256, 256, 3, 3)
    layer("rpn_head.rpn_cls", 3, 256, 1, 1)
    layer("rpn_head.rpn_reg", 12, 256, 1, 1)
    layer("roi_head.bbox_head.shared_fcs.0", 1024, 256 * 49)
    layer("roi_head.bbox_head.shared_fcs.1", 1024, 1024)
    layer("roi_head.bbox_head.fc_cls", things + 1, 1024)
    layer("roi_head.bbox_head.fc_reg", 4 * things, 1024)
    for index in range(4):
        layer(f"roi_head.mask_head.convs.{index}.conv", 256, 256, 3, 3)
    layer("roi_head.mask_head.upsample", 256, 256, 2, 2)
    layer("roi_head.mask_head.conv_logits", things, 256, 1, 1)
    layer("semantic_head.conv_logits", stuff + 1, 128, 1, 1)
    return found


def tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Return random weights, small enough that features keep their size through the layers."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            made[name] = 0.5 + torch.rand(shape, generator=generator)
        elif len(shape) == 1:
            made[name] = 0.1 * torch.randn(shape, generator=generator)
            if name.endswith("weight"):
                made[name] += 0.3 if ".bn3." in name else 1
        else:
            fan_in = int(np.prod(shape[1:]))
            made[name] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
    return made


# Formulas -------------------------------------------------------------------------------------------------------------


def grid_anchors(
    stride: int, hw: tuple[int, int], *, scale: float = 8, ratios: tuple[float, ...] = (0.5, 1, 2)
) -> Array:
    """AnchorGenerator without a centre offset: (H * W * A, 4), in the order of rows, columns and ratios."""
    roots = np.sqrt(np.array(ratios))
    widths, heights = stride * scale / roots, stride * scale * roots
    base = np.stack([-widths / 2, -heights / 2, widths / 2, heights / 2], 1)
    ys, xs = np.meshgrid(np.arange(hw[0]) * stride, np.arange(hw[1]) * stride, indexing="ij")
    shifts = np.stack([xs, ys, xs, ys], -1).reshape(-1, 1, 4)
    return np.asarray((shifts + base).reshape(-1, 4))


def delta2bbox(boxes: Array, deltas: Array, stds: tuple[float, ...], max_hw: tuple[int, int]) -> Array:
    """DeltaXYWHBBoxCoder.decode, with both limits of the size, clipped to the image."""
    boxes, deltas = boxes.astype(np.float64), deltas.astype(np.float64) * np.array(stds)
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    limit = abs(np.log(16 / 1000))
    centre = centre + size * deltas[:, :2]
    size = size * np.exp(np.clip(deltas[:, 2:], -limit, limit))
    found = np.concatenate([centre - size / 2, centre + size / 2], 1)
    height, width = max_hw
    return np.asarray(np.clip(found, 0, [width, height, width, height]))


def nms(boxes: Array, scores: Array, threshold: float) -> list[int]:
    """Greedy suppression, indices best first."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if all(iou(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(index)
    return kept


def iou(a: Array, b: Array) -> float:
    size = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(size.prod() / max(sum(areas) - size.prod(), 1e-6))


def rpn_predict(
    logits: list[Array], deltas: list[Array], max_hw: tuple[int, int], *, nms_pre: int = 1000, most: int = 1000
) -> Array:
    """RPNHead: the best of each level, suppression within it, the best of all: (R, 4)."""
    boxes, scores = [], []
    for level, (logit, delta) in enumerate(zip(logits, deltas, strict=True)):
        stride = 4 * 2**level
        score = 1 / (1 + np.exp(-logit.astype(np.float64).transpose(1, 2, 0).reshape(-1)))
        rows = delta.transpose(1, 2, 0).reshape(-1, 4)
        anchors = grid_anchors(stride, (logit.shape[1], logit.shape[2]))
        first = np.argsort(-score, kind="stable")[:nms_pre]
        found = delta2bbox(anchors[first], rows[first], (1, 1, 1, 1), max_hw)
        wide = ((found[:, 2:] - found[:, :2]) > 0).all(1)
        found, score = found[wide], score[first][wide]
        kept = nms(found, score, 0.7)
        boxes.append(found[kept])
        scores.append(score[kept])
    order = np.argsort(-np.concatenate(scores), kind="stable")[:most]
    return np.asarray(np.concatenate(boxes)[order])


def map_roi_levels(rois: Array, finest_scale: float = 56) -> Array:
    """SingleRoIExtractor's level of each RoI, in float64."""
    scale = np.sqrt((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1]))
    return np.asarray(np.clip(np.floor(np.log2(scale / finest_scale + 1e-6)), 0, 3).astype(int))


def bbox_predict(
    logits: Array,
    deltas: Array,
    rois: Array,
    max_hw: tuple[int, int],
    *,
    score_thr: float = 0.6,
    agnostic: bool = True,
    most: int = 100,
) -> tuple[Array, Array, Array]:
    """BBoxHead and multiclass_nms: boxes (K, 4), scores (K,), labels (K,)."""
    exps = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities = (exps / exps.sum(1, keepdims=True))[:, :-1]
    classes = probabilities.shape[1]
    boxes = np.stack(
        [delta2bbox(rois, deltas[:, 4 * c : 4 * c + 4], (0.1, 0.1, 0.2, 0.2), max_hw) for c in range(classes)], 1
    )
    rows, labels = np.nonzero(probabilities > score_thr)
    boxes, scores = boxes[rows, labels], probabilities[rows, labels]
    if agnostic:
        kept = nms(boxes, scores, 0.5)
    else:
        parts = [np.flatnonzero(labels == c) for c in range(classes)]
        kept = [int(part[i]) for part in parts for i in nms(boxes[part], scores[part], 0.5)]
    kept = sorted(kept, key=lambda i: -scores[i])[:most]
    return boxes[kept], scores[kept], labels[kept]


def fuse(
    masks: Array, labels: Array, scores: Array, semantic: Array, *, things: int, stuff: int, mask_overlap: float = 0.5,
    stuff_area_limit: int = 4096,
) -> Array:  # fmt: skip
    """HeuristicFusionHead: a map of label + 1000 * instance, things + stuff where nothing is.

    Args:
        masks: (K, H, W) bool.
        labels: (K,).
        scores: (K,).
        semantic: (H, W), channels of mmdetection's semantic head, things last.
    """
    id_map = np.zeros(semantic.shape, int)
    left: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        mask, area = masks[index], masks[index].sum()
        if area == 0 or (mask & (id_map > 0)).sum() / (area + 1e-5) > mask_overlap:
            continue
        id_map[mask & (id_map == 0)] = len(left) + 1
        left.append(labels[index])
    found = semantic + things
    for number, label in enumerate(left, start=1):
        found[id_map == number] = label + 1000 * number
    ids, counts = np.unique(found % 1000, return_counts=True)
    small = ids[(ids >= things) & (counts < stuff_area_limit)]
    found[np.isin(found, small)] = things + stuff
    return np.asarray(found)
