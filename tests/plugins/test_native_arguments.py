"""Arguments of `_native`: each call ends with a result or an error that names the argument."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from panrt.plugins import _native, native
from support import fuzz_native, shared_sessions


def call(name: str, **changes: Any) -> None:
    """A right call but for some of its arguments."""
    seed = next(seed for seed in range(100) if usable(name, seed))
    draw = fuzz_native.Draw(seed)
    arrays, options = prepared(getattr(fuzz_native, name)(draw))
    for key, value in changes.items():
        target = arrays if key in arrays else options
        target[key] = value(target[key]) if callable(value) else value
    getattr(_native, name)(*arrays.values(), **options)


def prepared(made: fuzz_native.Call) -> tuple[dict[str, Any], dict[str, Any]]:
    if made.name == "conv3x3":
        channels, filters = made.arrays["input"].shape[3], made.arrays["output"].shape[3]
        made.arrays["workspace"] = np.zeros((1, _native.conv3x3_workspace(channels, filters)), np.float32)
    return made.arrays, {**made.options, "threads": 1}


def usable(name: str, seed: int) -> bool:
    """Whether a seed gives arrays of some size, and a variant that every processor has."""
    arrays, options = prepared(getattr(fuzz_native, name)(fuzz_native.Draw(seed)))
    flat = [array for value in arrays.values() for array in (value if isinstance(value, list) else [value])]
    return all(array.size > 8 or array.ndim == 1 for array in flat) and options.get("variant", 0) == 0


ALL = ["rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge", "overlay", "conv3x3", "look_up"]
OUTPUTS = {
    "rpn_proposals": ["rois", "roi_count"],
    "pyramid_roi_align": ["pooled"],
    "box_detections": ["boxes", "scores", "classes", "count"],
    "panoptic_merge": ["panoptic", "segments", "segment_scores", "segment_count"],
    "overlay": ["result"],
    "conv3x3": ["output", "workspace"],
    "look_up": ["output"],
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("threads", [0, -5, 1025, 2**31 - 1])
def test_a_number_of_threads_that_is_none_is_refused_by_every_kernel(name: str, threads: int) -> None:
    call(name)
    with pytest.raises(ValueError, match=f"threads: expected 1 to 1024, got {threads}"):
        call(name, threads=threads)


@pytest.mark.parametrize(("name", "output"), [(name, output) for name in ALL for output in OUTPUTS[name]])
def test_an_output_is_aligned_writable_and_has_memory_of_its_own(name: str, output: str) -> None:
    with pytest.raises(TypeError):
        call(name, **{output: fuzz_native.read_only})
    if output != "result":  # bytes are aligned anywhere
        with pytest.raises(ValueError, match=f"{output}: expected an aligned array"):
            call(name, **{output: fuzz_native.misaligned})


def test_outputs_that_overlap_another_array_are_refused() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    ids, colors = np.zeros((4, 4), np.int32), np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match="result: expected memory of its own, got some of frame"):
        _native.overlay(image, ids, colors, image, opacity=128, border=1, threads=1)
    convolution = native.Conv3x3(np.zeros((16, 16, 3, 3), np.float32), np.zeros(16, np.float32), threads=1)
    pixels = np.zeros((2, 4, 4, 16), np.float32)
    with pytest.raises(ValueError, match="output: expected memory of its own, got some of input"):
        convolution(pixels[:1], pixels[:1])
    convolution(pixels[:1], pixels[1:])  # beside one another is apart
    both = np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="segment_count: expected memory of its own, got some of count"):
        call("panoptic_merge", count=lambda count: both[: len(count)], segment_count=lambda count: both[: len(count)])


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("rpn_proposals", {"logits": []}, "logits, deltas, strides, anchor_sizes"),
        ("rpn_proposals", {"strides": lambda s: [NAN] * len(s)}, "strides: "),
        ("rpn_proposals", {"anchor_sizes": lambda s: [0.0] * len(s)}, "anchor_sizes: "),
        ("rpn_proposals", {"aspect_ratios": lambda s: [-1.0] * len(s)}, "aspect_ratios: "),
        ("rpn_proposals", {"pre_nms_top_k": 0}, "pre_nms_top_k: "),
        ("rpn_proposals", {"nms_threshold": NAN}, "nms_threshold: "),
        ("rpn_proposals", {"input_height": -1}, "input_height: "),
        ("pyramid_roi_align", {"strides": lambda s: [float("inf")] * len(s)}, "strides: "),
        ("pyramid_roi_align", {"sampling_ratio": -3}, "sampling_ratio: "),
        ("pyramid_roi_align", {"sampling_ratio": 2**31 - 1}, "sampling_ratio: "),
        ("pyramid_roi_align", {"canonical_size": NAN}, "canonical_size: "),
        ("pyramid_roi_align", {"canonical_level": -(2**31)}, "canonical_level: "),
        ("box_detections", {"box_weights": [10.0, 0.0, 5.0, 5.0]}, "box_weights: "),
        ("box_detections", {"score_threshold": NAN}, "score_threshold: "),
        ("box_detections", {"boxes": lambda a: np.empty((len(a), 0, 4), np.float32)}, "boxes: rows: "),
        ("panoptic_merge", {"mask_threshold": 0.0}, "mask_threshold: "),
        ("panoptic_merge", {"input_width": 32768}, "input_width: "),
        ("panoptic_merge", {"panoptic": lambda a: np.empty((len(a), 0, 8), np.int32)}, "panoptic: height: "),
        ("panoptic_merge", {"mask_probs": lambda a: np.empty((*a.shape[:2], 0, 2), np.float32)}, "mask_probs: height"),
        ("overlay", {"opacity": 257}, "opacity: "),
        ("overlay", {"panoptic": np.empty((0, 4), np.int32)}, "panoptic: height: "),
        ("conv3x3", {"variant": 99}, "variant: "),
        ("conv3x3", {"variant": -1}, "variant: "),
        ("conv3x3", {"lower": 1.0, "upper": 0.0}, "lower, upper: "),
        ("conv3x3", {"lower": NAN}, "lower, upper: "),
        ("conv3x3", {"workspace": np.zeros((1, 8), np.float32)}, "workspace: "),
        ("look_up", {"table": np.zeros((3, 255), np.float32)}, "table: "),
    ],
)
def test_what_a_kernel_cannot_work_with_is_refused_by_name(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        call(name, **changes)


def test_an_empty_level_is_refused() -> None:
    rois, pooled = np.array([[[0, 0, 9, 9]]], np.float32), np.empty((1, 3, 2, 2), np.float32)
    options: dict[str, Any] = {"strides": [4.0], "output_size": 2, "sampling_ratio": 2, "canonical_size": 224.0}
    with pytest.raises(ValueError, match="features: height: expected 1 to"):
        _native.pyramid_roi_align(
            [np.empty((1, 3, 0, 8), np.float32)],
            rois,
            pooled,
            **options,
            canonical_level=4,
            min_level=2,
            nhwc=False,
            threads=1,
        )


@pytest.mark.parametrize("sizes", [(0, 16), (-16, 16), (2**31 - 1, 16), (2**62, 2**62), (17, 16)])
def test_the_workspace_of_an_impossible_convolution_has_no_size(sizes: tuple[int, int]) -> None:
    with pytest.raises((ValueError, TypeError)):
        _native.conv3x3_workspace(*sizes)


def test_any_call_ends_with_a_result_or_an_error_that_says_something() -> None:
    ended, surprises = fuzz_native.run(_native, 2, range(2000))
    assert surprises == []
    assert {f"{name} {how}" for name in ALL for how in ("ok", "ValueError", "TypeError")} == set(ended)


def test_a_convolution_may_be_called_by_several_threads() -> None:
    numbers = np.random.default_rng(0)
    convolution = native.Conv3x3(
        numbers.standard_normal((16, 16, 3, 3), np.float32), np.zeros(16, np.float32), threads=2
    )
    pixels = numbers.standard_normal((4, 1, 40, 50, 16), np.float32)
    expected = [convolution(x, np.empty_like(x)) for x in pixels]

    def work(number: int) -> None:
        for _ in range(30):
            x = pixels[number]
            np.testing.assert_array_equal(convolution(x, np.empty_like(x)), expected[number])

    with shared_sessions.restless():
        shared_sessions.in_threads(*(lambda number=number: work(number) for number in range(4)))
