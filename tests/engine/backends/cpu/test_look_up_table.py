"""What comes before a network's first convolution becomes a table with the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from panrt.engine.backends.cpu.passes.look_up_table import take_normalisation
from panrt.plugins import native

MEAN = np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1)
STD = np.array([57.375, 57.12, 58.395], np.float32).reshape(3, 1, 1)
CONSTANTS = {"mean": MEAN, "std": STD, "half": np.full((), 0.5, np.float32), "map": np.ones((1, 3, 4, 5), np.float32)}

CAST = helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT)
TRANSPOSE = helper.make_node("Transpose", ["floats"], ["nchw"], perm=(0, 3, 1, 2))
SUB = helper.make_node("Sub", ["nchw", "mean"], ["centred"])
DIV = helper.make_node("Div", ["centred", "std"], ["normal"])
READ = helper.make_node("MaxPool", ["normal"], ["read"], kernel_shape=(2, 2))


def model(nodes: Sequence[NodeProto], output: str) -> ModelProto:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (2, 4, 5, 3))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_the_table_has_the_numbers_of_the_graph() -> None:
    whole = model([CAST, TRANSPOSE, SUB, DIV, READ], "read")
    before = model([CAST, TRANSPOSE, SUB, DIV], "normal")
    found = take_normalisation(whole.graph, "image")
    assert found is not None
    assert found.output == "normal"
    assert [node.op_type for node in whole.graph.node] == ["MaxPool"]
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    session = onnxruntime.InferenceSession(before.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": image})
    out = np.full(expected.shape, np.nan, np.float32)
    np.testing.assert_array_equal(native.look_up(image, found.table, out=out, threads=1), expected)


def test_a_scale_before_the_transpose_is_in_the_table() -> None:
    scale = helper.make_node("Mul", ["floats", "half"], ["scaled"])
    transpose = helper.make_node("Transpose", ["scaled"], ["nchw"], perm=(0, 3, 1, 2))
    found = take_normalisation(model([CAST, scale, transpose, SUB, DIV, READ], "read").graph, "image")
    assert found is not None
    np.testing.assert_array_equal(found.table[1], (np.arange(256, dtype=np.float32) / 2 - MEAN[1, 0]) / STD[1, 0])


@pytest.mark.parametrize(
    "nodes",
    [
        [CAST, helper.make_node("Softmax", ["floats"], ["other"]), TRANSPOSE, SUB, DIV, READ],
        [CAST, helper.make_node("Sub", ["floats", "half"], ["read"])],
        [CAST, helper.make_node("Transpose", ["floats"], ["read"], perm=(0, 3, 2, 1))],
        [
            CAST,
            helper.make_node("Sub", ["floats", "mean"], ["centred"]),
            TRANSPOSE,
            helper.make_node("Abs", ["nchw"], ["read"]),
        ],
    ],
    ids=["two readers", "not transposed", "transposed otherwise", "by row"],
)
def test_what_is_no_normalisation_stays(nodes: list[NodeProto]) -> None:
    made = model(nodes, "read")
    assert take_normalisation(made.graph, "image") is None
    assert len(made.graph.node) == len(nodes)


def test_only_what_looks_at_single_pixels_is_in_the_table() -> None:
    by_place = helper.make_node("Add", ["centred", "map"], ["read"])
    made = model([CAST, TRANSPOSE, SUB, by_place], "read")
    found = take_normalisation(made.graph, "image")
    assert found is not None
    assert found.output == "centred"
    assert [node.op_type for node in made.graph.node] == ["Add"]


def test_threads_share_the_rows() -> None:
    rng = np.random.default_rng(0)
    image, table = rng.integers(0, 256, (2, 37, 21, 3), np.uint8), rng.standard_normal((3, 256), np.float32)
    out = np.full((2, 3, 37, 21), np.nan, np.float32)
    native.look_up(image, table, out=out, threads=3)
    for channel in range(3):
        np.testing.assert_array_equal(out[:, channel], table[channel][image[..., channel]])


def test_arrays_that_do_not_fit_are_refused() -> None:
    image, table, out = (
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((3, 256), np.float32),
        np.zeros((1, 3, 4, 4), np.float32),
    )
    with pytest.raises(ValueError, match="table: axis 1 is 255, expected 256"):
        native.look_up(image, table[:, :255].copy(), out=out)
    with pytest.raises(ValueError, match="output: axis 2 is 3, expected 4"):
        native.look_up(image, table, out=out[:, :, :3].copy())
    with pytest.raises(TypeError):
        native.look_up(image.astype(np.int8), table, out=out)
