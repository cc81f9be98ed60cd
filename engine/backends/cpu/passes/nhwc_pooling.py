"""Pool RoIs from NHWC features, where the channels of a cell are adjacent in memory.

ONNX Runtime keeps features in a blocked layout of its own and writes NHWC as readily as NCHW, so this saves a transpose
of the whole pyramid. Values do not change, but a fully connected layer sums its products in another order.

Runs after the split, because the transposes belong at the end of the section that computes the features, and before
`free_rows`, which looks at all nodes of a section.

Shapes: N images, R RoIs, C channels, S bins per side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from panrt.engine.backends.cpu.draft import Sections, permuted
from panrt.engine.backends.cpu.steps import NHWC, Op


def apply(sections: Sections) -> str | None:
    """Run the pass; return why it does not apply, if so."""
    computed_first = {name for node in sections.regular for name in node.output if sections.level[name] == 0}
    found = False
    for i, op in enumerate(sections.ops):
        if not isinstance(op, Op) or op.type != "PyramidRoiAlign":
            continue
        features = op.inputs[:-1]
        if not all(name + NHWC in sections.level or name in computed_first for name in features):
            continue
        _give_nhwc(sections, features)
        sections.ops[i] = _pooled_from_nhwc(sections, op, i)
        found = True
    return None if found else "no PyramidRoiAlign reads features that are all computed before the first op"


def _give_nhwc(sections: Sections, features: Sequence[str]) -> None:
    """Transpose features at the end of the first section, unless a convolution gives them as NHWC."""
    for name in features:
        if name + NHWC not in sections.level:
            sections.nodes[0].append(helper.make_node("Transpose", [name], [name + NHWC], perm=(0, 2, 3, 1)))
            sections.level[name + NHWC] = 0
            sections.tensors[name + NHWC] = permuted(sections.tensors[name], name + NHWC, (0, 2, 3, 1))


def _pooled_from_nhwc(sections: Sections, op: Op, index: int) -> Op:
    """Return the op that reads and writes NHWC, and let later sections read its result."""
    pooled = op.outputs[0]
    sections.level[pooled + NHWC] = index + 1
    sections.tensors[pooled + NHWC] = permuted(sections.tensors[pooled], pooled + NHWC, (0, 2, 3, 1))
    for nodes in sections.nodes[index + 1 :]:
        _read_nhwc(sections, nodes, pooled)
    inputs = (*(name + NHWC for name in op.inputs[:-1]), op.inputs[-1])
    return op._replace(inputs=inputs, outputs=(pooled + NHWC,), nhwc=True)


def _read_nhwc(sections: Sections, nodes: list[NodeProto], pooled: str) -> None:
    """Let the nodes of a section that read pooled RoIs read them as NHWC."""
    readers = [node for node in nodes if pooled in node.input]
    if not readers:
        return
    if len(readers) == 1 and _permute_weight(sections, readers[0], pooled):
        readers[0].input[0] = pooled + NHWC
        return
    nodes.insert(0, helper.make_node("Transpose", [pooled + NHWC], [pooled], perm=(0, 3, 1, 2)))


def _permute_weight(sections: Sections, flatten: NodeProto, pooled: str) -> bool:
    """Permute the weights of a fully connected layer instead of the RoIs that are flattened for it.

    Returns:
        Whether the RoIs go to such a layer, and its weights to nothing else.
    """
    _, C, S, _ = sections.tensors[pooled].shape
    layers = [node for node in sections.regular if flatten.output[0] in node.input]
    if flatten.op_type not in ("Reshape", "Flatten") or len(layers) != 1 or layers[0].op_type != "Gemm":
        return False
    shape = sections.tensors[flatten.output[0]].shape
    weight = sections.initializers.get(layers[0].input[1])
    by_rows = any(a.name == "transB" and a.i == 1 for a in layers[0].attribute)
    if weight is None or not by_rows or shape[1:] != (C * S * S,) or _uses(sections, weight.name) != 1:
        return False
    array = numpy_helper.to_array(weight).reshape(-1, C, S, S).transpose(0, 2, 3, 1).reshape(-1, C * S * S)
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), weight.name))
    return True


def _uses(sections: Sections, name: str) -> int:
    return sum(list(node.input).count(name) for node in sections.model.graph.node)
