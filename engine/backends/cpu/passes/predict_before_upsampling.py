"""Predict classes first, then upsample: few logits instead of many features.

The semantic branch sums upsampled features and predicts classes from the sum by a 1 x 1 convolution. Both steps are
linear, so they can change places; results differ by rounding in float32.

Runs before shapes are inferred and before `winograd`, because it adds and removes convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from onnx import NodeProto, helper

from panrt.engine.backends.cpu.draft import Draft
from panrt.engine.backends.cpu.passes.graph_index import Index, is_pointwise


def apply(draft: Draft) -> str | None:
    """Run the pass; return why it does not apply, if so."""
    graph = draft.graph
    index = Index(graph)
    found = False
    for output in [node.output[0] for node in graph.node if node.op_type == "Conv"]:
        conv = index.producer[output]
        if is_pointwise(conv, index) and upsample_logits(conv, index):
            index = Index(graph)
            found = True
    return None if found else "no 1 x 1 convolution reads a sum of features that are all upsampled in one way"


class _Terms(NamedTuple):
    """The terms of a sum, and nodes that nothing else reads."""

    adds: list[NodeProto]
    upsampled: list[NodeProto]  # Resize
    plain: list[str]  # everything else


def upsample_logits(conv: NodeProto, index: Index) -> bool:
    """Rewrite conv(a + up(b) + up(c)) as conv(a) + up(conv(b + c)), where `up` is bilinear and the same for all.

    Returns:
        Whether the graph has this form.
    """
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
    """Return all that decides how a Resize works, without what it resizes."""
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
    """Return nodes that add values up, and the name of the sum."""
    nodes: list[NodeProto] = []
    total = values[0]
    for i, value in enumerate(values[1:]):
        nodes.append(helper.make_node("Add", [total, value], [f"{name}_sum_{i}"]))
        total = nodes[-1].output[0]
    return nodes, total
