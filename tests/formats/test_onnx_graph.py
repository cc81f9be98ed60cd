"""No ONNX file makes PanRT run, read or take more than it should; whatever is wrong is one error and one line."""

from __future__ import annotations

import copy
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

import panrt
from panrt.engine.bundled import MODELS
from panrt.errors import InputSizeError, ModelFileError, UnsupportedModelError
from panrt.formats import input_size, metadata, onnx_cost, onnx_graph, onnx_runtime, onnx_shapes
from panrt.formats.onnx_file import MAX_MESSAGES, count_messages, read_onnx
from panrt.formats.onnx_graph import read_graph

Change = Callable[[ModelProto], None]


@pytest.fixture(scope="module")
def content() -> bytes:
    return MODELS["tabletop"].read_bytes()


@pytest.fixture
def refusal(content: bytes, tmp_path: Path) -> Callable[[Change], str]:
    """What is said of the demo model after a change: one line, that names the file."""

    def refuse(change: Change) -> str:
        proto = onnx.load_model_from_string(content)
        change(proto)
        path = tmp_path / "changed.onnx"
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ModelFileError) as caught:
            panrt.load(path, backend="cpu", threads=1)
        said = str(caught.value)
        assert said.startswith(f"{path}: ")
        assert "\n" not in said
        assert len(said) < 1000
        return said.removeprefix(f"{path}: ")

    return refuse


def said_of_itself(**fields: Any) -> Change:
    def change(proto: ModelProto) -> None:
        proto.metadata_props[0].value = json.dumps({**json.loads(proto.metadata_props[0].value), **fields})

    return change


def threshold(name: str, value: float) -> Change:
    def change(proto: ModelProto) -> None:
        found = json.loads(proto.metadata_props[0].value)["thresholds"]
        said_of_itself(thresholds={**found, name: value})(proto)

    return change


def first(graph: GraphProto, kind: str) -> NodeProto:
    node: NodeProto = next(node for node in graph.node if node.op_type == kind)
    return node


def attribute(kind: str, name: str, value: Any) -> Change:
    """Give every node of a kind another value of an attribute."""

    def change(proto: ModelProto) -> None:
        for node in proto.graph.node:
            for found in node.attribute:
                if node.op_type == kind and found.name == name:
                    found.CopyFrom(helper.make_attribute(name, value))

    return change


def before_the_first_convolution(*nodes: NodeProto, **constants: Any) -> Change:
    """Put nodes into the graph: the first of them reads what the convolution read, `out` is what it reads now."""

    def change(proto: ModelProto) -> None:
        graph = proto.graph
        conv = first(graph, "Conv")
        place = list(graph.node).index(conv)
        for node in reversed(nodes):
            added = copy.deepcopy(node)
            for index, name in enumerate(added.input):
                added.input[index] = conv.input[0] if name == "in" else name
            graph.node.insert(place, added)
        first(graph, "Conv").input[0] = "out"
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())

    return change


# What the file says about itself is what its graph computes


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (
            said_of_itself(input_hw=[320, 256], valid_hw=[320, 256], output_hw=[320, 256]),
            "batch and input_hw: declares",
        ),
        (said_of_itself(batch=2), "batch and input_hw: declares an input of (2, 256, 320, 3), its graph has (1,"),
        (
            said_of_itself(valid_hw=[240, 320]),
            "valid_hw: declares (240, 320), its graph has [256, 320] (RpnP",
        ),
        (said_of_itself(valid_hw=[512, 512]), "valid_hw: got [512, 512], expected sides from 1 to 256 and 320"),
        (
            said_of_itself(output_hw=[100, 100]),
            "output_hw: declares (100, 100), its graph has [256, 320] (Panoptic",
        ),
        (said_of_itself(things=[]), "things: declares 0 classes, its graph has 8"),
        (said_of_itself(stuff=[]), "stuff: declares 0 classes, its graph has 4"),
        (said_of_itself(pixel_mean=[0, 0, 0]), "pixel_mean: declares (0.0, 0.0, 0.0), its graph has [127.0,"),
        (said_of_itself(pixel_std=[128, 0, 128]), "pixel_std: got [128.0, 0.0, 128.0], expected numbers above 0"),
        (said_of_itself(opset=20), "opset: declares 20, its graph has 21"),
        (threshold("detection_score", 0.06), "thresholds.detection_score: declares 0.06, its graph has 0.05"),
        (threshold("detection_nms", 0.6), "thresholds.detection_nms: declares 0.6"),
        (threshold("max_detections", 31), "thresholds.max_detections: declares 31, its graph has 32"),
        (threshold("instance_score", 0.9), "thresholds.instance_score: declares 0.9"),
        (threshold("instance_overlap", 0.9), "thresholds.instance_overlap: declares 0.9"),
        (threshold("stuff_area", 1), "thresholds.stuff_area: declares 1, its graph has 200"),
        (threshold("mask", 0.9), "thresholds.mask: declares 0.9"),
    ],
)
def test_what_a_file_says_is_held_against_its_graph(
    refusal: Callable[[Change], str], change: Change, field: str
) -> None:
    assert f"metadata {field}" in refusal(change)


def test_the_input_is_uint8_pixels(refusal: Callable[[Change], str]) -> None:
    def change(proto: ModelProto) -> None:
        proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

    assert refusal(change).startswith("its input image: data type 1, expected uint8 pixels (N, H, W, 3)")


# Nothing but the file is read


@pytest.mark.parametrize(
    "location",
    ["weights.bin", "../weights.bin", "/etc/passwd", "link.bin", "/dev/zero", "", "\0", "a/../../weights.bin"],
)
def test_a_tensor_in_another_file_is_rejected_wherever_that_is(
    refusal: Callable[[Change], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    (tmp_path / "here").mkdir()
    for folder in (tmp_path, tmp_path / "here"):  # beside the file, and in the current folder
        (folder / "weights.bin").write_bytes(bytes(4000))
    (tmp_path / "link.bin").symlink_to(tmp_path / "weights.bin")
    monkeypatch.chdir(tmp_path / "here")

    def change(proto: ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "1728")):
            tensor.external_data.add(key=key, value=value)

    said = refusal(change)
    assert "'backbone.trunk.stem.weight' is stored in another file" in said
    assert "export the model again" in said


def test_a_tensor_of_a_node_or_a_function_is_looked_at_too(refusal: Callable[[Change], str]) -> None:
    outside = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="weights.bin")

    def in_function(proto: ModelProto) -> None:
        proto.functions[0].node.append(helper.make_node("Constant", [], ["hidden"], value=outside))

    def in_subgraph(proto: ModelProto) -> None:
        inner = helper.make_graph([helper.make_node("Constant", [], ["h"], value=outside)], "g", [], [])
        proto.graph.node.append(helper.make_node("If", ["image"], ["x"], then_branch=inner, else_branch=inner))

    for change in (in_function, in_subgraph):
        assert "tensor 'hidden' is stored in another file, 'weights.bin'" in refusal(change)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "socket"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.onnx"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    for read in (read_onnx, panrt.load):
        if kind == "socket" and read is read_onnx:
            continue  # the system does not open it
        with pytest.raises(ModelFileError, match=rf"model\.onnx: is a {kind}, expected an \.onnx file of panrt export"):
            read(path)


@pytest.mark.parametrize("name", [b"panoptic_fpn_lite", b"PanopticMerge", b"segment_count"])
def test_text_that_is_not_utf8_is_rejected_wherever_it_is(content: bytes, name: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content.replace(name, b"\xff" + name[1:]))
    with pytest.raises(ModelFileError, match=r"not UTF-8|its PanRT metadata"):
        read_onnx(path)


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(ModelFileError, match=r"model\.onnx: has more than 2147483647 bytes"):
        panrt.load(path)


# Nothing but known operators is run


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("Loop", ["", "", "in"], ["out"], body=GraphProto()), "the operator 'Loop' is not one"),
        (helper.make_node("If", ["in"], ["out"]), "the operator 'If' is not one"),
        (helper.make_node("Tile", ["in", "in"], ["out"]), "the operator 'Tile' is not one"),
        (helper.make_node("Range", ["in", "in", "in"], ["out"]), "the operator 'Range' is not one"),
        (helper.make_node("Relu", ["in"], ["out"], domain="evil"), "the operator 'evil::Relu' is not one"),
        (helper.make_node("FusedConv", ["in"], ["out"], domain="com.microsoft"), "'com.microsoft::FusedConv' is not"),
        (helper.make_node("Conv3x3", ["in"], ["out"], domain="panrt.cpu"), "'panrt.cpu::Conv3x3' is not one"),
        (helper.make_node("Relu", [], ["out"]), "Relu with 0 inputs"),
        (helper.make_node("Relu", [""], ["out"]), "Relu lacks an input"),
        (helper.make_node("Relu", ["in", "in"], ["out"]), "Relu with 2 inputs"),
        (helper.make_node("Relu", ["in"], ["out", "b"]), "Relu with 2 outputs"),
        (helper.make_node("Relu", ["in"], ["out"], body=GraphProto()), "attribute 'body': got "),
        (helper.make_node("Relu", ["later"], ["out"]), "reads 'later', which no earlier node computes"),
        (helper.make_node("Relu", ["out"], ["out"]), "reads 'out', which no earlier node computes"),
        (helper.make_node("Relu", ["in"], ["image"]), "computes 'image', which already exists"),
        (helper.make_node("Relu", ["in"], [""]), "has no output"),
        (helper.make_node("Concat", ["in"] * 65, ["out"], axis=0), "more than 64 inputs"),
        (helper.make_node("Concat", ["in"], ["out"]), "lacks attribute axis"),
        (helper.make_node("Cast", ["in"], ["out"], to=TensorProto.STRING), "attribute 'to': got 8"),
        (helper.make_node("Transpose", ["in"], ["out"], perm=[0, 2**40, 1, 2]), "attribute 'perm': got [0, 10995"),
        (helper.make_node("Transpose", ["in"], ["out"], perm=[0, 0, 0, 0]), "its shapes are inconsistent"),
        (helper.make_node("LeakyRelu", ["in"], ["out"], alpha=float("nan")), "attribute 'alpha': got nan"),
    ],
)
def test_a_node_that_no_export_has_is_rejected(refusal: Callable[[Change], str], node: NodeProto, said: str) -> None:
    assert said in refusal(before_the_first_convolution(node))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("Conv", "strides", [0, 0]),
        ("Conv", "dilations", [-1, 1]),
        ("Conv", "group", 0),
        ("Conv", "pads", [0, 0, 2**62, 0]),
        ("Conv", "pads", "a word"),
        ("Conv", "auto_pad", "x" * 1000),
        ("Conv", "auto_pad", b"\xff"),
        ("MaxPool", "kernel_shape", [0, 0]),
        ("Resize", "cubic_coeff_a", float("inf")),
        ("Reshape", "allowzero", 2**62),
        ("RpnProposals", "strides", [1.5] * 5),
        ("RpnProposals", "nms_threshold", "abc"),
    ],
)
def test_an_attribute_of_another_type_or_out_of_range_is_named(
    refusal: Callable[[Change], str], kind: str, name: str, value: Any
) -> None:
    assert f"attribute '{name}': got " in refusal(attribute(kind, name, value))


@pytest.mark.parametrize(
    ("kind", "name", "value", "said"),
    [
        ("RpnProposals", "strides", [0] * 5, "strides[0]: expected an integer from 1"),
        ("RpnProposals", "anchor_sizes", [1.0], "anchor_sizes: expected 5 entries"),
        ("RpnProposals", "pre_nms_top_k", -1, "pre_nms_top_k: expected an integer from 1"),
        ("PyramidRoiAlign", "output_size", 2**40, "output_size: expected an integer from 1 to 1024"),
        ("BoxDetections", "box_weights", [1.0], "box_weights: expected (wx, wy, ww, wh)"),
        ("PanopticMerge", "mask_threshold", float("nan"), "mask_threshold: expected a finite float32"),
        ("PanopticMerge", "output_hw", [1, 2, 3], "output_hw: expected (height, width)"),
    ],
)
def test_an_op_of_ours_gets_what_its_contract_asks_for(
    refusal: Callable[[Change], str], kind: str, name: str, value: Any, said: str
) -> None:
    assert said in refusal(attribute(kind, name, value))


def test_functions_of_others_are_rejected_and_a_function_that_calls_itself_is_never_run(
    refusal: Callable[[Change], str], content: bytes, tmp_path: Path
) -> None:
    def other(proto: ModelProto) -> None:
        proto.functions[0].name = "Evil"

    assert "has the function 'panrt::Evil'" in refusal(other)
    proto = onnx.load_model_from_string(content)
    merge = next(function for function in proto.functions if function.name == "PanopticMerge")
    merge.node.insert(0, copy.deepcopy(first(proto.graph, "PanopticMerge")))
    path = tmp_path / "recursive.onnx"
    path.write_bytes(proto.SerializeToString())
    with panrt.load(path, backend="cpu", threads=1) as session:  # kernels take the place of functions
        session(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UnsupportedModelError, match="its ONNX function PanopticMerge is not the one of this PanRT"):
        onnx_graph.check_functions(proto, source="recursive.onnx")
    onnx_graph.check_functions(onnx.load_model_from_string(content), source="tabletop")


def test_the_graph_is_no_larger_than_networks_are(refusal: Callable[[Change], str]) -> None:
    def many(proto: ModelProto) -> None:
        proto.graph.node.extend(helper.make_node("Relu", ["image"], [f"r{i}"]) for i in range(onnx_graph.MAX_NODES))

    def many_ops(proto: ModelProto) -> None:
        op = first(proto.graph, "RpnProposals")
        for i in range(onnx_graph.MAX_OPS):
            again = copy.deepcopy(op)
            again.output[:] = [f"a{i}", f"b{i}"]
            proto.graph.node.append(again)

    assert "nodes, PanRT runs up to 2000" in refusal(many)
    assert "nodes of PanRT's ops, PanRT runs up to 32" in refusal(many_ops)


# Tensors


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("dims", [2**20, 2**20], "holds 1728 bytes, shape [1048576, 1048576] needs 2199023255552"),
        ("dims", [-1, 3], "shape [-1, 3] is invalid"),
        ("dims", [1] * 17, "is invalid"),
        ("raw_data", b"", "holds 0 bytes, shape [32, 3, 3, 3] needs 1728"),
        ("data_type", TensorProto.STRING, "data type 8 is not supported"),
        ("data_type", 99, "data type 99 is not supported"),
        ("int32_data", [1], "holds 1728 bytes"),
    ],
)
def test_a_tensor_has_a_number_for_each_place(
    refusal: Callable[[Change], str], field: str, value: Any, said: str
) -> None:
    def change(proto: ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        if isinstance(value, list):
            del getattr(tensor, field)[:]
            getattr(tensor, field).extend(value)
        else:
            setattr(tensor, field, value)

    assert "tensor 'backbone.trunk.stem.weight': " in (found := refusal(change))
    assert said in found


def test_sparse_tensors_are_rejected(refusal: Callable[[Change], str]) -> None:
    def change(proto: ModelProto) -> None:
        sparse = proto.graph.sparse_initializer.add(dims=[2**31, 2**31])
        sparse.values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]))
        sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [0]))

    assert "has sparse tensors" in refusal(change)


def dims_of(kind: str, operand: int, shape: list[int]) -> Change:
    """Give the operand of the first node of a kind another shape, and zeros to fill it."""

    def change(proto: ModelProto) -> None:
        name = first(proto.graph, kind).input[operand]
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
        kept = np.zeros(shape, helper.tensor_dtype_to_np_dtype(tensor.data_type))
        tensor.CopyFrom(numpy_helper.from_array(kept, name))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dims_of("Conv", 2, [0]), "do not fit"),
        (dims_of("Conv", 2, [1, 32]), "do not fit"),
        (dims_of("Conv", 1, [32, 4, 3, 3]), "do not fit"),
        (dims_of("ConvTranspose", 2, [7]), "do not fit"),
        (dims_of("Clip", 1, [2]), "its bounds are not single numbers"),
        (attribute("PyramidRoiAlign", "output_size", 13), "reshapes (150, 80, 13, 13) to (150, 3920)"),
    ],
)
def test_operands_that_onnx_infers_a_shape_for_but_that_do_not_fit_are_found(
    refusal: Callable[[Change], str], change: Change, said: str
) -> None:
    assert said in refusal(change)


# Parts


def messages(message: Any) -> int:
    """All that are in a message, as protobuf has parsed it."""
    count = 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            inner = value if not hasattr(value, "ListFields") else [value]
            count += sum(1 + messages(item) for item in inner)
    return count


def test_messages_are_counted_as_protobuf_finds_them(content: bytes) -> None:
    expected = messages(onnx.load_model_from_string(content))
    assert count_messages(content, most=10**9) == expected
    assert expected < MAX_MESSAGES / 10
    assert count_messages(content, most=100) == 101


@given(st.binary(max_size=200))
def test_anything_is_counted(content: bytes) -> None:
    assert count_messages(content, most=1000) <= len(content)


@given(st.data())
def test_a_damaged_file_is_counted(content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, 20_000))
    damaged = content[:place] + data.draw(st.binary(min_size=1, max_size=12)) + content[place + 1 : 40_000]
    count_messages(damaged, most=10_000)


@pytest.mark.parametrize("number", [1, 5, 13], ids=["nodes", "tensors", "values"])
def test_a_small_file_of_very_many_parts_is_not_parsed(tmp_path: Path, number: int) -> None:
    parts = bytes([number << 3 | 2, 0]) * (MAX_MESSAGES + 1)
    path = tmp_path / "many.onnx"
    with path.open("wb") as file:
        file.write(bytes([7 << 3 | 2]) + varint(len(parts)) + parts)
    with pytest.raises(UnsupportedModelError, match=r"many\.onnx: has more than 500000 nodes, tensors and other parts"):
        read_onnx(path)


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


# Memory and work


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            before_the_first_convolution(
                helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
                helper.make_node("Relu", ["in"], ["out"]),
                shape=np.array([1, 3, 100_000, 100_000]),
            ),
            "bytes of memory",
        ),
        (attribute("PyramidRoiAlign", "sampling_ratio", 1024), "multiplications"),
        (
            lambda proto: (
                attribute("PanopticMerge", "output_hw", [32768, 32768])(proto),
                said_of_itself(output_hw=[32768, 32768])(proto),
            ),
            "bytes of memory",
        ),
    ],
    ids=["constant", "samples", "map"],
)  # fmt: skip
def test_an_inference_takes_no_more_than_the_size_of_the_file_allows(
    refusal: Callable[[Change], str], change: Any, what: str
) -> None:
    said = refusal(change)
    assert said.startswith("an inference takes ")
    assert what in said
    assert "at a smaller input or output size" in said


def test_what_the_file_says_of_its_shapes_is_not_believed(content: bytes) -> None:
    proto = onnx.load_model_from_string(content)
    said = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in proto.graph.value_info}
    file = metadata.loads(proto.metadata_props[0].value, source="tabletop")
    for value in proto.graph.value_info:
        value.type.tensor_type.shape.dim.add(dim_value=7)
    found = onnx_graph.check(proto, file, source="tabletop")
    assert {name: list(found[name].shape) for name in said} == said


def test_memory_is_that_of_the_values_that_live_at_once() -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["c"]),
         helper.make_node("Relu", ["c"], ["d"])],
        "chain", [value("a", TensorProto.FLOAT, [10, 10])], [value("d", TensorProto.FLOAT, [10, 10])],
    )  # fmt: skip
    tensors = onnx_shapes.infer(graph, 21, source="chain")
    assert onnx_cost.peak_bytes(graph, tensors) == 2 * 400
    assert onnx_cost.products(graph, tensors) == 3 * 100


# Open sizes


def test_an_open_file_with_nodes_of_its_own_is_rejected(content: bytes, tmp_path: Path) -> None:
    proto = onnx.load_model_from_string(content)
    said_of_itself(input_hw=[0, 0], valid_hw=[0, 0], output_hw=[0, 0])(proto)
    for dims, said in (
        ("height*width/1", "'instance/RpnProposals' does not read input_size"),
        ("height" * 5000 + "!", "is not a known function of it"),
        ("height/" + "9" * 5000, "is not a known function of it"),
        ("height/0", "is not a known function of it"),
    ):
        proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = dims
        path = tmp_path / "open.onnx"
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ModelFileError, match=r"open\.onnx: declares an open input size, but") as caught:
            read_graph(path, input_hw=(64, 96))
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Shape", ["pixels"], ["input_size"], name="input_size/Shape"),
        helper.make_node("Div", ["image", "image"], ["x"], name="input_size/x"),
        helper.make_node("Div", [], [], name="input_size/x"),
        helper.make_node("Concat", ["a"], ["x"], name="input_size/x"),
        helper.make_node("Loop", [], ["x"], name="input_size/x"),
    ],
)
def test_only_shapes_are_made_of_an_open_size(node: NodeProto) -> None:
    graph = helper.make_graph([node], "g", [], [])
    with pytest.raises(InputSizeError, match="does not compute a shape from it"):
        input_size._fold(graph, (64, 96))


# ONNX Runtime


def test_what_onnx_runtime_finds_only_when_it_runs_is_a_model_file_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: onnx_runtime.Model) -> None:
        raise onnx_runtime.ERRORS[-1]("out of\nmemory")

    monkeypatch.setattr(onnx_runtime.Model, "run_bound", fail)
    with (
        panrt.load("tabletop", backend="cpu", threads=1) as session,
        pytest.raises(UnsupportedModelError, match=r"tabletop\.onnx: ONNX Runtime .* \(out of memory\); export"),
    ):
        session(np.zeros((8, 8, 3), np.uint8))
