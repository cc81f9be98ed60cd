"""An ONNX file of ours as steps for the CPU: dense parts for ONNX Runtime, and the four ops between them.

The graph is split once, at its nodes of domain `panrt`. Part i is everything that needs the results of op i - 1 and of
no later one, so that steps alternate: part, op, part, op; parts that would be empty are left out. What the CPU wants
otherwise than the file has it is changed on the way:

* Weights and features of float16 become float32: CPUs convert to it for every convolution anyway.
* RoIs are pooled from NHWC features, where channels lie next to one another. ONNX Runtime keeps features in a blocked
  layout of its own and writes NHWC as readily as NCHW, so this saves a transpose of the whole pyramid.
* Convolutions that see one pixel at a time move to where there are fewer pixels or channels; see `rewrites`.
* Pixels are normalised by a table; see `normalisation`.
* The largest convolutions become steps of their own, which need fewer multiplications; see `convolutions`.
* The mask part takes any number of rows, so that only detections that can enter the merge go through it.

Shapes: N images, R RoIs, K detections, C channels, S bins a side, G mask side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from panrt.engine.backends.cpu.passes import convolutions
from panrt.engine.backends.cpu.passes.convolutions import NHWC, Convolution
from panrt.engine.backends.cpu.passes.normalisation import Normalisation, take_normalisation
from panrt.engine.backends.cpu.passes.rewrites import cast_to, rewrite
from panrt.errors import PanrtError, UnsupportedModelError
from panrt.formats import onnx_graph
from panrt.formats.input_size import IMAGE
from panrt.formats.metadata import ModelFile
from panrt.formats.onnx_graph import RESULTS, Tensor, read_graph
from panrt.plugins.onnx_functions import DOMAIN

_OURS = (DOMAIN, convolutions.DOMAIN)


class Op(NamedTuple):
    """A node of ours."""

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    nhwc: bool = False  # of PyramidRoiAlign: features and result


class Part(NamedTuple):
    """A dense subgraph."""

    model: bytes  # ONNX
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: dict[str, NDArray[Any]]  # inputs that are cut to the number of rows at hand


@dataclass(frozen=True)
class Partition:
    """A graph as the CPU runs it."""

    file: ModelFile
    steps: tuple[Part | Op | Convolution, ...]
    free_rows: bool  # what follows BoxDetections takes any number of detections
    normalisation: Normalisation | None  # what comes before the steps; None: they begin with the image


def partition(path: Path, *, input_hw: tuple[int, int] | None = None) -> Partition:
    """Read and split a file.

    Args:
        path: of the file.
        input_hw: of the network's input, for a file that leaves it open.

    Raises:
        ModelFileError: it is not ONNX, not ours, damaged, or from a newer PanRT; its graph is none that PanRT runs, or
            does not fit what the file says about itself.
        InputSizeError: the file needs an input size and got none, or has another one.
    """
    model, file, tensors = read_graph(path, input_hw=input_hw)
    graph = model.graph
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    try:
        with np.errstate(all="ignore"):  # weights may be anything
            _widen(graph)
            rewrite(graph)
            tensors = onnx_graph.infer(graph, opset, source=str(path))
            lifted = convolutions.lift(graph, {name: tensor.shape for name, tensor in tensors.items()})
            normalisation = take_normalisation(graph, IMAGE)
            ops = tuple(
                lifted[node.output[0]] if node.domain == convolutions.DOMAIN else _op(node)
                for node in graph.node
                if node.domain in _OURS
            )
            return _Splitter(path, model, file, ops, tensors, normalisation).split()
    except (LookupError, ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error, PanrtError):
            raise
        raise UnsupportedModelError(  # valid, but not what the rewrites were written for
            f"{path}: its graph is not built as panrt export builds one ({type(error).__name__}: {error}); export the "
            "model again."
        ) from error


def _op(node: NodeProto) -> Op:
    return Op(node.op_type, node.name, tuple(node.input), tuple(node.output), onnx_graph.attributes(node))


# Precision ------------------------------------------------------------------------------------------------------------


def _widen(graph: GraphProto) -> None:
    """Every float16 to float32, and casts of constants done."""
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in constants]:
        dtype = cast_to(node)
        array = numpy_helper.to_array(constants[node.input[0]]).astype(dtype)
        graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        graph.node.remove(node)


# Splitting ------------------------------------------------------------------------------------------------------------

_CONSTANT = -1  # level of what depends on no input


class _Splitter:
    """Splits one graph. The level of a value is the number of the part in which it can be computed first."""

    def __init__(
        self,
        path: Path,
        model: ModelProto,
        file: ModelFile,
        ops: tuple[Op | Convolution, ...],
        tensors: dict[str, Tensor],
        normalisation: Normalisation | None,
    ) -> None:
        self.path = path
        self.model = model
        self.file = file
        self.ops = ops
        self.normalisation = normalisation
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.dense = [node for node in model.graph.node if node.domain not in _OURS]
        self.producer = {name: node for node in self.dense for name in node.output if name}
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self.tensors = tensors
        for op in ops:
            if isinstance(op, Convolution):
                self._name_nhwc(op)
        self.level = self._levels()

    def split(self) -> Partition:
        graphs: list[list[NodeProto]] = [[] for _ in range(len(self.ops) + 1)]
        for node in self.dense:
            if (level := self._level_of(node)) != _CONSTANT:
                graphs[level].append(node)
        graphs[0] = self.pool_from_nhwc(graphs)
        steps: list[Part | Op | Convolution] = []
        free_rows = False
        mask = self._mask_part()
        for i, op in enumerate(self.ops):
            if graphs[i]:
                constants = self._free_rows(graphs[i]) if i == mask else None
                free_rows |= constants is not None
                steps.append(self._part(graphs[i], constants))
            steps.append(op)
        return Partition(self.file, tuple(steps), free_rows, self.normalisation)

    def _levels(self) -> dict[str, int]:
        first = IMAGE if self.normalisation is None else self.normalisation.output
        level = {first: 0, "": _CONSTANT} | dict.fromkeys(self.initializers, _CONSTANT)
        order = iter(range(1, len(self.ops) + 1))
        for node in self.model.graph.node:
            missing = [name for name in node.input if name not in level]
            if missing:
                raise UnsupportedModelError(
                    f"{self.path}: node {node.name!r} reads {missing[0]!r}, which nothing gives."
                )
            by_inputs = max((level[name] for name in node.input), default=_CONSTANT)
            level.update(dict.fromkeys(node.output, next(order) if node.domain in _OURS else by_inputs))
        self._gather(level)
        self._defer(level)
        return level

    def _gather(self, level: dict[str, int]) -> None:
        """Between convolutions of ours nothing is computed but what they need."""
        last = next((i for i, op in enumerate(self.ops) if isinstance(op, Op)), 0)
        wanted = {name for op in self.ops[:last] for name in op.inputs}
        for node in reversed(self.dense):
            if wanted.intersection(node.output):
                wanted.update(node.input)
            elif 1 <= level[node.output[0]] < last:
                level.update(dict.fromkeys(node.output, last))

    def _defer(self, level: dict[str, int]) -> None:
        """Move what only a later part reads into that part, so that less crosses; the first part stays whole."""
        by_ops = {name for op in self.ops for name in op.inputs}
        readers: dict[str, list[NodeProto]] = {}
        for node in self.dense:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        for node in reversed(self.dense):
            if level[node.output[0]] < 1 or by_ops.intersection(node.output):
                continue
            users = [level[user.output[0]] for name in node.output for user in readers.get(name, [])]
            if users:
                level.update(dict.fromkeys(node.output, min(users)))

    def _level_of(self, node: NodeProto) -> int:
        return self.level[node.output[0]]

    # NHWC features

    def pool_from_nhwc(self, graphs: list[list[NodeProto]]) -> list[NodeProto]:
        """Let every PyramidRoiAlign read and write NHWC; the first part, which gives the features."""
        first = list(graphs[0])
        ops = list(self.ops)
        for i, op in enumerate(ops):
            features = op.inputs[:-1]
            if not isinstance(op, Op) or op.type != "PyramidRoiAlign":
                continue
            if not all(
                name + NHWC in self.level or (name in self.producer and not self.level[name]) for name in features
            ):
                continue
            for name in features:
                if name + NHWC not in self.level:
                    first.append(helper.make_node("Transpose", [name], [name + NHWC], perm=(0, 2, 3, 1)))
                    self.level[name + NHWC] = 0
                    self.tensors[name + NHWC] = _permuted(self.tensors[name], name + NHWC, (0, 2, 3, 1))
            pooled = op.outputs[0]
            ops[i] = op._replace(
                inputs=(*(name + NHWC for name in features), op.inputs[-1]), outputs=(pooled + NHWC,), nhwc=True
            )
            self.level[pooled + NHWC] = i + 1
            self.tensors[pooled + NHWC] = _permuted(self.tensors[pooled], pooled + NHWC, (0, 2, 3, 1))
            for nodes in graphs[i + 1 :]:
                self._read_nhwc(nodes, pooled)
        self.ops = tuple(ops)
        return first

    def _name_nhwc(self, convolution: Convolution) -> None:
        (read,), (written,) = convolution.inputs, convolution.outputs
        self.tensors[read] = _permuted(self.tensors[read.removesuffix(NHWC)], read, (0, 2, 3, 1))
        self.tensors[written] = Tensor(written, np.dtype(np.float32), convolution.shape)

    def _read_nhwc(self, nodes: list[NodeProto], pooled: str) -> None:
        """Where a part reads the pooled RoIs, let it read them as NHWC."""
        readers = [node for node in nodes if pooled in node.input]
        if not readers:
            return
        if len(readers) == 1 and self._permute_weight(readers[0], pooled):
            readers[0].input[0] = pooled + NHWC
            return
        nodes.insert(0, helper.make_node("Transpose", [pooled + NHWC], [pooled], perm=(0, 3, 1, 2)))

    def _permute_weight(self, flatten: NodeProto, pooled: str) -> bool:
        """Where the RoIs are flattened for a fully connected layer, its weights can take the other order instead."""
        _, C, S, _ = self.tensors[pooled].shape
        layers = [node for node in self.dense if flatten.output[0] in node.input]
        if flatten.op_type not in ("Reshape", "Flatten") or len(layers) != 1 or layers[0].op_type != "Gemm":
            return False
        shape = self.tensors[flatten.output[0]].shape
        weight = self.initializers.get(layers[0].input[1])
        by_rows = any(a.name == "transB" and a.i == 1 for a in layers[0].attribute)
        if weight is None or self.uses[weight.name] != 1 or not by_rows or shape[1:] != (C * S * S,):
            return False
        array = numpy_helper.to_array(weight).reshape(-1, C, S, S).transpose(0, 2, 3, 1).reshape(-1, C * S * S)
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), weight.name))
        return True

    # Masks of as many detections as there are

    def _mask_part(self) -> int | None:
        """The number of the part from pooled detections to mask probabilities, if that is all it does."""
        merge = self.ops[-1]
        level = self.level[merge.inputs[5]]
        detections = next((op for op in self.ops if op.type == "BoxDetections"), None)
        if detections is None or level < 1:
            return None
        pool = self.ops[level - 1]
        readers = {op.type for op in self.ops for name in op.inputs if name in detections.outputs}
        fits = (
            pool.type == "PyramidRoiAlign"
            and pool.inputs[-1] == detections.outputs[0]
            and merge.inputs[1:5] == detections.outputs
            and readers == {"PyramidRoiAlign", "PanopticMerge"}
            and level == len(self.ops) - 1
        )
        return level if fits else None

    def _free_rows(self, nodes: list[NodeProto]) -> dict[str, NDArray[Any]] | None:
        """Make a part take any number of detections: constants that become inputs, or None where that cannot be.

        Every node treats the rows (N * K) on their own, but for reshapes and for the choice of each row's class, which
        adds the number of the row's first class to its class. Where all that there is are such nodes, reshapes get -1
        for the rows, and those numbers are an input.
        """
        N, K = self.tensors[self.ops[-1].inputs[1]].shape[:2]
        constants: dict[str, NDArray[Any]] = {}
        reshapes: dict[str, list[int]] = {}
        for node in nodes:
            if node.op_type == "Reshape" and node.input[1] in self.initializers:
                shape = numpy_helper.to_array(self.initializers[node.input[1]]).tolist()
                reshapes[node.input[1]] = _with_free_rows(shape, N, K)
            elif node.op_type == "Add":
                for name in node.input:
                    array = numpy_helper.to_array(self.initializers[name]) if name in self.initializers else None
                    if array is not None and array.shape == (N * K,) and array.dtype.kind == "i":
                        constants[name] = array
            elif node.op_type not in _ROW_WISE:
                return None
        for name, shape in reshapes.items():
            self.initializers[name] = numpy_helper.from_array(np.array(shape, np.int64), name)
        return constants

    # Parts

    def _part(self, nodes: list[NodeProto], rows: dict[str, NDArray[Any]] | None) -> Part:
        wanted = {name for op in self.ops for name in op.inputs} | set(RESULTS)
        own = {id(node) for node in nodes}
        wanted |= {name for node in self.dense if id(node) not in own for name in node.input}
        nodes = _alive(nodes, wanted)
        nodes = [*self._constant_nodes(nodes), *nodes]
        made = {name for node in nodes for name in node.output}
        read = dict.fromkeys(name for node in nodes for name in node.input if name)
        constants = rows or {}
        inputs = [
            self._tensor(name, free=rows is not None)
            for name in read
            if name not in made and (name not in self.initializers or name in constants)
        ]
        outputs = [self._tensor(name, free=rows is not None) for name in sorted(made & wanted)]
        graph = helper.make_graph(
            nodes,
            self.model.graph.name,
            [onnx_graph.value_info(tensor) for tensor in inputs],
            [onnx_graph.value_info(tensor) for tensor in outputs],
            [self.initializers[name] for name in read if name in self.initializers and name not in constants],
        )
        opsets = [opset for opset in self.model.opset_import if opset.domain != DOMAIN]
        part = helper.make_model(graph, opset_imports=opsets, ir_version=self.model.ir_version)
        return Part(part.SerializeToString(), tuple(inputs), tuple(outputs), constants)

    def _constant_nodes(self, nodes: list[NodeProto]) -> list[NodeProto]:
        """What the nodes read that depends on no input: every part computes its own."""
        wanted = {name for node in nodes for name in node.input}
        chosen = []
        for node in reversed(self.dense):
            if self._level_of(node) == _CONSTANT and wanted.intersection(node.output):
                chosen.append(node)
                wanted.update(node.input)
        return chosen[::-1]

    def _tensor(self, name: str, *, free: bool) -> Tensor:
        if name not in self.tensors:
            raise UnsupportedModelError(f"{self.path}: the shape of {name!r} is not known; export the model again.")
        tensor = self.tensors[name]
        if not free:
            return tensor
        N, K = self.tensors[self.ops[-1].inputs[1]].shape[:2]
        return tensor._replace(shape=tuple(_with_free_rows(list(tensor.shape), N, K)))


def _alive(nodes: list[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """Without those whose outputs nobody reads any more."""
    wanted = set(wanted)
    alive = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            alive.append(node)
            wanted.update(node.input)
    return alive[::-1]


# Operators that compute each row of their first input on its own, as the exporter uses them.
_ROW_WISE = {
    *("Conv", "ConvTranspose", "Relu", "Clip", "Sigmoid", "Cast", "QuantizeLinear", "DequantizeLinear"),
    *("GroupNormalization", "InstanceNormalization", "Gather", "Transpose", "DepthToSpace"),
}


def _with_free_rows(shape: list[int], N: int, K: int) -> list[int]:
    """A shape, or the target of a reshape, for any number of rows."""
    if not shape:
        return shape
    if -1 in shape or shape[0] == 0:  # 0 keeps what there is, as there is only one -1
        return [0, *shape[1:]] if shape[0] == N * K else shape
    if len(shape) > 1 and shape[:2] == [N, K]:
        return [N, -1, *shape[2:]]
    return [-1, *shape[1:]]


def _permuted(tensor: Tensor, name: str, order: Iterable[int]) -> Tensor:
    return Tensor(name, tensor.dtype, tuple(tensor.shape[axis] for axis in order))
