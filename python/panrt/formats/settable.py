"""Turn the thresholds of a graph from attributes of its ops into its inputs.

The ops become version 2 of themselves (`plugins/OPS.md`). Each input has an initializer of the same name, its default:
a runtime that feeds nothing computes with the file's own thresholds, to the bit as before. Files of older versions are
changed when they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from panrt.formats.thresholds import INPUTS, NAMES, filled
from panrt.plugins.nodes import declared, form, op_of
from panrt.plugins.onnx_functions import add_functions, import_ops
from panrt.plugins.schema import DOMAIN, OPS


def make_settable(proto: ModelProto, *, thing_classes: int, channels: int) -> None:
    """Turn the thresholds of a graph's ops from attributes into inputs, in place; idempotent.

    Args:
        proto: a PanRT file.
        thing_classes: C of its BoxDetections.
        channels: S of its PanopticMerge.
    """
    letters = {"C": thing_classes, "S": channels}
    has_functions = any(function.domain == DOMAIN for function in proto.functions)
    known = {value.name for value in proto.graph.input}
    nodes = [node for node in proto.graph.node if node.domain == DOMAIN and node.op_type in INPUTS]
    changed = [node for node in nodes if op_of(node.op_type, node.input).version == 1]
    for node in changed:
        for name, array in _moved(node, letters).items():
            if name in known:
                continue
            known.add(name)
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            proto.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
    if changed:
        import_ops(proto, 2)
        if has_functions:
            add_functions(proto)


def _moved(node: NodeProto, letters: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Make version 2 of a node of version 1, in place; return its new inputs with the numbers of its attributes."""
    op = OPS[node.op_type]
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    arrays = filled(op, letters, values)
    newer = declared(op.name, 2)
    kept = [a for a in node.attribute if a.name in newer.attribute_names | newer.plugin.keys()]
    del node.attribute[:]
    node.attribute.extend(kept)
    for attribute in node.attribute:
        if attribute.name in newer.plugin:
            attribute.s = newer.plugin[attribute.name].encode()
    at = len(node.input) - form(op.name, node.input).open_size
    node.input[:] = [*node.input[:at], *INPUTS[op.name], *node.input[at:]]
    return arrays


def without_defaults(proto: ModelProto) -> None:
    """Remove the defaults of the inputs for thresholds, in place: TensorRT takes what has one for a constant."""
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in NAMES]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
