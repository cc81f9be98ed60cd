"""RpnProposals and BoxDetections on the CPU equal the reference to the bit, at the sizes of a small network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from panrt.plugins import native, reference
from panrt.plugins.contract import Detections, Float32, Proposals


def assert_same_bits(got: Proposals | Detections, wanted: Proposals | Detections) -> None:
    for name, a, b in zip(wanted._fields, got, wanted, strict=True):
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32), err_msg=name)


def spoil(rng: np.random.Generator, values: Float32, share: float) -> Float32:
    """Some of the values become NaN, infinite, huge, tiny, or one of the zeros."""
    odd = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0, -0.0], np.float32)
    return np.where(rng.random(values.shape) < share, rng.choice(odd, values.shape), values)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.01])
def test_proposals_equal_the_reference(share: float, threads: int) -> None:
    rng = np.random.default_rng(1)
    sizes = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]
    logits = [spoil(rng, rng.standard_normal((2, 3, *size), np.float32).round(1), share) for size in sizes]
    deltas = [spoil(rng, rng.standard_normal((2, 12, *size), np.float32) * np.float32(0.3), share) for size in sizes]
    options: dict[str, Any] = {
        "strides": [4, 8, 16, 32, 64],
        "anchor_sizes": [32.0, 64.0, 128.0, 256.0, 512.0],
        "aspect_ratios": [0.5, 1.0, 2.0],
        "pre_nms_top_k": 200,
        "post_nms_top_k": 150,
        "nms_threshold": 0.7,
        "input_hw": (125, 157),
    }
    wanted = reference.rpn_proposals(logits, deltas, **options)
    assert (wanted.roi_count > 50).all()
    assert_same_bits(native.rpn_proposals(logits, deltas, **options, threads=threads), wanted)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.001])
def test_detections_equal_the_reference(share: float, threads: int) -> None:
    rng = np.random.default_rng(2)
    N, R, C = 2, 300, 20
    corners = rng.uniform(0, 100, (N, R, 2)).astype(np.float32)
    rois = np.concatenate([corners, corners + rng.uniform(1, 60, (N, R, 2)).astype(np.float32)], axis=2)
    logits = spoil(rng, 4 * rng.standard_normal((N, R, C + 1), np.float32).round(1), share)
    deltas = spoil(rng, rng.standard_normal((N, R, 4 * C), np.float32), share)
    options: dict[str, Any] = {
        "box_weights": (10.0, 10.0, 5.0, 5.0),
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "max_detections": 100,
        "input_hw": (125, 157),
    }
    count = np.array([R, R // 2], np.int32)
    wanted = reference.box_detections(logits, deltas, rois, count, **options)
    assert (wanted.count > 50).all()
    assert_same_bits(native.box_detections(logits, deltas, rois, count, **options, threads=threads), wanted)
