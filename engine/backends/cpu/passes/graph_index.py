"""Helpers of the passes: a graph by its values, and the kinds of convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

Float32 = NDArray[np.float32]


class Index:
    """A graph by its values: which node computes and which ones read each."""

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
        """Return the node that reads a value, if there is exactly one and the value is not an output of the graph."""
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._results else None

    def array(self, name: str) -> Float32 | None:
        """Return a constant; None: the name is not that of one."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def add_constant(self, name: str, array: Float32) -> str:
        """Add a constant; return its name."""
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def replace(self, old: Sequence[NodeProto], new: Sequence[NodeProto], *, place: int | None = None) -> None:
        """Replace nodes by others, at `place` or after the last old one, where all that they read exists."""
        if place is None:
            place = max(i for i, node in enumerate(self.graph.node) if node in old) + 1
        for node in reversed(new):
            self.graph.node.insert(place, node)
        for node in old:
            self.graph.node.remove(node)


def ints(node: NodeProto, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """Return an attribute of several integers."""
    return next((tuple(a.ints) for a in node.attribute if a.name == name), tuple(default))


def cast_to(node: NodeProto) -> np.dtype[Any]:
    """Return the type that a Cast gives."""
    dtype: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(next(a.i for a in node.attribute if a.name == "to"))
    return dtype


def is_padded_explicitly(node: NodeProto) -> bool:
    """Return whether `pads` alone decides the padding of a convolution."""
    return next((a.s for a in node.attribute if a.name == "auto_pad"), b"NOTSET") == b"NOTSET"


def is_plain(node: NodeProto) -> bool:
    """Return whether a convolution has one group, no padding and no dilation."""
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    unpadded = not any((*ints(node, "pads", [0]), *ints(node, "output_padding", [0])))
    return group == 1 and unpadded and is_padded_explicitly(node) and set(ints(node, "dilations", [1])) == {1}


def is_pointwise(node: NodeProto, index: Index) -> bool:
    """Return whether a node is a 1 x 1 convolution that treats each pixel separately."""
    weight = index.array(node.input[1]) if node.op_type == "Conv" else None
    if weight is None or weight.shape[2:] != (1, 1):
        return False
    return set(ints(node, "strides", [1])) == {1} and is_plain(node)
