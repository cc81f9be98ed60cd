"""The four ops through plain ONNX Runtime: each call builds a model of one node and its function, and runs it.

Signatures and results are those of `panrt.plugins.reference`, without `layout`; sessions are kept for calls of the same
shapes and attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from panrt.plugins import contract, onnx_functions, schema
from panrt.plugins.contract import Detections, Float32, Floating, Int32, PanopticSegments, Proposals

Shape = tuple[int, ...]
Tensor = tuple[str, type[np.generic], Shape]
Options = dict[str, int | float | Sequence[int] | Sequence[float]]
Attributes = tuple[tuple[str, int | float | tuple[int | float, ...]], ...]

OPSET = 18


def rpn_proposals(
    logits: Sequence[Float32],
    deltas: Sequence[Float32],
    *,
    strides: Sequence[int],
    anchor_sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_threshold: float,
    input_hw: tuple[int, int],
    opset: int = OPSET,
) -> Proposals:
    N, R = logits[0].shape[0], post_nms_top_k
    inputs = {f"logits_{i}": array for i, array in enumerate(logits)}
    inputs |= {f"deltas_{i}": array for i, array in enumerate(deltas)}
    attributes: Options = {
        "strides": strides,
        "anchor_sizes": anchor_sizes,
        "aspect_ratios": aspect_ratios,
        "pre_nms_top_k": pre_nms_top_k,
        "post_nms_top_k": post_nms_top_k,
        "nms_threshold": nms_threshold,
        "input_hw": input_hw,
    }
    outputs = (("rois", np.float32, (N, R, 4)), ("roi_count", np.int32, (N,)))
    return Proposals(*run("RpnProposals", inputs, attributes, outputs, opset))


def pyramid_roi_align(
    features: Sequence[Floating],
    rois: Float32,
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
    min_level: int = 2,
    opset: int = OPSET,
) -> Floating:
    N, C = features[0].shape[:2]
    R, S = rois.shape[1], output_size
    inputs = {f"features_{i}": array for i, array in enumerate(features)} | {"rois": rois}
    attributes: Options = {
        "strides": strides,
        "output_size": output_size,
        "sampling_ratio": sampling_ratio,
        "canonical_size": canonical_size,
        "canonical_level": canonical_level,
        "min_level": min_level,
    }
    outputs = (("pooled", features[0].dtype.type, (N * R, C, S, S)),)
    (pooled,) = run("PyramidRoiAlign", inputs, attributes, outputs, opset)
    return pooled


def box_detections(
    class_logits: Float32,
    box_deltas: Float32,
    rois: Float32,
    roi_count: Int32,
    *,
    box_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    input_hw: tuple[int, int],
    opset: int = OPSET,
) -> Detections:
    N, K = class_logits.shape[0], max_detections
    inputs = {"class_logits": class_logits, "box_deltas": box_deltas, "rois": rois, "roi_count": roi_count}
    attributes: Options = {
        "box_weights": box_weights,
        "score_threshold": score_threshold,
        "nms_threshold": nms_threshold,
        "max_detections": max_detections,
        "input_hw": input_hw,
    }
    outputs = (
        ("boxes", np.float32, (N, K, 4)),
        ("scores", np.float32, (N, K)),
        ("classes", np.int32, (N, K)),
        ("count", np.int32, (N,)),
    )
    return Detections(*run("BoxDetections", inputs, attributes, outputs, opset))


def panoptic_merge(
    semantic_logits: Float32,
    boxes: Float32,
    scores: Float32,
    classes: Int32,
    count: Int32,
    mask_probs: Float32,
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
    score_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
    mask_threshold: float = 0.5,
    opset: int = OPSET,
) -> PanopticSegments:
    N, S = semantic_logits.shape[:2]
    K, (H, W) = boxes.shape[1], output_hw
    inputs = {
        "semantic_logits": semantic_logits,
        "boxes": boxes,
        "scores": scores,
        "classes": classes,
        "count": count,
        "mask_probs": mask_probs,
    }
    attributes: Options = {
        "input_hw": input_hw,
        "output_hw": output_hw,
        "score_threshold": score_threshold,
        "overlap_threshold": overlap_threshold,
        "stuff_area_limit": stuff_area_limit,
        "mask_threshold": mask_threshold,
    }
    outputs = (
        ("panoptic", np.int32, (N, H, W)),
        ("segments", np.int32, (N, K + S, 8)),
        ("segment_scores", np.float32, (N, K + S)),
        ("segment_count", np.int32, (N,)),
    )
    return PanopticSegments(*run("PanopticMerge", inputs, attributes, outputs, opset))


def box_detections_2(
    class_logits: Float32,
    box_deltas: Float32,
    rois: Float32,
    roi_count: Int32,
    thresholds: Float32,
    *,
    opset: int = OPSET,
    **attributes: Any,
) -> Detections:
    tensors = (class_logits, box_deltas, rois, roi_count, thresholds)
    return Detections(*run_declared(schema.BOX_DETECTIONS_2, tensors, attributes, opset))


def panoptic_merge_2(*tensors: NDArray[Any], opset: int = OPSET, **attributes: Any) -> PanopticSegments:
    return PanopticSegments(*run_declared(schema.PANOPTIC_MERGE_2, tensors, attributes, opset))


def run_declared(
    op: schema.Op, tensors: Sequence[NDArray[Any]], attributes: dict[str, Any], opset: int
) -> list[NDArray[Any]]:
    """Of an op without levels or features."""
    inputs = {tensor.name: array for tensor, array in zip(op.inputs, tensors, strict=True)}
    made = contract.outputs(op, contract.sizes_of(op, tensors, attributes))
    outputs = tuple((t.name, array.dtype.type, array.shape) for t, array in zip(op.outputs, made, strict=True))
    return run(op.name, inputs, attributes, outputs, opset)


def run(
    op_type: str,
    inputs: dict[str, NDArray[Any]],
    attributes: Options,
    outputs: tuple[Tensor, ...],
    opset: int,
) -> list[NDArray[Any]]:
    tensors = tuple((name, array.dtype.type, array.shape) for name, array in inputs.items())
    frozen = tuple((key, tuple(value) if isinstance(value, Sequence) else value) for key, value in attributes.items())
    results: list[NDArray[Any]] = session(op_type, tensors, frozen, outputs, opset).run(None, inputs)
    return results


@lru_cache(maxsize=256)
def session(
    op_type: str, inputs: tuple[Tensor, ...], attributes: Attributes, outputs: tuple[Tensor, ...], opset: int
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = one_op_model(op_type, inputs, attributes, outputs, opset)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def one_op_model(
    op_type: str, inputs: tuple[Tensor, ...], attributes: Attributes, outputs: tuple[Tensor, ...], opset: int = OPSET
) -> onnx.ModelProto:
    """A model of one node, with its function; every input and output has its full shape."""
    node = onnx_functions.make_node(
        op_type, [name for name, *_ in inputs], [name for name, *_ in outputs], name=op_type, **dict(attributes)
    )
    graph = helper.make_graph([node], op_type, [tensor_info(*t) for t in inputs], [tensor_info(*t) for t in outputs])
    # IR version 10 is the newest that every ONNX Runtime since 1.20 reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx_functions.add_functions(model)
    return model


def tensor_info(name: str, dtype: type[np.generic], shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
