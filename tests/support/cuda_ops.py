"""The CUDA kernels as a form of the ops: the signatures of `reference`, run in the simulation.

Shapes: as in OPS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.plugins import contract
from panrt.plugins.cuda_api import DataType, MemoryLayout, PyramidLevel, PyramidRoiAlignArgs
from support.hostcuda import Out, SimulatedGpu, Struct

Array = NDArray[Any]
Order = tuple[str, int]
FORWARD: Order = ("forward", 0)


def data_type(array: Array) -> DataType:
    """Of a feature map."""
    return DataType.FLOAT16 if array.dtype == np.float16 else DataType.FLOAT32


def pad_channels(features: Array) -> Array:
    """(N, H, W, C) with C rounded up to 8; the padding is NaN, which nothing real may touch."""
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
    """As `reference.pyramid_roi_align`; layout may be "NHWC8" too, whose padding is added and taken off here."""
    N, C, R, levels = contract.check_pyramid_roi_align(
        features,
        rois,
        strides=strides,
        output_size=output_size,
        sampling_ratio=sampling_ratio,
        canonical_size=canonical_size,
        canonical_level=canonical_level,
        min_level=min_level,
        layout="NCHW" if layout == "NCHW" else "NHWC",
    )
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
