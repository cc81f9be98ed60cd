"""Compute the largest convolutions with `native.Conv3x3` instead of the runtime.

ONNX Runtime computes a 3 x 3 convolution in as many multiplications as it has weights and pixels, near the peak of the
processor. Winograd's algorithm takes a quarter of them, at the price of a few more roundings in float32. It pays on
large maps: in the convolutions that compute a level of the pyramid, and in those that read one (the RPN's, and the
first of the semantic branch). They follow one another before the first op, so that they split the graph just once.

Runs after the passes that add and remove convolutions, and is the first to need shapes: which convolutions are large
depends on the input size.

Shapes: N images, H x W cells, C channels in, O filters.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from panrt.engine.backends.cpu.draft import Draft, permuted
from panrt.engine.backends.cpu.passes.graph_index import Index, ints, is_padded_explicitly, is_pointwise
from panrt.engine.backends.cpu.steps import CONVOLUTION_DOMAIN, NHWC, Convolution
from panrt.formats.onnx_shapes import Tensor
from panrt.plugins.schema import DOMAIN

LEAST_CELLS = 1000  # H x W below which leaving ONNX Runtime costs more than it saves
SIDE_BY_SIDE = 16  # channels and filters are multiples of it, see `native.Conv3x3`


def apply(draft: Draft) -> str | None:
    """Run the pass; return why it does not apply, if so."""
    tensors = draft.infer()
    draft.convolutions = lift(draft.graph, {name: tensor.shape for name, tensor in tensors.items()})
    for convolution in draft.convolutions.values():
        (read,), (written,) = convolution.inputs, convolution.outputs
        tensors[read] = permuted(tensors[read.removesuffix(NHWC)], read, (0, 2, 3, 1))
        tensors[written] = Tensor(written, np.dtype(np.float32), convolution.shape)
    if draft.convolutions:
        return None
    return f"no 3 x 3 convolution in float32 of {LEAST_CELLS} cells or more gives or reads a level of the pyramid"


def lift(graph: GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Convolution]:
    """Replace convolutions by nodes of CONVOLUTION_DOMAIN, NHWC to NHWC; return what these stand for, by their output.

    Args:
        graph: in float32.
        shapes: of its values.
    """
    levels = {name for node in graph.node if node.op_type == "PyramidRoiAlign" for name in node.input[:-1]}
    lifted: dict[str, Convolution] = {}
    index = Index(graph)
    for output in [node.output[0] for node in graph.node if node.op_type == "Conv"]:
        conv = index.producer[output]
        if levels.isdisjoint((conv.input[0], output)) or not _fits(conv, index, shapes):
            continue
        activation = None if output in levels else index.only_reader(output)
        bounds = None if activation is None else _bounds(activation, index)
        replaced = [conv] if activation is None or bounds is None else [conv, activation]
        convolution = _convolution(conv, replaced[-1].output[0], bounds or (-np.inf, np.inf), index, shapes)
        _replace(replaced, convolution, graph)
        _predict_from_nhwc(replaced[-1].output[0], convolution, graph)
        lifted[convolution.outputs[0]] = convolution
        index = Index(graph)
    return lifted


def _fits(conv: NodeProto, index: Index, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    weight = index.array(conv.input[1])
    if weight is None or weight.dtype != np.float32 or weight.shape[2:] != (3, 3):
        return False
    if any(side % SIDE_BY_SIDE for side in weight.shape[:2]):
        return False
    plain = {"pads": {1}, "strides": {1}, "dilations": {1}}
    kinds = all(set(ints(conv, name, [0 if name == "pads" else 1])) == wanted for name, wanted in plain.items())
    group = next((a.i for a in conv.attribute if a.name == "group"), 1)
    shape = shapes.get(conv.output[0], ()) if conv.input[0] in shapes else ()
    has_bias = len(conv.input) == 2 or index.array(conv.input[2]) is not None
    plain_kind = kinds and is_padded_explicitly(conv) and group == 1 and has_bias
    return plain_kind and len(shape) == 4 and min(shape) > 0 and shape[2] * shape[3] >= LEAST_CELLS


def _bounds(activation: NodeProto, index: Index) -> tuple[float, float] | None:
    """Return what an activation clips to; None: it does something else."""
    if activation.op_type == "Relu":
        return 0.0, np.inf
    if activation.op_type != "Clip":
        return None
    given = [index.array(name) if name else None for name in (*activation.input[1:], "", "")[:2]]
    if any(name and array is None for name, array in zip(activation.input[1:], given, strict=False)):
        return None
    lower, upper = (None if array is None else float(array) for array in given)
    return -np.inf if lower is None else lower, np.inf if upper is None else upper


def _convolution(
    conv: NodeProto, output: str, bounds: tuple[float, float], index: Index, shapes: Mapping[str, tuple[int, ...]]
) -> Convolution:
    weight = index.array(conv.input[1])
    assert weight is not None
    bias = index.array(conv.input[2]) if len(conv.input) > 2 else None
    N, O, H, W = shapes[conv.output[0]]  # noqa: E741
    return Convolution(
        conv.name,
        (conv.input[0] + NHWC,),
        (output + NHWC,),
        (N, H, W, O),
        weight,
        np.zeros(O, np.float32) if bias is None else bias,
        bounds,
    )


def _replace(old: list[NodeProto], convolution: Convolution, graph: GraphProto) -> None:
    """Replace nodes by one Conv3x3 between transposes, before the first op, when the pyramid's levels exist."""
    place = next(i for i, node in enumerate(graph.node) if node in old or node.domain == DOMAIN)
    (read,), (written,) = convolution.inputs, convolution.outputs
    new = [
        helper.make_node("Conv3x3", [read], [written], name=convolution.name, domain=CONVOLUTION_DOMAIN),
        helper.make_node("Transpose", [written], [old[-1].output[0]], perm=(0, 3, 1, 2)),
    ]
    if not any(read in node.output for node in graph.node):
        new.insert(0, helper.make_node("Transpose", [old[0].input[0]], [read], perm=(0, 2, 3, 1)))
    Index(graph).replace(old, new, place=place)


def _predict_from_nhwc(value: str, convolution: Convolution, graph: GraphProto) -> None:
    """Rewrite the 1 x 1 convolutions of a value as one product with its NHWC matrix; transpose their few outputs."""
    index = Index(graph)
    convs = [node for node in graph.node if list(node.input[:1]) == [value] and is_pointwise(node, index)]
    if not convs:
        return
    weights, biases = [], []
    for conv in convs:
        weight = index.array(conv.input[1])
        assert weight is not None
        bias = index.array(conv.input[2]) if len(conv.input) > 2 else np.zeros(len(weight), np.float32)
        if bias is None:
            return
        weights.append(weight[:, :, 0, 0])
        biases.append(bias)
    outputs = [conv.output[0] for conv in convs]
    matrix = index.add_constant(f"{value}/matrix", np.concatenate(weights).T)
    offset = index.add_constant(f"{value}/bias", np.concatenate(biases))
    sizes = numpy_helper.from_array(np.array([len(weight) for weight in weights], np.int64), f"{value}/sizes")
    graph.initializer.append(sizes)
    nodes = [
        helper.make_node("MatMul", [convolution.outputs[0], matrix], [f"{value}/product"]),
        helper.make_node("Add", [f"{value}/product", offset], [f"{value}/predicted"]),
        helper.make_node("Transpose", [f"{value}/predicted"], [f"{value}/nchw"], perm=(0, 3, 1, 2)),
        helper.make_node("Split", [f"{value}/nchw", sizes.name], outputs, axis=1),
    ]
    place = min(i for i, node in enumerate(graph.node) if node in convs)
    index.replace(convs, nodes, place=place)
