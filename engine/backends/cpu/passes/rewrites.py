"""The same functions with less work for the CPU: equal on paper, rounded elsewhere in float32.

The file stays the reference, and other runtimes get it as it is. Both rewrites move a 1 x 1 convolution, which sees
every pixel on its own, to where there is less to do:

* `upsample_logits`: the semantic branch sums upsampled features and predicts classes from the sum. Upsampling and
  prediction are linear, so classes are predicted first, and the few logits are upsampled instead of the features.
* `deconvolve_by_pixel`: the mask head's transposed convolution has a stride of its kernel's size, so that its kernels
  do not overlap. It is a 1 x 1 convolution to a group of channels for each place in the kernel; the prediction follows
  in each group, and then the pixels go to their places.

Shapes: C channels in, D between, E out, s stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

Float32 = NDArray[np.float32]

LARGEST_KERNEL = 4  # side of a transposed convolution that is rewritten: weights grow with its fourth power

_ELEMENTWISE = ("Relu", "Clip")


def rewrite(graph: GraphProto) -> None:
    """Both, wherever they fit; float16 has become float32 before."""
    index = Index(graph)
    for output in [node.output[0] for node in graph.node if node.op_type == "Conv"]:
        conv = index.producer[output]
        if is_pointwise(conv, index) and upsample_logits(conv, index):
            index = Index(graph)
    for output in [node.output[0] for node in graph.node if node.op_type == "ConvTranspose"]:
        if deconvolve_by_pixel(index.producer[output], index):
            index = Index(graph)


class Index:
    """A graph by its values: who makes and who reads them."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producer = {name: node for node in graph.node for name in node.output if name}
        self._results = {value.name for value in graph.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def only_reader(self, name: str) -> NodeProto | None:
        """The one node that reads a value, if there is just one and the value is no result."""
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._results else None

    def array(self, name: str) -> Float32 | None:
        """A constant."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def add_constant(self, name: str, array: Float32) -> str:
        """Its name again."""
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def replace(self, old: Sequence[NodeProto], new: Sequence[NodeProto], *, place: int | None = None) -> None:
        """Put nodes where the last of the old ones was, as all that they read is there; or at a place before it."""
        if place is None:
            place = max(i for i, node in enumerate(self.graph.node) if node in old) + 1
        for node in reversed(new):
            self.graph.node.insert(place, node)
        for node in old:
            self.graph.node.remove(node)


def ints(node: NodeProto, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """An attribute of several numbers."""
    return next((tuple(a.ints) for a in node.attribute if a.name == name), tuple(default))


def cast_to(node: NodeProto) -> np.dtype[Any]:
    """The type that a Cast gives."""
    dtype: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(next(a.i for a in node.attribute if a.name == "to"))
    return dtype


def is_padded_as_it_says(node: NodeProto) -> bool:
    """Whether the padding of a convolution is what its `pads` say."""
    return next((a.s for a in node.attribute if a.name == "auto_pad"), b"NOTSET") == b"NOTSET"


def _in_one_group_without_padding(node: NodeProto) -> bool:
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    unpadded = not any((*ints(node, "pads", [0]), *ints(node, "output_padding", [0])))
    return group == 1 and unpadded and is_padded_as_it_says(node) and set(ints(node, "dilations", [1])) == {1}


def is_pointwise(node: NodeProto, index: Index) -> bool:
    """Whether it is a 1 x 1 convolution that sees every pixel on its own."""
    weight = index.array(node.input[1]) if node.op_type == "Conv" else None
    if weight is None or weight.shape[2:] != (1, 1):
        return False
    return set(ints(node, "strides", [1])) == {1} and _in_one_group_without_padding(node)


# Semantic branch ------------------------------------------------------------------------------------------------------


class _Terms(NamedTuple):
    """What a sum is made of; nodes that nothing else reads."""

    adds: list[NodeProto]
    upsampled: list[NodeProto]  # Resize
    plain: list[str]  # everything else


def upsample_logits(conv: NodeProto, index: Index) -> bool:
    """conv(a + up(b) + up(c)) -> conv(a) + up(conv(b + c)), where `up` is bilinear and the same for all; if it fits."""
    terms = _terms(conv.input[0], index)
    if len({_how(resize, index) for resize in terms.upsampled}) != 1:
        return False
    output = conv.output[0]
    weight, bias = conv.input[1], list(conv.input[2:])
    adds, small = _sum([resize.input[0] for resize in terms.upsampled], f"{output}/small")
    predict = helper.make_node("Conv", [small, weight, *([] if terms.plain else bias)], [f"{output}/small_logits"])
    upsample = NodeProto()
    upsample.CopyFrom(terms.upsampled[0])
    upsample.input[0] = predict.output[0]
    upsample.output[0] = f"{output}/upsampled" if terms.plain else output
    new = [*adds, predict, upsample]
    if terms.plain:
        adds, plain = _sum(terms.plain, f"{output}/plain")
        own = helper.make_node("Conv", [plain, weight, *bias], [f"{output}/plain_logits"])
        new += [*adds, own, helper.make_node("Add", [own.output[0], upsample.output[0]], [output])]
    index.replace([*terms.upsampled, *terms.adds, conv], new)
    return True


def _how(resize: NodeProto, index: Index) -> tuple[object, ...]:
    """All but what is resized."""
    sizes = [name if (array := index.array(name)) is None else array.tobytes() for name in resize.input[1:]]
    return (*sizes, *sorted(attribute.SerializeToString() for attribute in resize.attribute))


def _terms(name: str, index: Index) -> _Terms:
    terms = _Terms([], [], [])
    waiting = [name]
    while waiting:
        value = waiting.pop()
        node = index.producer.get(value)
        if node is None or index.only_reader(value) is None:
            terms.plain.append(value)
        elif node.op_type == "Add" and not any(operand in index.constants for operand in node.input):
            terms.adds.append(node)
            waiting += reversed(node.input)
        elif node.op_type == "Resize" and any(a.name == "mode" and a.s == b"linear" for a in node.attribute):
            terms.upsampled.append(node)
        else:
            terms.plain.append(value)
    return terms


def _sum(values: Sequence[str], name: str) -> tuple[list[NodeProto], str]:
    """Nodes that add values up, and the name of the sum."""
    nodes: list[NodeProto] = []
    total = values[0]
    for i, value in enumerate(values[1:]):
        nodes.append(helper.make_node("Add", [total, value], [f"{name}_sum_{i}"]))
        total = nodes[-1].output[0]
    return nodes, total


# Mask head ------------------------------------------------------------------------------------------------------------


def deconvolve_by_pixel(deconv: NodeProto, index: Index) -> bool:
    """Transposed convolution, activation, 1 x 1 convolution -> two 1 x 1 convolutions and DepthToSpace; if it fits."""
    weight = index.array(deconv.input[1])  # (C, D, s, s)
    between: list[NodeProto] = []
    reader = index.only_reader(deconv.output[0])
    while reader is not None and reader.op_type in _ELEMENTWISE:
        between.append(reader)
        reader = index.only_reader(reader.output[0])
    if weight is None or reader is None or not is_pointwise(reader, index) or not _in_one_group_without_padding(deconv):
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
    """A 1 x 1 convolution whose bias is the same at every place."""
    constants = [index.add_constant(f"{output}/weight", weight)]
    if bias is not None:
        constants.append(index.add_constant(f"{output}/bias", np.tile(bias, places)))
    return helper.make_node("Conv", [value, *constants], [output])
