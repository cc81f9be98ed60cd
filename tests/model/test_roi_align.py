"""The differentiable RoIAlign equals the op, and its gradient equals finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from panrt.model.custom_ops import KERNELS
from panrt.model.roi_align import pyramid_roi_align, roi_align

PYRAMID: dict[str, Any] = {"canonical_size": 56.0, "canonical_level": 4, "min_level": 2}


def random_pyramid(random: torch.Generator, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, 3, 32 // 2**i, 40 // 2**i, generator=random, dtype=dtype) for i in range(4)]


def random_rois(random: torch.Generator, number: int) -> Tensor:
    """Boxes of all sizes, many of them partly or wholly outside the 160 x 128 image, some empty or inverted."""
    corner = torch.rand(2, number, 2, generator=random) * 240 - 60
    size = torch.rand(2, number, 2, generator=random) ** 3 * 200 - 2
    return torch.cat([corner, corner + size], dim=-1)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), output_size=st.sampled_from([1, 5, 7, 14]), sampling_ratio=st.integers(0, 2))
def test_pooled_values_are_the_ops(seed: int, output_size: int, sampling_ratio: int) -> None:
    random = torch.Generator().manual_seed(seed)
    features, rois = random_pyramid(random), random_rois(random, 12)
    pooled = pyramid_roi_align(
        [x.double() for x in features],  # in float32 the op's own kernel would be compared with itself
        [rois[0], rois[1]],
        strides=(4, 8, 16, 32),
        output_size=output_size,
        sampling_ratio=sampling_ratio,
        **PYRAMID,
    )
    expected = KERNELS.pyramid_roi_align(
        features, rois, strides=(4, 8, 16, 32), output_size=output_size, sampling_ratio=sampling_ratio, **PYRAMID
    )
    torch.testing.assert_close(pooled.float(), expected, atol=1e-4, rtol=1e-4)


def test_the_kernel_on_the_cpu_has_the_values_and_the_gradient_of_the_products() -> None:
    random = torch.Generator().manual_seed(5)
    features, rois = random_pyramid(random), random_rois(random, 12)
    options: dict[str, Any] = {"strides": (4, 8, 16, 32), "output_size": 3, "sampling_ratio": 0, **PYRAMID}
    weight = torch.randn(19, 3, 3, 3, generator=random)
    found = []
    for dtype in (torch.float32, torch.float64):
        levels = [x.to(dtype, copy=True).requires_grad_() for x in features]
        pooled = pyramid_roi_align(levels, [rois[0], rois[1][:7]], **options)
        (pooled * weight).sum().backward()  # type: ignore[no-untyped-call]
        found.append((pooled, *(torch.zeros_like(x) if x.grad is None else x.grad for x in levels)))
    for single, double in zip(*found, strict=True):
        torch.testing.assert_close(single, double.float(), atol=1e-4, rtol=1e-4)


def test_an_aligned_ramp_gives_the_hand_computed_rows() -> None:
    ramp = torch.arange(25.0).view(1, 1, 5, 5)
    pooled = roi_align(
        ramp, torch.tensor([[1.0, 1, 3, 3]]), torch.tensor([0]), stride=1, output_size=4, sampling_ratio=0
    )
    rows = [[4.5, 5, 5.5, 6], [7, 7.5, 8, 8.5], [9.5, 10, 10.5, 11], [12, 12.5, 13, 13.5]]
    torch.testing.assert_close(pooled[0, 0], torch.tensor(rows))


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_the_gradient_is_that_of_finite_differences(sampling_ratio: int) -> None:
    random = torch.Generator().manual_seed(3)
    feature = torch.randn(2, 2, 5, 6, generator=random, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor(
        [[0.0, 0, 24, 20], [3.3, 5.1, 9.7, 19.4], [-9, 2, 40, 8], [90, 90, 99, 99]], dtype=torch.float64
    )

    def pool(x: Tensor) -> Tensor:
        images = torch.tensor([0, 1, 1, 0])
        return roi_align(x, rois, images, stride=4, output_size=3, sampling_ratio=sampling_ratio)

    assert torch.autograd.gradcheck(pool, (feature,))


def test_the_gradient_reaches_every_level() -> None:
    features = [x.requires_grad_() for x in random_pyramid(torch.Generator().manual_seed(0), torch.float64)]
    sides = torch.tensor([8.0, 40, 100, 120])
    rois = torch.stack([torch.zeros(4), torch.zeros(4), sides, sides], dim=1).double()

    def pool(*levels: Tensor) -> Tensor:
        return pyramid_roi_align(
            levels, [rois, rois[:1]], strides=(4, 8, 16, 32), output_size=2, sampling_ratio=0, **PYRAMID
        )

    assert torch.autograd.gradcheck(pool, features, fast_mode=True)
    pool(*features).sum().backward()  # type: ignore[no-untyped-call]
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in features)


def test_numbers_of_rois_may_differ_between_images() -> None:
    features = random_pyramid(torch.Generator().manual_seed(1))
    rois = random_rois(torch.Generator().manual_seed(2), 5)
    options: dict[str, Any] = {"strides": (4, 8, 16, 32), "output_size": 3, "sampling_ratio": 0, **PYRAMID}
    pooled = pyramid_roi_align(features, [rois[0], rois[1][:2]], **options)
    whole = pyramid_roi_align(features, [rois[0], rois[1]], **options)
    assert torch.equal(pooled, whole[:7])
    assert pyramid_roi_align(features, [rois[0][:0], rois[1][:0]], **options).shape == (0, 3, 3, 3)


def test_half_precision_features_keep_exact_geometry() -> None:
    ramp = torch.arange(4096.0).view(1, 1, 1, -1).expand(1, 1, 8, -1) / 2048
    rois = torch.tensor([[4001.25, 0, 4009.25, 8.0]])
    options = {"stride": 1, "output_size": 2, "sampling_ratio": 0}
    exact = roi_align(ramp, rois, torch.tensor([0]), **options)
    half = roi_align(ramp.half(), rois, torch.tensor([0]), **options)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, atol=2e-3, rtol=0)
