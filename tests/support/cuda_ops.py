"""The CUDA kernels as a form of the ops: the signatures of `reference`, run in the simulation.

Shapes: as in OPS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.plugins import contract
from panrt.plugins.cuda_api import (
    DataType,
    MemoryLayout,
    NarrowMapArgs,
    OverlayArgs,
    PixelFormat,
    PreprocessArgs,
    PyramidLevel,
    PyramidRoiAlignArgs,
    YuvStandard,
)
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
    gpu: SimulatedGpu,
    order: Order = FORWARD,
) -> Array:
    """As `frame_reference.preprocess` on frames (N, ...); rows are `padding` bytes longer than their pixels."""
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
            **planes,
            output=Out((N, *output_hw, 3), np.uint8),
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
    colours: Array,
    border_colour: Sequence[int] = (0, 0, 0, 0),
    *,
    gpu: SimulatedGpu,
    order: Order = FORWARD,
) -> Array:
    """As `frame_reference.overlay` on frames (N, H, W, 3) and maps (N, H, W)."""
    N, H, W = panoptic.shape
    (output,) = gpu.launch(
        "panrt_cuda_overlay",
        Struct(
            OverlayArgs,
            frame=frames,
            panoptic=panoptic,
            colours=colours,
            output=Out(frames.shape, np.uint8),
            images=N,
            height=H,
            width=W,
            colour_count=len(colours),
            border_colour=list(border_colour),
        ),
        order,
    )
    return output


def narrow_map(ids: Array, dtype: type[np.integer[Any]], *, gpu: SimulatedGpu, order: Order = FORWARD) -> Array:
    """As `frame_reference.narrow_map`."""
    narrow = Out(ids.shape, dtype)
    struct = Struct(NarrowMapArgs, ids=ids, narrow=narrow, count=ids.size, bytes_per_id=np.dtype(dtype).itemsize)
    (result,) = gpu.launch("panrt_cuda_narrow_map", struct, order)
    return result
