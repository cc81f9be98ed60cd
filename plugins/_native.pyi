from collections.abc import Sequence

from .contract import Float32, Floating, Int32

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
