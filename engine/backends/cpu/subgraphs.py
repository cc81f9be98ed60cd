"""Write each section of a graph as an ONNX model of its own."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto, helper

from panrt.engine.backends.cpu.draft import Sections
from panrt.engine.backends.cpu.passes.free_rows import with_free_rows
from panrt.engine.backends.cpu.split import CONSTANT
from panrt.engine.backends.cpu.steps import Subgraph
from panrt.errors import UnsupportedModelError
from panrt.formats import onnx_shapes
from panrt.formats.onnx_graph import RESULTS
from panrt.formats.onnx_shapes import Tensor
from panrt.plugins.schema import DOMAIN


def subgraph(sections: Sections, index: int) -> Subgraph:
    """Return one section as a model: what it computes, what it reads from others, and its own constants.

    Raises:
        UnsupportedModelError: the shape of a value that passes between sections is unknown.
    """
    free = sections.free_rows is not None and sections.free_rows.section == index
    rows = sections.free_rows.constants if free and sections.free_rows is not None else {}
    wanted = _read_elsewhere(sections, index)
    nodes = _alive(sections.nodes[index], wanted)
    nodes = [*_constant_nodes(sections, nodes), *nodes]
    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name)
    inputs = [
        _tensor(sections, name, free=free)
        for name in read
        if name not in made and (name not in sections.initializers or name in rows)
    ]
    outputs = [_tensor(sections, name, free=free) for name in sorted(made & wanted)]
    model = sections.model
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        [onnx_shapes.value_info(tensor) for tensor in inputs],
        [onnx_shapes.value_info(tensor) for tensor in outputs],
        [sections.initializers[name] for name in read if name in sections.initializers and name not in rows],
    )
    opsets = [opset for opset in model.opset_import if opset.domain != DOMAIN]
    written = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    return Subgraph(written.SerializeToString(), tuple(inputs), tuple(outputs), rows)


def _read_elsewhere(sections: Sections, index: int) -> set[str]:
    """Return what ops, the results and the nodes of other sections read."""
    own = {id(node) for node in sections.nodes[index]}
    by_ops = {name for op in sections.ops for name in op.inputs} | set(RESULTS)
    return by_ops | {name for node in sections.regular if id(node) not in own for name in node.input}


def _alive(nodes: Sequence[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """Return the nodes whose outputs are still read."""
    wanted = set(wanted)
    alive = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            alive.append(node)
            wanted.update(node.input)
    return alive[::-1]


def _constant_nodes(sections: Sections, nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Return the nodes that depend on no input and that these nodes need: every section computes its own."""
    wanted = {name for node in nodes for name in node.input}
    candidates = [node for node in sections.regular if sections.level[node.output[0]] == CONSTANT]
    return _alive(candidates, wanted)


def _tensor(sections: Sections, name: str, *, free: bool) -> Tensor:
    if name not in sections.tensors:
        raise UnsupportedModelError(f"{sections.source}: the shape of {name!r} is unknown; export the model again.")
    tensor = sections.tensors[name]
    if not free:
        return tensor
    return tensor._replace(shape=tuple(with_free_rows(list(tensor.shape), *sections.detections)))
