"""The argument structs of the CUDA kernels' C interface, for ctypes; they mirror plugins/cuda/include/panrt/cuda/*.h.

A function `panrt_cuda_x(args, sizeof(args), stream)` of the library takes a struct of device pointers and sizes, puts
its kernels on the stream and gives a `Status`. It refuses a struct of another size.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

MAX_PYRAMID_LEVELS = 8
MAX_RPN_LEVELS = 8
MAX_RPN_ANCHORS = 16

_u8, _i32, _i64 = ctypes.c_uint8, ctypes.c_int32, ctypes.c_int64
_f32, _size, _pointer = ctypes.c_float, ctypes.c_size_t, ctypes.c_void_p


class Code(IntEnum):
    """Why a launch was refused; panrt/cuda/status.h."""

    OK = 0
    INVALID_ARGUMENT = 1
    UNSUPPORTED = 2
    WORKSPACE_TOO_SMALL = 3
    LAUNCH_FAILED = 4


class DataType(IntEnum):
    """Elements of a tensor; panrt/cuda/types.h."""

    FLOAT32 = 0
    FLOAT16 = 1


class MemoryLayout(IntEnum):
    """Order of a tensor's axes; panrt/cuda/types.h."""

    NCHW = 0
    NHWC = 1
    NHWC8 = 2


class PixelFormat(IntEnum):
    """Of a camera frame; panrt/cuda/preprocess.h."""

    BGR8 = 0
    RGB8 = 1
    NV12 = 2
    YUYV = 3


class YuvStandard(IntEnum):
    """Of an NV12 or YUYV frame, limited range; panrt/cuda/preprocess.h."""

    BT601 = 0
    BT709 = 1


class Status(ctypes.Structure):
    """What every function gives; plugins/cuda/c_api.h."""

    _fields_ = (("code", ctypes.c_int), ("cuda_error", ctypes.c_int), ("message", ctypes.c_char_p))


class PyramidLevel(ctypes.Structure):
    """panrt/cuda/pyramid_roi_align.h."""

    _fields_ = (("data", _pointer), ("height", _i32), ("width", _i32), ("stride", _f32))


class PyramidRoiAlignArgs(ctypes.Structure):
    """panrt/cuda/pyramid_roi_align.h."""

    _fields_ = (
        ("levels", PyramidLevel * MAX_PYRAMID_LEVELS),
        ("rois", _pointer),
        ("pooled", _pointer),
        ("images", _i64),
        ("rois_per_image", _i64),
        ("level_count", _i32),
        ("channels", _i32),
        ("output_size", _i32),
        ("sampling_ratio", _i32),
        ("canonical_size", _f32),
        ("canonical_level", _i32),
        ("min_level", _i32),
        ("type", _i32),
        ("layout", _i32),
    )


class RpnLevel(ctypes.Structure):
    """panrt/cuda/rpn_proposals.h."""

    _fields_ = (
        ("logits", _pointer),
        ("deltas", _pointer),
        ("height", _i32),
        ("width", _i32),
        ("stride", _f32),
        ("anchor_size", _f32),
    )


class RpnProposalsArgs(ctypes.Structure):
    """panrt/cuda/rpn_proposals.h."""

    _fields_ = (
        ("levels", RpnLevel * MAX_RPN_LEVELS),
        ("aspect_ratios", _f32 * MAX_RPN_ANCHORS),
        ("rois", _pointer),
        ("roi_count", _pointer),
        ("workspace", _pointer),
        ("workspace_bytes", _size),
        ("images", _i32),
        ("level_count", _i32),
        ("anchor_count", _i32),
        ("pre_nms_top_k", _i32),
        ("post_nms_top_k", _i32),
        ("nms_threshold", _f32),
        ("input_height", _i32),
        ("input_width", _i32),
    )


class BoxDetectionsArgs(ctypes.Structure):
    """panrt/cuda/box_detections.h."""

    _fields_ = (
        ("class_logits", _pointer),
        ("box_deltas", _pointer),
        ("rois", _pointer),
        ("roi_count", _pointer),
        ("boxes", _pointer),
        ("scores", _pointer),
        ("classes", _pointer),
        ("count", _pointer),
        ("workspace", _pointer),
        ("workspace_bytes", _size),
        ("images", _i32),
        ("rois_per_image", _i32),
        ("thing_classes", _i32),
        ("max_detections", _i32),
        ("box_weights", _f32 * 4),
        ("score_threshold", _f32),
        ("nms_threshold", _f32),
        ("input_height", _i32),
        ("input_width", _i32),
    )


class PanopticMergeArgs(ctypes.Structure):
    """panrt/cuda/panoptic_merge.h."""

    _fields_ = (
        ("semantic_logits", _pointer),
        ("boxes", _pointer),
        ("scores", _pointer),
        ("classes", _pointer),
        ("count", _pointer),
        ("mask_probs", _pointer),
        ("panoptic", _pointer),
        ("segments", _pointer),
        ("segment_scores", _pointer),
        ("segment_count", _pointer),
        ("workspace", _pointer),
        ("workspace_bytes", _size),
        ("logit_type", _i32),
        ("mask_type", _i32),
        ("images", _i32),
        ("detections", _i32),
        ("channels", _i32),
        ("height", _i32),
        ("width", _i32),
        ("mask_height", _i32),
        ("mask_width", _i32),
        ("input_height", _i32),
        ("input_width", _i32),
        ("output_height", _i32),
        ("output_width", _i32),
        ("score_threshold", _f32),
        ("overlap_threshold", _f32),
        ("stuff_area_limit", _i32),
        ("mask_threshold", _f32),
    )


class PreprocessArgs(ctypes.Structure):
    """panrt/cuda/preprocess.h."""

    _fields_ = (
        ("frame", _pointer),
        ("chroma", _pointer),
        ("output", _pointer),
        ("pitch", _i64),
        ("frame_bytes", _i64),
        ("images", _i32),
        ("format", _i32),
        ("standard", _i32),
        ("height", _i32),
        ("width", _i32),
        ("resized_height", _i32),
        ("resized_width", _i32),
        ("top", _i32),
        ("left", _i32),
        ("output_height", _i32),
        ("output_width", _i32),
        ("border", _u8 * 4),
    )


class OverlayArgs(ctypes.Structure):
    """panrt/cuda/overlay.h."""

    _fields_ = (
        ("frame", _pointer),
        ("panoptic", _pointer),
        ("colours", _pointer),
        ("output", _pointer),
        ("images", _i32),
        ("height", _i32),
        ("width", _i32),
        ("colour_count", _i32),
        ("border_colour", _u8 * 4),
    )


class NarrowMapArgs(ctypes.Structure):
    """panrt/cuda/narrow_map.h."""

    _fields_ = (("ids", _pointer), ("narrow", _pointer), ("count", _i64), ("bytes_per_id", _i32))
