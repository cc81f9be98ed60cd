"""The graph that passes change before it becomes a `Partition`: first whole, then cut at its ops."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from panrt.engine.backends.cpu.steps import CONVOLUTION_DOMAIN, Convolution, LookUpTable, Op
from panrt.formats import onnx_shapes
from panrt.formats.onnx_shapes import Tensor
from panrt.plugins.schema import DOMAIN

OP_DOMAINS = (DOMAIN, CONVOLUTION_DOMAIN)


@dataclass
class Draft:
    """A whole graph."""

    source: str  # names the file in messages
    model: ModelProto
    convolutions: dict[str, Convolution] = field(default_factory=dict)  # by the output of the node that stands for each
    table: LookUpTable | None = None
    _tensors: dict[str, Tensor] | None = None

    @property
    def graph(self) -> GraphProto:
        """The graph, to be changed in place."""
        return self.model.graph

    def infer(self) -> dict[str, Tensor]:
        """Return the type and shape of every value, by name; who adds a value later adds its tensor.

        The first call infers them. It must come before the graph holds nodes that only the CPU backend knows, and
        before it loses those that read the image.
        """
        if self._tensors is None:
            opset = next(entry.version for entry in self.model.opset_import if entry.domain == "")
            self._tensors = onnx_shapes.infer(self.graph, opset, source=self.source)
        return self._tensors


class FreeRows(NamedTuple):
    """The section that accepts any number of detections."""

    section: int
    constants: dict[str, NDArray[Any]]  # that become inputs of it, cut to the number of detections


@dataclass
class Sections:
    """A graph cut at its ops: the nodes of section i run just before ops[i], and the last op gives the results."""

    source: str
    model: ModelProto
    ops: list[Op | Convolution]
    nodes: list[list[NodeProto]]  # of each section, in the graph's order
    regular: list[NodeProto]  # every node that is not an op, also those that depend on no input
    level: dict[str, int]  # the section in which a value is computed; see `split`
    tensors: dict[str, Tensor]
    initializers: dict[str, TensorProto]
    free_rows: FreeRows | None = None

    @property
    def detections(self) -> tuple[int, int]:
        """Images N and detections K that PanopticMerge reads."""
        N, K = self.tensors[self.ops[-1].inputs[1]].shape[:2]
        return N, K


def permuted(tensor: Tensor, name: str, order: Iterable[int]) -> Tensor:
    """Return what a Transpose makes of a tensor."""
    return Tensor(name, tensor.dtype, tuple(tensor.shape[axis] for axis in order))
