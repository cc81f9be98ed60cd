"""Convert float16 to float32, as CPUs would do for every convolution anyway.

Runs first, because every later pass computes with constants in float32 and ignores those of another type.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, numpy_helper

from panrt.engine.backends.cpu.draft import Draft
from panrt.engine.backends.cpu.passes.graph_index import cast_to


def apply(draft: Draft) -> str | None:
    """Run the pass; return why it does not apply, if so."""
    changed = _widen(draft.graph) + _fold_casts(draft.graph)
    return None if changed else "the file holds no float16, and no constant that is cast"


def _widen(graph: GraphProto) -> int:
    """Turn every float16 of a graph into float32; return how many tensors, values and attributes that were."""
    changed = 0
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
            changed += 1
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            changed += 1
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
                changed += 1
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
                changed += 1
    return changed


def _fold_casts(graph: GraphProto) -> int:
    """Compute the casts of constants; return how many there were."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in constants]
    for node in casts:
        array = numpy_helper.to_array(constants[node.input[0]]).astype(cast_to(node))
        graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        graph.node.remove(node)
    return len(casts)
