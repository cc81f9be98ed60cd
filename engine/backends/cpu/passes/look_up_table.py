"""Replace the normalisation of pixels by a table.

A PanRT file begins with casts, the transpose to NCHW and the normalisation of each channel: four passes over floats,
which ONNX Runtime hardly parallelises. Each result depends on one byte and its channel, so there are 768 of them. The
table is computed by the same operations, so results are equal to the bit.

Runs last of the passes on the whole graph, because shapes are inferred from the image, which no node reads any more.

Shapes: image (N, H, W, 3) uint8, values (N, 3, H, W) float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from panrt.engine.backends.cpu.draft import Draft
from panrt.engine.backends.cpu.passes.graph_index import Index, cast_to, ints
from panrt.engine.backends.cpu.steps import LookUpTable
from panrt.formats.metadata import IMAGE

_ARITHMETIC: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}


def apply(draft: Draft) -> str | None:
    """Run the pass; return why it does not apply, if so."""
    draft.infer()  # while nodes still read the image
    draft.table = take_normalisation(draft.graph, IMAGE)
    if draft.table is not None:
        return None
    return "the graph does not begin with casts, a transpose to NCHW and arithmetic in float32 on single pixels"


def take_normalisation(graph: GraphProto, image: str) -> LookUpTable | None:
    """Remove the nodes from the image to the first one that mixes pixels; None: they do something else."""
    index = Index(graph)
    value = image
    numbers: NDArray[Any] = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 1, 3))
    nodes: list[NodeProto] = []
    while (node := index.only_reader(value)) is not None:
        computed = _computed(node, value, numbers, index)
        if computed is None:
            break
        nodes.append(node)
        value, numbers = node.output[0], computed
    if numbers.dtype != np.float32 or numbers.shape != (1, 3, 256, 1):
        return None
    for node in nodes:
        graph.node.remove(node)
    return LookUpTable(value, np.ascontiguousarray(numbers[0, :, :, 0]))


def _computed(node: NodeProto, value: str, numbers: NDArray[Any], index: Index) -> NDArray[Any] | None:
    """Return the output of a node, if each number of it follows from one number and constants."""
    if node.op_type == "Cast":
        return numbers.astype(cast_to(node))
    if node.op_type == "Transpose":
        return np.transpose(numbers, ints(node, "perm", [3, 2, 1, 0]))
    if node.op_type in _ARITHMETIC and node.input[0] == value:
        constant = index.array(node.input[1])
        if constant is not None and constant.dtype == numbers.dtype and _fits(constant.shape, numbers.shape):
            result: NDArray[Any] = _ARITHMETIC[node.op_type](numbers, constant)
            return result
    return None


def _fits(constant: tuple[int, ...], numbers: tuple[int, ...]) -> bool:
    """Return whether a constant is one number, or one number per channel: the only axis of 3."""
    padded = (1,) * (len(numbers) - len(constant)) + constant
    return len(padded) == len(numbers) and all(c == 1 or c == n == 3 for c, n in zip(padded, numbers, strict=True))
