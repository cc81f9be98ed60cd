"""Names of nodes and edges by their place in the network, instead of by the order of tracing.

A node is `<module>/<op type>`, e.g. `backbone.trunk.res2.0.conv1/Conv`; where a module does the same more than once a
number follows. Edges round the four ops carry the names below, so that a runtime, a comparison or a person finds them;
every other edge is named after the node that makes it. Nothing here depends on the tracer's generated names.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence

from onnx import GraphProto, NodeProto

from panrt.plugins.onnx_functions import OUTPUTS
from panrt.plugins.schema import DOMAIN

# What the edges into and out of an op are called; {level} counts from P2.
_INPUTS = {
    "RpnProposals": ("rpn_logits_p{level}", "rpn_deltas_p{level}"),
    "PyramidRoiAlign": ("p{level}",),
    "BoxDetections": ("class_logits", "box_deltas"),
    "PanopticMerge": ("semantic_logits", "boxes", "scores", "classes", "detection_count", "mask_probs"),
}
_OUTPUTS = {
    "RpnProposals": OUTPUTS["RpnProposals"],
    "BoxDetections": ("boxes", "scores", "classes", "detection_count"),
    "PanopticMerge": OUTPUTS["PanopticMerge"],
}
_HEADS = {"rois": "box", "boxes": "mask"}  # what is pooled for which head, by the RoIs


def name_graph(graph: GraphProto, *, module: str) -> None:
    """Rename all nodes, edges and weights in place.

    Args:
        graph: as the dynamo exporter made it; what it notes of modules and source files is dropped.
        module: the attribute of the traced module that is the network; no name speaks of it.
    """
    edges = {weight.name: weight.name.removeprefix(f"{module}.") for weight in graph.initializer}
    constants = [name for name in edges if not name.startswith(f"{module}.")]
    edges.update({name: f"constant_{index}" for index, name in enumerate(constants)})
    seen = Counter[str]()
    for node in graph.node:
        node.name = _node_name(node, module, seen)
        edges.update({name: f"{node.name}:{index}" for index, name in enumerate(node.output) if name})
    edges.update(_named_edges(graph))
    for node in graph.node:
        if node.op_type == "PyramidRoiAlign":
            head = _HEADS[edges[node.input[-1]]]
            node.name = f"instance/{head.capitalize()}RoiAlign"
            edges[node.output[0]] = f"{head}_pooled"
    _rename(graph, edges)
    _forget_the_tracer(graph)


def _node_name(node: NodeProto, module: str, seen: Counter[str]) -> str:
    """Return a node's name from the modules that the exporter notes: those around the call, then the call itself."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
    scope = scopes[-2].removeprefix(module).lstrip(".") if len(scopes) > 1 else ""
    name = f"{scope}/{node.op_type}" if scope else node.op_type
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}_{seen[name]}"


def _named_edges(graph: GraphProto) -> dict[str, str]:
    """Names of the edges around all ops; of two edges with one name, the later is used and the earlier is not."""
    by_name = {name: edge for node in graph.node if node.domain == DOMAIN for edge, name in _op_edges(node).items()}
    return {edge: name for name, edge in by_name.items()}


def _op_edges(node: NodeProto) -> dict[str, str]:
    patterns = _INPUTS[node.op_type]
    if "{level}" in patterns[0]:
        levels = len(node.input) // len(patterns)  # the RoIs of PyramidRoiAlign come after its levels
        names: Sequence[str] = [pattern.format(level=2 + i) for pattern in patterns for i in range(levels)]
        names = names[: len(node.input) - (node.op_type == "PyramidRoiAlign")]
    else:
        names = patterns
    outputs = _OUTPUTS.get(node.op_type, ())
    return dict([*zip(node.input, names, strict=False), *zip(node.output, outputs, strict=False)])


def _rename(graph: GraphProto, edges: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [edges.get(name, name) for name in node.input]
        node.output[:] = [edges.get(name, name) for name in node.output]
    for entry in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        entry.name = edges.get(entry.name, entry.name)


def _forget_the_tracer(graph: GraphProto) -> None:
    """Remove stack traces and other metadata that depend on where the network was exported."""
    graph.ClearField("doc_string")
    for entry in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        entry.ClearField("metadata_props")
        if not isinstance(entry, GraphProto):
            entry.ClearField("doc_string")
