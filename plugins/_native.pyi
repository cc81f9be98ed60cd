from collections.abc import Sequence

from .contract import Float32, Floating

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
