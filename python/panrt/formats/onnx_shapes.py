"""Infer the type and shape of every value in a graph, from its input, its constants and its operators alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from panrt.errors import ModelFileError, UnsupportedModelError
from panrt.formats.onnx_file import AGAIN
from panrt.formats.onnx_nodes import MAX_RANK, TYPES, attributes, label
from panrt.formats.records import shown
from panrt.plugins import contract
from panrt.plugins.nodes import by_tensor, op_of
from panrt.plugins.schema import DOMAIN

_SMALL = 64  # numbers, at most, in a constant that shapes may depend on
_SAME_SHAPE = {
    "GroupNormalization"
}  # operators for which ONNX infers nothing: their output has the shape of their first input


class Tensor(NamedTuple):
    """A value of a graph; a dimension of -1 is known only at run time."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def infer(graph: GraphProto, opset: int, *, source: str) -> dict[str, Tensor]:
    """Infer the type and shape of every value from the graph's input, its constants and its operators alone.

    Raises:
        ModelFileError: one does not follow, or a PanRT node violates the contract.
    """
    known: dict[str, Tensor] = {}
    for tensor in graph.initializer:
        known[tensor.name] = Tensor(tensor.name, _dtype(tensor.data_type, tensor.name, source), tuple(tensor.dims))
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in dims)  # an open batch: of one
        known[value.name] = Tensor(value.name, _dtype(value.type.tensor_type.elem_type, value.name, source), shape)
    small = {tensor.name: tensor for tensor in graph.initializer if math.prod(tensor.dims) <= _SMALL}
    segment: list[NodeProto] = []
    for node in (*graph.node, None):
        if node is not None and node.domain == "" and node.op_type not in _SAME_SHAPE:
            segment.append(node)
            continue
        known.update(_inferred(segment, known, small, opset, source))
        segment = []
        if node is not None and node.domain == DOMAIN:
            known.update(_op_outputs(node, known, source))
        elif node is not None:
            known[node.output[0]] = known[node.input[0]]._replace(name=node.output[0])
    return known


def _inferred(
    nodes: Sequence[NodeProto], known: Mapping[str, Tensor], small: Mapping[str, TensorProto], opset: int, source: str
) -> dict[str, Tensor]:
    """Infer the outputs of ONNX operators."""
    if not nodes:
        return {}
    read = dict.fromkeys(name for node in nodes for name in node.input if name)
    constants = [small[name] for name in read if name in small]
    kept = {tensor.name for tensor in constants}
    inputs = [value_info(known[name]) for name in read if name in known and name not in kept]
    skeleton = helper.make_graph(nodes, "shapes", inputs, [], constants)
    model = helper.make_model(skeleton, opset_imports=[helper.make_opsetid("", opset)])
    try:
        values = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{source}: its shapes are inconsistent: {_first_line(error)}; {AGAIN}.") from error
    found = {}
    for value in values:
        tensor_type = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor_type.shape.dim]
        if tensor_type.HasField("shape") and min(dims, default=0) >= 0 and len(dims) <= MAX_RANK:
            found[value.name] = Tensor(value.name, _dtype(tensor_type.elem_type, value.name, source), tuple(dims))
    for node in nodes:
        for name in node.output:
            if name and name not in found:
                raise UnsupportedModelError(f"{source}: {label(node)}: the shape of {shown(name)} is unknown; {AGAIN}.")
    everything = {**known, **found}
    for node in nodes:
        if (problem := _misfit(node, everything)) is not None:
            raise ModelFileError(f"{source}: {label(node)}: {problem}; {AGAIN}.")
    return found


def _misfit(node: NodeProto, tensors: Mapping[str, Tensor]) -> str | None:
    """Return what is inconsistent in a node although ONNX infers a shape for it; None: nothing."""
    shapes = [tensors[name].shape for name in node.input if name]
    out = tensors[node.output[0]].shape
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") and math.prod(shapes[0]) != math.prod(out):
        return f"reshapes {shape_text(shapes[0])} to {shape_text(out)}"
    if node.op_type in ("Conv", "ConvTranspose"):
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        channels, filters = shapes[1][1] * group, shapes[1][0]
        if node.op_type == "ConvTranspose":
            channels, filters = filters, channels
        if shapes[0][1] != channels or filters % group or channels % group or shapes[2:] not in ([], [(filters,)]):
            return f"weights {shape_text(shapes[1])} and bias in {group} groups do not fit {shape_text(shapes[0])}"
    if node.op_type == "Clip" and any(math.prod(bound) != 1 for bound in shapes[1:]):
        return "its bounds are not single numbers"
    return None


def value_info(tensor: Tensor) -> ValueInfoProto:
    """Return the declaration of a tensor in a graph; a dimension of -1 is left open."""
    shape = [None if size < 0 else size for size in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(tensor.dtype), shape)


def _dtype(data_type: int, name: str, source: str) -> np.dtype[Any]:
    if data_type not in TYPES:
        raise UnsupportedModelError(f"{source}: tensor {shown(name)}: data type {data_type} is not supported; {AGAIN}.")
    dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    return dtype


def _op_outputs(node: NodeProto, known: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the outputs of a custom op, after the contract has checked its attributes and inputs."""
    given = [known[name] for name in node.input]
    values = attributes(node)
    try:
        # the contract checks arrays; nothing touches these, so they take no memory
        arrays: list[Any] = [np.empty(tensor.shape, tensor.dtype) for tensor in given]
        op = op_of(node.op_type, node.input)
        sizes = contract.check_shapes(op, by_tensor(op, arrays), values)
        outputs = contract.outputs(op, sizes, arrays[0].dtype)
    except (ValueError, TypeError, MemoryError) as error:
        raise ModelFileError(f"{source}: {label(node)}: {_first_line(error)}; {AGAIN}.") from error
    return {name: Tensor(name, output.dtype, output.shape) for name, output in zip(node.output, outputs, strict=True)}


def shape_text(dims: Iterable[int]) -> str:
    return f"({', '.join('any' if size < 0 else str(size) for size in dims)})"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = " ".join(line.strip() for line in lines[:2]) if lines else type(error).__name__
    return text[:300].encode("ascii", "backslashreplace").decode().rstrip(".;")
