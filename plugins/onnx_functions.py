"""The four ops as ONNX model-local functions of standard operators: what makes a PanRT file run anywhere.

A model that holds these functions runs in plain ONNX Runtime; a runtime that has kernels or plugins of the same names
uses those instead. OPS.md is the contract, the step numbers in here are its own. In ONNX Runtime results equal those of
`reference.py` to the bit, but for the sums of RoiAlign (OPS.md 3.5) and for its samples on the outermost border, of
which ONNX Runtime's rounding decides whether they count.

Shapes: N images, L pyramid levels, A anchors per cell, R RoIs, C thing classes, K detections, S semantic channels (0 is
"things"), G mask side, H x W output size, h x w semantic map. A box is four columns x0, y0, x1, y1, each (..., 1).

Nothing in here relies on what the ONNX standard leaves open: what Min, Max, Clip and TopK make of a NaN, in which order
NonMaxSuppression takes equal scores, what it makes of inverted boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, helper

from .contract import MAX_ROI_COORDINATE
from .function_builder import FLOAT, FLOATS, INT, INTS, STRING, FunctionBuilder, Operand, Reference, Value
from .reference import LARGEST_LOGIT, MAX_SIZE_DELTA

DOMAIN = "panrt"
VERSION = 1
SMALLEST_OPSET = 18  # of the default domain: reductions take their axes as inputs, ScatterElements reduces
LARGEST_OPSET = 21  # ONNX Runtime has no RoiAlign of opset 22 for the CPU (as of 1.31)

# Every node carries these, so that TensorRT looks for the plugin of this namespace and version.
PLUGIN = {"plugin_namespace": "panrt", "plugin_version": "1"}

ATTRIBUTES = {
    "RpnProposals": {
        "strides": INTS,
        "anchor_sizes": FLOATS,
        "aspect_ratios": FLOATS,
        "pre_nms_top_k": INT,
        "post_nms_top_k": INT,
        "nms_threshold": FLOAT,
        "input_hw": INTS,
    },
    "PyramidRoiAlign": {
        "strides": INTS,
        "output_size": INT,
        "sampling_ratio": INT,
        "canonical_size": FLOAT,
        "canonical_level": INT,
        "min_level": INT,
    },
    "BoxDetections": {
        "box_weights": FLOATS,
        "score_threshold": FLOAT,
        "nms_threshold": FLOAT,
        "max_detections": INT,
        "input_hw": INTS,
    },
    "PanopticMerge": {
        "input_hw": INTS,
        "output_hw": INTS,
        "score_threshold": FLOAT,
        "overlap_threshold": FLOAT,
        "stuff_area_limit": INT,
        "mask_threshold": FLOAT,
    },
}
INPUTS = {  # {i}: one for each level
    "RpnProposals": ("logits_{i}", "deltas_{i}"),
    "PyramidRoiAlign": ("features_{i}", "rois"),
    "BoxDetections": ("class_logits", "box_deltas", "rois", "roi_count"),
    "PanopticMerge": ("semantic_logits", "boxes", "scores", "classes", "count", "mask_probs"),
}
OUTPUTS = {
    "RpnProposals": ("rois", "roi_count"),
    "PyramidRoiAlign": ("pooled",),
    "BoxDetections": ("boxes", "scores", "classes", "count"),
    "PanopticMerge": ("panoptic", "segments", "segment_scores", "segment_count"),
}
# Where a file leaves the size of the network's input open, these ops have it as one more input, the last, of this name:
# (2,) int64, height and width. Their attributes of sizes are then 0, 0, and all the input is valid and shown.
INPUT_SIZE = "input_size"
SIZED = tuple(op_type for op_type, types in ATTRIBUTES.items() if "input_hw" in types)

LARGEST_FLOAT = float(np.finfo(np.float32).max)
NO_LIMIT = 2**31 - 1

Columns: TypeAlias = tuple[Value, Value, Value, Value]
AttributeValue: TypeAlias = int | float | Sequence[int] | Sequence[float]


# --- nodes and models -------------------------------------------------------------------------------------------------


class Form(NamedTuple):
    """Which of the functions of an op a node needs."""

    levels: int  # of the pyramid; 1 where the op has none
    open_size: bool  # the size of the network's input is an input


def form(op_type: str, inputs: Sequence[str]) -> Form:
    """That of a node with these inputs.

    Raises:
        ValueError: no such op, or an input is missing or unknown.
    """
    if op_type not in INPUTS:
        raise ValueError(f"op_type: expected one of {', '.join(INPUTS)}, got {op_type!r}")
    per_level = sum("{i}" in name for name in INPUTS[op_type])
    fixed = len(INPUTS[op_type]) - per_level
    open_size = op_type in SIZED and list(inputs[-1:]) == [INPUT_SIZE]
    found = len(inputs) - open_size
    levels, rest = divmod(found - fixed, per_level) if per_level else (1, found - fixed)
    if levels < 1 or rest:
        wanted = ", ".join(name.replace("{i}", "0 ...") for name in INPUTS[op_type])
        raise ValueError(f"{op_type}: expected names for {wanted}, got {list(inputs)}")
    return Form(levels, open_size)


def make_node(
    op_type: str, inputs: Sequence[str], outputs: Sequence[str], *, name: str = "", **attributes: AttributeValue
) -> NodeProto:
    """A node of one of the four ops.

    Args:
        op_type: "RpnProposals", "PyramidRoiAlign", "BoxDetections" or "PanopticMerge".
        inputs: names, in the order of OPS.md; those of all levels one after the other. Where the size of the network's
            input is open, that of `input_size` comes last.
        outputs: names, all of the op's.
        name: of the node.
        attributes: all of the op's; numbers are stored in the type OPS.md gives.

    Raises:
        ValueError: no such op, or an input, output or attribute is missing or unknown.
    """
    form(op_type, inputs)
    types = ATTRIBUTES[op_type]
    if attributes.keys() != types.keys():
        raise ValueError(
            f"{op_type}: expected the attributes {', '.join(types)}, got {', '.join(attributes) or 'none'}"
        )
    if len(outputs) != len(OUTPUTS[op_type]):
        raise ValueError(f"{op_type}: expected names for {', '.join(OUTPUTS[op_type])}, got {list(outputs)}")
    node = helper.make_node(op_type, list(inputs), list(outputs), name=name, domain=DOMAIN, **PLUGIN)
    for attribute, value in attributes.items():
        number = float if types[attribute] in (FLOAT, FLOATS) else int
        typed = [number(entry) for entry in value] if isinstance(value, Sequence) else number(value)
        node.attribute.append(helper.make_attribute(attribute, typed))
    return node


def add_functions(model: ModelProto) -> None:
    """Give a model, in place, the function of every PanRT op that its main graph uses, and drop older ones.

    Raises:
        ValueError: the default opset is not from 18 to 21, a node of the domain is none of the four ops, or one op is
            used with two numbers of inputs.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = opsets.get("", 0)
    if not SMALLEST_OPSET <= opset <= LARGEST_OPSET:
        raise ValueError(
            f"model: expected opset {SMALLEST_OPSET} to {LARGEST_OPSET} of the default domain, got {opset}; "
            "export to one of these, or convert with onnx.version_converter"
        )
    nodes: dict[str, NodeProto] = {}  # the first of each op
    for node in model.graph.node:
        if node.domain == DOMAIN:
            first = nodes.setdefault(node.op_type, node)
            if form(node.op_type, node.input) != form(first.op_type, first.input):
                raise ValueError(
                    f"node {node.name!r}: expected {node.op_type} of {len(first.input)} inputs, as elsewhere in the "
                    f"model, got {len(node.input)}; a function has one number of inputs"
                )
    others = [function for function in model.functions if function.domain != DOMAIN]
    del model.functions[:]
    model.functions.extend(others)
    for op_type, node in nodes.items():
        levels, open_size = form(op_type, node.input)
        if op_type == "RpnProposals":
            model.functions.append(rpn_proposals_function(levels, opset=opset, open_size=open_size))
        elif op_type == "PyramidRoiAlign":
            model.functions.append(pyramid_roi_align_function(levels, opset=opset))
        elif op_type == "BoxDetections":
            model.functions.append(box_detections_function(opset=opset, open_size=open_size))
        else:
            model.functions.append(panoptic_merge_function(opset=opset, open_size=open_size))
    if DOMAIN not in opsets:
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def _builder(op_type: str, *, levels: int = 1, opset: int, open_size: bool = False) -> FunctionBuilder:
    if levels < 1:
        raise ValueError(f"levels: expected at least 1, got {levels}")
    names = [entry.format(i=i) for entry in INPUTS[op_type] for i in (range(levels) if "{i}" in entry else range(1))]
    if open_size:
        names.append(INPUT_SIZE)
    attributes = {**ATTRIBUTES[op_type], **dict.fromkeys(PLUGIN, STRING)}
    return FunctionBuilder(op_type, inputs=names, attributes=attributes, opset=opset)


def _size(op: FunctionBuilder, attribute: str, open_size: bool) -> Value:
    """(2,) int64: what the attribute says, or the input where the size is open."""
    return op.inputs[-1] if open_size else op.attribute(attribute)


# --- RpnProposals -----------------------------------------------------------------------------------------------------


def rpn_proposals_function(levels: int, *, opset: int = SMALLEST_OPSET, open_size: bool = False) -> FunctionProto:
    """RpnProposals over this many pyramid levels, for models of this default opset."""
    op = _builder("RpnProposals", levels=levels, opset=opset, open_size=open_size)
    logits, deltas = op.inputs[:levels], op.inputs[levels : 2 * levels]
    strides, sizes, ratios = op.attribute("strides"), op.attribute("anchor_sizes"), op.attribute("aspect_ratios")

    level_scores, level_boxes = [], []
    for i in range(levels):
        scores = op.Flatten(op.Transpose(logits[i], perm=[0, 2, 3, 1]), axis=1)  # (N, H*W*A) in order y, x, a
        scores = op.Where(is_finite(op, scores), scores, -math.inf)
        scores, best = top_k(op, scores, op.Min(op.attribute("pre_nms_top_k"), scores.size(1)))  # (N, k)

        codes = op.Reshape(op.Transpose(deltas[i], perm=[0, 2, 3, 1]), [0, -1, 4])  # (N, H*W*A, 4)
        best = op.Unsqueeze(best, [2])
        codes = op.GatherND(codes, best, batch_dims=1)  # (N, k, 4)
        boxes = decode(op, split(op, codes), anchors(op, best, logits[i].size(3), strides[i], sizes[i], ratios))
        real = op.Unsqueeze(scores, [2]) > -math.inf  # (N, k, 1)
        for column in boxes:
            real = real & is_finite(op, column)
        boxes = clip(op, boxes, _size(op, "input_hw", open_size))
        real = real & has_area(op, boxes)

        ranks = op.Where(real, op.Unsqueeze(descending(op, scores.size(1)), [1]), 0.0)  # (N, k, 1), 0 for no candidate
        level_boxes.append(op.Concat(*boxes, axis=2))
        level_scores.append(suppress(op, level_boxes[i], op.Squeeze(ranks, [2]), scores))

    scores, boxes_of_all = op.Concat(*level_scores, axis=1), op.Concat(*level_boxes, axis=1)
    rois, _, _, count = first_k(op, scores, boxes_of_all, op.attribute("post_nms_top_k"))
    return op.build(rois=rois, roi_count=count)


def anchors(op: FunctionBuilder, index: Value, W: Value, stride: Value, size: Value, ratios: Value) -> Columns:
    """Anchors of these numbers, (N, k, 1), on a level that is W cells wide."""
    size64, ratios64 = size.cast(np.float64), ratios.cast(np.float64)
    widths = op.Sqrt(size64 * size64 / ratios64)  # (A,)
    half_widths = (widths / np.float64(2)).cast(np.float32)
    half_heights = (widths * ratios64 / np.float64(2)).cast(np.float32)
    A = op.Size(ratios)
    cell, a = index / A, index % A
    x, y = (cell % W * stride).cast(np.float32), (cell / W * stride).cast(np.float32)
    half_width, half_height = op.Gather(half_widths, a), op.Gather(half_heights, a)
    return x - half_width, y - half_height, x + half_width, y + half_height


# --- PyramidRoiAlign --------------------------------------------------------------------------------------------------


def pyramid_roi_align_function(levels: int, *, opset: int = SMALLEST_OPSET) -> FunctionProto:
    """PyramidRoiAlign over this many pyramid levels, for models of this default opset."""
    op = _builder("PyramidRoiAlign", levels=levels, opset=opset)
    *features, rois = op.inputs
    strides, S = op.attribute("strides"), op.attribute("output_size")
    N, R, C = rois.size(0), rois.size(1), features[0].size(1)

    boxes = op.Reshape(rois, shape(op, N * R, 4), allowzero=1)
    image = op.Reshape(op.Expand(op.Unsqueeze(op.Range(0, N, 1), [1]), shape(op, N, R)), shape(op, N * R), allowzero=1)
    x0, y0, x1, y1 = split(op, boxes)
    usable = (x1 > x0) & (y1 > y0)
    for column in (x0, y0, x1, y1):
        usable = usable & (op.Abs(column) <= MAX_ROI_COORDINATE)

    # Root and logarithm in float64, rounded once: no runtime's float32 approximation may decide a level.
    area = op.Where(usable, (x1 - x0) * (y1 - y0), 1.0)
    relative = op.Sqrt(area.cast(np.float64)).cast(np.float32) / op.attribute("canonical_size") + 1e-8
    log2 = (op.Log(relative.cast(np.float64)) / np.float64(math.log(2))).cast(np.float32)
    level = op.Floor(op.attribute("canonical_level").cast(np.float32) + log2).cast(np.int64) - op.attribute("min_level")
    level = op.Max(op.Min(level, levels - 1), 0)
    level = op.Squeeze(op.Where(usable, level, -1), [1])  # (N*R,), -1 is none

    pooled = op.Expand(0.0, shape(op, N * R, C, S, S))
    for i in range(levels):
        rows = op.Squeeze(op.NonZero(op.Equal(level, i)), [0])
        # In float64, as ONNX Runtime would make one division of a float32 reciprocal and its product.
        scale = (np.float64(1) / strides[i].cast(np.float64)).cast(np.float32)
        cells = op.Gather(boxes, rows) * scale
        of_level = roi_align(op, features[i].cast(np.float32), cells, op.Gather(image, rows))
        pooled = op.ScatterND(pooled, op.Unsqueeze(rows, [1]), of_level)
    return op.build(pooled=op.CastLike(pooled, features[0]))


def roi_align(op: FunctionBuilder, feature: Value, boxes: Value, image: Value) -> Value:
    """3.3 to 3.5 of boxes (m, 4) in cells, on images (m,): (m, C, S, S).

    ONNX Runtime takes a sample outside the level as 0 times cell (0, 0), which is not 0 where that cell is not finite.
    There the cell is set to 0, and put back into the bins that do touch it.
    """

    def pool(values: Value, of: Value) -> Value:
        return op.RoiAlign(
            values,
            boxes,
            of,
            mode="avg",
            coordinate_transformation_mode="half_pixel",
            output_height=Reference("output_size"),
            output_width=Reference("output_size"),
            sampling_ratio=Reference("sampling_ratio"),
            spatial_scale=1.0,
        )

    def corner() -> Value:  # sliced where it is needed: ONNX Runtime warns of a slice that a subgraph captures
        return op.Slice(feature, [0, 0], [1, 1], [2, 3])  # (N, C, 1, 1)

    def pool_around_corner() -> Value:
        value = corner()
        sound = is_finite(op, value)
        first_row, first_column = (op.Equal(op.Range(0, feature.size(axis), 1), 0) for axis in (2, 3))
        here = op.Unsqueeze(first_row, [0, 1, 3]) & op.Unsqueeze(first_column, [0, 1, 2])  # (1, 1, Hl, Wl)
        touched = pool(here.cast(np.float32), op.Mul(image, 0)) > 0.0  # (m, 1, S, S)
        put_back = op.Where(touched, op.Gather(op.Where(sound, 0.0, value), image), 0.0)
        return pool(op.Where(here & ~sound, 0.0, feature), image) + put_back

    sound = op.ReduceMin(is_finite(op, corner()).cast(np.int32), keepdims=0) > np.int32(0)
    return op.branch(sound, lambda: pool(feature, image), pool_around_corner)


# --- BoxDetections ----------------------------------------------------------------------------------------------------


def box_detections_function(*, opset: int = SMALLEST_OPSET, open_size: bool = False) -> FunctionProto:
    """BoxDetections for models of this default opset."""
    op = _builder("BoxDetections", opset=opset, open_size=open_size)
    class_logits, box_deltas, rois, roi_count = op.inputs[:4]
    N, R, C = class_logits.size(0), class_logits.size(1), class_logits.size(2) - 1

    logits = class_logits.cast(np.float64)
    exponentials = op.Exp(logits - op.ReduceMax(logits, [2]))
    probabilities = (exponentials / op.ReduceSum(exponentials, [2])).cast(np.float32)  # (N, R, C + 1)

    codes = op.Reshape(box_deltas, shape(op, N, R, C, 4), allowzero=1)
    weights = split(op, op.attribute("box_weights"))
    columns = decode(op, split(op, codes), split(op, op.Unsqueeze(rois, [2])), weights)  # each (N, R, C, 1)
    finite = is_finite(op, probabilities)
    for column in columns:
        finite = op.Concat(finite, op.Squeeze(is_finite(op, column), [3]), axis=2)
    valid = op.ReduceMin(finite.cast(np.int32), [2]) > np.int32(0)  # (N, R, 1)
    valid = valid & op.Unsqueeze(first_of(op, R, roi_count), [2])
    columns = clip(op, columns, _size(op, "input_hw", open_size))
    scores = op.Slice(probabilities, [0], shape(op, C), [2])
    scores = op.Where(valid & (scores > op.attribute("score_threshold")), scores, -math.inf)  # (N, R, C)

    # An NMS of its own for each image and class. An inverted box overlaps nothing, but ONNX would turn it over.
    boxes = op.Concat(*columns, axis=3)  # (N, R, C, 4)
    groups = shape(op, N * C, R)
    grouped = op.Reshape(op.Transpose(scores, perm=[0, 2, 1]), groups, allowzero=1)
    solid = op.Transpose(op.Where(has_area(op, columns), boxes, 0.0), perm=[0, 2, 1, 3])
    solid = op.Reshape(solid, shape(op, N * C, R, 4), allowzero=1)
    _, order = top_k(op, grouped, R)
    ranks = op.ScatterElements(op.Expand(0.0, groups), order, op.Expand(descending(op, R), groups), axis=1)
    kept = suppress(op, solid, op.Where(grouped > -math.inf, ranks, 0.0), grouped)  # (N*C, R)
    kept = op.Transpose(op.Reshape(kept, shape(op, N, C, R), allowzero=1), perm=[0, 2, 1])

    kept, boxes = op.Flatten(kept, axis=1), op.Reshape(boxes, shape(op, N, R * C, 4), allowzero=1)
    boxes, scores, index, count = first_k(op, kept, boxes, op.attribute("max_detections"))
    return op.build(boxes=boxes, scores=scores, classes=(index % C).cast(np.int32), count=count)


# --- boxes ------------------------------------------------------------------------------------------------------------


def decode(op: FunctionBuilder, codes: Columns, boxes: Columns, weights: Columns | None = None) -> Columns:
    """1.1: apply (dx, dy, dw, dh), divided by the weights, to boxes."""
    dx, dy, dw, dh = codes if weights is None else (code / weight for code, weight in zip(codes, weights, strict=True))
    width, height = boxes[2] - boxes[0], boxes[3] - boxes[1]
    x = dx * width + (boxes[0] + width * 0.5)
    y = dy * height + (boxes[1] + height * 0.5)
    half_width = exp(op, at_most(op, dw, float(MAX_SIZE_DELTA))) * width * 0.5
    half_height = exp(op, at_most(op, dh, float(MAX_SIZE_DELTA))) * height * 0.5
    return x - half_width, y - half_height, x + half_width, y + half_height


def clip(op: FunctionBuilder, boxes: Columns, hw: Value) -> Columns:
    """1.2: boxes cut to a size, (2,) of any type."""
    limits = hw.cast(np.float32)
    height, width = limits[0], limits[1]
    x0, y0, x1, y1 = (
        at_most(op, at_least(op, column, 0.0), limit)
        for column, limit in zip(boxes, (width, height, width, height), strict=True)
    )
    return x0, y0, x1, y1


def has_area(op: FunctionBuilder, boxes: Columns) -> Value:
    """False for empty, inverted and NaN boxes."""
    x0, y0, x1, y1 = boxes
    return (x1 - x0 > 0.0) & (y1 - y0 > 0.0)


def suppress(op: FunctionBuilder, boxes: Value, ranks: Value, scores: Value) -> Value:
    """1.2: the scores (B, M) of those of B groups of boxes (B, M, 4) that NMS keeps, -inf for the others.

    Ranks (B, M), the highest for the best and 0 for no candidate, stand in for the scores: they have no ties, and ONNX
    leaves the order of ties open.
    """
    kept = op.NonMaxSuppression(boxes, op.Unsqueeze(ranks, [1]), NO_LIMIT, op.attribute("nms_threshold"), 0.0)
    kept = op.Gather(kept, [0, 2], axis=1)  # (kept, 2): batch, box
    return op.ScatterND(op.Expand(-math.inf, op.Shape(scores)), kept, op.GatherND(scores, kept))


def first_k(op: FunctionBuilder, scores: Value, boxes: Value, K: Value) -> tuple[Value, Value, Value, Value]:
    """The K best of (N, M) scores that are not -inf: boxes (N, K, 4), scores (N, K), index in M (N, K), count (N,)."""
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


# --- PanopticMerge ----------------------------------------------------------------------------------------------------


class Taps(NamedTuple):
    """Where each output pixel of one axis samples, in cells of the source."""

    cells: tuple[Value, ...]  # each (..., size) int64
    weights: tuple[Value, ...]  # each (..., size) float32


def panoptic_merge_function(*, opset: int = SMALLEST_OPSET, open_size: bool = False) -> FunctionProto:
    """PanopticMerge for models of this default opset.

    Maps lie as (W, H) on the way: what is gathered along their first axis are then whole rows.
    """
    op = _builder("PanopticMerge", opset=opset, open_size=open_size)
    semantic_logits, boxes, scores, classes, count, mask_probs = op.inputs[:6]
    semantic_logits, mask_probs = semantic_logits.cast(np.float32), mask_probs.cast(np.float32)  # float16 may come in
    input_hw, output_hw = (_size(op, name, open_size) for name in ("input_hw", "output_hw"))
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
        real = (op.Range(0, K, 1) < op.Gather(count, n).cast(np.int64)) & (score >= op.attribute("score_threshold"))
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
        found = (areas >= op.Max(op.attribute("stuff_area_limit"), 1)) & (op.Range(0, S, 1) > 0)
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
    """3, 4: instances in this order onto an empty map, each within the window its mask can reach.

    Returns their ids from 1 on, (W, H) int32, and of each instance whether it was accepted and its free pixels, int32.
    """
    probs = op.Pad(op.Where(is_finite(op, probs), probs, 0.0), [0, 1, 1, 0, 1, 1])  # zeros stand for "outside"
    rows, top, bottom = paste_taps(op, box[1], box[3], H, probs.size(1) - 2)
    columns, left, right = paste_taps(op, box[0], box[2], W, probs.size(2) - 2)

    def lerp(values: Value, taps: Taps, k: Value, begin: Value, end: Value) -> Value:
        """Along the first axis."""
        cell = op.Slice(op.Gather(taps.cells[0], k), begin, end)
        share = op.Unsqueeze(op.Slice(op.Gather(taps.weights[0], k), begin, end), [1])
        low, high = op.Gather(values, cell), op.Gather(values, cell + 1)
        return low + (high - low) * share

    def paint(i: Value, canvas: Value, painted: Value) -> tuple[list[Value], list[Value]]:
        k = op.Gather(order, i)
        y0, y1, x0, x1 = (op.Reshape(op.Gather(bound, k), [1]) for bound in (top, bottom, left, right))
        by_row = lerp(op.Gather(probs, k), rows, k, y0, y1)  # (y1 - y0, G + 2)
        value = lerp(op.Transpose(by_row, perm=[1, 0]), columns, k, x0, x1)  # (x1 - x0, y1 - y0)
        mask = value >= op.attribute("mask_threshold")

        strip = op.Slice(canvas, x0, x1, [0])
        window = op.Slice(strip, y0, y1, [1])
        free = mask & op.Equal(window, np.int32(0))
        mask_area, free_area = (op.ReduceSum(pixels.cast(np.int32), keepdims=0) for pixels in (mask, free))
        taken = (mask_area - free_area).cast(np.float64) / mask_area.cast(np.float64)
        accepted = (free_area > np.int32(0)) & ~(taken.cast(np.float32) > op.attribute("overlap_threshold"))

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
    """3: taps (K, size) of each zero-padded mask, and the pixels that it can reach, from begin (K,) to end (K,)."""
    limit = G.cast(np.float32)
    centre = op.Range(0, size, 1).cast(np.float32) + 0.5
    u = (centre - low) / (high - low) * limit - 0.5
    begin = op.ReduceSum((u <= -1.0).cast(np.int64), [1], keepdims=0)  # u ascends
    end = op.ReduceSum((u < limit).cast(np.int64), [1], keepdims=0)
    u = at_most(op, at_least(op, u, -1.0), limit)
    cell = at_most(op, op.Floor(u), limit - 1.0)
    return Taps((cell.cast(np.int64) + 1,), (u - cell,)), begin, op.Max(begin, end)


def semantic_argmax(op: FunctionBuilder, logits: Value, rows: Taps, columns: Taps) -> Value:
    """5: best channel, (W, H) int32, of (S, h, w) logits; all channels of one output row at a time."""
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
    """From left to right."""
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total


def resize_taps(op: FunctionBuilder, valid: Value, output: Value, quarter: Value) -> Taps:
    """5: the two resizes of one axis as three taps."""
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
    """First and past-the-last position along this axis of every id but 0, in a (W, H) map that holds each id."""
    one = op.Expand(np.uint8(1), op.Shape(panoptic))
    seen = op.ScatterElements(op.Expand(np.uint8(0), size), panoptic, one, axis=1 - axis)  # id takes the other's place
    first, last = (op.ArgMax(seen, axis=axis, keepdims=0, select_last_index=end) for end in (0, 1))
    return op.Slice(first, [1], [NO_LIMIT]), op.Slice(last, [1], [NO_LIMIT]) + 1


# --- values -----------------------------------------------------------------------------------------------------------


def shape(op: FunctionBuilder, *sizes: Value | int) -> Value:
    """Scalars as one vector."""
    return op.Concat(*(op.Reshape(size, [1]) if isinstance(size, Value) else [size] for size in sizes), axis=0)


def split(op: FunctionBuilder, boxes: Value) -> Columns:
    """The four columns of the last axis."""
    x0, y0, x1, y1 = op.emit("Split", (boxes,), 4, {"axis": -1, "num_outputs": 4})
    return x0, y0, x1, y1


def top_k(op: FunctionBuilder, scores: Value, k: Value) -> tuple[Value, Value]:
    """The best k of each row and their index; equal ones keep their order."""
    values, index = op.emit("TopK", (scores, op.Reshape(k, [1])), 2, {"axis": -1})
    return values, index


def descending(op: FunctionBuilder, size: Value) -> Value:
    """(size,) float32: size, size - 1 ... 1; exact up to 2^24."""
    return (size - op.Range(0, size, 1)).cast(np.float32)


def first_of(op: FunctionBuilder, size: Value, count: Value) -> Value:
    """(N, size) bool: entries before each of the N counts."""
    return op.Range(0, size, 1) < op.Unsqueeze(count.cast(np.int64), [1])


def is_finite(op: FunctionBuilder, x: Value) -> Value:
    return op.Abs(x) <= LARGEST_FLOAT


def at_least(op: FunctionBuilder, x: Value, limit: Operand) -> Value:
    """The larger one; NaN stays NaN."""
    return op.Where(x < limit, limit, x)


def at_most(op: FunctionBuilder, x: Value, limit: Operand) -> Value:
    """The smaller one; NaN stays NaN."""
    return op.Where(x > limit, limit, x)


def exp(op: FunctionBuilder, x: Value) -> Value:
    """In float64, rounded to float32."""
    return op.Exp(x.cast(np.float64)).cast(np.float32)
