"""PyramidRoiAlign: hand-computed cases, independent oracles, OPS.md section 6, and agreement of the forms."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional
from hypothesis import given
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from panrt.plugins import reference
from support import oracles
from support.cases import RoiAlignCase, network_cases, roi_align_cases
from support.compare import assert_pooled, reached

Array = NDArray[Any]


def pool(ops: ModuleType, features: list[Any], rois: Any, **options: Any) -> Array:
    """Pool RoIs (R, 4) of one image from levels (C, H, W)."""
    maps = [np.ascontiguousarray(f, np.float32)[None] for f in features]
    defaults: dict[str, Any] = {"strides": [1 << i for i in range(len(maps))], "output_size": 1, "sampling_ratio": 0}
    pooled: Array = ops.pyramid_roi_align(maps, np.array(rois, np.float32)[None], **(defaults | options))
    return pooled


def levels_of_constants(values: list[float], side: int = 8) -> list[Array]:
    """One level a value, constant, so that a pooled value says which level it came from."""
    return [np.full((1, side, side), value) for value in values]


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
def test_aligned_ramp_gives_the_hand_computed_rows(ops: ModuleType, sampling_ratio: int) -> None:
    ramp = np.arange(25).reshape(1, 5, 5)
    pooled = pool(ops, [ramp], [[1, 1, 3, 3]], output_size=4, sampling_ratio=sampling_ratio)
    wanted = [[4.5, 5, 5.5, 6], [7, 7.5, 8, 8.5], [9.5, 10, 10.5, 11], [12, 12.5, 13, 13.5]]
    assert_allclose(pooled[0, 0], wanted, atol=1e-5)


def test_a_roi_of_whole_cells_gives_their_means(ops: ModuleType) -> None:
    # Two samples a bin and axis fall on cell centres, so that a bin is the mean of its four cells.
    feature = np.random.default_rng(0).normal(size=(3, 6, 8))
    pooled = pool(ops, [feature], [[2, 0, 6, 4]], output_size=2, sampling_ratio=2)
    assert_allclose(pooled[0], feature[:, 0:4, 2:6].reshape(3, 2, 2, 2, 2).mean(axis=(2, 4)), rtol=1e-5)


def test_adaptive_sampling_takes_the_size_of_a_bin_rounded_up(ops: ModuleType) -> None:
    # One bin of 2.5 cells: samples at 2.5 / 3 * (i + 0.5) - 0.5 of a ramp that is square, not linear.
    feature = np.broadcast_to(np.arange(6.0) ** 2, (1, 6, 6))
    positions = np.array([0, 1, 2]) * 2.5 / 3 + 2.5 / 6 + 0.5  # the RoI begins at 1
    wanted = np.interp(positions, np.arange(6), np.arange(6.0) ** 2).mean()
    assert_allclose(pool(ops, [feature], [[1, 1, 3.5, 3.5]]), [[[[wanted]]]], rtol=1e-5)


@pytest.mark.parametrize(
    ("side", "level"),
    [(1, 2), (111.999, 2), (112, 3), (223.9998, 3), (224, 4), (447.999, 4), (448, 5), (4000, 5)],
)
def test_the_area_decides_the_level_and_112_and_224_belong_to_the_upper_one(
    ops: ModuleType, side: float, level: int
) -> None:
    pooled = pool(ops, levels_of_constants([2, 3, 4, 5]), [[0, 0, side, side]], strides=[512] * 4)
    assert pooled.item() == pytest.approx(level)


def test_the_level_is_found_in_float32(ops: ModuleType) -> None:
    # One ulp under 224: the relative side is 1 - 2^-24, its log2 -8.6e-8, and 4 plus that rounds to 4.
    side = np.nextafter(np.float32(224), np.float32(0))
    assert pool(ops, levels_of_constants([2, 3, 4, 5]), [[0, 0, side, side]], strides=[512] * 4).item() == 4


def test_the_level_follows_canonical_size_and_level_and_is_clamped_to_those_there_are(ops: ModuleType) -> None:
    features = levels_of_constants([10, 11, 12])
    squares = [[0, 0, side, side] for side in (4, 7.9, 8, 15.9, 16, 31)]
    pooled = pool(ops, features, squares, strides=[4, 4, 4], canonical_size=8.0, canonical_level=1, min_level=0)
    assert_allclose(pooled.reshape(-1), [10, 10, 11, 11, 12, 12], rtol=1e-6)
    pooled = pool(ops, features, squares, strides=[4, 4, 4], canonical_size=8.0, canonical_level=3, min_level=3)
    assert_allclose(pooled.reshape(-1), [10, 10, 10, 10, 11, 11], rtol=1e-6)


def test_the_area_counts_not_the_longer_side(ops: ModuleType) -> None:
    features = levels_of_constants([2, 3, 4], side=4)
    options: dict[str, Any] = {"strides": [256, 256, 256], "sampling_ratio": 1}
    pooled = pool(ops, features, [[0, 0, 448, 56], [0, 0, 448, 27], [0, 0, 448, 112]], **options)
    assert_allclose(pooled.reshape(-1), [3, 2, 4], rtol=1e-6)


def test_rows_are_image_major(ops: ModuleType) -> None:
    features = np.stack([np.full((1, 4, 4), 1.0), np.full((1, 4, 4), 2.0)]).astype(np.float32)
    rois = np.zeros((2, 3, 4), np.float32)
    rois[0, 1] = rois[1, 0] = rois[1, 1] = 1, 1, 3, 3
    pooled = ops.pyramid_roi_align([features], rois, strides=[1], output_size=1, sampling_ratio=1)
    assert pooled.reshape(-1).tolist() == [0, 1, 0, 2, 2, 0]


def test_float16_features_average_in_float32_and_round_to_nearest_even(ops: ModuleType) -> None:
    # 1 and the next float16, 1 + 2^-10: their mean is half way and rounds to the even 1. 2048 + 1 would be lost in a
    # float16 sum, but not in the mean of 2048 and 2050.
    for pair, mean in (((1.0, 1 + 2**-10), 1.0), ((2048.0, 2050.0), 2048.0), ((2050.0, 2052.0), 2052.0)):
        feature = np.array(pair, np.float16).reshape(1, 1, 1, 2)
        pooled = ops.pyramid_roi_align(
            [feature], np.array([[[0, 0, 2, 1]]], np.float32), strides=[1], output_size=1, sampling_ratio=0
        )
        assert pooled.dtype == np.float16
        assert pooled.item() == mean


# --- OPS.md section 6, row by row -------------------------------------------------------------------------------------


def test_no_rois_pool_to_no_rows(ops: ModuleType) -> None:
    assert pool(ops, [np.ones((3, 4, 4))], np.zeros((0, 4)), output_size=7).shape == (0, 3, 7, 7)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize(
    "roi",
    [
        (0, 0, 0, 0),
        (1, 1, 1, 3),
        (1, 1, 3, 1),
        (3, 1, 1, 3),
        (1, 3, 3, 1),
        (3, 3, 1, 1),
        (math.nan, 1, 3, 3),
        (1, 1, 3, math.nan),
        (1, 1, math.inf, 3),
        (1, -math.inf, 3, 3),
        (-65537, 1, 3, 3),
        (1, 1, 3, np.nextafter(np.float32(65536), np.float32(1e9))),
    ],
)
def test_a_roi_that_is_not_usable_pools_to_zero(ops: ModuleType, roi: tuple[float, ...], sampling_ratio: int) -> None:
    pooled = pool(ops, [np.ones((2, 4, 4))], [roi, (1, 1, 3, 3)], output_size=2, sampling_ratio=sampling_ratio)
    assert not pooled[0].any()
    assert_allclose(pooled[1], 1)


def test_the_largest_coordinates_are_still_pooled(ops: ModuleType) -> None:
    # 131072 samples a row, one a cell, at the cells -65536, ..., 65535; those at -1, 0, 1, .., 4 see the level.
    pooled = pool(ops, [np.ones((1, 4, 4))], [[-65536, 1, 65536, 2]], min_level=4)
    assert pooled.item() == pytest.approx(6 / 131072, rel=1e-5)


def test_the_largest_roi_is_pooled_without_overflow(native: ModuleType) -> None:
    # As above on both axes: the divisor is 2^34.
    pooled = pool(native, [np.ones((1, 4, 4))], [[-65536, -65536, 65536, 65536]], min_level=4)
    assert pooled.item() == pytest.approx(36 / 131072**2, rel=1e-5)


def test_samples_more_than_a_cell_outside_are_zero_and_still_counted(ops: ModuleType) -> None:
    # Samples at cells -3, -2, -1, 0 along x: the last two see the level, -1 as the clamped cell 0.
    assert pool(ops, [np.ones((1, 4, 4))], [[-3, 1, 1, 2]]).item() == 0.5
    # Samples at 3, 4, 5: 4 is the width, still within.
    assert pool(ops, [np.ones((1, 4, 4))], [[3, 1, 6, 2]]).item() == pytest.approx(2 / 3)
    assert pool(ops, [np.ones((1, 4, 4))], [[40, 40, 60, 60], [-60, -60, -40, -40]]).tolist() == [[[[0]]], [[[0]]]]


def test_a_level_of_one_cell_clamps_its_edges(ops: ModuleType) -> None:
    # Three samples an axis: at cells -1, 0 and 1, all of which are the only cell.
    assert pool(ops, [[[[7.0]]]], [[-1, -1, 2, 2]]).item() == 7
    assert pool(ops, [[[[7.0]]]], [[0, 0, 1, 1]], output_size=3).tolist() == [[[[7.0] * 3] * 3]]


# --- against independent implementations ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_pooling_is_grid_sample_followed_by_average_pooling(ops: ModuleType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    H, W, S, ratio = 11, 14, 5, 2
    feature = rng.normal(size=(4, H, W)).astype(np.float32)
    x0, y0 = rng.uniform(0.5, 5, 2)
    x1, y1 = rng.uniform(6, (W - 0.5, H - 0.5))
    cells = (np.arange(S * ratio) + 0.5) / (S * ratio)
    x, y = (x0 + (x1 - x0) * cells) / W * 2 - 1, (y0 + (y1 - y0) * cells) / H * 2 - 1
    grid = np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)
    samples = torch.nn.functional.grid_sample(
        torch.tensor(feature)[None], torch.tensor(grid)[None], align_corners=False
    )
    wanted = torch.nn.functional.avg_pool2d(samples, ratio).numpy()
    pooled = pool(ops, [feature], [[x0, y0, x1, y1]], output_size=S, sampling_ratio=ratio)
    assert_allclose(pooled, wanted, atol=1e-4)


@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_pooling_is_the_sum_over_samples_in_float64(ops: ModuleType, seed: int, sampling_ratio: int) -> None:
    rng = np.random.default_rng(seed)
    feature = rng.normal(size=(3, 9, 13)).astype(np.float32)
    corners = rng.uniform(-20, 70, (8, 2))  # a level of 36 x 52 pixels
    rois = np.concatenate([corners, corners + rng.uniform(1, 60, (8, 2))], axis=1).astype(np.float32)
    options: dict[str, Any] = {"output_size": 4, "sampling_ratio": sampling_ratio}
    pooled = pool(ops, [feature], rois, strides=[4], **options)
    for got, roi in zip(pooled, rois, strict=True):
        # Positions are float32 in the op: 1e-6 of a cell, by which a steep feature moves a little.
        assert_allclose(got, oracles.roi_align(feature, roi, stride=4, **options), atol=2e-5)


# --- agreement and properties -----------------------------------------------------------------------------------------


def at_the_border(case: RoiAlignCase) -> Array:
    """Bins, (N*R, 1, S, S), with a sample so near a cell outside its level that rounding decides whether it counts."""
    (features, rois), options = case.arguments()
    S, strides = case.output_size, options["strides"]
    usable = reference.usable_rois(rois).reshape(-1)
    found = np.zeros((case.N * case.R, 1, S, S), bool)
    for r in np.nonzero(usable)[0]:
        roi = rois.reshape(-1, 4)[r]
        level = reference.pyramid_level(roi, case.canonical_size, case.canonical_level) - case.min_level
        level = min(max(level, 0), len(features) - 1)
        near = []
        for axis, size in enumerate(features[level].shape[:1:-1]):  # x, y
            at, _ = reference.sample_positions(roi[axis], roi[axis + 2], strides[level], S, case.sampling_ratio)
            rounding = 4 * np.finfo(np.float32).eps * max(1.0, np.abs(at).max(initial=0.0))
            near.append(((np.abs(at + 1) <= rounding) | (np.abs(at - size) <= rounding)).any(axis=1))
        found[r, 0] = near[0][None, :] | near[1][:, None]
    return found


@given(case=roi_align_cases)
def test_native_pools_as_the_reference_does(native: ModuleType, case: RoiAlignCase) -> None:
    wanted = case.run(reference.pyramid_roi_align)
    assert_pooled(case.run(native.pyramid_roi_align), wanted, case.arguments()[0][0])


@given(case=roi_align_cases)
def test_onnx_pools_as_the_reference_does(onnx: ModuleType, case: RoiAlignCase) -> None:
    # ONNX Runtime's RoiAlign rounds sample positions differently in the last bit: what that decides is left out.
    open_ = reached(case, 1) | at_the_border(case)
    wanted = case.run(reference.pyramid_roi_align)
    assert_pooled(case.run(onnx.pyramid_roi_align), wanted, case.arguments()[0][0], open_)


@given(case=roi_align_cases)
def test_a_value_that_is_not_finite_reaches_the_bins_that_touch_it_and_no_others(case: RoiAlignCase) -> None:
    case = replace(case, poison=("nan",))
    (features, rois), options = case.arguments()
    pooled = case.run(reference.pyramid_roi_align)
    assert np.isnan(pooled[reached(case, 0)]).all()
    clean = reference.pyramid_roi_align([np.nan_to_num(f) for f in features], rois, **options)
    assert_pooled(pooled, clean, features, reached(case, 1))


def touched_cells(low: float, high: float, bins: int, ratio: int, size: int) -> Array:
    """Which cells of an axis the samples of each bin touch, (bins, size): OPS.md 3.4, weight 0 or not."""
    touched = np.zeros((bins, size), bool)
    for i in range(bins * ratio):
        position = low - 0.5 + (i + 0.5) * (high - low) / (bins * ratio)
        if -1 <= position <= size:
            lower = min(int(max(position, 0)), size - 1)
            touched[i // ratio, [lower, min(lower + 1, size - 1)]] = True
    return touched


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("hw", [(5, 6), (1, 4), (3, 1), (1, 1)])
def test_a_touch_with_weight_0_counts_and_no_touch_does_not(
    ops: ModuleType, hw: tuple[int, int], half: bool, value: float
) -> None:
    # An image for each cell, which alone is not finite in it. All positions are exact; on cell centres the upper
    # neighbour has weight 0, and so has it outside the upper and left edge. Samples 4 apart leave cells between them.
    cells = hw[0] * hw[1]
    features = np.random.default_rng(0).normal(size=(cells, 1, cells)).astype(np.float16 if half else np.float32)
    features[np.arange(cells), 0, np.arange(cells)] = value
    for ratio in (1, 2):
        rois = [(x0, y0, x0 + w, y0 + h) for x0, y0 in ((0, 0), (-2, -1), (1, 2)) for w, h in ((2, 2), (4, 2), (8, 16))]
        pooled = ops.pyramid_roi_align(
            [features.reshape(cells, 1, *hw)],
            np.broadcast_to(np.array(rois, np.float32), (cells, len(rois), 4)).copy(),
            strides=[1],
            output_size=2,
            sampling_ratio=ratio,
        )
        found = ~np.isfinite(pooled.reshape(*hw, len(rois), 2, 2))
        for r, (x0, y0, x1, y1) in enumerate(rois):
            rows, columns = touched_cells(y0, y1, 2, ratio, hw[0]), touched_cells(x0, x1, 2, ratio, hw[1])
            np.testing.assert_array_equal(found[:, :, r], np.einsum("py,qx->yxpq", rows, columns), str(rois[r]))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_every_form_agrees_at_the_size_of_a_network(form: ModuleType, seed: int, half: bool) -> None:
    case = replace(network_cases(seed)[1], half=half)
    wanted = case.run(reference.pyramid_roi_align)
    assert_pooled(case.run(form.pyramid_roi_align), wanted, case.arguments()[0][0])


@pytest.mark.parametrize("C", [1, 7, 8, 16, 31, 64, 256])
def test_native_agrees_at_every_number_of_channels(native: ModuleType, C: int) -> None:
    case = replace(network_cases(3)[1], C=C, R=8)
    assert_pooled(case.run(native.pyramid_roi_align), case.run(reference.pyramid_roi_align), case.arguments()[0][0])


@given(case=roi_align_cases)
def test_nhwc_equals_nchw(python_ops: ModuleType, case: RoiAlignCase) -> None:
    nchw = case.run(python_ops.pyramid_roi_align)
    nhwc = replace(case, layout="NHWC").run(python_ops.pyramid_roi_align)
    assert nhwc.flags.c_contiguous
    assert_pooled(nhwc.transpose(0, 3, 1, 2), nchw, case.arguments()[0][0], tolerance=1e-6)


@given(case=roi_align_cases)
def test_pooling_does_not_depend_on_threads_or_batch(native: ModuleType, case: RoiAlignCase) -> None:
    (features, rois), options = case.arguments()
    whole = native.pyramid_roi_align(features, rois, **options, threads=1)
    for threads in (2, 5):
        np.testing.assert_array_equal(native.pyramid_roi_align(features, rois, **options, threads=threads), whole)
    for n in range(case.N):
        one = native.pyramid_roi_align([f[n : n + 1] for f in features], rois[n : n + 1], **options)
        np.testing.assert_array_equal(one, whole[n * case.R : (n + 1) * case.R])


@given(case=roi_align_cases)
def test_pooling_a_constant_gives_no_more_than_the_constant(ops: ModuleType, case: RoiAlignCase) -> None:
    (features, rois), options = replace(case, poison=()).arguments()
    pooled = ops.pyramid_roi_align([np.full_like(f, 3) for f in features], rois, **options)
    assert (pooled >= 0).all()
    assert (pooled <= 3.0001).all()


def test_inputs_may_be_read_only_and_stay_as_they_are(python_ops: ModuleType) -> None:
    case = network_cases(1)[1]
    (features, rois), options = case.arguments()
    for array in (*features, rois):
        array.flags.writeable = False
    pooled = python_ops.pyramid_roi_align(features, rois, **options)
    assert_pooled(pooled, case.run(reference.pyramid_roi_align), features)
