"""Bound the memory and the work of one inference by the size of the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import GraphProto, NodeProto

from panrt.errors import UnsupportedModelError
from panrt.formats.onnx_file import AGAIN
from panrt.formats.onnx_nodes import attributes
from panrt.formats.onnx_shapes import Tensor

# What one inference may take: a base, and so much for each byte of the file. ResNet-50 takes a third of it for 4K.
BYTES = (2**30, 64)
PRODUCTS = (10**10, 50_000)


def check_size(graph: GraphProto, tensors: Mapping[str, Tensor], file_bytes: int, source: str) -> None:
    """Raise if an inference takes more memory or work than PanRT allows a file of this size."""
    for what, needed, (base, each) in (
        ("bytes of memory", peak_bytes(graph, tensors), BYTES),
        ("multiplications", products(graph, tensors), PRODUCTS),
    ):
        if needed > base + each * file_bytes:
            raise UnsupportedModelError(
                f"{source}: an inference takes {needed:.3g} {what}, PanRT allows a file of {file_bytes} bytes "
                f"{base + each * file_bytes:.3g}; {AGAIN}, at a smaller input or output size or batch."
            )


def peak_bytes(graph: GraphProto, tensors: Mapping[str, Tensor]) -> int:
    """Return the peak memory of constants and of values, which live from their node to their last reader."""
    last = {name: place for place, node in enumerate(graph.node) for name in node.input}
    last.update({value.name: len(graph.node) for value in graph.output})
    size = {name: _bytes(tensor) for name, tensor in tensors.items()}
    live = sum(size[tensor.name] for tensor in graph.initializer) + sum(size[value.name] for value in graph.input)
    peak = live
    constants = {tensor.name for tensor in graph.initializer}
    for place, node in enumerate(graph.node):
        live += sum(size[name] for name in node.output if name)
        peak = max(peak, live)
        live -= sum(size[name] for name in node.output if name and name not in last)
        live -= sum(size[name] for name in {*node.input} if name and last[name] == place and name not in constants)
    return peak


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor; float16 counts as float32, in which the CPU computes."""
    each = 4 if tensor.dtype == np.float16 else tensor.dtype.itemsize
    return math.prod(tensor.shape) * each


def products(graph: GraphProto, tensors: Mapping[str, Tensor]) -> int:
    """Return the multiplications of an inference, or operations that take as long."""
    return sum(_products(node, tensors) for node in graph.node)


def _products(node: NodeProto, tensors: Mapping[str, Tensor]) -> int:
    out = _count(tensors[node.output[0]])
    work = _WORK.get(node.op_type)
    return out if work is None else work(node, [tensors[name] for name in node.input if name], out)


def _pool_products(node: NodeProto, given: Sequence[Tensor], out: int) -> int:
    return out * math.prod(next((a.ints for a in node.attribute if a.name == "kernel_shape"), [1]))


def _rpn_products(node: NodeProto, given: Sequence[Tensor], out: int) -> int:
    most = attributes(node)["pre_nms_top_k"]
    return sum(min(_count(level), most) ** 2 for level in given[: len(given) // 2])


# Multiplications of a node, from its inputs and the size of its first output; for other operators, that size.
_WORK: dict[str, Callable[[NodeProto, Sequence[Tensor], int], int]] = {
    "AveragePool": _pool_products,
    "BoxDetections": lambda node, given, out: math.prod(given[0].shape[:2]) ** 2 * given[0].shape[-1],
    "Conv": lambda node, given, out: out * math.prod(given[1].shape[1:]),
    "ConvTranspose": lambda node, given, out: _count(given[0]) * math.prod(given[1].shape[1:]),
    "Gemm": lambda node, given, out: out * max(given[1].shape, default=1),
    "MatMul": lambda node, given, out: out * max(given[1].shape, default=1),
    "MaxPool": _pool_products,
    "PanopticMerge": lambda node, given, out: out * (given[0].shape[1] + given[2].shape[1]),
    "PyramidRoiAlign": lambda node, given, out: 4 * out * max(attributes(node)["sampling_ratio"], 1) ** 2,
    "RpnProposals": _rpn_products,
}


def _count(tensor: Tensor) -> int:
    return math.prod(tensor.shape)
