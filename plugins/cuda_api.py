"""The argument structs of the CUDA kernels' C interface, for ctypes: those of ops from `schema`, the others as in C++.

A function `panrt_cuda_x(args, sizeof(args), stream)` of the library takes a struct of device pointers and sizes,
enqueues its kernels on the stream and returns a `Status`. A struct of another size is rejected.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeAlias

from .schema import MAX_LEVELS, OPS, Field, Op, Sizes

_u8, _i32, _i64 = ctypes.c_uint8, ctypes.c_int32, ctypes.c_int64
_f32, _size, _pointer = ctypes.c_float, ctypes.c_size_t, ctypes.c_void_p


class Code(IntEnum):
    """The reason why a launch was rejected; panrt/cuda/status.h."""

    OK = 0
    INVALID_ARGUMENT = 1
    UNSUPPORTED = 2
    WORKSPACE_TOO_SMALL = 3
    LAUNCH_FAILED = 4


class DataType(IntEnum):
    """The element type of a tensor; panrt/cuda/types.h."""

    FLOAT32 = 0
    FLOAT16 = 1


class MemoryLayout(IntEnum):
    """The order of a tensor's axes; panrt/cuda/types.h."""

    NCHW = 0
    NHWC = 1
    NHWC8 = 2


class PixelFormat(IntEnum):
    """The pixel format of a camera frame; panrt/cuda/preprocess.h."""

    BGR8 = 0
    RGB8 = 1
    NV12 = 2
    YUYV = 3


class YuvStandard(IntEnum):
    """The colour standard of an NV12 or YUYV frame, limited range; panrt/cuda/preprocess.h."""

    BT601 = 0
    BT709 = 1


class Status(ctypes.Structure):
    """The result of every function; plugins/cuda/c_api.h."""

    _fields_ = (("code", ctypes.c_int), ("cuda_error", ctypes.c_int), ("message", ctypes.c_char_p))


Structure: TypeAlias = type[ctypes.Structure]

_TYPES = {"int32": _i32, "int64": _i64, "float32": _f32, "": _i32}


def _structure(name: str, op: Op, fields: Sequence[Field], levels: Structure | None = None) -> Structure:
    """Return the struct that kernels take, as panrt/ops.h has it."""
    members: list[tuple[str, Any]] = [] if levels is None else [("levels", levels * MAX_LEVELS)]
    members += [(field.name, _type(op, field)) for field in fields]
    return type(name, (ctypes.Structure,), {"_fields_": tuple(members), "__doc__": "panrt/ops.h."})


def _type(op: Op, field: Field) -> Any:
    if field.source in ("tensor", "workspace"):
        return _pointer
    if field.source == "workspace_bytes":
        return _size
    kind: Any = _TYPES[field.type]
    if field.source == "attribute" and not field.type:
        kind = _f32 if op.attribute(field.of.split("[")[0]).type == "float" else _i32
    return kind * field.length if field.length else kind


_LEVELS = {op.name: _structure(op.level_struct, op, op.level_fields) for op in OPS.values() if op.has_levels}
_ARGS = {op.name: _structure(f"{op.name}Args", op, op.fields, _LEVELS.get(op.name)) for op in OPS.values()}
globals().update((struct.__name__, struct) for struct in (*_LEVELS.values(), *_ARGS.values()))  # where pickle looks

RpnLevel, PyramidLevel = _LEVELS["RpnProposals"], _LEVELS["PyramidRoiAlign"]
RpnProposalsArgs, PyramidRoiAlignArgs = _ARGS["RpnProposals"], _ARGS["PyramidRoiAlign"]
BoxDetectionsArgs, PanopticMergeArgs = _ARGS["BoxDetections"], _ARGS["PanopticMerge"]


def arguments(op: Op) -> Structure:
    """Return the argument struct of an op, the same for all its versions; its `levels` are an array of another one."""
    return _ARGS[op.name]


def level_arguments(op: Op) -> Structure:
    """Return the struct of a pyramid level of an op that has some."""
    return _LEVELS[op.name]


def values(
    op: Op,
    tensors: Mapping[str, Any],
    sizes: Sizes,
    attributes: Mapping[str, Any],
    *,
    types: Mapping[str, DataType],
    layout: MemoryLayout = MemoryLayout.NCHW,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the members of each level's struct and of the op's, all but the workspace.

    A tensor that this version of the op does not have is null, an attribute is `unread`.

    Args:
        op: its declaration.
        tensors: what becomes of a pointer, by the tensor's name; a list with an entry per level.
        sizes: of the call.
        attributes: all of the op's, by name.
        types: of inputs that may be float16, by name.
        layout: of its features.
    """
    attributes = {attribute.name: attribute.unread for attribute in OPS[op.name].attributes} | dict(attributes)

    def value(field: Field, level: int | None = None) -> Any:
        if field.source == "size":
            return sizes[field.of] if level is None else sizes.levels[level]["HW".index(field.of)]
        if field.source == "type":
            return types[field.of]
        if field.source == "layout":
            return layout
        name, _, index = field.of.partition("[")
        found: Any = tensors.get(name) if field.source == "tensor" else attributes[name]
        if index:
            return found[int(index[:-1])]
        if field.length:
            return list(found)
        return found if level is None else found[level]

    levels = [{field.name: value(field, i) for field in op.level_fields} for i in range(len(sizes.levels))]
    own = (field for field in op.fields if not field.source.startswith("workspace"))
    return levels, {field.name: value(field) for field in own}


class PreprocessArgs(ctypes.Structure):
    """The arguments of preprocessing; panrt/cuda/preprocess.h."""

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
    """The arguments of the overlay; panrt/cuda/overlay.h."""

    _fields_ = (
        ("frame", _pointer),
        ("panoptic", _pointer),
        ("colors", _pointer),
        ("output", _pointer),
        ("images", _i32),
        ("height", _i32),
        ("width", _i32),
        ("map_height", _i32),
        ("map_width", _i32),
        ("color_count", _i32),
        ("opacity", _i32),
        ("border", _i32),
    )


class NarrowMapArgs(ctypes.Structure):
    """The arguments of compact maps; panrt/cuda/narrow_map.h."""

    _fields_ = (("ids", _pointer), ("narrow", _pointer), ("count", _i64), ("bytes_per_id", _i32))
