"""The four ops on the CPU: C++ kernels behind the contract of `OPS.md`, with the signatures of `reference`.

Each function checks its arguments, allocates the result and calls the kernel, which runs on `threads` threads with the
GIL released; None takes every core that this process may use. Results do not depend on the number of threads.

Shapes: N images, R RoIs, C channels, S bins a side. Boxes are (x0, y0, x1, y1) in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import _native, contract
from .contract import Float32, Floating, Layout


def default_threads() -> int:
    """What threads=None takes: every core that this process may use."""
    return contract.check_threads(None)


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
    layout: Layout = "NCHW",
    threads: int | None = None,
) -> Floating:
    """Pool each RoI from the level that fits its size; see `reference.pyramid_roi_align`.

    Args:
        features: per level (N, C, Hl, Wl), or (N, Hl, Wl, C) where layout is "NHWC"; float32 or float16. The kernel
            works on float32 NHWC: anything else is converted first, where RoIs touch it.
        rois: (N, R, 4) float32.
        strides: per level, pixels of the network input per cell.
        output_size: S, bins a side.
        sampling_ratio: samples per bin and axis; 0 takes ceil(RoI size / S), as detectron2's models do.
        canonical_size: a RoI of this side, in pixels, belongs to canonical_level.
        canonical_level: see canonical_size.
        min_level: the level of features[0].
        layout: "NCHW" or "NHWC", of the features and of the result.
        threads: how many to use; None takes `default_threads`.

    Returns:
        (N*R, C, S, S), or (N*R, S, S, C), in the features' type.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.
    """
    N, C, R, _ = contract.check_pyramid_roi_align(
        features,
        rois,
        strides=strides,
        output_size=output_size,
        sampling_ratio=sampling_ratio,
        canonical_size=canonical_size,
        canonical_level=canonical_level,
        min_level=min_level,
        layout=layout,
    )
    threads = contract.check_threads(threads)
    S = output_size
    pooled: Floating = np.empty((N * R, S, S, C) if layout == "NHWC" else (N * R, C, S, S), features[0].dtype)
    _native.pyramid_roi_align(
        features,
        rois,
        pooled,
        strides=strides,
        output_size=S,
        sampling_ratio=sampling_ratio,
        canonical_size=canonical_size,
        canonical_level=canonical_level,
        min_level=min_level,
        nhwc=layout == "NHWC",
        threads=threads,
    )
    return pooled
