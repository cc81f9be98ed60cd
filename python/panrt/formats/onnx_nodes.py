"""Check the nodes of a graph one by one: operators, numbers of operands, and attributes."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper

from panrt.errors import ModelFileError, UnsupportedModelError
from panrt.formats.onnx_file import AGAIN
from panrt.formats.records import shown
from panrt.plugins.nodes import form, op_of
from panrt.plugins.onnx_functions import ATTRIBUTES, OUTPUTS
from panrt.plugins.schema import DOMAIN, INPUT_SIZE, MAX_SIDE, OPS

MAX_OPERANDS = 64  # inputs, outputs or attributes of a node
MAX_RANK = 8

# The operators that the exporter writes, and those that the CPU backend's graph passes add.
OPERATORS = frozenset(
    (
        *("Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "ConstantOfShape", "Conv"),
        *("ConvTranspose", "DepthToSpace", "DequantizeLinear", "Div", "Expand", "Flatten", "Gather", "Gemm"),
        *("GlobalAveragePool", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization"),
        *("LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "QuantizeLinear", "Relu", "Reshape", "Resize", "Sigmoid"),
        *("Slice", "Softmax", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
        # limits of deltas, and suppression over all classes
        *("Abs", "ArgMax", "ArgMin", "Equal", "Exp", "GatherElements", "Less", "LessOrEqual", "Max", "Min"),
        *("ReduceLogSumExp", "ReduceMax", "ReduceSum", "Where"),
    )
)

# (least, most) of the integers in an attribute; others are from -8 to 8, as axes are.
_RANGES: dict[str, tuple[int, int]] = {
    "blocksize": (1, 64),
    "dilations": (1, MAX_SIDE),
    "group": (1, 2**20),
    "kernel_shape": (1, MAX_SIDE),
    "num_outputs": (1, MAX_OPERANDS),
    "output_padding": (0, MAX_SIDE),
    "output_shape": (1, MAX_SIDE),
    "num_groups": (1, 2**20),
    "pads": (0, MAX_SIDE),
    "strides": (1, MAX_SIDE),
    "to": (0, 64),
}
TYPES = (
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8),
    *(TensorProto.INT8, TensorProto.BOOL),
)


def check_node(node: NodeProto, opset: int, source: str) -> None:
    """Check the operator, the number of operands, and the attributes of a node."""
    if node.domain == DOMAIN:
        _check_op(node, source)
        return
    if node.domain or node.op_type not in OPERATORS:
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        raise UnsupportedModelError(
            f"{source}: {label(node)}: the operator {shown(name)} is not one that panrt export writes; {AGAIN}."
        )
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    operands = (("inputs", len(node.input), schema.min_input, schema.max_input),)
    for what, found, least, most in (*operands, ("outputs", len(node.output), schema.min_output, schema.max_output)):
        if not least <= found <= most:
            raise ModelFileError(f"{source}: {label(node)}: {node.op_type} with {found} {what}; {AGAIN}.")
    if any(not name for name in node.input[: schema.min_input]):
        raise ModelFileError(f"{source}: {label(node)}: {node.op_type} lacks an input; {AGAIN}.")
    names = Counter(attribute.name for attribute in node.attribute)
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in names:
            raise ModelFileError(f"{source}: {label(node)}: lacks attribute {name}; {AGAIN}.")
    for attribute in node.attribute:
        wanted = schema.attributes.get(attribute.name)
        if wanted is None or names[attribute.name] > 1 or attribute.type != _type_of(wanted):
            raise bad_attribute(node, attribute, f"one of {node.op_type}, once, and of its type", source)
        _check_attribute(node, attribute, source)


def _type_of(attribute: Any) -> int:
    kind: int = attribute.type.value  # the stubs lack `value`
    return kind


def _check_attribute(node: NodeProto, attribute: AttributeProto, source: str) -> None:
    kind = attribute.type
    if kind in (AttributeProto.INT, AttributeProto.INTS):
        values = [attribute.i] if kind == AttributeProto.INT else list(attribute.ints)
        low, high = _RANGES.get(attribute.name, (-MAX_RANK, MAX_RANK))
        if len(values) > 2 * MAX_RANK or any(not low <= value <= high for value in values):
            raise bad_attribute(node, attribute, f"integers from {low} to {high}", source)
        if attribute.name == "to" and attribute.i not in TYPES:
            raise bad_attribute(node, attribute, "a number type that PanRT supports", source)
    elif kind in (AttributeProto.FLOAT, AttributeProto.FLOATS):
        numbers = [attribute.f] if kind == AttributeProto.FLOAT else list(attribute.floats)
        if len(numbers) > 2 * MAX_RANK or not all(math.isfinite(number) for number in numbers):
            raise bad_attribute(node, attribute, "finite numbers", source)
    elif kind == AttributeProto.STRING:
        if len(attribute.s) > 64 or not attribute.s.isascii():
            raise bad_attribute(node, attribute, "a short ASCII string", source)
    elif kind != AttributeProto.TENSOR or math.prod(attribute.t.dims) != 1:
        raise bad_attribute(node, attribute, "numbers or a string", source)


def bad_attribute(node: NodeProto, attribute: AttributeProto, expected: str, source: str) -> ModelFileError:
    """Return the error for an attribute that is invalid."""
    return ModelFileError(
        f"{source}: {label(node)}: attribute {shown(attribute.name)}: got {_value(attribute)}, expected {expected}; "
        f"{AGAIN}."
    )


def _value(attribute: AttributeProto) -> str:
    try:
        return shown(helper.get_attribute_value(attribute))
    except ValueError:  # of no type, or that of a function's attribute
        return "none"


def _check_op(node: NodeProto, source: str) -> None:
    """Check a custom op; the contract checks the values of its attributes, once shapes are known."""
    if node.op_type not in OPS:
        raise UnsupportedModelError(
            f"{source}: {label(node)} is {DOMAIN}.{shown(node.op_type)[1:-1]}, this PanRT has {', '.join(OPS)}; "
            "upgrade panrt, or export the model again with this version."
        )
    names = Counter(attribute.name for attribute in node.attribute)
    if len(node.output) != len(OUTPUTS[node.op_type]) or len(node.input) < len(OPS[node.op_type].inputs):
        raise UnsupportedModelError(f"{source}: {label(node)} lacks an input or output; {AGAIN}.")
    try:
        has_size = form(node.op_type, node.input).open_size
        wanted = ATTRIBUTES[op_of(node.op_type, node.input).key]
    except ValueError as error:
        raise UnsupportedModelError(f"{source}: {label(node)}: {error}; {AGAIN}.") from error
    missing = wanted.keys() - names.keys()
    if missing:
        raise UnsupportedModelError(f"{source}: {label(node)} lacks attribute {', '.join(sorted(missing))}; {AGAIN}.")
    for attribute in node.attribute:
        if attribute.name in wanted and (attribute.type != wanted[attribute.name] or names[attribute.name] > 1):
            raise bad_attribute(node, attribute, "a value of the type that OPS.md gives, once", source)
    if has_size or not all((*node.input, *node.output)):
        raise ModelFileError(f"{source}: {label(node)} lacks an input or output, or reads {INPUT_SIZE}; {AGAIN}.")


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a custom op by name, without those that its schema does not have."""
    wanted = ATTRIBUTES[op_of(node.op_type, node.input).key]
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in wanted}


def label(node: NodeProto) -> str:
    """Return the name of a node in messages."""
    return f"node {shown(node.name or node.op_type)}"
