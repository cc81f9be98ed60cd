"""The CUDA kernels as a form of the ops: the signatures of `reference`, run in the simulation.

Shapes: as in OPS.md.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from panrt.plugins import contract, cuda_api
from panrt.plugins.attributes import complete, takes
from panrt.plugins.contract import Detections, Layout, PanopticSegments, Proposals
from panrt.plugins.cuda_api import (
    DataType,
    MemoryLayout,
    NarrowMapArgs,
    OverlayArgs,
    PixelFormat,
    PreprocessArgs,
    YuvStandard,
)
from panrt.plugins.frame_reference import Letterbox
from panrt.plugins.schema import BOX_DETECTIONS, PANOPTIC_MERGE, PYRAMID_ROI_ALIGN, RPN_PROPOSALS, Op
from tools.hostcuda import At, Out, SimulatedGpu, Struct, kernels

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from panrt.plugins import _native

Array = NDArray[Any]
Order = tuple[str, int]
FORWARD: Order = ("forward", 0)
WORKSPACE_OFFSET = 1  # bytes from where device memory is aligned: TensorRT promises no alignment of a workspace


@takes(RPN_PROPOSALS)
def rpn_proposals(
    logits: Sequence[Array],
    deltas: Sequence[Array],
    *,
    gpu: SimulatedGpu,
    order: Order = FORWARD,
    **attributes: Unpack[_native.RpnProposalsAttributes],
) -> Proposals:
    """Run `reference.rpn_proposals` on a GPU."""
    return Proposals(*run(RPN_PROPOSALS, (logits, deltas), attributes, gpu=gpu, order=order))


@takes(PYRAMID_ROI_ALIGN)
def pyramid_roi_align(
    features: Sequence[Array],
    rois: Array,
    *,
    layout: str = "NCHW",
    gpu: SimulatedGpu,
    order: Order = FORWARD,
    **attributes: Unpack[_native.PyramidRoiAlignAttributes],
) -> Array:
    """Run `reference.pyramid_roi_align` on a GPU; for the layout "NHWC8" too, padding is added and removed here."""
    memory = MemoryLayout[layout]
    (pooled,) = run(PYRAMID_ROI_ALIGN, (features, rois), attributes, layout=memory, gpu=gpu, order=order)
    return pooled[..., : features[0].shape[-1]] if memory == MemoryLayout.NHWC8 else pooled


@takes(BOX_DETECTIONS)
def box_detections(
    class_logits: Array,
    box_deltas: Array,
    rois: Array,
    roi_count: Array,
    *,
    gpu: SimulatedGpu,
    order: Order = FORWARD,
    **attributes: Unpack[_native.BoxDetectionsAttributes],
) -> Detections:
    """Run `reference.box_detections` on a GPU."""
    tensors = (class_logits, box_deltas, rois, roi_count)
    return Detections(*run(BOX_DETECTIONS, tensors, attributes, gpu=gpu, order=order))


@takes(PANOPTIC_MERGE)
def panoptic_merge(
    semantic_logits: Array,
    boxes: Array,
    scores: Array,
    classes: Array,
    count: Array,
    mask_probs: Array,
    *,
    gpu: SimulatedGpu,
    order: Order = FORWARD,
    **attributes: Unpack[_native.PanopticMergeAttributes],
) -> PanopticSegments:
    """Run `reference.panoptic_merge` on a GPU; logits and probabilities may be float16 too."""
    tensors = (semantic_logits, boxes, scores, classes, count, mask_probs)
    return PanopticSegments(*run(PANOPTIC_MERGE, tensors, attributes, gpu=gpu, order=order))


def run(
    op: Op,
    tensors: Sequence[Any],
    attributes: Mapping[str, Any],
    *,
    layout: MemoryLayout = MemoryLayout.NCHW,
    gpu: SimulatedGpu,
    order: Order = FORWARD,
) -> list[Array]:
    """Launch the kernels of an op; nothing is checked, so that they meet what is invalid.

    The workspace has just the size that they ask for, and an odd address. Features in NHWC8 are padded with NaN, which
    must not reach a result; the result is still padded.
    """
    attributes = complete(op, attributes)
    checked: Layout = "NCHW" if layout == MemoryLayout.NCHW else "NHWC"
    padded: list[Any] = [
        [_pad_channels(array) for array in x] if layout == MemoryLayout.NHWC8 and tensor.type == "features" else x
        for tensor, x in zip(op.inputs, tensors, strict=True)
    ]
    first = {tensor.name: x[0] if tensor.per_level else x for tensor, x in zip(op.inputs, padded, strict=True)}
    features = next((first[tensor.name].dtype for tensor in op.inputs if tensor.type == "features"), np.float32)
    outputs = contract.outputs(op, contract.sizes_of(op, padded, attributes, layout=checked), features, layout=checked)
    names = [tensor.name for tensor in (*op.inputs, *op.outputs)]
    levels, fields = cuda_api.values(
        op,
        dict(zip(names, [*padded, *(Out(array.shape, array.dtype) for array in outputs)], strict=True)),
        contract.sizes_of(op, tensors, attributes, layout=checked),
        attributes,
        types={
            name: DataType.FLOAT16 if array.dtype == np.float16 else DataType.FLOAT32 for name, array in first.items()
        },
        layout=layout,
    )
    kind = cuda_api.arguments(op)
    fields = {name: value for name, value in fields.items() if value is not None}  # null
    if op.has_levels:
        fields["levels"] = [Struct(cuda_api.level_arguments(op), **level) for level in levels]
    if op.has_workspace:
        size = _workspace_bytes(op, Struct(kind, **fields))
        fields |= {"workspace": Out((size,), np.uint8, offset=WORKSPACE_OFFSET), "workspace_bytes": size}
    return gpu.launch(f"panrt_cuda_{op.launcher}", Struct(kind, **fields), order)[: len(outputs)]


def _pad_channels(features: Array) -> Array:
    """Return (N, H, W, C) with C rounded up to 8."""
    missing = -features.shape[-1] % 8
    return np.pad(features, [(0, 0), (0, 0), (0, 0), (0, missing)], constant_values=np.nan)


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(kernels("plain")))


def _workspace_bytes(op: Op, struct: Struct) -> int:
    """Return the workspace that an op's kernels need; it depends on sizes and attributes alone, not on arrays."""
    filled = _filled(struct)
    function = getattr(_library(), f"panrt_cuda_{op.launcher}_workspace_bytes")
    function.restype = ctypes.c_size_t
    size: int = function(ctypes.byref(filled), ctypes.c_size_t(ctypes.sizeof(filled)))
    return size


def _filled(struct: Struct) -> ctypes.Structure:
    """The struct without arrays and outputs."""
    filled = struct.kind()
    for name, value in struct.fields.items():
        if isinstance(value, list):
            for i, item in enumerate(value):
                getattr(filled, name)[i] = _filled(item) if isinstance(item, Struct) else item
        elif not isinstance(value, (np.ndarray, Out)):
            setattr(filled, name, value)
    return filled


def preprocess(
    frames: Array,
    letterbox: Letterbox,
    *,
    pixel_format: str,
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
            output=Out((N, *letterbox.output_hw, 3), np.uint8, offset=offset),
            pitch=pitch,
            frame_bytes=height * pitch,
            images=N,
            format=PixelFormat[pixel_format],
            standard=YuvStandard[standard],
            height=height,
            width=frames.shape[2],
            resized_height=letterbox.resized_hw[0],
            resized_width=letterbox.resized_hw[1],
            top=letterbox.top_left[0],
            left=letterbox.top_left[1],
            output_height=letterbox.output_hw[0],
            output_width=letterbox.output_hw[1],
            border=[*letterbox.border, 0],
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
