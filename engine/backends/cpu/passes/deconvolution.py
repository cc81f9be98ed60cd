"""Replace a transposed convolution by 1 x 1 convolutions and a permutation of pixels.

The one in the mask head has a stride of its kernel's size, so that its kernels do not overlap. It equals a 1 x 1
convolution to a group of channels for each place in the kernel; the prediction that follows is made in each group, and
DepthToSpace then moves the pixels to their places. Results differ by rounding in float32.

Runs before shapes are inferred, because it adds values. It does not depend on `predict_before_upsampling`, which
changes another branch.

Shapes: C channels in, D between, E out, s stride.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from panrt.engine.backends.cpu.draft import Draft
from panrt.engine.backends.cpu.passes.graph_index import Float32, Index, ints, is_plain, is_pointwise

LARGEST_KERNEL = 4  # side of a transposed convolution that is rewritten: weights grow with its fourth power

_ELEMENTWISE = ("Relu", "Clip")


def apply(draft: Draft) -> str | None:
    """Run the pass; return why it does not apply, if so."""
    graph = draft.graph
    index = Index(graph)
    found = False
    for output in [node.output[0] for node in graph.node if node.op_type == "ConvTranspose"]:
        if deconvolve_by_pixel(index.producer[output], index):
            index = Index(graph)
            found = True
    return None if found else "no transposed convolution without overlap comes before a 1 x 1 convolution"


def deconvolve_by_pixel(deconv: NodeProto, index: Index) -> bool:
    """Rewrite a transposed convolution, activations and a 1 x 1 convolution as 1 x 1 convolutions and DepthToSpace.

    Returns:
        Whether the graph has this form.
    """
    weight = index.array(deconv.input[1])  # (C, D, s, s)
    between: list[NodeProto] = []
    reader = index.only_reader(deconv.output[0])
    while reader is not None and reader.op_type in _ELEMENTWISE:
        between.append(reader)
        reader = index.only_reader(reader.output[0])
    if weight is None or weight.dtype != np.float32 or reader is None:
        return False
    if not is_pointwise(reader, index) or not is_plain(deconv):
        return False
    C, D, s = weight.shape[:3]
    if weight.shape[2:] != (s, s) or ints(deconv, "strides", [1, 1]) != (s, s) or s > LARGEST_KERNEL:
        return False
    if any(len(node.input) > 2 and _bias(node, index) is None for node in (deconv, reader)):
        return False
    places, name, output = s * s, deconv.output[0], reader.output[0]
    expand = np.transpose(weight, (2, 3, 1, 0)).reshape(places * D, C, 1, 1)
    predictor = index.array(reader.input[1])  # (E, D, 1, 1)
    assert predictor is not None
    predict = np.kron(np.eye(places, dtype=np.float32), predictor[:, :, 0, 0])[:, :, None, None]
    nodes = [_conv(deconv.input[0], expand, _bias(deconv, index), f"{name}/places", places, index)]
    for activation in between:
        moved = NodeProto()
        moved.CopyFrom(activation)
        moved.input[0], moved.output[0] = nodes[-1].output[0], f"{activation.output[0]}/places"
        nodes.append(moved)
    nodes.append(_conv(nodes[-1].output[0], predict, _bias(reader, index), f"{output}/places", places, index))
    nodes.append(helper.make_node("DepthToSpace", [nodes[-1].output[0]], [output], blocksize=s, mode="DCR"))
    index.replace([deconv, *between, reader], nodes)
    return True


def _bias(node: NodeProto, index: Index) -> Float32 | None:
    return index.array(node.input[2]) if len(node.input) > 2 else None


def _conv(value: str, weight: Float32, bias: Float32 | None, output: str, places: int, index: Index) -> NodeProto:
    """Return a 1 x 1 convolution whose bias is the same at every place."""
    constants = [index.add_constant(f"{output}/weight", weight)]
    if bias is not None:
        constants.append(index.add_constant(f"{output}/bias", np.tile(bias, places)))
    return helper.make_node("Conv", [value, *constants], [output])
