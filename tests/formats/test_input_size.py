"""A file whose input size is open is, at any size, what an export at that size is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, helper, numpy_helper

import panrt
from panrt.errors import InputSizeError, ModelFileError
from panrt.formats import metadata
from panrt.formats.input_size import Static, open_size, specialise
from panrt.formats.metadata import ModelFile
from panrt.formats.onnx_file import read_onnx
from support.networks import dynamic, exported, frames
from support.plans import MODEL

SIZES = [(256, 320), (192, 256), (320, 480)]
ONE, OTHER = (288, 416), (352, 480)


@pytest.fixture(scope="module")
def plain() -> onnxruntime.InferenceSession:
    return by_onnx_runtime(dynamic())


def by_onnx_runtime(model: Path | bytes) -> onnxruntime.InferenceSession:
    """As a program opens it that knows nothing of PanRT."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def at(size: tuple[int, int]) -> onnx.ModelProto:
    proto, file, _ = read_onnx(dynamic())
    specialise(proto, metadata.sized(file, size, source="dynamic.onnx"), source="dynamic.onnx")
    return proto


def resized(size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Frames of the network's input size."""
    return [np.asarray(cv2.resize(image, size[::-1]), np.uint8) for image in frames(3)]


# The exported network


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_static_export_to_the_byte(size: tuple[int, int], tmp_path: Path) -> None:
    """What the next two tests call static is what this one has found to be."""
    static = exported(tmp_path / "static.onnx", input_hw=size)
    assert at(size).SerializeToString(deterministic=True) == static.read_bytes()


@pytest.mark.parametrize("size", SIZES)
def test_plain_onnx_runtime_gives_of_the_open_file_what_it_gives_of_the_static_one(
    size: tuple[int, int], plain: onnxruntime.InferenceSession
) -> None:
    static = by_onnx_runtime(at(size).SerializeToString())
    for image in resized(size):
        found, expected = (session.run(None, {"image": image[None]}) for session in (plain, static))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert found[0].shape == (1, *size)
        assert found[1][0, : found[3][0], 2].sum() > 4, "the network finds few things, so this shows little"


@pytest.mark.parametrize("size", SIZES)
def test_a_session_of_the_open_file_gives_what_one_of_the_static_file_gives(
    size: tuple[int, int], tmp_path: Path
) -> None:
    static = tmp_path / "static.onnx"
    static.write_bytes(at(size).SerializeToString(deterministic=True))
    with panrt.load(dynamic(), threads=1, input_hw=size) as ours, panrt.load(static, threads=1) as theirs:
        assert ours.model == theirs.model
        for image in frames(2):
            found, expected = ours(image), theirs(image)
            np.testing.assert_array_equal(found.panoptic, expected.panoptic)
            assert [s.score for s in found.segments] == [s.score for s in expected.segments]


def test_the_open_file_is_valid_and_has_one_node_more_which_reads_the_size() -> None:
    proto, static = onnx.load(dynamic()), at(SIZES[0])
    onnx.checker.check_model(proto, full_check=True)
    assert [node.op_type for node in proto.graph.node] == ["Shape", *(node.op_type for node in static.graph.node)]
    found = set(symbols(proto.graph))
    assert found >= {"height", "width", "height/4", "width/32", "ceil(height/64)", "ceil(width/64)"}


@settings(max_examples=10, deadline=None)
@given(st.tuples(st.integers(1, 64), st.integers(1, 64)))
def test_at_any_size_the_shapes_are_those_that_onnx_infers(multiples: tuple[int, int]) -> None:
    height, width = 32 * multiples[0], 32 * multiples[1]
    proto = at((height, width))
    said = {value.name: value.type.tensor_type.shape for value in proto.graph.value_info}
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:], bare.functions[:]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph.value_info
    known = {value.name: value.type.tensor_type.shape for value in inferred if value.type.tensor_type.shape.dim}
    known = {name: shape for name, shape in known.items() if all(dim.HasField("dim_value") for dim in shape.dim)}
    assert len(known) > 100
    assert {name: said[name] for name in known} == known
    panoptic = proto.graph.output[0].type.tensor_type.shape
    assert [dim.dim_value for dim in panoptic.dim] == [1, height, width]
    assert not any(symbols(proto.graph))


def symbols(graph: GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param)


# Other graphs


def static(size: tuple[int, int], **changes: Any) -> Static:
    """Zeros at a quarter of the size, once as they are and once flattened; `changes` are further initializers."""
    height, width = size
    shape = np.array([1, 2, height // 4, width // 4], np.int64)
    constants = {"shape": shape, "flat": np.array([1, -1], np.int64), **changes}
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"], "zeros"),
            helper.make_node("Reshape", ["zeros", "flat"], ["flattened"], "flatten"),
        ],
        "zeros",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
        [
            helper.make_tensor_value_info("zeros", TensorProto.FLOAT, shape.tolist()),
            helper.make_tensor_value_info("flattened", TensorProto.FLOAT, [1, height * width // 8]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return Static(graph, at_size(size))


def at_size(size: tuple[int, int]) -> ModelFile:
    return dataclasses.replace(MODEL, input_hw=size, valid_hw=size, output_hw=size)


def test_constants_that_are_shapes_are_made_of_the_size() -> None:
    graph = open_size(static(ONE), static(OTHER))
    assert list(symbols(graph)) == ["height", "width", "height/4", "width/4", "height*width/8"]
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    zeros, flattened = session.run(None, {"image": np.zeros((1, 64, 96, 3), np.uint8)})
    assert (zeros.shape, flattened.shape) == ((1, 2, 16, 24), (1, 768))
    specialise(model, at_size((64, 96)), source="zeros.onnx")
    assert model.graph == static((64, 96)).graph


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"a": np.float32(1)}, {"a": np.float32(2)}, "'a' depends on it"),
        ({"a": np.array([2, 9])}, {"a": np.array([2, 11])}, "'a' depends on it"),
        ({"a": np.array([1, 9, 9])}, {"a": np.array([2, 9, 11])}, "'a' depends on it"),
    ],
)
def test_what_follows_from_the_size_in_another_way_is_named(one: Any, other: Any, message: str) -> None:
    with pytest.raises(InputSizeError, match=message):
        open_size(static(ONE, **one), static(OTHER, **other))


def test_a_node_or_a_dimension_that_follows_in_another_way_is_found() -> None:
    other = static(OTHER)
    other.graph.node[1].attribute.append(helper.make_attribute("allowzero", 1))
    with pytest.raises(InputSizeError, match=r"'flatten' depends on it"):
        open_size(static(ONE), other)
    other = static(OTHER)
    other.graph.output[1].type.tensor_type.shape.dim[1].dim_value += 1
    with pytest.raises(InputSizeError, match=r"a dimension is 14976 for an input of \(288, 416\) and 21121 for"):
        open_size(static(ONE), other)


def test_a_file_that_is_not_open_as_it_says_is_refused() -> None:
    proto = onnx.load(dynamic())
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "rows"
    with pytest.raises(ModelFileError, match=r"^a\.onnx: declares an open input size, but dimension 'rows' is not"):
        specialise(proto, at_size((64, 96)), source="a.onnx")
    with pytest.raises(
        ModelFileError, match=r"^a\.onnx: declares an open input size, but node 'instance/RpnProposals' does not read"
    ):
        specialise(at((64, 96)), at_size((64, 96)), source="a.onnx")
