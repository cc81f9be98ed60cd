"""TensorRT for RTX takes the plugins: models of one op are parsed and built into engines, on the CPU.

No kernel runs here; what is shown is that the builder accepts the plugins' shapes, types, formats and fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from panrt.plugins.library import PluginLibrary
from support import rtx
from support.onnx_ops import Tensor, one_op_model
from tools.plugin_library import plugin_library

F16, F32, I32 = np.float16, np.float32, np.int32


@pytest.fixture(scope="module")
def library() -> PluginLibrary:
    return plugin_library("auto")


def model(op: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], **attributes: Any) -> onnx.ModelProto:
    return one_op_model(op, inputs, tuple(attributes.items()), outputs, 21)


def rpn_proposals() -> onnx.ModelProto:
    logits = tuple((f"logits_{i}", F32, (1, 3, 32 >> i, 40 >> i)) for i in range(2))
    deltas = tuple((f"deltas_{i}", F32, (1, 12, 32 >> i, 40 >> i)) for i in range(2))
    return model(
        "RpnProposals",
        logits + deltas,
        (("rois", F32, (1, 50, 4)), ("roi_count", I32, (1,))),
        strides=(4, 8),
        anchor_sizes=(32.0, 64.0),
        aspect_ratios=(0.5, 1.0, 2.0),
        pre_nms_top_k=100,
        post_nms_top_k=50,
        nms_threshold=0.7,
        input_hw=(128, 160),
    )


def pyramid_roi_align(dtype: type[np.generic] = F32, *, channels: int = 256) -> onnx.ModelProto:
    features: tuple[Tensor, ...] = tuple((f"features_{i}", dtype, (1, channels, 32 >> i, 40 >> i)) for i in range(4))
    return model(
        "PyramidRoiAlign",
        (*features, ("rois", F32, (1, 50, 4))),
        (("pooled", dtype, (50, channels, 7, 7)),),
        strides=(4, 8, 16, 32),
        output_size=7,
        sampling_ratio=0,
        canonical_size=224.0,
        canonical_level=4,
        min_level=2,
    )


def box_detections() -> onnx.ModelProto:
    return model(
        "BoxDetections",
        (
            ("class_logits", F32, (1, 50, 6)),
            ("box_deltas", F32, (1, 50, 20)),
            ("rois", F32, (1, 50, 4)),
            ("roi_count", I32, (1,)),
        ),
        (
            ("boxes", F32, (1, 20, 4)),
            ("scores", F32, (1, 20)),
            ("classes", I32, (1, 20)),
            ("count", I32, (1,)),
        ),
        box_weights=(10.0, 10.0, 5.0, 5.0),
        score_threshold=0.05,
        nms_threshold=0.5,
        max_detections=20,
        input_hw=(128, 160),
    )


def panoptic_merge(dtype: type[np.generic] = F32) -> onnx.ModelProto:
    return model(
        "PanopticMerge",
        (
            ("semantic_logits", dtype, (1, 8, 32, 40)),
            ("boxes", F32, (1, 20, 4)),
            ("scores", F32, (1, 20)),
            ("classes", I32, (1, 20)),
            ("count", I32, (1,)),
            ("mask_probs", dtype, (1, 20, 28, 28)),
        ),
        (
            ("panoptic", I32, (1, 256, 320)),
            ("segments", I32, (1, 28, 8)),
            ("segment_scores", F32, (1, 28)),
            ("segment_count", I32, (1,)),
        ),
        input_hw=(128, 160),
        output_hw=(256, 320),
        score_threshold=0.5,
        overlap_threshold=0.5,
        stuff_area_limit=64,
        mask_threshold=0.5,
    )


MODELS = {
    "RpnProposals": rpn_proposals(),
    "PyramidRoiAlign-fp32": pyramid_roi_align(),
    "PyramidRoiAlign-fp16": pyramid_roi_align(F16),
    "BoxDetections": box_detections(),
    "PanopticMerge-fp32": panoptic_merge(),
    "PanopticMerge-fp16": panoptic_merge(F16),
}
TYPES = {TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF", TensorProto.INT32: "INT32"}


def outputs_of(graph: onnx.GraphProto) -> list[tuple[str, tuple[int, ...]]]:
    tensors = [output.type.tensor_type for output in graph.output]
    return [(TYPES[t.elem_type], tuple(d.dim_value for d in t.shape.dim)) for t in tensors]


@pytest.mark.parametrize("name", MODELS)
def test_an_op_becomes_one_plugin_layer_and_the_same_engine_twice(
    name: str, library: PluginLibrary, tmp_path: Path
) -> None:
    built = rtx.build(MODELS[name], library, tmp_path, times=2)
    assert (built.errors, built.refusals) == ([], [])
    (layer,) = built.layers
    assert layer.type == "PLUGIN_V3"
    assert layer.metadata == f"[ONNX Layer: {name.split('-', maxsplit=1)[0]}]"
    assert layer.outputs == outputs_of(MODELS[name].graph)
    first, second = built.engines
    assert first is not None
    assert first == second
    # The parser names every attribute that a plugin reads and a node does not have.
    assert [line for line in built.log if "plugin" in line.lower()] == []


def test_features_between_convolutions_are_taken_in_float16(library: PluginLibrary, tmp_path: Path) -> None:
    """Between convolutions the builder may choose the channels-last formats that the plugin offers."""
    built = rtx.build(between_convolutions(pyramid_roi_align(F16, channels=64)), library, tmp_path)
    assert built.refusals == []
    assert built.engines[0] is not None
    assert [layer.type for layer in built.layers].count("PLUGIN_V3") == 1
    assert [layer.type for layer in built.layers].count("CONVOLUTION") == 5


def between_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    weights = np.random.default_rng(0).normal(size=(64, 64, 1, 1)).astype(F16)
    graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    (node,) = graph.node
    for i in range(4):
        node.input[i] = f"convolved_{i}"
        graph.node.insert(
            i, helper.make_node("Conv", [f"features_{i}", "weights"], [node.input[i]], name=f"before_{i}")
        )
    node.output[0] = "raw"
    graph.node.append(helper.make_node("Conv", ["raw", "weights"], ["pooled"], name="after"))
    return model


def test_a_batch_that_is_not_known_builds_with_a_profile(library: PluginLibrary, tmp_path: Path) -> None:
    model = panoptic_merge()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    built = rtx.build(model, library, tmp_path)
    assert built.refusals == []
    assert built.engines[0] is not None
    assert built.layers[0].outputs[0] == ("INT32", (-1, 256, 320))


def test_a_refusal_reaches_the_caller_with_op_input_and_reason(library: PluginLibrary, tmp_path: Path) -> None:
    model = box_detections()
    model.graph.input[2].type.tensor_type.shape.dim[2].dim_value = 5
    built = rtx.build(model, library, tmp_path)
    assert not built.parsed
    assert built.refusals[0] == (
        "PanRT BoxDetections: input rois: expected shape (N, R, 4) with N = 1, R = 50, got (1, 50, 5)"
    )


def test_an_attribute_out_of_range_is_refused_while_parsing(library: PluginLibrary, tmp_path: Path) -> None:
    model = rpn_proposals()
    (attribute,) = (a for a in model.graph.node[0].attribute if a.name == "nms_threshold")
    attribute.f = 7.0
    built = rtx.build(model, library, tmp_path)
    assert not built.parsed
    assert built.refusals[0].endswith("attribute nms_threshold: expected a number from 0 to 1, got 7")


def test_without_the_plugins_there_is_no_engine(library: PluginLibrary, tmp_path: Path) -> None:
    built = rtx.build(box_detections(), library, tmp_path, with_plugins=False)
    assert built.engines in ([], [None])
    assert built.errors or built.log
