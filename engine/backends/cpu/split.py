"""Cut a graph at its ops, and assign the other nodes to the sections between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import NodeProto

from panrt.engine.backends.cpu.draft import OP_DOMAINS, Draft, Sections
from panrt.engine.backends.cpu.steps import CONVOLUTION_DOMAIN, Convolution, Op
from panrt.errors import UnsupportedModelError
from panrt.formats.metadata import IMAGE
from panrt.formats.onnx_nodes import attributes

CONSTANT = -1  # level of a value that depends on no input


def split(draft: Draft) -> Sections:
    """Cut a graph at its nodes of OP_DOMAINS.

    The level of a value is the number of ops that have to run before it can be computed, and a node goes to the section
    of that number, but for two cases: see `_gather` and `_defer`.

    Raises:
        UnsupportedModelError: a node reads a value that no earlier one gives.
    """
    graph = draft.graph
    tensors = draft.infer()
    ops = [_op(node, draft) for node in graph.node if node.domain in OP_DOMAINS]
    regular = [node for node in graph.node if node.domain not in OP_DOMAINS]
    level = _levels(draft)
    _gather(level, ops, regular)
    _defer(level, ops, regular)
    nodes: list[list[NodeProto]] = [[] for _ in range(len(ops) + 1)]
    for node in regular:
        if (section := level[node.output[0]]) != CONSTANT:
            nodes[section].append(node)
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    return Sections(draft.source, draft.model, ops, nodes, regular, level, tensors, initializers)


def _op(node: NodeProto, draft: Draft) -> Op | Convolution:
    if node.domain == CONVOLUTION_DOMAIN:
        return draft.convolutions[node.output[0]]
    return Op(node.op_type, node.name, tuple(node.input), tuple(node.output), attributes(node))


def _levels(draft: Draft) -> dict[str, int]:
    """Return the number of ops that have to run before each value can be computed."""
    first = IMAGE if draft.table is None else draft.table.output
    level = {first: 0, "": CONSTANT} | {tensor.name: CONSTANT for tensor in draft.graph.initializer}
    ops = 0
    for node in draft.graph.node:
        missing = [name for name in node.input if name not in level]
        if missing:
            raise UnsupportedModelError(
                f"{draft.source}: node {node.name!r} reads {missing[0]!r}, which no earlier node gives."
            )
        if node.domain in OP_DOMAINS:
            ops += 1
            level.update(dict.fromkeys(node.output, ops))
        else:
            by_inputs = max((level[name] for name in node.input), default=CONSTANT)
            level.update(dict.fromkeys(node.output, by_inputs))
    return level


def _gather(level: dict[str, int], ops: Sequence[Op | Convolution], regular: Sequence[NodeProto]) -> None:
    """Move what no Convolution needs behind the last of them, so that they follow one another with little between."""
    last = next((i for i, op in enumerate(ops) if isinstance(op, Op)), 0)
    wanted = {name for op in ops[:last] for name in op.inputs}
    for node in reversed(regular):
        if wanted.intersection(node.output):
            wanted.update(node.input)
        elif 1 <= level[node.output[0]] < last:
            level.update(dict.fromkeys(node.output, last))


def _defer(level: dict[str, int], ops: Sequence[Op | Convolution], regular: Sequence[NodeProto]) -> None:
    """Move what only later sections read into the first of these, so that less passes between; section 0 stays."""
    by_ops = {name for op in ops for name in op.inputs}
    readers = _readers(regular)
    for node in reversed(regular):
        if level[node.output[0]] < 1 or by_ops.intersection(node.output):
            continue
        users = [level[user.output[0]] for name in node.output for user in readers.get(name, [])]
        if users:
            level.update(dict.fromkeys(node.output, min(users)))


def _readers(nodes: Sequence[NodeProto]) -> Mapping[str, list[NodeProto]]:
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers
