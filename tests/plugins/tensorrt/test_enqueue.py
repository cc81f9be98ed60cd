"""The plugins run: TensorRT's steps around their classes, and below them the CUDA kernels, simulated on the CPU.

What the kernels compute is tested in tests/plugins/cuda; here a tensor that goes to the wrong argument, a size, an
attribute or a workspace that is not passed on would show.
"""

from __future__ import annotations

import ctypes
import json
import shlex
import subprocess
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from panrt.plugins import reference
from tools import hostcuda
from tools.plugin_library import ROOT, folder, plugin_library

Array = NDArray[Any]

LINEAR, HWC8, HWC = 0, 2, 8  # nvinfer1::TensorFormat
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 3}  # nvinfer1::DataType
FLOAT32, INT32 = 1, 5  # nvinfer1::PluginFieldType


class Field(ctypes.Structure):
    """nvinfer1::PluginField."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


@cache
def library() -> ctypes.CDLL:
    """Plugin classes and simulated kernels in one library."""
    plugin_library("off")  # its build knows where the headers are
    database = json.loads((folder("off") / "libpanrt_plugins-build" / "compile_commands.json").read_text())
    words = shlex.split(next(entry["command"] for entry in database if entry["file"].endswith("library.cpp")))
    includes = [word for i, word in enumerate(words) if word.startswith("-I") or "-isystem" in words[i - 1 : i + 1]]
    defines = [word for word in words if word.startswith("-DPANRT")]
    kernels = hostcuda.kernels("plain")
    sources = [ROOT / "plugins" / "tensorrt" / f"{name}.cpp" for name in ("library", "report", "signature")]
    target = ROOT / "build" / "plugins" / "enqueue" / "libenqueue.so"
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["g++", "-std=c++17", "-shared", "-fPIC", "-O1", *includes, *defines, *map(str, sources)]
    command += [str(ROOT / "tests/plugins/tensorrt/enqueue.cpp"), str(kernels), f"-Wl,-rpath,{kernels.parent}"]
    done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = ctypes.CDLL(str(target))
    built.hc_require_loaded(1)  # as in a capture: a plugin that is attached has loaded its kernels
    return built


def enqueue(
    op: str, inputs: list[Array], outputs: list[Array], attributes: dict[str, Any], features: int = LINEAR
) -> list[Array]:
    """Run an op; arrays of features are given as they lie in memory, and described as (N, C, H, W)."""
    kept = []
    fields = (Field * len(attributes))()
    for field, (name, value) in zip(fields, attributes.items(), strict=True):
        values = np.atleast_1d(np.array(value))
        kept.append(np.ascontiguousarray(values, np.float32 if values.dtype.kind == "f" else np.int32))
        kind = FLOAT32 if values.dtype.kind == "f" else INT32
        field.name, field.data, field.type, field.length = name.encode(), kept[-1].ctypes.data, kind, values.size
    tensors = inputs + outputs
    formats = [features if tensor.ndim == 4 else LINEAR for tensor in tensors]
    shapes = [
        (t.shape[0], t.shape[3], t.shape[1], t.shape[2]) if layout != LINEAR else t.shape
        for t, layout in zip(tensors, formats, strict=True)
    ]
    types = (ctypes.c_int32 * len(tensors))(*(TYPES[tensor.dtype] for tensor in tensors))
    ranks = (ctypes.c_int32 * len(tensors))(*map(len, shapes))
    dims = (ctypes.c_int64 * (8 * len(tensors)))(*(s for shape in shapes for s in (*shape, *[0] * (8 - len(shape)))))
    pointers = [(ctypes.c_void_p * len(list_))(*(a.ctypes.data for a in list_)) for list_ in (inputs, outputs)]
    layouts = (ctypes.c_int32 * len(tensors))(*formats)
    status = library().panrt_test_enqueue(
        op.encode(), fields, len(fields), len(inputs), len(outputs), types, layouts, ranks, dims, *pointers
    )
    assert status == 0, f"step {status} failed"
    return outputs


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Of 0xCD bytes, aligned as CUDA's memory is."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(size + 256, 0xCD, np.uint8)
    start = -raw.ctypes.data % 256
    return np.asarray(raw[start : start + size].view(dtype).reshape(shape))


def placed(array: Array) -> Array:
    copy = aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


def boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    low = rng.uniform(0, 80, (*shape, 2))
    return placed(np.concatenate([low, low + rng.uniform(5, 60, (*shape, 2))], -1).astype(np.float32))


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    return placed(rng.normal(size=shape).astype(dtype))


def test_rpn_proposals() -> None:
    rng = np.random.default_rng(0)
    attributes: dict[str, Any] = {
        "strides": (8, 16),
        "anchor_sizes": (32.0, 64.0),
        "aspect_ratios": (0.5, 1.0, 2.0),
        "pre_nms_top_k": 60,
        "post_nms_top_k": 30,
        "nms_threshold": 0.7,
        "input_hw": (128, 96),
    }
    logits = [normal(rng, (2, 3, 16, 12)), normal(rng, (2, 3, 8, 6))]
    deltas = [normal(rng, (2, 12, 16, 12)), normal(rng, (2, 12, 8, 6))]
    outputs = [aligned((2, 30, 4), np.float32), aligned((2,), np.int32)]
    found = enqueue("RpnProposals", logits + deltas, outputs, attributes)
    expected = reference.rpn_proposals(logits, deltas, **attributes)
    assert_array_equal(found[1], expected.roi_count)
    assert_array_equal(found[0], expected.rois)


@pytest.mark.parametrize(
    ("dtype", "layout", "tolerance"),
    [(np.float32, LINEAR, 1e-5), (np.float32, HWC, 1e-5), (np.float16, LINEAR, 2e-3), (np.float16, HWC8, 2e-3)],
)
def test_pyramid_roi_align(dtype: Any, layout: int, tolerance: float) -> None:
    rng = np.random.default_rng(1)
    attributes: dict[str, Any] = {
        "strides": (4, 8),
        "output_size": 7,
        "sampling_ratio": 0,
        "canonical_size": 112.0,
        "canonical_level": 4,
        "min_level": 3,
    }
    features = [normal(rng, (2, 16, 32, 24), dtype), normal(rng, (2, 16, 16, 12), dtype)]
    rois = boxes(rng, (2, 9))
    expected = reference.pyramid_roi_align(features, rois, **attributes)
    if layout == LINEAR:
        given, output = features, aligned((18, 16, 7, 7), dtype)
    else:
        given, output = [placed(f.transpose(0, 2, 3, 1)) for f in features], aligned((18, 7, 7, 16), dtype)
    (found,) = enqueue("PyramidRoiAlign", [*given, rois], [output], attributes, features=layout)
    found = found if layout == LINEAR else found.transpose(0, 3, 1, 2)
    assert_allclose(found.astype(np.float32), expected.astype(np.float32), atol=tolerance * np.abs(expected).max())


def test_box_detections() -> None:
    rng = np.random.default_rng(2)
    attributes: dict[str, Any] = {
        "box_weights": (10.0, 10.0, 5.0, 5.0),
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "max_detections": 12,
        "input_hw": (128, 96),
    }
    inputs = [
        normal(rng, (2, 20, 6)),
        normal(rng, (2, 20, 20)),
        boxes(rng, (2, 20)),
        placed(np.array([20, 7], np.int32)),
    ]
    outputs = [aligned((2, 12, 4), np.float32), aligned((2, 12), np.float32)]
    outputs += [aligned((2, 12), np.int32), aligned((2,), np.int32)]
    found = enqueue("BoxDetections", inputs, outputs, attributes)
    expected = reference.box_detections(inputs[0], inputs[1], inputs[2], inputs[3], **attributes)
    assert_array_equal(found[3], expected.count)
    assert_array_equal(found[2], expected.classes)
    assert_allclose(found[1], expected.scores, rtol=1e-6)
    assert_allclose(found[0], expected.boxes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_panoptic_merge(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    attributes: dict[str, Any] = {
        "input_hw": (60, 48),
        "output_hw": (75, 60),
        "score_threshold": 0.3,
        "overlap_threshold": 0.5,
        "stuff_area_limit": 16,
        "mask_threshold": 0.5,
    }
    logits = normal(rng, (2, 5, 16, 12), dtype)
    scores = placed(-np.sort(-rng.uniform(0, 1, (2, 6)).astype(np.float32), axis=1))
    classes = placed(rng.integers(0, 4, (2, 6)).astype(np.int32))
    masks = placed(rng.uniform(0, 1, (2, 6, 28, 28)).astype(dtype))
    small = placed(boxes(rng, (2, 6)) * np.float32(0.4))
    inputs = [logits, small, scores, classes, placed(np.array([6, 4], np.int32)), masks]
    outputs = [aligned((2, 75, 60), np.int32), aligned((2, 11, 8), np.int32)]
    outputs += [aligned((2, 11), np.float32), aligned((2,), np.int32)]
    found = enqueue("PanopticMerge", inputs, outputs, attributes)
    wide: list[Any] = [array.astype(np.float32) if array.dtype == np.float16 else array for array in inputs]
    logits, boxes_, scores, classes, count, masks = wide
    expected = reference.panoptic_merge(logits, boxes_, scores, classes, count, masks, **attributes)
    for array, wanted in zip(found, expected, strict=True):
        assert_array_equal(array, wanted)
    assert expected.segment_count.min() > 2
