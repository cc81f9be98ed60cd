"""How far apart two float32 evaluations of the same arithmetic may be, on any CPU.

A sum of products, each of which passes through at most n roundings, is within gamma(n) times the sum of the products'
magnitudes of its exact value: in any order of summation, with or without fused multiply-add (Higham, "Accuracy and
Stability of Numerical Algorithms", 2nd edition, section 3.1). Two evaluations are within twice that of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

UNIT = 2.0**-24  # unit roundoff of float32

# Element by element, monotone and with a slope of at most 1: an error passes, it does not grow.
_CONTRACTIONS = {"Abs", "Clip", "Neg", "Relu", "Sigmoid"}


def gamma(roundings: int) -> float:
    """The largest relative error of a product that is rounded so many times."""
    return roundings * UNIT / (1 - roundings * UNIT)


def run(model: ModelProto, feeds: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The outputs by ONNX Runtime, node by node as they stand in the graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(None, dict(feeds))
    return outputs


def allowed(model: ModelProto, feeds: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float64]]:
    """For each output of a graph of convolutions, sums and contractions: the difference two evaluations may have.

    The sum of magnitudes is what the graph gives with the magnitudes of its inputs and constants, without its
    contractions. As roundings of a product count all terms of all sums that it can be part of, and four a node.
    """
    magnitudes = ModelProto()
    magnitudes.CopyFrom(model)
    roundings = 4 * len(model.graph.node)
    for tensor in magnitudes.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(np.abs(array), tensor.name))
            roundings += array.size // max(array.shape[0], 1) if array.ndim > 1 else 1
    for node in magnitudes.graph.node:
        if node.op_type in _CONTRACTIONS:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    sums = run(magnitudes, {name: np.abs(array) for name, array in feeds.items()})
    return [2 * gamma(roundings) * (array.astype(np.float64) + 1) for array in sums]  # 1: a sigmoid's own rounding


def winograd_allowed(
    x: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float64]:
    """For a 3 x 3 convolution by F(4 x 4, 3 x 3): its largest distance from the exact result.

    The transforms add and subtract what cancels in the end, so the magnitudes are those of the transformed operands.

    Args:
        x: (N, H, W, C); weight: (O, C, 3, 3); bias: (O,).

    Returns:
        (N, H, W, O).
    """
    N, H, W, C = x.shape
    patch = np.abs(np.array(_PATCH, np.float64))
    kernel = np.abs(np.array(_KERNEL, np.float64))
    tile = np.abs(np.array(_TILE, np.float64))
    rows, columns = -(-H // 4), -(-W // 4)
    padded = np.zeros((N, 4 * rows + 2, 4 * columns + 2, C))
    padded[:, 1 : H + 1, 1 : W + 1] = np.abs(x)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=(1, 2))[:, ::4, ::4]  # (N, r, c, C, 6, 6)
    patches = np.einsum("ai,nrcdij,bj->nrcdab", patch, windows, patch, optimize=True)
    kernels = np.einsum("ai,odij,bj->odab", kernel, np.abs(weight.astype(np.float64)), kernel, optimize=True)
    products = np.einsum("nrcdab,odab->nrcoab", patches, kernels, optimize=True)
    tiles = np.einsum("ya,nrcoab,xb->nrycxo", tile, products, tile, optimize=True)
    sums = tiles.reshape(N, 4 * rows, 4 * columns, -1)[:, :H, :W] + np.abs(bias)
    # C products are added up; a transform of either side rounds at most 6 times along each of two axes, with its
    # factors 12, and there are three transforms; the bias is one more.
    return np.asarray(gamma(C + 3 * 2 * 12 + 1) * sums)


_PATCH = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_KERNEL = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_TILE = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def differ_at_edges_alone(labels: NDArray[np.int32], others: NDArray[np.int32]) -> bool:
    """Whether two maps differ as rounding can make them differ: here and there on the edges of their regions.

    Logits are interpolated, so between two labels there is a line on which both are equal. Another order of summation
    moves that line by a small part of a pixel. A pixel that it passes takes the label of a pixel beside it, and a shift
    by a two-hundredth of a pixel changes about one in two hundred of the pixels along the line.

    Args:
        labels, others: (H, W).
    """
    mine, theirs = _neighbourhoods(labels), _neighbourhoods(others)
    are_beside = (theirs == labels[..., None]).any(-1) & (mine == others[..., None]).any(-1)
    edges = np.count_nonzero((theirs != others[..., None]).any(-1))
    return bool(are_beside.all() and 200 * np.count_nonzero(labels != others) <= edges)


def _neighbourhoods(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """(H, W, 9): each pixel and those beside it."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(labels, 1, mode="edge"), (3, 3))
    return windows.reshape(*labels.shape, 9)


def likely(roundings: int, *, deviations: float = 6.0) -> float:
    """The relative error that so many independent roundings stay below: a random walk, six standard deviations.

    For whole networks, where gamma would allow a hundred times what can be seen (Higham and Mary, "A New Approach to
    Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 2019).
    """
    return deviations * math.sqrt(roundings) * UNIT
