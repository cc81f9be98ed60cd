# Written by tools/generate_ops.py: the functions of ops from plugins/schema.py, the others as they are here.
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .contract import Float32, Floating, Int32

def rpn_proposals(
    logits: Sequence[Float32],
    deltas: Sequence[Float32],
    rois: Float32,
    roi_count: Int32,
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
    features: Sequence[Floating],
    rois: Float32,
    pooled: Floating,
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
    class_logits: Float32,
    box_deltas: Float32,
    rois: Float32,
    roi_count: Int32,
    boxes: Float32,
    scores: Float32,
    classes: Int32,
    count: Int32,
    *,
    box_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    input_height: int,
    input_width: int,
    threads: int,
) -> None: ...
def panoptic_merge(
    semantic_logits: Float32,
    boxes: Float32,
    scores: Float32,
    classes: Int32,
    count: Int32,
    mask_probs: Float32,
    panoptic: Int32,
    segments: Int32,
    segment_scores: Float32,
    segment_count: Int32,
    *,
    input_height: int,
    input_width: int,
    score_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
    mask_threshold: float,
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
