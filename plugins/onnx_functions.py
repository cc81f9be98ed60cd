"""The custom ops as ONNX model-local functions of standard operators, with which a PanRT file runs anywhere.

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
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, helper

from .function_builder import (
    FLOAT,
    FLOATS,
    INT,
    INTS,
    STRING,
    Columns,
    FunctionBuilder,
    Reference,
    Value,
    descending,
    first_of,
    is_finite,
    shape,
    split,
    top_k,
)
from .nodes import Form, declared, form, input_names, op_of
from .onnx_boxes import clip, decode, first_k, has_area, suppress
from .onnx_merge import panoptic_merge
from .schema import ALL_OPS, DOMAIN, MAX_ROI_COORDINATE, OPS, PLUGIN_ATTRIBUTES, Op

SMALLEST_OPSET = 18  # of the default domain: reductions take their axes as inputs, ScatterElements reduces
LARGEST_OPSET = 21  # ONNX Runtime has no RoiAlign of opset 22 for the CPU (as of 1.31)

ONNX_TYPES = {("int", False): INT, ("int", True): INTS, ("float", False): FLOAT, ("float", True): FLOATS}
ATTRIBUTES = {  # by the op's key
    op.key: {attribute.name: ONNX_TYPES[attribute.type, bool(attribute.length)] for attribute in op.attributes}
    for op in ALL_OPS
}
OUTPUTS = {op.name: tuple(tensor.name for tensor in op.outputs) for op in OPS.values()}

AttributeValue: TypeAlias = int | float | Sequence[int] | Sequence[float]


# --- nodes and models -------------------------------------------------------------------------------------------------


def make_node(
    op_type: str, inputs: Sequence[str], outputs: Sequence[str], *, name: str = "", **attributes: AttributeValue
) -> NodeProto:
    """Return a node of an op.

    Args:
        op_type: its name in `schema`.
        inputs: names, in the order of OPS.md; those of all levels one after the other. If the size of the network's
            input is open, that of `input_size` comes last.
        outputs: names, all of the op's.
        name: of the node.
        attributes: all of the op's; numbers are stored in the type OPS.md gives.

    Raises:
        ValueError: no such op, or an input, output or attribute is missing or unknown.
    """
    op = op_of(op_type, inputs)
    types = ATTRIBUTES[op.key]
    if attributes.keys() != types.keys():
        raise ValueError(
            f"{op_type}: expected the attributes {', '.join(types)}, got {', '.join(attributes) or 'none'}"
        )
    if len(outputs) != len(OUTPUTS[op_type]):
        raise ValueError(f"{op_type}: expected names for {', '.join(OUTPUTS[op_type])}, got {list(outputs)}")
    node = helper.make_node(op_type, list(inputs), list(outputs), name=name, domain=DOMAIN, **op.plugin)
    for attribute, value in attributes.items():
        number = float if types[attribute] in (FLOAT, FLOATS) else int
        typed = [number(entry) for entry in value] if isinstance(value, Sequence) else number(value)
        node.attribute.append(helper.make_attribute(attribute, typed))
    return node


def add_functions(model: ModelProto) -> None:
    """Give a model, in place, the function of every PanRT op that its main graph uses, and drop older ones.

    Raises:
        ValueError: the default opset is not from 18 to 21, a node of the domain is not an op of PanRT, or one op is
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
    forms = {op_type: form(op_type, node.input) for op_type, node in nodes.items()}
    model.functions.extend(function(op_type, each, opset=opset) for op_type, each in forms.items())
    import_ops(model, max((each.version for each in forms.values()), default=1))


def import_ops(model: ModelProto, version: int) -> None:
    """Import the domain of the ops into a model, in place, in at least this version."""
    for entry in model.opset_import:
        if entry.domain == DOMAIN:
            entry.version = max(entry.version, version)
            return
    model.opset_import.append(helper.make_opsetid(DOMAIN, version))


def function(op_type: str, form: Form, *, opset: int = SMALLEST_OPSET) -> FunctionProto:
    """Return the function of an op, for nodes of this form in models of this default opset."""
    if form.levels < 1:
        raise ValueError(f"levels: expected at least 1, got {form.levels}")
    version = declared(op_type, form.version)
    attributes = {**ATTRIBUTES[version.key], **dict.fromkeys(PLUGIN_ATTRIBUTES, STRING)}
    op = FunctionBuilder(op_type, inputs=input_names(op_type, form), attributes=attributes, opset=opset)
    if version.version > 1:
        _bind_settings(op, version)
    return BODIES[op_type](op, form)


def _bind_settings(op: FunctionBuilder, declaration: Op) -> None:
    """Let `op.setting` read inputs: the first attribute of each has all entries but one for each other."""
    inputs = {value.name: value for value in op.inputs}

    def entry(tensor: Value, index: int) -> Callable[[], Value]:
        return lambda: op.Gather(tensor, index)

    def leading(tensor: Value, others: int) -> Callable[[], Value]:
        return lambda: op.Slice(tensor, [0], [-others], [0]) if others else tensor.cast(np.int64)

    for setting in declaration.settings:
        tensor, (first, *others) = inputs[setting.tensor.name], setting.attributes
        op.settings[first] = leading(tensor, len(others))
        op.settings |= {name: entry(tensor, i - len(others)) for i, name in enumerate(others)}


# --- RpnProposals -----------------------------------------------------------------------------------------------------


def rpn_proposals(op: FunctionBuilder, form: Form) -> FunctionProto:
    """Build the function of RpnProposals over pyramid levels."""
    levels = form.levels
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
        boxes = clip(op, boxes, op.size_attribute("input_hw", form.open_size))
        real = real & has_area(op, boxes)

        ranks = op.Where(real, op.Unsqueeze(descending(op, scores.size(1)), [1]), 0.0)  # (N, k, 1), 0 for no candidate
        level_boxes.append(op.Concat(*boxes, axis=2))
        level_scores.append(suppress(op, level_boxes[i], op.Squeeze(ranks, [2]), scores))

    scores, boxes_of_all = op.Concat(*level_scores, axis=1), op.Concat(*level_boxes, axis=1)
    rois, _, _, count = first_k(op, scores, boxes_of_all, op.attribute("post_nms_top_k"))
    return op.build(rois=rois, roi_count=count)


def anchors(op: FunctionBuilder, index: Value, W: Value, stride: Value, size: Value, ratios: Value) -> Columns:
    """Return the anchors of these numbers, (N, k, 1), on a level that is W cells wide."""
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


def pyramid_roi_align(op: FunctionBuilder, form: Form) -> FunctionProto:
    """Build the function of PyramidRoiAlign over pyramid levels."""
    levels = form.levels
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
    """Pool boxes (m, 4) in cells, on images (m,), to (m, C, S, S): 3.3 to 3.5.

    ONNX Runtime takes a sample outside the level as 0 times cell (0, 0), which is not 0 if that cell is not finite.
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


def box_detections(op: FunctionBuilder, form: Form) -> FunctionProto:
    """Build the function of BoxDetections."""
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
    columns = clip(op, columns, op.size_attribute("input_hw", form.open_size))
    scores = op.Slice(probabilities, [0], shape(op, C), [2])
    scores = op.Where(valid & (scores > op.setting("score_threshold")), scores, -math.inf)  # (N, R, C)

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


BODIES: dict[str, Callable[[FunctionBuilder, Form], FunctionProto]] = {
    "RpnProposals": rpn_proposals,
    "PyramidRoiAlign": pyramid_roi_align,
    "BoxDetections": box_detections,
    "PanopticMerge": panoptic_merge,
}
