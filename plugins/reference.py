"""The custom ops in NumPy: slow, obvious, the specification. Read it beside OPS.md, whose step numbers it follows.

Shapes: N images, L pyramid levels, A anchors per cell, R RoIs, C thing classes, K detections, S semantic channels (0 is
"things"), Gh x Gw a mask (28 x 28), H x W output size, h x w semantic map at a quarter of the padded network input.
Boxes are (x0, y0, x1, y1) in pixels of the network input, continuous, no +1.

Arithmetic is float32 in the order written, nothing fused; exp and log2 are taken in float64 and rounded to float32, so
that every form of an op can agree with this one to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import contract
from .box_reference import Indices, Mask, best_first, clip, clip_real, decode, grid_anchors, non_maximum_suppression
from .contract import Detections, Float32, Floating, Int32, Layout, PanopticSegments, Proposals
from .frame_reference import overlay
from .schema import BOX_DETECTIONS, MAX_ROI_COORDINATE, PANOPTIC_MERGE, PYRAMID_ROI_ALIGN, RPN_PROPOSALS

__all__ = ["box_detections", "overlay", "panoptic_merge", "pyramid_roi_align", "rpn_proposals"]

LARGEST_LOGIT = np.float32(1e30)


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
    """Best anchors of each level, decoded, clipped, thinned by NMS within their level, and the best R of all levels.

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
        output_size: S, bins a side.
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
    """RoIs that have an area and lie in any image at all; the others pool to zero."""
    with np.errstate(invalid="ignore"):
        bounded = (np.abs(rois) <= MAX_ROI_COORDINATE).all(axis=-1)  # false for NaN
        usable: Mask = bounded & (rois[..., 2] > rois[..., 0]) & (rois[..., 3] > rois[..., 1])
    return usable


def pyramid_level(roi: Float32, canonical_size: float, canonical_level: int) -> int:
    """Level of a RoI before clamping: floor(canonical_level + log2(sqrt(area) / canonical_size + 1e-8))."""
    area = (roi[2] - roi[0]) * (roi[3] - roi[1])
    relative = np.sqrt(area) / np.float32(canonical_size) + np.float32(1e-8)
    level: np.float32 = np.float32(canonical_level) + np.float32(np.log2(np.float64(relative)))
    return math.floor(level)


def roi_align(feature: Float32, roi: Float32, stride: int, S: int, sampling_ratio: int) -> Float32:
    """One RoI from one level: feature (C, H, W), result (C, S, S)."""
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
    """Softmax, decode, clip, threshold, NMS within each class, keep the best K.

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
    result = Detections(*contract.outputs(BOX_DETECTIONS, sizes, make=np.zeros))
    N, R, C = sizes["N"], sizes["R"], sizes["C"]
    for n in range(N):
        real = np.arange(R) < roi_count[n]
        probabilities = softmax(class_logits[n])  # (R, C + 1)
        boxes = decode(box_deltas[n].reshape(R, C, 4), rois[n][:, None], box_weights)  # (R, C, 4)
        valid = real & np.isfinite(probabilities).all(axis=1) & np.isfinite(boxes).all(axis=(1, 2))
        scores = probabilities[:, :C].reshape(-1)  # (R*C,) in order RoI, class
        boxes = clip(boxes.reshape(-1, 4), input_hw)
        classes = np.tile(np.arange(C), R)
        candidates = np.repeat(valid, C)
        candidates[candidates] = scores[candidates] > np.float32(score_threshold)
        kept = non_maximum_suppression(boxes, scores, classes, candidates, nms_threshold)[:max_detections]
        result.boxes[n, : len(kept)] = boxes[kept]
        result.scores[n, : len(kept)] = scores[kept]
        result.classes[n, : len(kept)] = classes[kept]
        result.count[n] = len(kept)
    return result


def softmax(logits: Float32) -> Float32:
    """Over the last axis, in float64, rounded to float32."""
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
    result = PanopticSegments(*contract.outputs(PANOPTIC_MERGE, sizes, make=np.zeros))
    for n in range(sizes["N"]):
        detections = Detections(boxes[n], scores[n], classes[n], count[n])
        found = merge_image(result.panoptic[n], semantic_logits[n], detections, mask_probs[n], **attributes)
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
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
    score_threshold: float,
    mask_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
) -> list[tuple[list[int], float]]:
    """Paint an empty (H, W) map with one image; return row, without the ID, and score of each segment."""
    boxes, scores, classes, count = detections
    real = np.arange(len(scores)) < count
    real[real] = scores[real] >= np.float32(score_threshold)  # false for NaN
    order = best_first(scores, real)
    masks = (
        paste_mask(mask_probs[k], scale_box(boxes[k], input_hw, output_hw), output_hw, mask_threshold) for k in order
    )
    owned = paint_instances(panoptic, masks, overlap_threshold)
    found = [([int(classes[k]), 1, *own], float(scores[k])) for k, own in zip(order, owned, strict=True) if own]
    labels = semantic_argmax(semantic_logits, input_hw, output_hw)
    stuff = paint_stuff(panoptic, labels, len(semantic_logits), len(found) + 1, stuff_area_limit)
    return found + [([channel, 0, *own], 0.0) for channel, own in stuff]


AreaAndBox = tuple[int, int, int, int, int]  # pixels, then the tight half-open box


def paint_instances(panoptic: Int32, masks: Iterable[Mask], overlap_threshold: float) -> list[AreaAndBox | None]:
    """Paint masks onto an empty (H, W) map, each where it is free; return what each got, None if it was dropped."""
    owned: list[AreaAndBox | None] = []
    accepted = 0
    for mask in masks:
        free = mask & (panoptic == 0)
        area = np.count_nonzero(mask)
        if not free.any() or np.float32((area - np.count_nonzero(free)) / area) > np.float32(overlap_threshold):
            owned.append(None)
            continue
        accepted += 1
        panoptic[free] = accepted
        owned.append(area_and_box(free))
    return owned


def paint_stuff(
    panoptic: Int32, labels: Indices, channels: int, first_id: int, area_limit: int
) -> list[tuple[int, AreaAndBox]]:
    """Paint each channel but 0 on the free pixels that it labels, if they are enough; return those painted."""
    painted: list[tuple[int, AreaAndBox]] = []
    for channel in range(1, channels):
        free = (labels == channel) & (panoptic == 0)
        if np.count_nonzero(free) >= max(area_limit, 1):
            panoptic[free] = first_id + len(painted)
            painted.append((channel, area_and_box(free)))
    return painted


def semantic_argmax(logits: Float32, input_hw: tuple[int, int], output_hw: tuple[int, int]) -> NDArray[np.intp]:
    """Best channel of each output pixel, (H, W): bilinear x4, crop to valid, bilinear to the output, argmax."""
    logits = np.where(np.isnan(logits), -LARGEST_LOGIT, np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT))
    rows, row_weights = resize_taps(input_hw[0], output_hw[0], logits.shape[1])
    columns, column_weights = resize_taps(input_hw[1], output_hw[1], logits.shape[2])
    w0, w1, w2 = row_weights.T[:, :, None]  # each (H, 1)
    by_row = w0 * logits[:, rows[:, 0]] + w1 * logits[:, rows[:, 1]] + w2 * logits[:, rows[:, 2]]  # (S, H, w)
    w0, w1, w2 = column_weights.T  # each (W,)
    full = w0 * by_row[..., columns[:, 0]] + w1 * by_row[..., columns[:, 1]] + w2 * by_row[..., columns[:, 2]]
    labels: Indices = full.argmax(axis=0)
    return labels


def resize_taps(valid: int, output: int, quarter: int) -> tuple[Indices, Float32]:
    """Two successive bilinear resizes of one axis as one: for each output pixel 3 quarter-size cells and their weights.

    The first resize takes `quarter` cells to 4 times as many, of which `valid` are kept; the second takes those to
    `output`. Its two neighbours lie a quarter of a cell apart, hence 3 cells. Both clamp at the edges.
    """
    scale = np.float32(valid) / np.float32(output)
    source = np.maximum(
        (np.arange(output, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), np.float32(0)
    )
    first = np.minimum(source.astype(np.int64), valid - 1)
    fraction = np.minimum(source - first.astype(np.float32), np.float32(1))
    cells, weights = np.zeros(output, np.int64), np.zeros((output, 3), np.float32)
    everywhere = np.arange(output)
    for step, share in ((0, np.float32(1) - fraction), (1, fraction)):
        neighbour = np.minimum(first + step, valid - 1).astype(np.float32)
        position = np.maximum((neighbour + np.float32(0.5)) * np.float32(0.25) - np.float32(0.5), np.float32(0))
        cell = position.astype(np.int64)
        part = position - cell.astype(np.float32)
        if step == 0:
            cells = cell
        weights[everywhere, cell - cells] += share * (np.float32(1) - part)
        weights[everywhere, cell - cells + 1] += share * part
    return np.minimum(cells[:, None] + np.arange(3), quarter - 1), weights


def scale_box(box: Float32, input_hw: tuple[int, int], output_hw: tuple[int, int]) -> Float32:
    """A box from network-input to output pixels, clipped to the output."""
    scale_y, scale_x = (np.float32(output_hw[i] / input_hw[i]) for i in (0, 1))
    with np.errstate(over="ignore"):
        return clip(box * np.array([scale_x, scale_y, scale_x, scale_y], np.float32), output_hw)


def paste_mask(probs: Float32, box: Float32, output_hw: tuple[int, int], threshold: float) -> Mask:
    """Pixels of the output, (H, W), where the (Gh, Gw) probabilities stretched over the box reach the threshold."""
    if not (box[2] - box[0] > 0 and box[3] - box[1] > 0):  # false for NaN
        return np.zeros(output_hw, np.bool_)
    probs = np.pad(np.where(np.isfinite(probs), probs, np.float32(0)), 1)  # a border of zeros stands for "outside"
    rows, fy = paste_taps(box[1], box[3], output_hw[0], probs.shape[0] - 2)
    columns, fx = paste_taps(box[0], box[2], output_hw[1], probs.shape[1] - 2)
    with np.errstate(over="ignore", invalid="ignore"):  # probabilities may be any finite number
        by_row = lerp(probs[rows], probs[rows + 1], fy[:, None])  # (H, Gw + 2)
        mask: Mask = lerp(by_row[:, columns], by_row[:, columns + 1], fx) >= np.float32(threshold)
    return mask


def paste_taps(low: np.float32, high: np.float32, output: int, G: int) -> tuple[Indices, Float32]:
    """For each output pixel of one axis the lower of its two cells in the padded mask, and the upper one's share."""
    with np.errstate(over="ignore"):
        centre = np.arange(output, dtype=np.float32) + np.float32(0.5)
        u = (centre - low) / (high - low) * np.float32(G) - np.float32(0.5)
    u = np.clip(u, np.float32(-1), np.float32(G))
    cell = np.minimum(np.floor(u), np.float32(G - 1))
    return cell.astype(np.intp) + 1, u - cell


def lerp(a: Float32, b: Float32, t: Float32) -> Float32:
    """From a to b; exactly a where they are equal, so that a flat mask at the threshold stays whole."""
    return a + (b - a) * t


def area_and_box(mask: Mask) -> AreaAndBox:
    """area, x0, y0, x1, y1 of a mask that is not empty; the box is tight and half-open."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return (int(np.count_nonzero(mask)), int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
