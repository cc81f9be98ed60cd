# Written by tools/generate_ops.py: functions and attributes of ops from plugins/schema.py, the others as they are here.
# The types of attributes are for the type checker alone: the compiled module does not have them.
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import NotRequired, TypedDict

from .contract import Float32, Floating, Int32

class RpnProposalsAttributes(TypedDict):
    strides: Sequence[int]  # pixels per cell
    anchor_sizes: Sequence[float]  # side of the square anchor
    aspect_ratios: Sequence[float]  # height / width
    pre_nms_top_k: int  # maximum number of candidates per level that enter NMS
    post_nms_top_k: int  # proposals per image
    nms_threshold: float  # IoU above which a box is suppressed
    input_hw: tuple[int, int]  # valid size of the network input

class PyramidRoiAlignAttributes(TypedDict):
    strides: Sequence[int]  # pixels per cell
    output_size: int  # bins per axis
    sampling_ratio: int  # samples per bin and axis; 0 is adaptive
    canonical_size: NotRequired[float]  # side of a RoI of canonical_level, pixels; 224.0
    canonical_level: NotRequired[int]  # level for RoIs of canonical_size; 4
    min_level: NotRequired[int]  # level of features_0; 2

class BoxDetectionsAttributes(TypedDict):
    box_weights: Sequence[float]  # by which the deltas are divided
    score_threshold: float  # probability that a detection must exceed
    nms_threshold: float  # IoU above which a box is suppressed
    max_detections: int  # detections per image
    input_hw: tuple[int, int]  # valid size of the network input

class PanopticMergeAttributes(TypedDict):
    input_hw: tuple[int, int]  # valid size of the network input
    output_hw: tuple[int, int]  # size of the panoptic map
    score_threshold: float  # smallest score of an instance
    overlap_threshold: float  # largest occluded share of an instance
    stuff_area_limit: int  # smallest stuff segment
    mask_threshold: NotRequired[float]  # smallest probability inside a mask; 0.5

class BoxDetections2Attributes(TypedDict):
    box_weights: Sequence[float]  # by which the deltas are divided
    max_detections: int  # detections per image
    input_hw: tuple[int, int]  # valid size of the network input

class PanopticMerge2Attributes(TypedDict):
    input_hw: tuple[int, int]  # valid size of the network input
    output_hw: tuple[int, int]  # size of the panoptic map

def rpn_proposals(
    logits: Sequence[Float32],  # (N, A, H, W)
    deltas: Sequence[Float32],  # (N, 4A, H, W)
    rois: Float32,  # (N, R, 4)
    roi_count: Int32,  # (N,)
    *,
    strides: Sequence[float],
    anchor_sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    pre_nms_top_k: int,
    nms_threshold: float,
    input_height: int,
    input_width: int,
    threads: int,
) -> None: ...
def pyramid_roi_align(
    features: Sequence[Floating],  # (N, C, H, W)
    rois: Float32,  # (N, R, 4)
    pooled: Floating,  # (N*R, C, S, S)
    *,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int,
    canonical_size: float,
    canonical_level: int,
    min_level: int,
    nhwc: bool,
    threads: int,
) -> None: ...
def box_detections(
    class_logits: Float32,  # (N, R, C+1)
    box_deltas: Float32,  # (N, R, 4C)
    rois: Float32,  # (N, R, 4)
    roi_count: Int32,  # (N,)
    boxes: Float32,  # (N, K, 4)
    scores: Float32,  # (N, K)
    classes: Int32,  # (N, K)
    count: Int32,  # (N,)
    *,
    box_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    input_height: int,
    input_width: int,
    threads: int,
) -> None: ...
def panoptic_merge(
    semantic_logits: Float32,  # (N, S, h, w)
    boxes: Float32,  # (N, K, 4)
    scores: Float32,  # (N, K)
    classes: Int32,  # (N, K)
    count: Int32,  # (N,)
    mask_probs: Float32,  # (N, K, Gh, Gw)
    panoptic: Int32,  # (N, H, W)
    segments: Int32,  # (N, K+S, 8)
    segment_scores: Float32,  # (N, K+S)
    segment_count: Int32,  # (N,)
    *,
    input_height: int,
    input_width: int,
    score_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
    mask_threshold: float,
    threads: int,
) -> None: ...
def box_detections_2(
    class_logits: Float32,  # (N, R, C+1)
    box_deltas: Float32,  # (N, R, 4C)
    rois: Float32,  # (N, R, 4)
    roi_count: Int32,  # (N,)
    thresholds: Float32,  # (C+1,)
    boxes: Float32,  # (N, K, 4)
    scores: Float32,  # (N, K)
    classes: Int32,  # (N, K)
    count: Int32,  # (N,)
    *,
    box_weights: Sequence[float],
    input_height: int,
    input_width: int,
    threads: int,
) -> None: ...
def panoptic_merge_2(
    semantic_logits: Float32,  # (N, S, h, w)
    boxes: Float32,  # (N, K, 4)
    scores: Float32,  # (N, K)
    classes: Int32,  # (N, K)
    count: Int32,  # (N,)
    mask_probs: Float32,  # (N, K, Gh, Gw)
    thresholds: Float32,  # (3,)
    stuff_area_limits: Int32,  # (S,)
    panoptic: Int32,  # (N, H, W)
    segments: Int32,  # (N, K+S, 8)
    segment_scores: Float32,  # (N, K+S)
    segment_count: Int32,  # (N,)
    *,
    input_height: int,
    input_width: int,
    threads: int,
) -> None: ...
def conv3x3_variants() -> list[str]: ...
def conv3x3_workspace(channels: int, filters: int) -> int: ...
def conv3x3(
    input: Float32,
    weights: Float32,
    bias: Float32,
    output: Float32,
    workspace: Float32,
    *,
    lower: float,
    upper: float,
    variant: int,
    threads: int,
) -> None: ...
def skip_destructors() -> None: ...
def look_up(image: NDArray[np.uint8], table: Float32, output: Float32, *, threads: int) -> None: ...
def overlay(
    frame: NDArray[np.uint8],
    panoptic: Int32,
    colors: NDArray[np.uint8],
    result: NDArray[np.uint8],
    *,
    opacity: int,
    border: int,
    threads: int,
) -> None: ...
