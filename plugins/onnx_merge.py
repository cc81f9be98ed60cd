"""PanopticMerge as an ONNX function; see `onnx_functions`.

Shapes: N images, K detections, S semantic channels (0 is "things"), G mask side, H x W output size, h x w semantic map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from onnx import FunctionProto

from .function_builder import Columns, FunctionBuilder, Value, at_least, at_most, is_finite, shape, split, top_k
from .merge_reference import LARGEST_LOGIT
from .nodes import Form
from .onnx_boxes import NO_LIMIT, clip, has_area


class Taps(NamedTuple):
    """The samples of each output pixel of one axis, in cells of the source."""

    cells: tuple[Value, ...]  # each (..., size) int64
    weights: tuple[Value, ...]  # each (..., size) float32


def panoptic_merge(op: FunctionBuilder, form: Form) -> FunctionProto:
    """Build the function of PanopticMerge.

    Maps lie as (W, H) on the way: what is gathered along their first axis are then whole rows.
    """
    semantic_logits, boxes, scores, classes, count, mask_probs = op.inputs[:6]
    semantic_logits, mask_probs = semantic_logits.cast(np.float32), mask_probs.cast(np.float32)  # float16 may come in
    input_hw, output_hw = (op.size_attribute(name, form.open_size) for name in ("input_hw", "output_hw"))
    N, S, K = semantic_logits.size(0), semantic_logits.size(1), scores.size(1)
    H, W = output_hw[0], output_hw[1]
    scale = (output_hw.cast(np.float64) / input_hw.cast(np.float64)).cast(np.float32)
    rows = resize_taps(op, input_hw[0], H, semantic_logits.size(2))
    columns = resize_taps(op, input_hw[1], W, semantic_logits.size(3))

    def merge_image(n: Value) -> tuple[list[Value], list[Value]]:
        # 1, 2: a box that is dropped takes no id, so it may go before the others are sorted
        x0, y0, x1, y1 = split(op, op.Gather(boxes, n))  # each (K, 1)
        box = clip(op, (x0 * scale[1], y0 * scale[0], x1 * scale[1], y1 * scale[0]), output_hw)
        score = op.Gather(scores, n)
        real = (op.Range(0, K, 1) < op.Gather(count, n).cast(np.int64)) & (score >= op.setting("score_threshold"))
        real = real & op.Squeeze(has_area(op, box), [1])
        _, order = top_k(op, op.Where(real, score, -math.inf), K)
        order = op.Slice(order, [0], op.ReduceSum(real.cast(np.int64), keepdims=1))  # (instances,)

        things, accepted, thing_areas = paint_instances(op, order, box, op.Gather(mask_probs, n), H, W)
        order, thing_areas = op.Compress(order, accepted), op.Compress(thing_areas, accepted)
        T = op.Size(order)

        # 6: pixels that an instance owns count as channel 0, which is no stuff
        unowned = op.Equal(things, np.int32(0))
        stuff = op.Where(unowned, semantic_argmax(op, op.Gather(semantic_logits, n), rows, columns), np.int32(0))
        one = op.Expand(np.int32(1), op.Shape(stuff))
        by_column = op.ScatterElements(op.Expand(np.int32(0), shape(op, W, S)), stuff, one, axis=1, reduction="add")
        areas = op.ReduceSum(by_column, [0], keepdims=0).cast(np.int64)  # (S,)
        found = (areas >= op.Max(op.setting("stuff_area_limit"), 1)) & (op.Range(0, S, 1) > 0)
        ids = op.Where(found, T + op.CumSum(found.cast(np.int64), 0), 0).cast(np.int32)
        panoptic = op.Where(unowned, op.Gather(ids, stuff), things)  # (W, H)
        channels = op.Compress(op.Range(0, S, 1), found)

        Q = T + op.Size(channels)  # segments
        row = op.Range(0, Q, 1)
        x0, x1 = extent(op, panoptic, shape(op, W, Q + 1), axis=0)
        y0, y1 = extent(op, panoptic, shape(op, Q + 1, H), axis=1)
        category = op.Concat(op.Gather(op.Gather(classes, n), order).cast(np.int64), channels, axis=0)
        area = op.Concat(thing_areas.cast(np.int64), op.Compress(areas, found), axis=0)
        table = (row + 1, category, (row < T).cast(np.int64), area, x0, y0, x1, y1)
        segments = op.Concat(*(op.Unsqueeze(entry, [1]) for entry in table), axis=1).cast(np.int32)
        segments = op.Concat(segments, op.Expand(np.int32(0), shape(op, K + S - Q, 8)), axis=0)
        segment_scores = op.Concat(op.Gather(score, order), op.Expand(0.0, shape(op, K + S - T)), axis=0)
        return [], [op.Transpose(panoptic, perm=[1, 0]), segments, segment_scores, Q.cast(np.int32)]

    panoptic, segments, segment_scores, segment_count = op.loop(N, [], merge_image)
    return op.build(  # reshaped to what they are, as shape inference does not see it
        panoptic=op.Reshape(panoptic, shape(op, N, H, W)),
        segments=op.Reshape(segments, shape(op, N, K + S, 8)),
        segment_scores=op.Reshape(segment_scores, shape(op, N, K + S)),
        segment_count=segment_count,
    )


def paint_instances(
    op: FunctionBuilder, order: Value, box: Columns, probs: Value, H: Value, W: Value
) -> tuple[Value, Value, Value]:
    """Paint instances in this order onto an empty map, each within the window its mask can reach: 3 and 4.

    Returns their ids from 1 on, (W, H) int32, and of each instance whether it was accepted and its free pixels, int32.
    """
    probs = op.Pad(op.Where(is_finite(op, probs), probs, 0.0), [0, 1, 1, 0, 1, 1])  # zeros stand for "outside"
    rows, top, bottom = paste_taps(op, box[1], box[3], H, probs.size(1) - 2)
    columns, left, right = paste_taps(op, box[0], box[2], W, probs.size(2) - 2)

    def lerp(values: Value, taps: Taps, k: Value, begin: Value, end: Value) -> Value:
        """Interpolate along the first axis."""
        cell = op.Slice(op.Gather(taps.cells[0], k), begin, end)
        share = op.Unsqueeze(op.Slice(op.Gather(taps.weights[0], k), begin, end), [1])
        low, high = op.Gather(values, cell), op.Gather(values, cell + 1)
        return low + (high - low) * share

    def paint(i: Value, canvas: Value, painted: Value) -> tuple[list[Value], list[Value]]:
        k = op.Gather(order, i)
        y0, y1, x0, x1 = (op.Reshape(op.Gather(bound, k), [1]) for bound in (top, bottom, left, right))
        by_row = lerp(op.Gather(probs, k), rows, k, y0, y1)  # (y1 - y0, G + 2)
        value = lerp(op.Transpose(by_row, perm=[1, 0]), columns, k, x0, x1)  # (x1 - x0, y1 - y0)
        mask = value >= op.setting("mask_threshold")

        strip = op.Slice(canvas, x0, x1, [0])
        window = op.Slice(strip, y0, y1, [1])
        free = mask & op.Equal(window, np.int32(0))
        mask_area, free_area = (op.ReduceSum(pixels.cast(np.int32), keepdims=0) for pixels in (mask, free))
        taken = (mask_area - free_area).cast(np.float64) / mask_area.cast(np.float64)
        accepted = (free_area > np.int32(0)) & ~(taken.cast(np.float32) > op.setting("overlap_threshold"))

        painted = painted + accepted.cast(np.int32)
        window = op.Where(free & accepted, painted, window)
        strip = op.Concat(op.Slice(strip, [0], y0, [1]), window, op.Slice(strip, y1, [NO_LIMIT], [1]), axis=1)
        canvas = op.Concat(op.Slice(canvas, [0], x0, [0]), strip, op.Slice(canvas, x1, [NO_LIMIT], [0]), axis=0)
        # A loop of no trips must know that these are scalars.
        return [canvas, painted], [op.Reshape(accepted, []), op.Reshape(free_area, [])]

    empty = op.Expand(np.int32(0), shape(op, W, H))
    canvas, _, accepted, areas = op.loop(op.Size(order), [empty, np.int32(0)], paint)
    return canvas, accepted, areas


def paste_taps(op: FunctionBuilder, low: Value, high: Value, size: Value, G: Value) -> tuple[Taps, Value, Value]:
    """Return taps (K, size) of each zero-padded mask, and the pixels that it can reach, begin (K,) to end (K,): 3."""
    limit = G.cast(np.float32)
    centre = op.Range(0, size, 1).cast(np.float32) + 0.5
    u = (centre - low) / (high - low) * limit - 0.5
    begin = op.ReduceSum((u <= -1.0).cast(np.int64), [1], keepdims=0)  # u ascends
    end = op.ReduceSum((u < limit).cast(np.int64), [1], keepdims=0)
    u = at_most(op, at_least(op, u, -1.0), limit)
    cell = at_most(op, op.Floor(u), limit - 1.0)
    return Taps((cell.cast(np.int64) + 1,), (u - cell,)), begin, op.Max(begin, end)


def semantic_argmax(op: FunctionBuilder, logits: Value, rows: Taps, columns: Taps) -> Value:
    """Return the best channel, (W, H) int32, of (S, h, w) logits; all channels of one output row at a time: 5."""
    limit = float(LARGEST_LOGIT)
    clamped = at_most(op, at_least(op, logits, -limit), limit)
    cells = op.Transpose(op.Where(op.IsNaN(logits), -limit, clamped), perm=[1, 2, 0])  # (h, w, S)

    def label_row(i: Value) -> tuple[list[Value], list[Value]]:
        row = weighted_sum(
            [op.Gather(cells, op.Gather(c, i)) for c in rows.cells], [op.Gather(w, i) for w in rows.weights]
        )
        full = weighted_sum([op.Gather(row, c) for c in columns.cells], [op.Unsqueeze(w, [1]) for w in columns.weights])
        return [], [op.ArgMax(full, axis=1, keepdims=0).cast(np.int32)]  # (W,)

    (labels,) = op.loop(op.Size(rows.cells[0]), [], label_row)
    return op.Transpose(labels, perm=[1, 0])


def weighted_sum(values: Sequence[Value], weights: Sequence[Value]) -> Value:
    """Return the weighted sum, evaluated from left to right."""
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total


def resize_taps(op: FunctionBuilder, valid: Value, output: Value, quarter: Value) -> Taps:
    """Return the two resizes of one axis as three taps: 5."""
    scale = valid.cast(np.float32) / output.cast(np.float32)
    source = at_least(op, (op.Range(0, output, 1).cast(np.float32) + 0.5) * scale - 0.5, 0.0)
    first = op.Min(source.cast(np.int64), valid - 1)
    fraction = at_most(op, source - first.cast(np.float32), 1.0)

    def first_resize(neighbour: Value, share: Value) -> tuple[Value, Value, Value]:
        position = at_least(op, (neighbour.cast(np.float32) + 0.5) * 0.25 - 0.5, 0.0)
        cell = position.cast(np.int64)
        part = position - cell.cast(np.float32)
        return cell, share * (1.0 - part), share * part

    base, a0, a1 = first_resize(first, 1.0 - fraction)
    cell, b0, b1 = first_resize(op.Min(first + 1, valid - 1), fraction)
    same = op.Equal(cell, base)  # else cell is base + 1
    weights = (a0 + op.Where(same, b0, 0.0), a1 + op.Where(same, b1, b0), op.Where(same, 0.0, b1))
    return Taps(tuple(op.Min(base + i, quarter - 1) for i in range(3)), weights)


def extent(op: FunctionBuilder, panoptic: Value, size: Value, axis: int) -> tuple[Value, Value]:
    """Return the first and past-the-last position along an axis of every id but 0, in a (W, H) map that has each id."""
    one = op.Expand(np.uint8(1), op.Shape(panoptic))
    seen = op.ScatterElements(op.Expand(np.uint8(0), size), panoptic, one, axis=1 - axis)  # id takes the other's place
    first, last = (op.ArgMax(seen, axis=axis, keepdims=0, select_last_index=end) for end in (0, 1))
    return op.Slice(first, [1], [NO_LIMIT]), op.Slice(last, [1], [NO_LIMIT]) + 1
