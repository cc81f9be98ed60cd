"""PanopticMerge on the CPU against the reference, on small random images: a first look, quickly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from panrt.plugins import native, reference
from panrt.plugins.contract import Float32

NASTY = np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e30, -1e30, 1e-38, 0.0, -0.0, 0.5, 1.0], np.float32)


def sprinkled(rng: np.random.Generator, values: Float32, share: float) -> Float32:
    """The values with a share of them nasty."""
    return np.where(rng.random(values.shape) < share, rng.choice(NASTY, values.shape), values)


def random_call(seed: int) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of one merge: every third has nasty values, every third logits that differ in the last bits alone."""
    rng = np.random.default_rng(seed)
    N, K, S, h, w = 2, int(rng.integers(0, 12)), int(rng.integers(1, 9)), *rng.integers(1, 40, 2).tolist()
    input_hw = int(rng.integers(1, 4 * h + 1)), int(rng.integers(1, 4 * w + 1))
    output_hw = tuple(int(np.ceil(side * rng.uniform(0.3, 2))) for side in input_hw)
    share = 0.05 if seed % 3 == 0 else 0.0
    logits = rng.standard_normal((N, S, h, w), np.float32)
    if seed % 3 == 1:
        logits = np.float32(1) + rng.integers(0, 4, logits.shape).astype(np.float32) * np.float32(2**-23)
    centres, sides = rng.uniform(0, 1, (N, K, 2)), rng.uniform(0, 0.7, (N, K, 2))
    size = np.array([input_hw[1], input_hw[0]])
    boxes = np.concatenate([(centres - sides / 2) * size, (centres + sides / 2) * size], axis=-1).astype(np.float32)
    arrays = [
        sprinkled(rng, logits, share),
        sprinkled(rng, boxes, share),
        sprinkled(rng, np.round(rng.random((N, K), np.float32) * 8) / np.float32(8), share),
        rng.integers(0, 80, (N, K), np.int32),
        rng.integers(-1, K + 2, N, np.int32),
        sprinkled(rng, rng.random((N, K, 7, 7), np.float32), share),
    ]
    options = {
        "input_hw": input_hw,
        "output_hw": output_hw,
        "score_threshold": 0.25,
        "overlap_threshold": 0.5,
        "stuff_area_limit": 16,
        "mask_threshold": float(rng.choice([0.5, 0.3, 1e-50])),
    }
    return arrays, options


@pytest.mark.parametrize("seed", range(60))
def test_the_kernel_equals_the_reference_in_every_bit(seed: int) -> None:
    arrays, options = random_call(seed)
    expected = reference.panoptic_merge(*arrays, **options)
    for threads in (1, 3):
        merged = native.panoptic_merge(*arrays, **options, threads=threads)
        for name, value in merged._asdict().items():
            wanted = getattr(expected, name)
            assert (value.shape, value.dtype) == (wanted.shape, wanted.dtype), name
            assert value.tobytes() == wanted.tobytes(), f"{name} differs with {threads} threads"
