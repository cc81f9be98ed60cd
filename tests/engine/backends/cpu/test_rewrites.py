"""A rewritten graph computes what it computed before, with less; what does not fit stays as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from panrt.engine.backends.cpu.draft import Draft
from panrt.engine.backends.cpu.passes import deconvolution, predict_before_upsampling
from support.rounding import allowed, run

HALF_PIXEL = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Sequence[str],
    constants: dict[str, NDArray[np.float32]],
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def kinds(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def rewrite(model: ModelProto) -> None:
    draft = Draft("test", model)
    predict_before_upsampling.apply(draft)
    deconvolution.apply(draft)


def check_same(model: ModelProto) -> None:
    """Rewrites the model, and holds it to what it computed before on normal noise."""
    rng = np.random.default_rng(0)
    shapes = {v.name: [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in model.graph.input}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    before, bounds = run(model, feeds), allowed(model, feeds)
    rewrite(model)
    checker.check_model(model, full_check=True)
    for old, new, bound in zip(before, run(model, feeds), bounds, strict=True):
        assert np.all(np.abs(new.astype(np.float64) - old) <= bound)


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


# Semantic branch: fine + up(coarse) + up(other) -> 1 x 1 convolution


def semantic(
    *, fine: bool = True, bias: bool = True, kernel: int = 1, mode: str = "linear", scales: Sequence[float] = (2, 2)
) -> ModelProto:
    resize = HALF_PIXEL | {"mode": mode}
    nodes = [
        helper.make_node("Resize", [f"coarse_{i}", "", f"scales_{i}"], [f"up_{i}"], **resize)
        for i in range(len(scales))
    ]
    total = "fine" if fine else "up_0"
    for i in range(0 if fine else 1, len(scales)):
        nodes.append(helper.make_node("Add", [total, f"up_{i}"], [f"sum_{i}"]))
        total = f"sum_{i}"
    nodes.append(
        helper.make_node("Conv", [total, "weight", *(["bias"] if bias else [])], ["logits"], pads=[kernel // 2] * 4)
    )
    sides = {f"coarse_{i}": (2, 16, int(8 / scale), int(12 / scale)) for i, scale in enumerate(scales)}
    return model(
        nodes,
        ({"fine": (2, 16, 8, 12)} if fine else {}) | sides,
        ["logits"],
        {f"scales_{i}": np.array([1, 1, scale, scale], np.float32) for i, scale in enumerate(scales)}
        | {"weight": noise(5, 16, kernel, kernel)}
        | ({"bias": noise(5)} if bias else {}),
    )


@pytest.mark.parametrize("fine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("coarse", [1, 2, 3])
def test_classes_are_predicted_before_they_are_upsampled(fine: bool, bias: bool, coarse: int) -> None:
    graph = semantic(fine=fine, bias=bias, scales=(2,) * coarse)
    check_same(graph)
    assert kinds(graph)["Resize"] == 1
    assert kinds(graph)["Conv"] == 1 + fine
    resized = next(node for node in graph.graph.node if node.op_type == "Resize")
    assert any(node.op_type == "Conv" and node.output[0] == resized.input[0] for node in graph.graph.node)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(semantic(kernel=3), id="a kernel of more than one pixel"),
        pytest.param(semantic(scales=(2, 4)), id="scales that differ"),
        pytest.param(semantic(mode="nearest"), id="another interpolation"),
    ],
)
def test_other_sums_stay(graph: ModelProto) -> None:
    before = graph.SerializeToString()
    rewrite(graph)
    assert graph.SerializeToString() == before


def test_features_that_others_read_are_upsampled_all_the_same() -> None:
    graph = semantic()
    graph.graph.output.append(helper.make_tensor_value_info("up_0", TensorProto.FLOAT, [None] * 4))
    check_same(graph)
    assert kinds(graph)["Resize"] == 2


# Mask head: transposed convolution, activation, 1 x 1 convolution


def mask_head(
    *, kernel: int = 2, stride: int = 2, activation: str = "Relu", bias: bool = True, group: int = 1
) -> ModelProto:
    between = {
        "Relu": [helper.make_node("Relu", ["wide"], ["active"])],
        "Clip": [helper.make_node("Clip", ["wide", "least", "most"], ["active"])],
        "Softmax": [helper.make_node("Softmax", ["wide"], ["active"], axis=1)],
        "": [],
    }[activation]
    names = ["bias"] if bias else []
    nodes = [
        helper.make_node(
            "ConvTranspose", ["pooled", "weight", *names], ["wide"], strides=[stride, stride], group=group
        ),
        *between,
        helper.make_node(
            "Conv", ["active" if between else "wide", "predictor", *(["classes"] if bias else [])], ["masks"]
        ),
    ]
    return model(
        nodes,
        {"pooled": (3, 16, 7, 7)},
        ["masks"],
        {
            "weight": noise(16, 12 // group, kernel, kernel),
            "bias": noise(12),
            "predictor": noise(8, 12, 1, 1),
            "classes": noise(8),
            "least": np.array(0, np.float32),
            "most": np.array(6, np.float32),
        },
    )


@pytest.mark.parametrize("activation", ["Relu", "Clip", ""])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [2, 3])
def test_a_deconvolution_without_overlap_is_done_pixel_by_pixel(activation: str, bias: bool, side: int) -> None:
    graph = mask_head(kernel=side, stride=side, activation=activation, bias=bias)
    check_same(graph)
    assert kinds(graph)["ConvTranspose"] == 0
    assert kinds(graph)["DepthToSpace"] == 1


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(mask_head(kernel=3), id="kernels overlap"),
        pytest.param(mask_head(kernel=2, stride=3), id="kernels leave gaps"),
        pytest.param(mask_head(group=2), id="two groups"),
        pytest.param(mask_head(activation="Softmax"), id="an activation that sees other channels"),
    ],
)
def test_other_deconvolutions_stay(graph: ModelProto) -> None:
    before = graph.SerializeToString()
    rewrite(graph)
    assert graph.SerializeToString() == before
