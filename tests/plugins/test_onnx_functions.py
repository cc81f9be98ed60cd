"""The ONNX functions: they equal the reference in plain ONNX Runtime, and make valid, portable models.

What all forms of the ops have in common is tested with them; here is what ONNX adds: bodies, attributes, opsets, shapes
that a graph knows, and the places where ONNX Runtime alone would go another way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper

from panrt.plugins import nodes, onnx_functions, reference, schema
from panrt.plugins.contract import Detections, PanopticSegments, Proposals
from support import onnx_ops

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "merge"
OPSETS = range(onnx_functions.SMALLEST_OPSET, onnx_functions.LARGEST_OPSET + 1)
OPS = ["RpnProposals", "PyramidRoiAlign", "BoxDetections", "PanopticMerge"]  # each with a call below

Array = NDArray[Any]
Call = tuple[tuple[Any, ...], dict[str, Any]]  # of an op: its arrays and its options


def run(module: Any, op_type: str, call: Call, **more: Any) -> Any:
    names = {
        "RpnProposals": "rpn_proposals",
        "PyramidRoiAlign": "pyramid_roi_align",
        "BoxDetections": "box_detections",
        "PanopticMerge": "panoptic_merge",
    }
    arrays, options = call
    return getattr(module, names[op_type])(*arrays, **options, **more)


def assert_agrees(op_type: str, call: Call, **more: Any) -> None:
    """ONNX Runtime gives what the reference gives: to the bit, pooled features to 1e-5 of the largest."""
    with np.errstate(invalid="ignore"):
        wanted = run(reference, op_type, call)
    got = run(onnx_ops, op_type, call, **more)
    if isinstance(wanted, (Proposals, Detections, PanopticSegments)):
        for name, a, b in zip(wanted._fields, got, wanted, strict=True):
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)
        return
    assert got.dtype == wanted.dtype
    features, largest = call[0][0], 1e-30
    for feature in features:
        largest = max(largest, float(np.abs(feature[np.isfinite(feature)]).max(initial=0)))
    tolerance = (1e-5 if wanted.dtype == np.float32 else 2e-3) * largest
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    np.testing.assert_allclose(got[finite], wanted[finite], rtol=0, atol=tolerance)


# --- calls of the ops -------------------------------------------------------------------------------------------------


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def some_boxes(seed: int, N: int, R: int, size: float) -> NDArray[np.float32]:
    """(N, R, 4), some of them reaching out of [0, size]."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-0.2 * size, 0.9 * size, (N, R, 2))
    return np.concatenate([low, low + rng.uniform(1, 0.6 * size, (N, R, 2))], axis=-1).astype(np.float32)


def proposals_call(N: int = 2, **options: Any) -> Call:
    """Logits are multiples of 1/4, so that many are equal."""
    sizes = ((6, 8), (3, 4), (2, 2))
    logits = [np.round(4 * normal(i, N, 2, *hw)) / 4 for i, hw in enumerate(sizes)]
    deltas = [normal(9 + i, N, 8, *hw) / 2 for i, hw in enumerate(sizes)]
    defaults = {
        "strides": (4, 8, 16),
        "anchor_sizes": (8.0, 16.0, 33.3),
        "aspect_ratios": (0.5, 2.0),
        "pre_nms_top_k": 40,
        "post_nms_top_k": 30,
        "nms_threshold": 0.5,
        "input_hw": (23, 31),
    }
    return (logits, deltas), defaults | options


def pooling_call(rois: Array | None = None, dtype: type[np.generic] = np.float32, **options: Any) -> Call:
    sizes = ((6, 8), (3, 4), (1, 1))
    features = [normal(i, 2, 3, *hw).astype(dtype) for i, hw in enumerate(sizes)]
    defaults = {
        "strides": (4, 8, 16),
        "output_size": 3,
        "sampling_ratio": 0,
        "canonical_size": 12.0,
        "canonical_level": 3,
        "min_level": 2,
    }
    return (features, some_boxes(3, 2, 12, 32) if rois is None else rois), defaults | options


def detections_call(N: int = 2, R: int = 12, count: int = 100, **options: Any) -> Call:
    C = 3
    logits = np.round(2 * normal(1, N, R, C + 1)) / 2
    arrays = (logits, normal(2, N, R, 4 * C), some_boxes(3, N, R, 32), np.full(N, count, np.int32))
    defaults = {
        "box_weights": (10.0, 10.0, 5.0, 5.0),
        "score_threshold": 0.1,
        "nms_threshold": 0.4,
        "max_detections": 20,
        "input_hw": (23, 31),
    }
    return arrays, defaults | options


def merge_call(N: int = 2, K: int = 8, S: int = 4, count: int = 100, **options: Any) -> Call:
    rng = np.random.default_rng(4)
    arrays = (
        normal(5, N, S, 6, 8),
        some_boxes(6, N, K, 24),
        np.round(rng.uniform(0, 1, (N, K)) * 8).astype(np.float32) / 8,
        rng.integers(0, 80, (N, K)).astype(np.int32),
        np.full(N, count, np.int32),
        rng.uniform(0.2, 1, (N, K, 28, 28)).astype(np.float32),
    )
    defaults = {
        "input_hw": (22, 31),
        "output_hw": (33, 40),
        "score_threshold": 0.25,
        "overlap_threshold": 0.5,
        "stuff_area_limit": 30,
    }
    return arrays, defaults | options


CALLS: dict[str, Callable[..., Call]] = {
    "RpnProposals": proposals_call,
    "PyramidRoiAlign": pooling_call,
    "BoxDetections": detections_call,
    "PanopticMerge": merge_call,
}


def with_values(call: Call, array: int, value: float, every: int) -> Call:
    """The call with each `every`-th element of one of its arrays (of the first level) replaced."""
    arrays, options = list(call[0]), call[1]
    if isinstance(arrays[array], list):
        changed = arrays[array] = [level.copy() for level in arrays[array]]
        changed[0].reshape(-1)[::every] = value
    else:
        arrays[array] = arrays[array].copy()
        arrays[array].reshape(-1)[::every] = value
    return tuple(arrays), options


def special_rois() -> Array:
    good = [2.0, 3.0, 17.0, 20.0]
    bad = [[0, 0, 0, 0], [5, 5, 5, 9], [9, 9, 5, 5], [5, 9, 9, 5], [2, 3, np.nan, 20], [2, 3, np.inf, 20]]
    far = [[-65537.0, 0, 10, 10], [0, 0, 10, 65536.5], [1e30, 1e30, 2e30, 2e30]]
    outside = [[-9.0, -9, -3, -3], [40, 40, 60, 50], [-8, -8, 60, 40], [28, -5, 36, 3]]
    return np.array([[good, *bad, *far], [*outside, good, *bad[:5]]], np.float32)


# OPS.md, section 6, row by row.
EDGE_CASES: dict[str, tuple[str, Call]] = {
    "no rois, pooled": ("PyramidRoiAlign", pooling_call(np.zeros((2, 0, 4), np.float32))),
    "no rois, detected": ("BoxDetections", detections_call(R=0)),
    "no real rois": ("BoxDetections", detections_call(count=0)),
    "no logit finite, proposals": ("RpnProposals", with_values(proposals_call(), 0, np.nan, 1)),
    "no logit finite, detections": ("BoxDetections", with_values(detections_call(), 0, -np.inf, 1)),
    "every detection under the threshold": ("BoxDetections", detections_call(score_threshold=1.0)),
    "no instances": ("PanopticMerge", merge_call(K=0)),
    "no real instances": ("PanopticMerge", merge_call(count=0)),
    "every instance under the threshold": ("PanopticMerge", merge_call(score_threshold=1.5)),
    "R larger than the candidates": ("RpnProposals", proposals_call(post_nms_top_k=500)),
    "R smaller than the candidates": ("RpnProposals", proposals_call(post_nms_top_k=3)),
    "one candidate a level": ("RpnProposals", proposals_call(pre_nms_top_k=1)),
    "K larger than the candidates": ("BoxDetections", detections_call(max_detections=500)),
    "K smaller than the candidates": ("BoxDetections", detections_call(max_detections=2)),
    "count negative, detections": ("BoxDetections", detections_call(count=-3)),
    "count within the rows, detections": ("BoxDetections", detections_call(count=5)),
    "count negative, merge": ("PanopticMerge", merge_call(count=-3)),
    "count within the rows, merge": ("PanopticMerge", merge_call(count=3)),
    "rois empty, inverted, not finite, far, outside": ("PyramidRoiAlign", pooling_call(special_rois())),
    "the same, two samples a bin": ("PyramidRoiAlign", pooling_call(special_rois(), sampling_ratio=2)),
    "bins finer than cells": ("PyramidRoiAlign", pooling_call(output_size=14)),
    "rois thinner than rounding": (
        "PyramidRoiAlign",
        pooling_call(np.array([[[9, 3, np.nextafter(np.float32(9), np.float32(10)), 8]] * 2] * 2, np.float32)),
    ),
    "deltas that overflow, proposals": ("RpnProposals", with_values(proposals_call(), 1, 3e38, 7)),
    "deltas not finite, proposals": ("RpnProposals", with_values(proposals_call(), 1, np.nan, 7)),
    "proposals empty after clipping": ("RpnProposals", with_values(proposals_call(), 1, -100.0, 3)),
    "deltas that overflow, detections": ("BoxDetections", with_values(detections_call(), 1, 3e38, 31)),
    "deltas not finite, detections": ("BoxDetections", with_values(detections_call(), 1, np.nan, 31)),
    "logits infinite, detections": ("BoxDetections", with_values(detections_call(), 0, np.inf, 23)),
    "logits minus infinite, detections": ("BoxDetections", with_values(detections_call(), 0, -np.inf, 5)),
    "detections empty after clipping": ("BoxDetections", with_values(detections_call(), 1, -100.0, 3)),
    "detections inverted": ("BoxDetections", with_values(detections_call(), 2, 500.0, 4)),
    "a mask with no pixel at the threshold": ("PanopticMerge", merge_call(mask_threshold=1.0)),
    "a mask that reaches beyond its box": ("PanopticMerge", merge_call(mask_threshold=0.1)),
    "masks not finite": ("PanopticMerge", with_values(merge_call(), 5, np.nan, 3)),
    "scores not a number": ("PanopticMerge", with_values(merge_call(), 2, np.nan, 3)),
    "boxes not finite": ("PanopticMerge", with_values(merge_call(), 1, np.nan, 9)),
    "boxes infinite": ("PanopticMerge", with_values(merge_call(), 1, np.inf, 7)),
    "semantic logits not a number": ("PanopticMerge", with_values(merge_call(), 0, np.nan, 3)),
    "semantic logits infinite": ("PanopticMerge", with_values(merge_call(), 0, np.inf, 5)),
    "valid size equal to the padded size": ("PanopticMerge", merge_call(input_hw=(24, 32))),
    "output of the valid size": ("PanopticMerge", merge_call(output_hw=(22, 31))),
    "output smaller": ("PanopticMerge", merge_call(output_hw=(9, 5))),
    "output of one pixel": ("PanopticMerge", merge_call(output_hw=(1, 1))),
    "no stuff": ("PanopticMerge", merge_call(S=1)),
    "no limit of stuff": ("PanopticMerge", merge_call(S=30, stuff_area_limit=0)),
    "every overlap accepted": ("PanopticMerge", merge_call(overlap_threshold=1.0)),
    "no overlap accepted": ("PanopticMerge", merge_call(overlap_threshold=0.0)),
}


@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases_equal_the_reference(case: str) -> None:
    assert_agrees(*EDGE_CASES[case])


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("op_type", OPS)
def test_every_opset_gives_the_result_of_the_reference(op_type: str, opset: int) -> None:
    assert_agrees(op_type, CALLS[op_type](), opset=opset)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda path: path.stem)
def test_detectron2s_merges_equal_the_reference(path: Path) -> None:
    case = np.load(path)
    names = ("semantic_logits", "boxes", "scores", "classes", "count", "mask_probs")
    types = (np.float32, np.float32, np.float32, np.int32, np.int32, np.float32)
    values = {**case, "count": np.int32(len(case["boxes"]))}
    arrays = tuple(np.ascontiguousarray(values[name][None], dtype) for name, dtype in zip(names, types, strict=True))
    options = {
        "input_hw": tuple(case["input_hw"].tolist()),
        "output_hw": tuple(case["output_hw"].tolist()),
        "score_threshold": float(case["instance_score_threshold"]),
        "overlap_threshold": float(case["overlap_threshold"]),
        "stuff_area_limit": int(case["stuff_area_limit"]),
    }
    assert_agrees("PanopticMerge", (arrays, options))
    assert int(run(onnx_ops, "PanopticMerge", (arrays, options)).segment_count[0]) == len(case["seg_id"])


def test_half_precision_features_pool_to_half_precision() -> None:
    assert_agrees("PyramidRoiAlign", pooling_call(dtype=np.float16))


def test_the_merge_takes_half_precision_logits_and_masks() -> None:
    (logits, *detections, masks), options = merge_call()
    half = (logits.astype(np.float16), *detections, masks.astype(np.float16))
    full = (half[0].astype(np.float32), *detections, half[-1].astype(np.float32))
    wanted = run(reference, "PanopticMerge", (full, options))
    for a, b in zip(run(onnx_ops, "PanopticMerge", (half, options)), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_there_may_be_more_instances_than_a_byte_counts() -> None:
    K = 300
    boxes = np.array([[[k % 20, k // 20, k % 20 + 1, k // 20 + 1] for k in range(K)]], np.float32)
    (logits, _, _, _, _, _), options = merge_call(1, input_hw=(15, 20), output_hw=(15, 20))
    arrays = (
        logits,
        boxes,
        np.ones((1, K), np.float32),
        np.zeros((1, K), np.int32),
        np.array([K], np.int32),
        np.ones((1, K, 1, 1), np.float32),
    )
    merged = run(onnx_ops, "PanopticMerge", (arrays, options))
    np.testing.assert_array_equal(merged.panoptic[0].reshape(-1), np.arange(1, K + 1))


# --- where ONNX Runtime alone would differ ----------------------------------------------------------------------------


def test_samples_on_the_border_of_a_level_count_where_the_stride_is_no_power_of_two() -> None:
    # The first sample of a row lies on -1: 1/3 must be rounded before the product, which a graph optimiser would drop.
    ones = np.ones((1, 1, 4, 2), np.float32)
    rois = np.array([[[-2, 3, 7, 6]]], np.float32)
    pooled = onnx_ops.pyramid_roi_align([ones], rois, strides=[3], output_size=3, sampling_ratio=3)
    np.testing.assert_array_equal(pooled, np.ones((1, 1, 3, 3), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_corner_that_is_not_finite_stays_out_of_bins_outside_the_level(value: float) -> None:
    feature = np.ones((1, 2, 4, 4), np.float32)
    feature[0, 0, 0, 0] = value
    # Samples of the first lie on cells 2.5 and 4.5, which is outside; those of the second on cells 0 and 1.
    rois = np.array([[[8, 8, 24, 24], [0, 0, 8, 8]]], np.float32)
    pooled = onnx_ops.pyramid_roi_align([feature], rois, strides=[4], output_size=2, sampling_ratio=1)
    np.testing.assert_array_equal(pooled[0], [[[1, 0], [0, 0]]] * 2)
    np.testing.assert_array_equal(pooled[1], [[[value, 1], [1, 1]], [[1, 1], [1, 1]]])


@pytest.mark.parametrize("op_type", OPS)
def test_no_level_of_graph_optimisation_changes_a_result(op_type: str) -> None:
    model, feeds = one_op(op_type)
    results = []
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = level
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(session.run(None, feeds))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", ["no real instances", "no instances", "no rois, pooled", "no rois, detected"])
def test_onnxruntime_has_nothing_to_warn_of(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    onnx_ops.session.cache_clear()
    op_type, call = EDGE_CASES[case]
    run(onnx_ops, op_type, call)
    assert capfd.readouterr().err == ""


# --- models -----------------------------------------------------------------------------------------------------------


def one_op(op_type: str, opset: int = 18) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model that `support.onnx_ops` runs for the op's usual call, and what it is fed."""
    seen: list[tuple[onnx.ModelProto, dict[str, Array]]] = []
    original = onnx_ops.session

    class Recorder:
        def __init__(self, *arguments: Any) -> None:
            self.arguments = arguments

        def run(self, _: None, feeds: dict[str, Array]) -> list[Array]:
            seen.append((onnx_ops.one_op_model(*self.arguments), feeds))
            return list(original(*self.arguments).run(None, feeds))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_ops, "session", Recorder)
        run(onnx_ops, op_type, CALLS[op_type](), opset=opset)
    return seen[0]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("op_type", OPS)
def test_the_checker_accepts_models_with_the_functions(op_type: str, opset: int) -> None:
    onnx.checker.check_model(one_op(op_type, opset)[0], full_check=True)


@pytest.mark.parametrize("op_type", OPS)
def test_shape_inference_finds_the_rank_and_type_of_every_output(op_type: str) -> None:
    model, _ = one_op(op_type)
    wanted = [output.type.tensor_type for output in model.graph.output]
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for output in bare.graph.output:
        output.ClearField("type")
        output.type.tensor_type.elem_type = onnx.TensorProto.UNDEFINED
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, check_type=True)
    found = [output.type.tensor_type for output in inferred.graph.output]
    assert [t.elem_type for t in found] == [t.elem_type for t in wanted]
    assert [len(t.shape.dim) for t in found] == [len(t.shape.dim) for t in wanted]


@pytest.mark.parametrize("op_type", OPS)
def test_bodies_are_standard_operators_and_declare_every_attribute_of_the_node(op_type: str) -> None:
    model, _ = one_op(op_type)
    (node,), (function,) = model.graph.node, model.functions
    assert (function.domain, function.name) == (node.domain, node.op_type) == ("panrt", op_type)
    assert [entry.domain for entry in function.opset_import] == [""]
    assert {entry.domain for entry in function.node} == {""}
    assert sorted(function.attribute) == sorted(attribute.name for attribute in node.attribute)
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert (values["plugin_namespace"], values["plugin_version"]) == (b"panrt", b"1")


@pytest.mark.parametrize("op_type", schema.SIZED)
def test_the_size_of_the_input_may_be_an_input(op_type: str) -> None:
    """One model for all sizes; the attributes say nothing."""
    model, feeds = one_op(op_type)
    (node,) = model.graph.node
    node.input.append(schema.INPUT_SIZE)
    for attribute in node.attribute:
        if attribute.name in ("input_hw", "output_hw"):
            attribute.ints[:] = (0, 0)
    model.graph.input.append(helper.make_tensor_value_info("input_size", onnx.TensorProto.INT64, [2]))
    for output in model.graph.output:
        for axis, dim in enumerate(output.type.tensor_type.shape.dim):
            dim.dim_param = f"{output.name}_{axis}"
    onnx_functions.add_functions(model)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    arrays, options = CALLS[op_type]()
    results = []
    for size in ((24, 32), (23, 31), (9, 17)):
        sizes = {name: size for name in options if name in ("input_hw", "output_hw")}
        wanted = run(reference, op_type, (arrays, options | sizes))
        results.append(session.run(None, {**feeds, "input_size": np.array(size)}))
        for a, b in zip(results[-1], wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(results[0][0], results[-1][0])


def test_one_model_has_no_op_both_with_its_size_open_and_fixed() -> None:
    model, _ = one_op("BoxDetections")
    model.graph.node.append(model.graph.node[0])
    model.graph.node[1].name = "again"
    model.graph.node[1].input.append(schema.INPUT_SIZE)
    with pytest.raises(ValueError, match=r"node 'again': expected BoxDetections of 4 inputs.*got 5"):
        onnx_functions.add_functions(model)
    model.graph.node[1].input.append("more")
    with pytest.raises(ValueError, match=r"BoxDetections: expected names for class_logits, .*'more'"):
        onnx_functions.add_functions(model)


def test_ops_run_one_after_the_other_in_a_graph_that_states_no_shapes() -> None:
    proposals, pooling = proposals_call()[1], pooling_call()[1]
    levels = range(3)
    nodes = [
        onnx_functions.make_node(
            "RpnProposals",
            [f"{kind}_{i}" for kind in ("logits", "deltas") for i in levels],
            ["rois", "roi_count"],
            **proposals,
        ),
        *(
            onnx_functions.make_node(
                "PyramidRoiAlign",
                [*(f"features_{i}" for i in levels), "rois"],
                [f"pooled_{size}"],
                **(pooling | {"output_size": size}),
            )
            for size in (7, 14)
        ),
    ]
    (logits, deltas), (features, _) = proposals_call()[0], pooling_call()[0]
    feeds = {
        f"{name}_{i}": array
        for name, arrays in (("logits", logits), ("deltas", deltas), ("features", features))
        for i, array in enumerate(arrays)
    }
    symbols = [[f"{name}_d{axis}" for axis in range(4)] for name in feeds]
    inputs = [helper.make_tensor_value_info(name, 1, shape) for name, shape in zip(feeds, symbols, strict=True)]
    outputs = [helper.make_tensor_value_info(name, 1, ["m", "c", "s", "t"]) for name in ("pooled_7", "pooled_14")]
    model = helper.make_model(
        helper.make_graph(nodes, "chain", inputs, outputs), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    onnx_functions.add_functions(model)
    assert [function.name for function in model.functions] == ["RpnProposals", "PyramidRoiAlign"]
    onnx.checker.check_model(model, full_check=True)

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rois = reference.rpn_proposals(logits, deltas, **proposals).rois
    for size, got in zip((7, 14), session.run(None, feeds), strict=True):
        wanted = reference.pyramid_roi_align(features, rois, **(pooling | {"output_size": size}))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


def test_adding_functions_again_replaces_them() -> None:
    model, _ = one_op("BoxDetections")
    once = model.SerializeToString(deterministic=True)
    onnx_functions.add_functions(model)
    assert model.SerializeToString(deterministic=True) == once


def test_functions_are_refused_to_models_that_cannot_hold_them() -> None:
    model, _ = one_op("PyramidRoiAlign")
    model.opset_import[0].version = 17
    with pytest.raises(ValueError, match=r"model: expected opset 18 to 21 of the default domain, got 17"):
        onnx_functions.add_functions(model)

    model.opset_import[0].version = 18
    model.graph.node.append(model.graph.node[0])
    model.graph.node[1].name = "masks"
    del model.graph.node[1].input[0]
    with pytest.raises(ValueError, match=r"node 'masks': expected PyramidRoiAlign of 4 inputs.*got 3"):
        onnx_functions.add_functions(model)

    model.graph.node[1].op_type = "Nms"
    with pytest.raises(ValueError, match=r"op_type: expected one of RpnProposals, .*got 'Nms'"):
        onnx_functions.add_functions(model)


def test_a_node_needs_every_input_output_and_attribute_of_its_op() -> None:
    options = detections_call()[1]
    inputs = nodes.input_names("BoxDetections", nodes.Form(1, False))
    outputs = onnx_functions.OUTPUTS["BoxDetections"]
    with pytest.raises(ValueError, match=r"BoxDetections: expected names for class_logits, .*got \['rois'\]"):
        onnx_functions.make_node("BoxDetections", ["rois"], outputs, **options)
    with pytest.raises(ValueError, match=r"BoxDetections: expected names for boxes, scores, classes, count, got"):
        onnx_functions.make_node("BoxDetections", inputs, ["boxes"], **options)
    with pytest.raises(ValueError, match=r"BoxDetections: expected the attributes box_weights, .*got score_threshold"):
        onnx_functions.make_node("BoxDetections", inputs, outputs, score_threshold=0.5)
    with pytest.raises(ValueError, match=r"RpnProposals: expected names for logits_0 \.\.\., deltas_0 \.\.\., got"):
        onnx_functions.make_node("RpnProposals", ["logits_0", "deltas_0", "logits_1"], ["rois", "roi_count"])
