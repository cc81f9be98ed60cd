"""Let the mask head accept any number of detections, so that it computes only those that can enter the merge.

Runs last, after `nhwc_pooling`: it holds only if every node of the section, also those that other passes added,
treats detections separately. Results do not change.

Shapes: N images, K detections.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from panrt.engine.backends.cpu.draft import FreeRows, Sections

# Operators that compute each row of their first input separately, as the exporter uses them.
_ROW_WISE = {
    *("Conv", "ConvTranspose", "Relu", "Clip", "Sigmoid", "Cast", "QuantizeLinear", "DequantizeLinear"),
    *("GroupNormalization", "InstanceNormalization", "Gather", "Transpose", "DepthToSpace"),
}


def apply(sections: Sections) -> str | None:
    """Run the pass; return why it does not apply, if so."""
    section = _mask_section(sections)
    if section is None:
        return "no section leads from pooled detections to mask probabilities and does nothing else"
    for node in sections.nodes[section]:
        to_constant_shape = node.op_type == "Reshape" and node.input[1] in sections.initializers
        if not to_constant_shape and node.op_type not in (*_ROW_WISE, "Add"):
            return f"the mask head has a {node.op_type}, which may not treat detections separately"
    sections.free_rows = FreeRows(section, _free(sections, section))
    return None


def _mask_section(sections: Sections) -> int | None:
    """Return the section from pooled detections to mask probabilities, if it exists and that is all it computes."""
    ops = sections.ops
    merge = ops[-1]
    level = sections.level[merge.inputs[5]]
    detections = next((op for op in ops if op.type == "BoxDetections"), None)
    if detections is None or level < 1:
        return None
    pool = ops[level - 1]
    readers = {op.type for op in ops for name in op.inputs if name in detections.outputs}
    fits = (
        pool.type == "PyramidRoiAlign"
        and pool.inputs[-1] == detections.outputs[0]
        and merge.inputs[1:5] == detections.outputs
        and readers == {"PyramidRoiAlign", "PanopticMerge"}
        and level == len(ops) - 1
        and bool(sections.nodes[level])
    )
    return level if fits else None


def _free(sections: Sections, section: int) -> dict[str, NDArray[Any]]:
    """Free a section's number of rows (N * K); return the constants that become inputs.

    Reshapes get -1 for the rows. The choice of each row's class adds the number of the row's first class to its class;
    these numbers are a constant with an entry per row, which becomes an input.
    """
    N, K = sections.detections
    initializers = sections.initializers
    constants: dict[str, NDArray[Any]] = {}
    reshapes: dict[str, list[int]] = {}
    for node in sections.nodes[section]:
        if node.op_type == "Reshape":
            shape = numpy_helper.to_array(initializers[node.input[1]]).tolist()
            reshapes[node.input[1]] = with_free_rows(shape, N, K)
        elif node.op_type == "Add":
            for name in node.input:
                array = numpy_helper.to_array(initializers[name]) if name in initializers else None
                if array is not None and array.shape == (N * K,) and array.dtype.kind == "i":
                    constants[name] = array
    for name, shape in reshapes.items():
        initializers[name] = numpy_helper.from_array(np.array(shape, np.int64), name)
    return constants


def with_free_rows(shape: list[int], N: int, K: int) -> list[int]:
    """Return a shape, or the target of a Reshape, for any number of rows."""
    if not shape:
        return shape
    if -1 in shape or shape[0] == 0:  # 0 keeps the size that is there, as a shape has only one -1
        return [0, *shape[1:]] if shape[0] == N * K else shape
    if len(shape) > 1 and shape[:2] == [N, K]:
        return [N, -1, *shape[2:]]
    return [-1, *shape[1:]]
