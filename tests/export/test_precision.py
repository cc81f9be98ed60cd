"""Float16 and int8 files: what is narrow, what stays float32, how far features move, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from panrt.errors import ExportError
from panrt.export import to_onnx
from panrt.export.precision import largest_feature
from panrt.model import build
from panrt.model.config import SemanticConfig
from support.networks import frames, lively
from support.rounding import UNIT, likely

SIZE: dict[str, Any] = {"input_hw": (256, 320)}
STAGES = ("p2", "p3", "p4", "p5", "semantic_logits")


def export(path: Path, **options: Any) -> onnx.ModelProto:
    to_onnx(lively(), path, **{**SIZE, "samples": frames(4), **options})
    return onnx.load(path)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return export(tmp_path_factory.mktemp("fp32") / "m.onnx")


@pytest.fixture(scope="module")
def fp16(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return export(tmp_path_factory.mktemp("fp16") / "m.onnx", precision="fp16")


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return export(tmp_path_factory.mktemp("int8") / "m.onnx", precision="int8")


def features(model: onnx.ModelProto, names: Sequence[str], image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Values on the way, from plain ONNX Runtime."""
    types = edge_types(model)
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    for name in names:
        probed.graph.output.append(onnx.helper.make_tensor_value_info(name, types[name], None))
    session = onnxruntime.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    return [feature.astype(np.float32) for feature in session.run(None, {"image": image[None]})]


def constants(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def mean_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).mean() / np.abs(expected).mean())


def edge_types(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_float16_moves_features_by_its_rounding_and_no_more(fp32: onnx.ModelProto, fp16: onnx.ModelProto) -> None:
    image = frames(6)[5]
    # Each layer rounds its weights and its result, by 2^-11 at most; independent errors add up as a random walk, and
    # the mean over all elements is below its standard deviation.
    layers = sum(node.op_type == "Conv" for node in fp16.graph.node)
    for found, expected in zip(features(fp16, STAGES, image), features(fp32, STAGES, image), strict=True):
        assert 0 < mean_error(found, expected) < math.sqrt(2 * layers) * 2.0**-11


def test_float16_is_in_weights_and_features_and_nowhere_else(fp16: onnx.ModelProto) -> None:
    types = edge_types(fp16)
    decisions = (
        "rois",
        "boxes",
        "scores",
        "class_logits",
        "box_deltas",
        "rpn_logits_p2",
        "rpn_deltas_p6",
        "mask_probs",
    )
    assert {types[name] for name in (*decisions, "semantic_logits", "segment_scores")} == {TensorProto.FLOAT}
    assert {types[name] for name in ("p2", "p5", "box_pooled", "mask_pooled")} == {TensorProto.FLOAT16}
    assert types["panoptic"] == TensorProto.INT32
    weights = {tensor.name: tensor.data_type for tensor in fp16.graph.initializer}
    read = {name for node in fp16.graph.node if node.op_type in {"Conv", "Gemm"} for name in node.input[1:]}
    assert {weights[name] for name in read} == {TensorProto.FLOAT16}
    assert weights["pixel_mean"] == TensorProto.FLOAT
    (sigmoid,) = (node for node in fp16.graph.node if node.op_type == "Sigmoid")
    assert types[sigmoid.output[0]] == TensorProto.FLOAT


def test_group_norms_sum_in_float32_in_every_opset(tmp_path: Path) -> None:
    """For TensorRT 10.3 PyTorch makes them of InstanceNormalization, which sums in the type of its input."""
    network = build("panoptic_fpn_lite", instance=None, semantic=SemanticConfig(width=64))
    shared: dict[str, Any] = {"input_hw": (64, 96), "precision": "fp16"}
    to_onnx(network, tmp_path / "new.onnx", **shared)
    to_onnx(network, tmp_path / "old.onnx", **shared, target="tensorrt-10.3")
    new, old = (onnx.load(tmp_path / name) for name in ("new.onnx", "old.onnx"))
    norms = [node for node in new.graph.node if node.op_type == "GroupNormalization"]
    assert norms
    assert all(a.i == TensorProto.FLOAT for node in norms for a in node.attribute if a.name == "stash_type")
    types = edge_types(old)
    parts = [node for node in old.graph.node if node.op_type == "InstanceNormalization"]
    assert len(parts) == len(norms)
    assert {types[node.input[0]] for node in parts} == {TensorProto.FLOAT}
    assert {types[node.input[0]] for node in old.graph.node if node.op_type == "Conv"} == {TensorProto.FLOAT16}


def test_a_weight_beyond_float16_is_refused_by_name(tmp_path: Path) -> None:
    network = lively()
    assert network.semantic is not None
    with torch.no_grad():
        network.semantic.predictor.weight[0, 0] = 1e5
    with pytest.raises(ExportError, match=r"semantic\.predictor\.weight: a weight of 1e\+05 is beyond float16"):
        to_onnx(network, tmp_path / "m.onnx", **SIZE, precision="fp16")
    assert not list(tmp_path.iterdir())


def test_a_feature_beyond_float16_is_refused_by_its_module(tmp_path: Path) -> None:
    network = lively()
    assert network.semantic is not None
    with torch.no_grad():
        network.semantic.predictor.get_parameter("bias")[0] = 6e4
        network.semantic.predictor.weight[0] = 6e3
    with pytest.raises(ExportError, match=r"semantic\.predictor: a feature of .* on sample frame 1 is beyond float16"):
        to_onnx(network, tmp_path / "m.onnx", **SIZE, precision="fp16", samples=list(frames(1)))
    assert not list(tmp_path.iterdir())


def test_the_largest_feature_is_found_where_it_is() -> None:
    network = lively()
    assert network.semantic is not None
    with torch.no_grad():
        network.semantic.predictor.weight.zero_()
        network.semantic.predictor.get_parameter("bias")[1] = -5000
    seen: list[tuple[int, int]] = []
    peak = largest_feature(network, [frames(1), frames(1)], lambda done, total: seen.append((done, total)))
    assert peak == (5000.0, "semantic.predictor")
    assert seen == [(1, 2), (2, 2)]


def test_int8_rounds_weights_to_half_a_step(fp32: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    exact, rounded = constants(fp32), constants(int8)
    made = {name: node for node in int8.graph.node for name in node.output}
    convolutions = {node.name: node for node in fp32.graph.node if node.op_type == "Conv"}
    checked = 0
    for node in (node for node in int8.graph.node if node.op_type == "Conv"):
        source = made.get(node.input[1])
        if source is None or source.op_type != "DequantizeLinear":
            continue
        values, scales = (rounded[name] for name in source.input[:2])
        weight = exact[convolutions[node.name].input[1]].astype(np.float64)
        step = scales.astype(np.float64).reshape(-1, 1, 1, 1)
        # Half a step, and the roundings of float32: of the quotient, which is up to 127 steps, and of the step itself.
        assert np.all(np.abs(values * step - weight) <= step * (0.5 + 2 * 127 * UNIT))
        np.testing.assert_allclose(np.abs(weight).max(axis=(1, 2, 3)), 127 * scales, rtol=4 * UNIT)
        checked += 1
    assert checked > 60


def test_int8_steps_are_the_range_of_the_samples(fp32: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    """Then a feature of a sample is rounded to half a step and never clipped."""
    scales = constants(int8)
    steps = {
        node.input[0]: float(scales[node.input[1]])
        for node in int8.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in scales
    }
    assert len(steps) > 60
    names = list(steps)
    largest = dict.fromkeys(names, 0.0)
    for image in frames(4):
        for name, feature in zip(names, features(fp32, names, image), strict=True):
            largest[name] = max(largest[name], float(np.abs(feature).max()))
    # The calibration ran the same graph, with ONNX Runtime's optimisations: sums in another order, over as many terms
    # as lie on a path through the network.
    rounding = likely(sum(array[0].size for name, array in constants(fp32).items() if array.ndim == 4))
    for name, step in steps.items():
        assert 127 * step == pytest.approx(largest[name], rel=rounding), name


def test_int8_is_explicit_symmetric_and_by_output_channel(int8: onnx.ModelProto) -> None:
    graph = int8.graph
    held = constants(int8)
    made = {name: node for node in graph.node for name in node.output}
    trunk = [n for n in graph.node if n.op_type == "Conv" and n.name.startswith(("backbone.", "semantic."))]
    assert len(trunk) > 60
    for node in trunk:
        features, weight = (made[name] for name in node.input[:2])
        assert (features.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        values, scales, zeros = (held[name] for name in weight.input)
        assert values.dtype == np.int8
        assert scales.shape == (len(values),)
        assert not zeros.any()
        assert made[features.input[0]].op_type == "QuantizeLinear"
        assert held[features.input[1]].shape == ()
        assert held[features.input[2]].dtype == np.int8
        assert held[features.input[2]] == 0


def test_int8_leaves_heads_and_ops_alone_unless_asked(int8: onnx.ModelProto, tmp_path: Path) -> None:
    def rounded(model: onnx.ModelProto, kinds: set[str]) -> set[bool]:
        made = {name: node.op_type for node in model.graph.node for name in node.output}
        return {
            any(made.get(name) == "DequantizeLinear" for name in node.input)
            for node in model.graph.node
            if node.op_type in kinds and (node.domain or node.name.startswith("instance."))
        }

    ops = {"RpnProposals", "PyramidRoiAlign", "BoxDetections", "PanopticMerge"}
    assert rounded(int8, {"Conv", "Gemm"}) == {False}
    assert rounded(int8, ops) == {False}
    with_heads = export(tmp_path / "heads.onnx", precision="int8", int8_heads=True)
    assert rounded(with_heads, {"Conv", "Gemm"}) == {True}
    assert rounded(with_heads, ops) == {False}
    onnxruntime.InferenceSession(with_heads.SerializeToString(), providers=["CPUExecutionProvider"])


def test_int8_for_old_tensorrt_has_no_functions_but_was_calibrated_with_them(tmp_path: Path) -> None:
    model = export(tmp_path / "m.onnx", precision="int8", target="tensorrt-10.3", batch=2, samples=frames(3))
    assert not model.functions
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}


def test_int8_without_frames_and_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(ExportError, match="int8 is calibrated on sample frames, and there are none"):
        to_onnx(lively(), path, **SIZE, precision="int8")
    with pytest.raises(ExportError, match=r"samples\[0\]: got \(256, 320, 3\) uint8, expected \(64, 64, 3\) uint8"):
        to_onnx(lively(), path, input_hw=(64, 64), precision="int8", samples=list(frames(1)))
    assert not list(tmp_path.iterdir())
