"""Limits of the ops, OPS.md 1.3: equal in every form, and reported with argument, limit and value."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from panrt.plugins import schema
from panrt.plugins.cuda_api import (
    BoxDetectionsArgs,
    NarrowMapArgs,
    OverlayArgs,
    PanopticMergeArgs,
    PreprocessArgs,
    PyramidLevel,
    PyramidRoiAlignArgs,
    RpnLevel,
    RpnProposalsArgs,
)
from tools.hostcuda import LaunchError, SimulatedGpu, Struct, kernels

ROOT = Path(__file__).resolve().parents[2]
HUGE = 2**31 - 1
NAN, INF = float("nan"), float("inf")


def test_python_and_cpp_have_the_same_limits() -> None:
    text = (ROOT / "plugins" / "include" / "panrt" / "limits.h").read_text()
    found = re.findall(r"constexpr std::int64_t kMax(\w+) = ([^;]+);", text)
    assert len(found) > 10
    for name, value in found:
        number = eval(value.replace("LL", "").replace("INT32_MAX", "2147483647"))
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
        assert getattr(schema, f"MAX_{snake}") == number, name


def test_the_contract_lists_them() -> None:
    table = (ROOT / "plugins" / "OPS.md").read_text().split("### 1.3 Limits")[1].split("## 2.")[0]
    for limit in (schema.MAX_IMAGES, schema.MAX_SIDE, schema.MAX_CANDIDATES, schema.MAX_BINS):
        assert str(limit) in table
    powers = (schema.MAX_ROWS, schema.MAX_PAIRS, schema.MAX_PAIRS_KEPT, schema.MAX_MASK_CELLS)
    for limit in (*powers, schema.MAX_PASTED, schema.MAX_POOLED):
        assert f"2^{limit.bit_length() - 1}" in table


# --- The Python forms -------------------------------------------------------------------------------------------------


def empty(*shape: int, dtype: Any = np.float32) -> Any:
    return np.empty(shape, dtype)  # what is never touched takes no memory


RPN: dict[str, Any] = {
    "logits": [empty(1, 1, 2, 2)],
    "deltas": [empty(1, 4, 2, 2)],
    "strides": [4],
    "anchor_sizes": [32.0],
    "aspect_ratios": [1.0],
    "pre_nms_top_k": 100,
    "post_nms_top_k": 10,
    "nms_threshold": 0.5,
    "input_hw": (8, 8),
}
ROIS: dict[str, Any] = {
    "features": [empty(1, 1, 2, 2)],
    "rois": empty(1, 1, 4),
    "strides": [4],
    "output_size": 7,
    "sampling_ratio": 0,
}
BOXES: dict[str, Any] = {
    "class_logits": empty(1, 1, 2),
    "box_deltas": empty(1, 1, 4),
    "rois": empty(1, 1, 4),
    "roi_count": empty(1, dtype=np.int32),
    "box_weights": (10.0, 10.0, 5.0, 5.0),
    "score_threshold": 0.5,
    "nms_threshold": 0.5,
    "max_detections": 10,
    "input_hw": (8, 8),
}
MERGE: dict[str, Any] = {
    "semantic_logits": empty(1, 2, 2, 2),
    "boxes": empty(1, 1, 4),
    "scores": empty(1, 1),
    "classes": empty(1, 1, dtype=np.int32),
    "count": empty(1, dtype=np.int32),
    "mask_probs": empty(1, 1, 2, 2),
    "input_hw": (8, 8),
    "output_hw": (8, 8),
    "score_threshold": 0.5,
    "overlap_threshold": 0.5,
    "stuff_area_limit": 1,
    "mask_threshold": 0.5,
}


def pairs_of(R: int, C: int) -> dict[str, Any]:
    return {"class_logits": empty(1, R, C + 1), "box_deltas": empty(1, R, 4 * C), "rois": empty(1, R, 4)}


def detections_of(K: int, mask: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    integers = {"classes": empty(1, K, dtype=np.int32)}
    return {"boxes": empty(1, K, 4), "scores": empty(1, K), **integers, "mask_probs": empty(1, K, *mask)}


BEYOND: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "rpn_proposals",
        RPN,
        {"logits": [empty(1, 1, 129, 128)], "deltas": [empty(1, 4, 129, 128)], "pre_nms_top_k": 16385},
        "pre_nms_top_k: expected at most 16384 candidates per level, got 16385",
    ),
    (
        "rpn_proposals",
        RPN,
        {"logits": [empty(1, 1, 1, 32769)], "deltas": [empty(1, 4, 1, 32769)]},
        "logits[0]: expected at most 32768 cells per side, got 32769",
    ),
    (
        "rpn_proposals",
        RPN,
        {name: RPN[name] * 9 for name in ("logits", "deltas", "strides", "anchor_sizes")},
        "logits: expected at most 8 levels, got 9",
    ),
    (
        "rpn_proposals",
        RPN,
        {"aspect_ratios": [1.0] * 17, "logits": [empty(1, 17, 2, 2)], "deltas": [empty(1, 68, 2, 2)]},
        "aspect_ratios: expected at most 16 anchors per cell, got 17",
    ),
    (
        "rpn_proposals",
        RPN,
        {"logits": [empty(65536, 1, 1, 1)], "deltas": [empty(65536, 4, 1, 1)]},
        "logits[0]: expected at most 65535 images, got 65536",
    ),
    (
        "pyramid_roi_align",
        ROIS,
        {"sampling_ratio": HUGE},
        f"sampling_ratio: expected an integer from 0 to 1024, got {HUGE}",
    ),
    ("pyramid_roi_align", ROIS, {"output_size": 1025}, "output_size: expected an integer from 1 to 1024, got 1025"),
    (
        "pyramid_roi_align",
        ROIS,
        {"features": [empty(1, 1025, 1, 1)], "output_size": 1024},
        "features: channels * output_size^2: expected at most 1073741824 numbers of a RoI, got 1074790400",
    ),
    (
        "pyramid_roi_align",
        ROIS,
        {"rois": empty(1, 2**20 + 1, 4)},
        "rois: expected at most 1048576 rows per image, got 1048577",
    ),
    (
        "box_detections",
        BOXES,
        pairs_of(2**11 + 1, 1024),
        "class_logits: expected at most 2097152 pairs of RoI and class, got 2098176",
    ),
    (
        "box_detections",
        BOXES,
        pairs_of(2**11, 1024) | {"max_detections": 16385},
        "max_detections: expected at most 16384 of 2097152 pairs of RoI and class, got 16385",
    ),
    (
        "panoptic_merge",
        MERGE,
        detections_of(65534),
        "scores: expected at most 65535 detections and channels together, got 65536",
    ),
    (
        "panoptic_merge",
        MERGE,
        detections_of(1, (4097, 4096)),
        "mask_probs: expected at most 16777216 cells of a mask, got 16781312",
    ),
    (
        "panoptic_merge",
        MERGE,
        detections_of(257) | {"output_hw": (32768, 32768)},
        "scores: expected at most 256 detections on (32768, 32768) pixels, got 257",
    ),
]


@pytest.mark.parametrize(("op", "good", "changes", "message"), BEYOND, ids=[message for *_, message in BEYOND])
def test_more_than_the_limit_is_refused_with_argument_limit_and_value(
    python_ops: ModuleType, op: str, good: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        getattr(python_ops, op)(**(good | changes))


# --- The CUDA kernels -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpu() -> Iterator[SimulatedGpu]:
    started = SimulatedGpu(kernels("plain"))
    yield started
    started.close()


RPN_LEVEL = Struct(RpnLevel, height=2, width=2, stride=4.0, anchor_size=32.0)
LEVEL = Struct(PyramidLevel, height=2, width=2, stride=4.0)
STRUCTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rpn_proposals": (
        RpnProposalsArgs,
        {"levels": [RPN_LEVEL], "aspect_ratios": [1.0], "images": 1, "level_count": 1, "anchor_count": 1,
         "pre_nms_top_k": 9, "post_nms_top_k": 9, "nms_threshold": 0.5, "input_height": 8, "input_width": 8},
    ),
    "pyramid_roi_align": (
        PyramidRoiAlignArgs,
        {"levels": [LEVEL], "images": 1, "rois_per_image": 1, "level_count": 1, "channels": 1, "output_size": 7,
         "sampling_ratio": 0, "canonical_size": 224.0, "canonical_level": 4, "min_level": 2},
    ),
    "box_detections": (
        BoxDetectionsArgs,
        {"images": 1, "rois_per_image": 9, "thing_classes": 2, "max_detections": 9, "box_weights": [1.0] * 4,
         "score_threshold": 0.5, "nms_threshold": 0.5, "input_height": 8, "input_width": 8},
    ),
    "panoptic_merge": (
        PanopticMergeArgs,
        {"images": 1, "detections": 1, "channels": 2, "height": 2, "width": 2, "mask_height": 2, "mask_width": 2,
         "input_height": 8, "input_width": 8, "output_height": 8, "output_width": 8, "score_threshold": 0.5,
         "overlap_threshold": 0.5, "stuff_area_limit": 1, "mask_threshold": 0.5},
    ),
    "preprocess": (
        PreprocessArgs,
        {"pitch": 24, "frame_bytes": 192, "images": 1, "height": 8, "width": 8, "resized_height": 8,
         "resized_width": 8, "output_height": 8, "output_width": 8},
    ),
    "overlay": (OverlayArgs, {"images": 1, "height": 8, "width": 8, "map_height": 8, "map_width": 8}),
    "narrow_map": (NarrowMapArgs, {"count": 1, "bytes_per_id": 1}),
}  # fmt: skip
# Of each op: field, what it may be at most and at least.
RANGES: dict[str, list[tuple[str, int, int]]] = {
    "rpn_proposals": [
        ("images", 1, schema.MAX_IMAGES), ("level_count", 1, schema.MAX_LEVELS),
        ("anchor_count", 1, schema.MAX_ANCHORS_PER_CELL), ("pre_nms_top_k", 1, HUGE),
        ("post_nms_top_k", 1, schema.MAX_ROWS), ("input_height", 1, schema.MAX_SIDE),
        ("input_width", 1, schema.MAX_SIDE),
    ],
    "pyramid_roi_align": [
        ("images", 1, schema.MAX_IMAGES), ("rois_per_image", 0, schema.MAX_ROWS),
        ("level_count", 1, schema.MAX_LEVELS), ("channels", 1, schema.MAX_POOLED),
        ("output_size", 1, schema.MAX_BINS), ("sampling_ratio", 0, schema.MAX_SAMPLES),
        ("canonical_level", 0, schema.MAX_LEVEL_NUMBER), ("min_level", 0, schema.MAX_LEVEL_NUMBER),
    ],
    "box_detections": [
        ("images", 1, schema.MAX_IMAGES), ("rois_per_image", 0, schema.MAX_ROWS),
        ("thing_classes", 1, schema.MAX_CODES), ("max_detections", 1, schema.MAX_ROWS),
        ("input_height", 1, schema.MAX_SIDE), ("input_width", 1, schema.MAX_SIDE),
    ],
    "panoptic_merge": [
        ("images", 1, schema.MAX_IMAGES), ("detections", 0, schema.MAX_CODES), ("channels", 1, schema.MAX_CODES),
        ("height", 1, schema.MAX_SIDE), ("width", 1, schema.MAX_SIDE), ("mask_height", 1, schema.MAX_SIDE),
        ("mask_width", 1, schema.MAX_SIDE), ("input_height", 1, 8), ("input_width", 1, 8),
        ("output_height", 1, schema.MAX_SIDE), ("output_width", 1, schema.MAX_SIDE),
        ("stuff_area_limit", 0, HUGE),
    ],
    "preprocess": [
        ("images", 1, schema.MAX_IMAGES), ("height", 1, schema.MAX_SIDE), ("width", 1, schema.MAX_SIDE),
        ("resized_height", 1, schema.MAX_SIDE), ("resized_width", 1, schema.MAX_SIDE),
        ("output_height", 1, schema.MAX_SIDE), ("output_width", 1, schema.MAX_SIDE), ("top", 0, 0), ("left", 0, 0),
        ("frame_bytes", 0, 2**35),
    ],
    "overlay": [
        ("images", 1, schema.MAX_IMAGES), ("height", 1, schema.MAX_SIDE), ("width", 1, schema.MAX_SIDE),
        ("map_height", 1, schema.MAX_SIDE), ("map_width", 1, schema.MAX_SIDE), ("color_count", 0, HUGE),
        ("opacity", 0, 256), ("border", 0, HUGE),
    ],
    "narrow_map": [("count", 0, schema.MAX_IMAGES * schema.MAX_SIDE**2)],
}  # fmt: skip


@pytest.mark.parametrize("op", list(RANGES))
def test_the_cuda_kernels_name_what_is_out_of_range(gpu: SimulatedGpu, op: str) -> None:
    kind, good = STRUCTS[op]
    types = dict(kind._fields_)
    for name, least, most in RANGES[op]:
        bits = 8 * ctypes.sizeof(types[name])
        for value in {least - 1, most + 1, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1}:
            if least <= value <= most or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
                continue
            with pytest.raises(LaunchError, match=rf"{name}: expected {least} to {most}, got {value}\n?$"):
                gpu.launch(f"panrt_cuda_{op}", Struct(kind, **(good | {name: value})))


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        ("rpn_proposals", {"levels": [Struct(RpnLevel, height=2, width=2, stride=0.5, anchor_size=1.0)]},
         "levels: stride: expected 1 to 32768, got 0.5"),
        ("rpn_proposals", {"levels": [Struct(RpnLevel, height=2, width=2, stride=4.0, anchor_size=INF)]},
         "levels: anchor_size: expected a finite number above 0, got inf"),
        ("rpn_proposals", {"aspect_ratios": [0.0]}, "aspect_ratios: expected a finite number above 0, got 0"),
        ("rpn_proposals", {"levels": [Struct(RpnLevel, height=32768, width=32768, stride=4.0, anchor_size=1.0)],
                           "anchor_count": 2, "aspect_ratios": [1.0, 1.0]},
         "levels: expected at most 2147483647 anchors, got 2147483648"),
        ("rpn_proposals", {"levels": [Struct(RpnLevel, height=256, width=256, stride=4.0, anchor_size=1.0)],
                           "pre_nms_top_k": HUGE},
         "pre_nms_top_k: expected at most 16384 candidates per level, got 65536"),
        ("pyramid_roi_align", {"levels": [Struct(PyramidLevel, height=2, width=2, stride=NAN)]},
         "levels: stride: expected 1 to 32768, got nan"),
        ("pyramid_roi_align", {"levels": [Struct(PyramidLevel, height=2, width=2, stride=1e-30)]},
         "levels: stride: expected 1 to 32768, got 1e-30"),
        ("pyramid_roi_align", {"canonical_size": INF}, "canonical_size: expected a finite number above 0, got inf"),
        ("pyramid_roi_align", {"channels": 2**20, "output_size": 33},
         "channels * output_size^2: expected at most 1073741824 numbers of a RoI, got 1141899264"),
        ("pyramid_roi_align", {"output_size": 1024}, "do not fit into shared memory"),
        ("box_detections", {"rois_per_image": 2**20, "thing_classes": 3},
         "rois_per_image * thing_classes: expected at most 2097152 pairs, got 3145728"),
        ("box_detections", {"rois_per_image": 2**20, "max_detections": 32769},
         "max_detections: expected at most 16384 for this number of pairs, got 32769"),
        ("box_detections", {"score_threshold": NAN}, "score_threshold: expected -3.40282e+38 to 3.40282e+38, got nan"),
        ("box_detections", {"box_weights": [1.0, 1.0, 0.0, 1.0]},
         "box_weights: expected a finite number above 0, got 0"),
        ("panoptic_merge", {"detections": 65534}, "detections + channels: expected at most 65535 together, got 65536"),
        ("panoptic_merge", {"mask_height": 32768, "mask_width": 513},
         "mask_height * mask_width: expected at most 16777216 cells, got 16809984"),
        ("panoptic_merge", {"detections": 257, "output_height": 32768, "output_width": 32768},
         "detections: expected at most 256 of an output so large, got 257"),
        ("preprocess", {"pitch": 2**62}, f"pitch: expected 24 to 1048576, got {2**62}"),
        ("preprocess", {"pitch": 23}, "pitch: expected 24 to 1048576, got 23"),
    ],
)  # fmt: skip
def test_the_cuda_kernels_name_what_is_too_much(
    gpu: SimulatedGpu, op: str, changes: dict[str, Any], message: str
) -> None:
    kind, good = STRUCTS[op]
    if op == "preprocess":
        changes = changes | {"frame": np.zeros(192, np.uint8), "output": np.zeros(192, np.uint8)}
    with pytest.raises(LaunchError, match=re.escape(message)):
        gpu.launch(f"panrt_cuda_{op}", Struct(kind, **(good | changes)))
