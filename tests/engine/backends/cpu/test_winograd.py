"""Large 3 x 3 convolutions around the pyramid leave the graph, and it computes what it computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from panrt.engine.backends.cpu.passes.winograd import lift
from panrt.engine.backends.cpu.steps import CONVOLUTION_DOMAIN as DOMAIN
from panrt.engine.backends.cpu.steps import Convolution
from panrt.plugins.schema import DOMAIN as OPS_DOMAIN
from support.rounding import allowed, run

H, W, C = 40, 32, 16
SAME: dict[str, Any] = {"pads": [1, 1, 1, 1]}


def noise(*shape: int) -> NDArray[np.float32]:
    values = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    return np.asarray(values / np.float32(8))


def conv(value: str, output: str, weight: str, bias: str = "bias", **attributes: Any) -> NodeProto:
    return helper.make_node("Conv", [value, weight, *([bias] if bias else [])], [output], name=output, **attributes)


CONSTANTS = {
    "kernel": noise(C, C, 3, 3),
    "other": noise(C, C, 3, 3) + 1,
    "bias": noise(C),
    "predictor": noise(3, C, 1, 1),
    "predictor_bias": noise(3),
    "other_predictor": noise(5, C, 1, 1),
    "zero": np.zeros((), np.float32),
    "half": np.full((), 0.5, np.float32),
    "grouped": noise(C, 1, 3, 3),
    "narrow": noise(8, C, 3, 3),
    "narrow_bias": noise(8),
    "scales": np.array([1, 1, 2, 2], np.float32),
}


def model(nodes: Sequence[NodeProto], outputs: Sequence[str], *, cells: tuple[int, int] = (H, W)) -> ModelProto:
    """A graph from "x", whose pyramid is "p"; an op reads that."""
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        [*nodes, helper.make_node("PyramidRoiAlign", ["p", "rois"], ["pooled"], domain=OPS_DOMAIN)],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, C, *cells))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items() if name in read],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(OPS_DOMAIN, 1), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}


def unlifted(model: ModelProto, lifted: Mapping[str, Convolution]) -> ModelProto:
    """The graph with lifted convolutions as ONNX has them, and without the op that reads the pyramid."""
    plain = ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    nodes = []
    for node in graph.node:
        if node.domain == DOMAIN:
            found = lifted[node.output[0]]
            (read,), (written,) = found.inputs, found.outputs
            graph.initializer.append(numpy_helper.from_array(found.weight, f"{written}/w"))
            graph.initializer.append(numpy_helper.from_array(found.bias, f"{written}/b"))
            for name, bound in zip(("lower", "upper"), found.bounds, strict=True):
                graph.initializer.append(numpy_helper.from_array(np.float32(bound), f"{written}/{name}"))
            nodes += [
                helper.make_node("Transpose", [read], [f"{written}/x"], perm=(0, 3, 1, 2)),
                conv(f"{written}/x", f"{written}/y", f"{written}/w", f"{written}/b", **SAME),
                helper.make_node("Clip", [f"{written}/y", f"{written}/lower", f"{written}/upper"], [f"{written}/z"]),
                helper.make_node("Transpose", [f"{written}/z"], [written], perm=(0, 2, 3, 1)),
            ]
        elif node.domain != OPS_DOMAIN:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    checker.check_model(plain, full_check=True)
    return plain


def check_same(model: ModelProto, wanted: Mapping[str, tuple[float, float]]) -> Counter[str]:
    """Lifts the convolutions that are wanted, with their bounds; how often the graph then has each operator."""
    plain = unlifted(model, {})
    feeds = {value.name: noise(*shapes(model)[value.name]) for value in plain.graph.input}
    before, bounds = run(plain, feeds), allowed(plain, feeds)
    lifted = lift(model.graph, shapes(model))
    assert {found.name: found.bounds for found in lifted.values()} == wanted
    for old, new, bound in zip(before, run(unlifted(model, lifted), feeds), bounds, strict=True):
        assert np.all(np.abs(new.astype(np.float64) - old) <= bound)
    return Counter(node.op_type for node in model.graph.node)


def activation(kind: str, value: str, output: str) -> NodeProto:
    inputs = {
        "Clip": ["zero", "half"],
        "Clip from below": ["zero"],
        "Clip from above": ["", "half"],
        "Clip by x": ["least"],
    }
    return helper.make_node(kind.split(maxsplit=1)[0], [value, *inputs.get(kind, [])], [output])


def test_a_level_of_the_pyramid_is_lifted_and_so_is_what_reads_it() -> None:
    nodes = [
        conv("x", "p", "kernel", **SAME),
        conv("p", "hidden", "other", **SAME),
        activation("Relu", "hidden", "active"),
        conv("active", "logits", "predictor", "predictor_bias"),
        helper.make_node("Neg", ["logits"], ["negative"]),
        conv("active", "deltas", "other_predictor", ""),
    ]
    wanted = {"p": (-np.inf, np.inf), "hidden": (0.0, np.inf)}
    kinds = check_same(model(nodes, ["p", "negative", "deltas"]), wanted)
    assert kinds["Conv"] == 0
    assert (kinds["Conv3x3"], kinds["MatMul"], kinds["Split"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("kind", "bounds", "left"),
    [
        ("Relu", (0.0, np.inf), 0),
        ("Clip", (0.0, 0.5), 0),
        ("Clip from below", (0.0, np.inf), 0),
        ("Clip from above", (-np.inf, 0.5), 0),
        ("Clip by x", (-np.inf, np.inf), 1),
        ("Sigmoid", (-np.inf, np.inf), 1),
    ],
)
def test_what_clips_is_part_of_a_convolution(kind: str, bounds: tuple[float, float], left: int) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["p"]),
        helper.make_node("ReduceMean", ["x"], ["least"], keepdims=0),
        conv("p", "hidden", "kernel", "", **SAME),
        activation(kind, "hidden", "active"),
    ]
    kinds = check_same(model(nodes, ["active"]), {"hidden": bounds})
    assert kinds[kind.split(maxsplit=1)[0]] == left + (kind == "Relu")


def test_an_activation_that_others_read_around_stays() -> None:
    nodes = [
        helper.make_node("Abs", ["x"], ["p"]),
        conv("p", "hidden", "kernel", **SAME),
        activation("Relu", "hidden", "active"),
        helper.make_node("Add", ["hidden", "active"], ["sum"]),
    ]
    assert check_same(model(nodes, ["sum"]), {"hidden": (-np.inf, np.inf)})["Relu"] == 1


def test_a_convolution_that_comes_after_an_op_is_brought_before_it() -> None:
    made = model([helper.make_node("Abs", ["x"], ["p"]), conv("p", "semantic", "kernel", **SAME)], ["semantic"])
    made.graph.node.insert(1, made.graph.node[2])
    del made.graph.node[3]
    assert [node.op_type for node in made.graph.node] == ["Abs", "PyramidRoiAlign", "Conv"]
    check_same(made, {"semantic": (-np.inf, np.inf)})
    assert [node.op_type for node in made.graph.node][-1] == "PyramidRoiAlign"


@pytest.mark.parametrize(
    ("node", "cells"),
    [
        (conv("p", "y", "kernel", pads=[1, 1, 1, 1], strides=[2, 2]), (H, W)),
        (conv("p", "y", "kernel"), (H, W)),
        (conv("p", "y", "kernel", pads=[2, 2, 2, 2], dilations=[2, 2]), (H, W)),
        (conv("p", "y", "grouped", group=C, **SAME), (H, W)),
        (conv("p", "y", "narrow", "narrow_bias", **SAME), (H, W)),
        (conv("p", "y", "predictor", "predictor_bias"), (H, W)),
        (conv("p", "y", "kernel", **SAME), (H // 2, W)),
        (conv("q", "y", "kernel", **SAME), (H, W)),
    ],
    ids=["stride", "padding", "dilation", "groups", "filters", "kernel", "cells", "elsewhere"],
)
def test_what_does_not_fit_stays(node: NodeProto, cells: tuple[int, int]) -> None:
    nodes = [helper.make_node("Abs", ["x"], ["p"]), helper.make_node("Neg", ["x"], ["q"]), node]
    assert check_same(model(nodes, ["y"], cells=cells), {})["Conv"] == 1
