"""Boxes in ONNX functions: decoding, clipping, suppression and the best K; see `onnx_functions`.

A box is four columns x0, y0, x1, y1, each (..., 1). Steps are those of OPS.md.
"""

from __future__ import annotations

import math

import numpy as np

from .box_reference import MAX_SIZE_DELTA
from .function_builder import Columns, FunctionBuilder, Value, at_least, at_most, exp, shape, top_k

NO_LIMIT = 2**31 - 1


def decode(op: FunctionBuilder, codes: Columns, boxes: Columns, weights: Columns | None = None) -> Columns:
    """Apply (dx, dy, dw, dh), divided by the weights, to boxes: 1.1."""
    dx, dy, dw, dh = codes if weights is None else (code / weight for code, weight in zip(codes, weights, strict=True))
    width, height = boxes[2] - boxes[0], boxes[3] - boxes[1]
    x = dx * width + (boxes[0] + width * 0.5)
    y = dy * height + (boxes[1] + height * 0.5)
    half_width = exp(op, at_most(op, dw, float(MAX_SIZE_DELTA))) * width * 0.5
    half_height = exp(op, at_most(op, dh, float(MAX_SIZE_DELTA))) * height * 0.5
    return x - half_width, y - half_height, x + half_width, y + half_height


def clip(op: FunctionBuilder, boxes: Columns, hw: Value) -> Columns:
    """Clip boxes to a size, (2,) of any type: 1.2."""
    limits = hw.cast(np.float32)
    height, width = limits[0], limits[1]
    x0, y0, x1, y1 = (
        at_most(op, at_least(op, column, 0.0), limit)
        for column, limit in zip(boxes, (width, height, width, height), strict=True)
    )
    return x0, y0, x1, y1


def has_area(op: FunctionBuilder, boxes: Columns) -> Value:
    """Return whether boxes have an area: False for empty, inverted and NaN boxes."""
    x0, y0, x1, y1 = boxes
    return (x1 - x0 > 0.0) & (y1 - y0 > 0.0)


def suppress(op: FunctionBuilder, boxes: Value, ranks: Value, scores: Value) -> Value:
    """Return the scores (B, M) of the boxes (B, M, 4), in B groups, that NMS keeps, -inf for the others: 1.2.

    Ranks (B, M), the highest for the best and 0 for no candidate, stand in for the scores: they have no ties, and ONNX
    leaves the order of ties open.
    """
    kept = op.NonMaxSuppression(boxes, op.Unsqueeze(ranks, [1]), NO_LIMIT, op.setting("nms_threshold"), 0.0)
    kept = op.Gather(kept, [0, 2], axis=1)  # (kept, 2): batch, box
    return op.ScatterND(op.Expand(-math.inf, op.Shape(scores)), kept, op.GatherND(scores, kept))


def first_k(op: FunctionBuilder, scores: Value, boxes: Value, K: Value) -> tuple[Value, Value, Value, Value]:
    """Return the K best of (N, M) scores above -inf: boxes (N, K, 4), scores (N, K), index in M (N, K), count (N,)."""
    N = scores.size(0)
    padded = op.Concat(scores, op.Expand(-math.inf, shape(op, N, K)), axis=1)  # M may be less than K
    boxes = op.Concat(boxes, op.Expand(0.0, shape(op, N, K, 4)), axis=1)
    best, index = top_k(op, padded, K)
    real = best > -math.inf
    return (
        op.Where(op.Unsqueeze(real, [2]), op.GatherND(boxes, op.Unsqueeze(index, [2]), batch_dims=1), 0.0),
        op.Where(real, best, 0.0),
        op.Where(real, index, 0),
        op.ReduceSum(real.cast(np.int32), [1], keepdims=0),
    )
