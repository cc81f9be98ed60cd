"""The CUDA kernels as a form of the ops: the signatures of `reference`, run in the simulation.

Shapes: as in OPS.md.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.plugins import contract
from panrt.plugins.contract import Detections, PanopticSegments, Proposals
from panrt.plugins.cuda_api import (
    BoxDetectionsArgs,
    DataType,
    MemoryLayout,
    NarrowMapArgs,
    OverlayArgs,
    PanopticMergeArgs,
    PixelFormat,
    PreprocessArgs,
    PyramidLevel,
    PyramidRoiAlignArgs,
    RpnLevel,
    RpnProposalsArgs,
    YuvStandard,
)
from panrt.plugins.schema import PYRAMID_ROI_ALIGN
from tools.hostcuda import At, Out, SimulatedGpu, Struct, kernels

Array = NDArray[Any]
Order = tuple[str, int]
FORWARD: Order = ("forward", 0)
WORKSPACE_OFFSET = 1  # bytes from where device memory is aligned: TensorRT promises no alignment of a workspace


def data_type(array: Array) -> DataType:
    """Return the element type of a feature map."""
    return DataType.FLOAT16 if array.dtype == np.float16 else DataType.FLOAT32


def pad_channels(features: Array) -> Array:
    """Return (N, H, W, C) with C rounded up to 8; the padding is NaN, which must not reach a result."""
    missing = -features.shape[-1] % 8
    return np.pad(features, [(0, 0), (0, 0), (0, 0), (0, missing)], constant_values=np.nan)


def pyramid_roi_align(
    features: Sequence[Array],
    rois: Array,
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
    min_level: int = 2,
    layout: str = "NCHW",
    gpu: SimulatedGpu,
    order: Order = FORWARD,
) -> Array:
    """Run `reference.pyramid_roi_align` on a GPU; for the layout "NHWC8" too, padding is added and removed here."""
    attributes = {
        "strides": strides,
        "output_size": output_size,
        "sampling_ratio": sampling_ratio,
        "canonical_size": canonical_size,
        "canonical_level": canonical_level,
        "min_level": min_level,
    }
    sizes = contract.check(
        PYRAMID_ROI_ALIGN, (features, rois), attributes, layout="NCHW" if layout == "NCHW" else "NHWC"
    )
    N, C, R, levels = sizes["N"], sizes["C"], sizes["R"], sizes.levels
    maps = [pad_channels(feature) for feature in features] if layout == "NHWC8" else list(features)
    pitch = maps[0].shape[-1] if layout == "NHWC8" else C
    S = output_size
    shape = (N * R, C, S, S) if layout == "NCHW" else (N * R, S, S, pitch)
    (pooled,) = gpu.launch(
        "panrt_cuda_pyramid_roi_align",
        Struct(
            PyramidRoiAlignArgs,
            levels=[
                Struct(PyramidLevel, data=data, height=level[0], width=level[1], stride=stride)
                for data, level, stride in zip(maps, levels, strides, strict=True)
            ],
            rois=rois,
            pooled=Out(shape, features[0].dtype),
            images=N,
            rois_per_image=R,
            level_count=len(maps),
            channels=C,
            output_size=S,
            sampling_ratio=sampling_ratio,
            canonical_size=canonical_size,
            canonical_level=canonical_level,
            min_level=min_level,
            type=data_type(features[0]),
            layout=MemoryLayout[layout],
        ),
        order,
    )
    return pooled[..., :C] if layout == "NHWC8" else pooled


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(kernels("plain")))


def workspace_bytes(op: str, struct: Struct) -> int:
    """Return the workspace that an op's kernels need; it depends on sizes and attributes alone, not on arrays."""
    filled = struct.kind()
    for name, value in struct.fields.items():
        if isinstance(value, list):
            for i, item in enumerate(value):
                entry = getattr(filled, name)
                if isinstance(item, Struct):
                    for field, number in item.fields.items():
                        if not isinstance(number, np.ndarray):
                            setattr(entry[i], field, number)
                else:
                    entry[i] = item
        elif not isinstance(value, (np.ndarray, Out)):
            setattr(filled, name, value)
    function = getattr(_library(), f"panrt_cuda_{op}_workspace_bytes")
    function.restype = ctypes.c_size_t
    size: int = function(ctypes.byref(filled), ctypes.c_size_t(ctypes.sizeof(filled)))
    return size


def launch(op: str, kind: type[ctypes.Structure], gpu: SimulatedGpu, order: Order, **fields: Any) -> list[Array]:
    """Call an op with a workspace of just the size that it asks for, of odd alignment; its outputs without that."""
    size = workspace_bytes(op, Struct(kind, **fields))
    workspace = Out((size,), np.uint8, offset=WORKSPACE_OFFSET)
    struct = Struct(kind, **fields, workspace=workspace, workspace_bytes=size)
    outputs = gpu.launch(f"panrt_cuda_{op}", struct, order)
    del outputs[sum(isinstance(fields.get(name), Out) for name, *_ in kind._fields_)]
    return outputs


def rpn_proposals(
    logits: Sequence[Array],
    deltas: Sequence[Array],
    *,
    strides: Sequence[int],
    anchor_sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_threshold: float,
    input_hw: tuple[int, int],
    gpu: SimulatedGpu,
    order: Order = FORWARD,
) -> Proposals:
    """Run `reference.rpn_proposals` on a GPU."""
    N, R = logits[0].shape[0], post_nms_top_k
    rois, roi_count = launch(
        "rpn_proposals",
        RpnProposalsArgs,
        gpu,
        order,
        levels=[
            Struct(RpnLevel, logits=x, deltas=d, height=x.shape[2], width=x.shape[3], stride=stride, anchor_size=size)
            for x, d, stride, size in zip(logits, deltas, strides, anchor_sizes, strict=True)
        ],
        aspect_ratios=list(aspect_ratios),
        rois=Out((N, R, 4), np.float32),
        roi_count=Out((N,), np.int32),
        images=N,
        level_count=len(logits),
        anchor_count=len(aspect_ratios),
        pre_nms_top_k=pre_nms_top_k,
        post_nms_top_k=R,
        nms_threshold=nms_threshold,
        input_height=input_hw[0],
        input_width=input_hw[1],
    )
    return Proposals(rois, roi_count)


def box_detections(
    class_logits: Array,
    box_deltas: Array,
    rois: Array,
    roi_count: Array,
    *,
    box_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    input_hw: tuple[int, int],
    gpu: SimulatedGpu,
    order: Order = FORWARD,
) -> Detections:
    """Run `reference.box_detections` on a GPU."""
    N, R, channels = class_logits.shape
    K = max_detections
    outputs = launch(
        "box_detections",
        BoxDetectionsArgs,
        gpu,
        order,
        class_logits=class_logits,
        box_deltas=box_deltas,
        rois=rois,
        roi_count=roi_count,
        boxes=Out((N, K, 4), np.float32),
        scores=Out((N, K), np.float32),
        classes=Out((N, K), np.int32),
        count=Out((N,), np.int32),
        images=N,
        rois_per_image=R,
        thing_classes=channels - 1,
        max_detections=K,
        box_weights=list(box_weights),
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        input_height=input_hw[0],
        input_width=input_hw[1],
    )
    return Detections(*outputs)


def panoptic_merge(
    semantic_logits: Array,
    boxes: Array,
    scores: Array,
    classes: Array,
    count: Array,
    mask_probs: Array,
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
    score_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
    mask_threshold: float = 0.5,
    gpu: SimulatedGpu,
    order: Order = FORWARD,
) -> PanopticSegments:
    """Run `reference.panoptic_merge` on a GPU; logits and probabilities may be float16 too."""
    N, S, h, w = semantic_logits.shape
    K, mask_height, mask_width = mask_probs.shape[1:]
    outputs = launch(
        "panoptic_merge",
        PanopticMergeArgs,
        gpu,
        order,
        semantic_logits=semantic_logits,
        boxes=boxes,
        scores=scores,
        classes=classes,
        count=count,
        mask_probs=mask_probs,
        panoptic=Out((N, *output_hw), np.int32),
        segments=Out((N, K + S, 8), np.int32),
        segment_scores=Out((N, K + S), np.float32),
        segment_count=Out((N,), np.int32),
        logit_type=data_type(semantic_logits),
        mask_type=data_type(mask_probs),
        images=N,
        detections=K,
        channels=S,
        height=h,
        width=w,
        mask_height=mask_height,
        mask_width=mask_width,
        input_height=input_hw[0],
        input_width=input_hw[1],
        output_height=output_hw[0],
        output_width=output_hw[1],
        score_threshold=score_threshold,
        overlap_threshold=overlap_threshold,
        stuff_area_limit=stuff_area_limit,
        mask_threshold=mask_threshold,
    )
    return PanopticSegments(*outputs)


def preprocess(
    frames: Array,
    *,
    pixel_format: str,
    resized_hw: tuple[int, int],
    output_hw: tuple[int, int],
    top_left: tuple[int, int] = (0, 0),
    border: Sequence[int] = (0, 0, 0),
    standard: str = "BT601",
    padding: int = 0,
    offset: int = 0,
    gpu: SimulatedGpu,
    order: Order = FORWARD,
) -> Array:
    """Run `frame_reference.preprocess` on a GPU, on frames (N, ...); rows are `padding` bytes longer than their pixels.

    Planes and output begin `offset` bytes from where device memory is aligned.
    """
    N, lines = frames.shape[:2]
    rows = np.pad(frames.reshape(N, lines, -1), [(0, 0), (0, 0), (0, padding)], constant_values=0xEE)
    pitch = rows.shape[2]
    height = lines * 2 // 3 if pixel_format == "NV12" else lines
    # Both planes of NV12 come as buffers of their own, frame_bytes apart in each.
    planes: dict[str, Array] = {"frame": rows}
    if pixel_format == "NV12":
        planes = {"frame": rows[:, :height], "chroma": np.pad(rows[:, height:], [(0, 0), (0, height // 2), (0, 0)])}
    (output,) = gpu.launch(
        "panrt_cuda_preprocess",
        Struct(
            PreprocessArgs,
            **{name: At(plane, offset) for name, plane in planes.items()},
            output=Out((N, *output_hw, 3), np.uint8, offset=offset),
            pitch=pitch,
            frame_bytes=height * pitch,
            images=N,
            format=PixelFormat[pixel_format],
            standard=YuvStandard[standard],
            height=height,
            width=frames.shape[2],
            resized_height=resized_hw[0],
            resized_width=resized_hw[1],
            top=top_left[0],
            left=top_left[1],
            output_height=output_hw[0],
            output_width=output_hw[1],
            border=[*border, 0],
        ),
        order,
    )
    return output


def overlay(
    frames: Array,
    panoptic: Array,
    colors: Array,
    *,
    opacity: float,
    border: int,
    offset: int = 0,
    gpu: SimulatedGpu,
    order: Order = FORWARD,
) -> Array:
    """Run `frame_reference.overlay` on frames (N, H, W, 3) and maps (N, h, w); arrays begin at `offset`."""
    (output,) = gpu.launch(
        "panrt_cuda_overlay",
        Struct(
            OverlayArgs,
            frame=At(frames, offset),
            panoptic=panoptic,
            colors=At(colors, offset),
            output=Out(frames.shape, np.uint8, offset=offset),
            images=len(frames),
            height=frames.shape[1],
            width=frames.shape[2],
            map_height=panoptic.shape[1],
            map_width=panoptic.shape[2],
            color_count=len(colors),
            opacity=round(256 * opacity),
            border=border,
        ),
        order,
    )
    return output


def narrow_map(ids: Array, dtype: type[np.integer[Any]], *, gpu: SimulatedGpu, order: Order = FORWARD) -> Array:
    """Run `frame_reference.narrow_map` on a GPU."""
    narrow = Out(ids.shape, dtype)
    struct = Struct(NarrowMapArgs, ids=ids, narrow=narrow, count=ids.size, bytes_per_id=np.dtype(dtype).itemsize)
    (result,) = gpu.launch("panrt_cuda_narrow_map", struct, order)
    return result
