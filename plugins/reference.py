"""The custom ops in NumPy: their specification, clear rather than fast. Step numbers are those of OPS.md.

Shapes: N images, L pyramid levels, A anchors per cell, R RoIs, C thing classes, K detections, S semantic channels (0 is
"things"), Gh x Gw a mask (28 x 28), H x W output size, h x w semantic map at a quarter of the padded network input.
Boxes are (x0, y0, x1, y1) in pixels of the network input, continuous, no +1.

Arithmetic is float32 in the order written, nothing fused; exp and log2 are taken in float64 and rounded to float32, so
that every form of an op can agree with this one to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import contract
from .box_reference import Mask, best_first, clip, clip_real, decode, grid_anchors, non_maximum_suppression
from .contract import Detections, Float32, Floating, Int32, Layout, PanopticSegments, Proposals
from .frame_reference import overlay
from .merge_reference import paint_instances, paint_stuff, paste_mask, scale_box, semantic_argmax
from .schema import (
    BOX_DETECTIONS,
    BOX_DETECTIONS_2,
    MAX_ROI_COORDINATE,
    PANOPTIC_MERGE,
    PANOPTIC_MERGE_2,
    PYRAMID_ROI_ALIGN,
    RPN_PROPOSALS,
)

__all__ = [
    "box_detections",
    "box_detections_2",
    "overlay",
    "panoptic_merge",
    "panoptic_merge_2",
    "pyramid_roi_align",
    "rpn_proposals",
]


# --- RpnProposals -----------------------------------------------------------------------------------------------------


def rpn_proposals(
    logits: Sequence[Float32],
    deltas: Sequence[Float32],
    *,
    strides: Sequence[int],
    anchor_sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_threshold: float,
    input_hw: tuple[int, int],
) -> Proposals:
    """Return the best anchors, decoded, clipped and thinned by NMS within their level: the best R of all levels.

    Args:
        logits: per level (N, A, Hl, Wl) float32 objectness.
        deltas: per level (N, 4A, Hl, Wl) float32; channel 4a + j is (dx, dy, dw, dh)[j] of anchor a.
        strides: per level, pixels of the network input per cell.
        anchor_sizes: per level, side of the square anchor in pixels.
        aspect_ratios: height over width, one an anchor (A of them).
        pre_nms_top_k: anchors of a level that enter NMS, at most.
        post_nms_top_k: R, proposals that leave.
        nms_threshold: a box goes when its IoU with a better one of its level is greater.
        input_hw: valid height and width of the network input, padding excluded.

    Returns:
        rois (N, R, 4) float32, best first, and roi_count (N,) int32.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.

    Source: detectron2 `find_top_rpn_proposals`.
    """
    attributes = {
        "strides": strides,
        "anchor_sizes": anchor_sizes,
        "aspect_ratios": aspect_ratios,
        "pre_nms_top_k": pre_nms_top_k,
        "post_nms_top_k": post_nms_top_k,
        "nms_threshold": nms_threshold,
        "input_hw": input_hw,
    }
    sizes = contract.check(RPN_PROPOSALS, (logits, deltas), attributes)
    proposals = Proposals(*contract.outputs(RPN_PROPOSALS, sizes, make=np.zeros))
    anchors = [
        grid_anchors(hw, stride, anchor_size, aspect_ratios)
        for hw, stride, anchor_size in zip(sizes.levels, strides, anchor_sizes, strict=True)
    ]
    for n in range(sizes["N"]):
        candidates = [
            level_candidates(x[n], d[n], level_anchors, pre_nms_top_k)
            for x, d, level_anchors in zip(logits, deltas, anchors, strict=True)
        ]
        boxes, scores = (np.concatenate(arrays) for arrays in zip(*candidates, strict=True))
        level = np.repeat(np.arange(len(candidates)), [len(level_scores) for _, level_scores in candidates])
        boxes, real = clip_real(boxes, input_hw)
        kept = non_maximum_suppression(boxes, scores, level, real, nms_threshold)[:post_nms_top_k]
        proposals.roi_count[n] = len(kept)
        proposals.rois[n, : len(kept)] = boxes[kept]
    return proposals


def level_candidates(logits: Float32, deltas: Float32, anchors: Float32, top_k: int) -> tuple[Float32, Float32]:
    """Return the decoded boxes (k, 4) and scores (k,) of a level's best anchors, from (A, H, W) and (4A, H, W)."""
    scores = logits.transpose(1, 2, 0).reshape(-1)  # (H*W*A,) in order y, x, a
    codes = deltas.reshape(len(logits), 4, *logits.shape[1:]).transpose(2, 3, 0, 1).reshape(-1, 4)
    best = best_first(scores, np.isfinite(scores))[:top_k]
    return decode(codes[best], anchors[best], (1.0, 1.0, 1.0, 1.0)), scores[best]


# --- PyramidRoiAlign --------------------------------------------------------------------------------------------------


def pyramid_roi_align(
    features: Sequence[Floating],
    rois: Float32,
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
    min_level: int = 2,
    layout: Layout = "NCHW",
) -> Floating:
    """Pool each RoI from the level that fits its size, sampling bilinearly on a regular grid.

    Args:
        features: per level (N, C, Hl, Wl), or (N, Hl, Wl, C) where layout is "NHWC"; float32 or float16.
        rois: (N, R, 4) float32.
        strides: per level, pixels of the network input per cell.
        output_size: S, bins per side.
        sampling_ratio: samples per bin and axis; 0 takes ceil(RoI size / S), as detectron2's models do.
        canonical_size: a RoI of this side, in pixels, belongs to canonical_level.
        canonical_level: see canonical_size.
        min_level: the level of features[0].
        layout: "NCHW" or "NHWC", of the features and of the result.

    Returns:
        (N*R, C, S, S), or (N*R, S, S, C), in the features' type.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.

    Source: detectron2 `ROIPooler` with `ROIAlignV2` (aligned).
    """
    attributes = {
        "strides": strides,
        "output_size": output_size,
        "sampling_ratio": sampling_ratio,
        "canonical_size": canonical_size,
        "canonical_level": canonical_level,
        "min_level": min_level,
    }
    sizes = contract.check(PYRAMID_ROI_ALIGN, (features, rois), attributes, layout=layout)
    (pooled,) = contract.outputs(PYRAMID_ROI_ALIGN, sizes, make=np.zeros)  # float32, channels first
    usable = usable_rois(rois)
    for n, r in zip(*np.nonzero(usable), strict=True):
        i = pyramid_level(rois[n, r], canonical_size, canonical_level) - min_level
        i = min(max(i, 0), len(features) - 1)
        feature = features[i][n].astype(np.float32)
        feature = feature.transpose(2, 0, 1) if layout == "NHWC" else feature  # (C, H, W)
        pooled[n * sizes["R"] + r] = roi_align(feature, rois[n, r], strides[i], output_size, sampling_ratio)
    if layout == "NHWC":
        pooled = np.ascontiguousarray(pooled.transpose(0, 2, 3, 1))
    return pooled.astype(np.float16) if features[0].dtype == np.float16 else pooled


def usable_rois(rois: Float32) -> Mask:
    """Return which RoIs have an area and lie in bounds; the others pool to zero."""
    with np.errstate(invalid="ignore"):
        bounded = (np.abs(rois) <= MAX_ROI_COORDINATE).all(axis=-1)  # false for NaN
        usable: Mask = bounded & (rois[..., 2] > rois[..., 0]) & (rois[..., 3] > rois[..., 1])
    return usable


def pyramid_level(roi: Float32, canonical_size: float, canonical_level: int) -> int:
    """Return a RoI's level before clamping: floor(canonical_level + log2(sqrt(area) / canonical_size + 1e-8))."""
    area = (roi[2] - roi[0]) * (roi[3] - roi[1])
    relative = np.sqrt(area) / np.float32(canonical_size) + np.float32(1e-8)
    level: np.float32 = np.float32(canonical_level) + np.float32(np.log2(np.float64(relative)))
    return math.floor(level)


def roi_align(feature: Float32, roi: Float32, stride: int, S: int, sampling_ratio: int) -> Float32:
    """Pool one RoI from one level: feature (C, H, W), result (C, S, S)."""
    x, grid_w = sample_positions(roi[0], roi[2], stride, S, sampling_ratio)  # (S, grid_w)
    y, grid_h = sample_positions(roi[1], roi[3], stride, S, sampling_ratio)
    pooled = np.zeros((feature.shape[0], S, S), np.float32)
    with np.errstate(invalid="ignore"):  # features may be infinite
        for py in range(S):
            for px in range(S):
                samples = bilinear(feature, y[py][:, None], x[px][None, :])  # (C, grid_h, grid_w)
                pooled[:, py, px] = samples.sum(axis=(1, 2)) / np.float32(max(grid_h * grid_w, 1))
    return pooled


def sample_positions(
    low: np.float32, high: np.float32, stride: int, S: int, sampling_ratio: int
) -> tuple[Float32, int]:
    """Sample coordinates along one axis in feature cells, (S, grid), and grid."""
    scale = np.float32(1.0) / np.float32(stride)
    start = low * scale - np.float32(0.5)
    size = high * scale - np.float32(0.5) - start
    bin_size = size / np.float32(S)
    grid = sampling_ratio if sampling_ratio > 0 else math.ceil(bin_size)
    p = np.arange(S, dtype=np.float32)[:, None]
    i = np.arange(grid, dtype=np.float32)[None, :]
    return start + p * bin_size + (i + np.float32(0.5)) * bin_size / np.float32(grid), grid


def bilinear(feature: Float32, y: Float32, x: Float32) -> Float32:
    """Sample (C, H, W) at y and x, broadcast; integer coordinates are cell centres, more than a cell outside is 0."""
    H, W = feature.shape[1:]
    inside = (y >= -1) & (y <= H) & (x >= -1) & (x <= W)
    y, x = np.maximum(y, np.float32(0)), np.maximum(x, np.float32(0))
    y0, x0 = np.minimum(y.astype(np.int64), H - 1), np.minimum(x.astype(np.int64), W - 1)
    y1, x1 = np.minimum(y0 + 1, H - 1), np.minimum(x0 + 1, W - 1)
    fy, fx = np.where(y0 == H - 1, np.float32(0), y - y0), np.where(x0 == W - 1, np.float32(0), x - x0)
    fy, fx = fy.astype(np.float32), fx.astype(np.float32)
    top = feature[:, y0, x0] * (1 - fx) + feature[:, y0, x1] * fx
    bottom = feature[:, y1, x0] * (1 - fx) + feature[:, y1, x1] * fx
    sampled: Float32 = np.where(inside, top * (1 - fy) + bottom * fy, np.float32(0))
    return sampled


# --- BoxDetections ----------------------------------------------------------------------------------------------------


def box_detections(
    class_logits: Float32,
    box_deltas: Float32,
    rois: Float32,
    roi_count: Int32,
    *,
    box_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    input_hw: tuple[int, int],
) -> Detections:
    """Return the K best detections: softmax, decode, clip, threshold, NMS within each class.

    Args:
        class_logits: (N, R, C + 1) float32, background last.
        box_deltas: (N, R, 4C) float32, class-major.
        rois: (N, R, 4) float32.
        roi_count: (N,) int32, RoIs that are real.
        box_weights: (wx, wy, ww, wh), by which the deltas are divided.
        score_threshold: a detection scores more than this.
        nms_threshold: a box goes when its IoU with a better one of its class is greater.
        max_detections: K.
        input_hw: valid height and width of the network input, padding excluded.

    Returns:
        boxes (N, K, 4), scores (N, K), classes (N, K) int32, count (N,) int32; best first.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.

    Source: detectron2 `fast_rcnn_inference`.
    """
    attributes = {
        "box_weights": box_weights,
        "score_threshold": score_threshold,
        "nms_threshold": nms_threshold,
        "max_detections": max_detections,
        "input_hw": input_hw,
    }
    sizes = contract.check(BOX_DETECTIONS, (class_logits, box_deltas, rois, roi_count), attributes)
    (thresholds,) = contract.settings(BOX_DETECTIONS, sizes.letters, attributes)
    return box_detections_2(
        class_logits,
        box_deltas,
        rois,
        roi_count,
        thresholds,
        box_weights=box_weights,
        max_detections=max_detections,
        input_hw=input_hw,
    )


def box_detections_2(
    class_logits: Float32,
    box_deltas: Float32,
    rois: Float32,
    roi_count: Int32,
    thresholds: Float32,
    *,
    box_weights: Sequence[float],
    max_detections: int,
    input_hw: tuple[int, int],
) -> Detections:
    """Version 2: `thresholds`, (C + 1,) float32, are the score threshold of each class, then that of the IoU.

    Other arguments, result and errors are those of `box_detections`.
    """
    attributes = {"box_weights": box_weights, "max_detections": max_detections, "input_hw": input_hw}
    sizes = contract.check(BOX_DETECTIONS_2, (class_logits, box_deltas, rois, roi_count, thresholds), attributes)
    result = Detections(*contract.outputs(BOX_DETECTIONS_2, sizes, make=np.zeros))
    N, R, C = sizes["N"], sizes["R"], sizes["C"]
    score_thresholds, nms_threshold = np.tile(thresholds[:C], R), thresholds[C]
    for n in range(N):
        real = np.arange(R) < roi_count[n]
        probabilities = softmax(class_logits[n])  # (R, C + 1)
        boxes = decode(box_deltas[n].reshape(R, C, 4), rois[n][:, None], box_weights)  # (R, C, 4)
        valid = real & np.isfinite(probabilities).all(axis=1) & np.isfinite(boxes).all(axis=(1, 2))
        scores = probabilities[:, :C].reshape(-1)  # (R*C,) in order RoI, class
        boxes = clip(boxes.reshape(-1, 4), input_hw)
        classes = np.tile(np.arange(C), R)
        candidates = np.repeat(valid, C)
        candidates[candidates] = scores[candidates] > score_thresholds[candidates]
        kept = non_maximum_suppression(boxes, scores, classes, candidates, nms_threshold)[:max_detections]
        result.boxes[n, : len(kept)] = boxes[kept]
        result.scores[n, : len(kept)] = scores[kept]
        result.classes[n, : len(kept)] = classes[kept]
        result.count[n] = len(kept)
    return result


def softmax(logits: Float32) -> Float32:
    """Compute softmax over the last axis, in float64, rounded to float32."""
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True, initial=-np.inf))
        probabilities: Float32 = (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


# --- PanopticMerge ----------------------------------------------------------------------------------------------------


def panoptic_merge(
    semantic_logits: Float32,
    boxes: Float32,
    scores: Float32,
    classes: Int32,
    count: Int32,
    mask_probs: Float32,
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
    score_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
    mask_threshold: float = 0.5,
) -> PanopticSegments:
    """Paint instances by descending score, each where nothing was painted, then stuff on what is left.

    Args:
        semantic_logits: (N, S, h, w) float32 at a quarter of the padded network input; channel 0 is "things".
        boxes: (N, K, 4) float32, in network-input pixels.
        scores: (N, K) float32.
        classes: (N, K) int32.
        count: (N,) int32, detections that are real.
        mask_probs: (N, K, Gh, Gw) float32, over the box.
        input_hw: valid height and width of the network input, padding excluded.
        output_hw: H, W of the panoptic map.
        score_threshold: an instance scores at least this.
        overlap_threshold: an instance goes when a greater share of its mask is already painted.
        stuff_area_limit: a stuff region has at least this many pixels.
        mask_threshold: a pixel is in a mask where the sampled probability is at least this.

    Returns:
        panoptic (N, H, W) int32, segments (N, K + S, 8) int32, segment_scores (N, K + S) float32, segment_count (N,).

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.

    Source: detectron2 `sem_seg_postprocess`, `paste_masks_in_image`, `combine_semantic_and_instance_outputs`.
    """
    attributes: dict[str, Any] = {
        "input_hw": input_hw,
        "output_hw": output_hw,
        "score_threshold": score_threshold,
        "overlap_threshold": overlap_threshold,
        "stuff_area_limit": stuff_area_limit,
        "mask_threshold": mask_threshold,
    }
    tensors = (semantic_logits, boxes, scores, classes, count, mask_probs)
    sizes = contract.check(PANOPTIC_MERGE, tensors, attributes)
    settings = contract.settings(PANOPTIC_MERGE, sizes.letters, attributes)
    return panoptic_merge_2(*tensors, *settings, input_hw=input_hw, output_hw=output_hw)


def panoptic_merge_2(
    semantic_logits: Float32,
    boxes: Float32,
    scores: Float32,
    classes: Int32,
    count: Int32,
    mask_probs: Float32,
    thresholds: Float32,
    stuff_area_limits: Int32,
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
) -> PanopticSegments:
    """Version 2: `thresholds`, (3,) float32, of score, overlap and mask; `stuff_area_limits`, (S,) int32, by channel.

    Other arguments, result and errors are those of `panoptic_merge`.
    """
    tensors = (semantic_logits, boxes, scores, classes, count, mask_probs, thresholds, stuff_area_limits)
    sizes = contract.check(PANOPTIC_MERGE_2, tensors, {"input_hw": input_hw, "output_hw": output_hw})
    result = PanopticSegments(*contract.outputs(PANOPTIC_MERGE_2, sizes, make=np.zeros))
    for n in range(sizes["N"]):
        detections = Detections(boxes[n], scores[n], classes[n], count[n])
        found = merge_image(
            result.panoptic[n],
            semantic_logits[n],
            detections,
            mask_probs[n],
            thresholds,
            stuff_area_limits,
            input_hw=input_hw,
            output_hw=output_hw,
        )
        for i, (row, score) in enumerate(found):
            result.segments[n, i] = [i + 1, *row]
            result.segment_scores[n, i] = score
        result.segment_count[n] = len(found)
    return result


def merge_image(
    panoptic: Int32,
    semantic_logits: Float32,
    detections: Detections,
    mask_probs: Float32,
    thresholds: Float32,
    stuff_area_limits: Int32,
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
) -> list[tuple[list[int], float]]:
    """Paint an empty (H, W) map with one image; return row, without the ID, and score of each segment."""
    boxes, scores, classes, count = detections
    score_threshold, overlap_threshold, mask_threshold = thresholds
    real = np.arange(len(scores)) < count
    real[real] = scores[real] >= score_threshold  # false for NaN
    order = best_first(scores, real)
    masks = (
        paste_mask(mask_probs[k], scale_box(boxes[k], input_hw, output_hw), output_hw, mask_threshold) for k in order
    )
    owned = paint_instances(panoptic, masks, overlap_threshold)
    found = [([int(classes[k]), 1, *own], float(scores[k])) for k, own in zip(order, owned, strict=True) if own]
    labels = semantic_argmax(semantic_logits, input_hw, output_hw)
    stuff = paint_stuff(panoptic, labels, stuff_area_limits, len(found) + 1)
    return found + [([channel, 0, *own], 0.0) for channel, own in stuff]
