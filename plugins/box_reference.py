"""Boxes in NumPy: anchors, decoding, clipping, order and non-maximum suppression; OPS.md 1.1, 1.2 and 2.1.

Shared by the reference of RpnProposals and BoxDetections. Boxes are (x0, y0, x1, y1) in pixels of the network input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .contract import Float32

# detectron2's limit on dw and dh: a box grows at most from 16 to 1000 pixels in one step.
MAX_SIZE_DELTA = np.float32(math.log(1000.0 / 16.0))

Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]


def grid_anchors(size: tuple[int, int], stride: int, anchor_size: float, aspect_ratios: Sequence[float]) -> Float32:
    """Return the anchors of one level, (H*W*A, 4), in order y, x, a; centred on each cell's top-left corner."""
    H, W = size
    area = float(np.float32(anchor_size)) ** 2
    widths = np.array([math.sqrt(area / float(np.float32(ratio))) for ratio in aspect_ratios])
    heights = widths * np.array([float(np.float32(ratio)) for ratio in aspect_ratios])
    with np.errstate(over="ignore"):  # an infinite anchor is dropped later
        cell = (np.stack([-widths, -heights, widths, heights], axis=1) / 2).astype(np.float32)  # (A, 4)
    x, y = np.meshgrid(np.arange(W, dtype=np.float32) * stride, np.arange(H, dtype=np.float32) * stride)
    corners = np.stack([x, y, x, y], axis=-1).astype(np.float32)  # (H, W, 4)
    return (corners[:, :, None] + cell).reshape(-1, 4)


def decode(deltas: Float32, boxes: Float32, weights: Sequence[float]) -> Float32:
    """Apply (dx, dy, dw, dh) to boxes, (..., 4) and (..., 4) that broadcast; not clipped."""
    wx, wy, ww, wh = (np.float32(weight) for weight in weights)
    with np.errstate(all="ignore"):  # what overflows is dropped later
        width = boxes[..., 2] - boxes[..., 0]
        height = boxes[..., 3] - boxes[..., 1]
        centre_x = boxes[..., 0] + np.float32(0.5) * width
        centre_y = boxes[..., 1] + np.float32(0.5) * height
        new_centre_x = deltas[..., 0] / wx * width + centre_x
        new_centre_y = deltas[..., 1] / wy * height + centre_y
        new_width = exp(np.minimum(deltas[..., 2] / ww, MAX_SIZE_DELTA)) * width
        new_height = exp(np.minimum(deltas[..., 3] / wh, MAX_SIZE_DELTA)) * height
        half_width, half_height = np.float32(0.5) * new_width, np.float32(0.5) * new_height
        corners = (
            new_centre_x - half_width,
            new_centre_y - half_height,
            new_centre_x + half_width,
            new_centre_y + half_height,
        )
        return np.stack(corners, axis=-1)


def exp(x: Float32) -> Float32:
    """Compute exp in float64, rounded to float32."""
    return np.exp(x.astype(np.float64)).astype(np.float32)


def clip(boxes: Float32, hw: tuple[float, float]) -> Float32:
    """Clip boxes to [0, width] x [0, height]; NaN stays."""
    limits = np.array([hw[1], hw[0], hw[1], hw[0]], np.float32)
    clipped: Float32 = np.minimum(np.maximum(boxes, np.float32(0)), limits)
    return clipped


def clip_real(boxes: Float32, input_hw: tuple[int, int]) -> tuple[Float32, Mask]:
    """Return boxes (M, 4) clipped, and which were finite and still have an area."""
    finite = np.isfinite(boxes).all(axis=1)
    boxes = clip(boxes, input_hw)
    with np.errstate(invalid="ignore"):
        return boxes, finite & (boxes[:, 2] - boxes[:, 0] > 0) & (boxes[:, 3] - boxes[:, 1] > 0)


def best_first(scores: Float32, candidates: Mask) -> Indices:
    """Return the indices of the candidates by descending score; ties keep their order."""
    indices = np.nonzero(candidates)[0]
    return indices[np.argsort(-scores[indices], kind="stable")]


def non_maximum_suppression(
    boxes: Float32, scores: Float32, groups: NDArray[np.integer], candidates: Mask, threshold: float
) -> Indices:
    """Return the kept candidates, best first; each suppresses those of its group above the threshold."""
    kept: list[int] = []
    for i in best_first(scores, candidates):
        rivals = np.array([k for k in kept if groups[k] == groups[i]], np.intp)
        if not (iou(boxes[i], boxes[rivals]) > np.float32(threshold)).any():
            kept.append(int(i))
    return np.array(kept, np.intp)


def iou(box: Float32, others: Float32) -> Float32:
    """Return the intersection over union of one box (4,) with (M, 4); NaN, hence never greater, if both are empty."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    intersection = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Float32 = intersection / (areas + area - intersection)
    return ratio
