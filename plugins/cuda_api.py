"""The argument structs of the CUDA kernels' C interface, for ctypes; they mirror plugins/cuda/include/panrt/cuda/*.h.

A function `panrt_cuda_x(args, sizeof(args), stream)` of the library takes a struct of device pointers and sizes, puts its
kernels on the stream and gives a `Status`. It refuses a struct of another size.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

MAX_PYRAMID_LEVELS = 8

_i32, _i64, _f32, _pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


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
