"""The Winograd convolution equals the direct one up to rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from panrt.plugins import native
from support.rounding import winograd_allowed

Float32 = NDArray[np.float32]


def direct(x: Float32, weight: Float32, bias: Float32) -> NDArray[np.float64]:
    """(N, H, W, C) with (O, C, 3, 3), in float64."""
    _, H, W, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    result = np.zeros((*x.shape[:3], len(bias)), np.float64) + bias.astype(np.float64)
    for i in range(3):
        for j in range(3):
            result += padded[:, i : i + H, j : j + W] @ weight[:, :, i, j].T.astype(np.float64)
    return result


def case(N: int, H: int, W: int, C: int, O: int, seed: int) -> tuple[Float32, Float32, Float32]:  # noqa: E741
    rng = np.random.default_rng(seed)
    x, weight, bias = (rng.standard_normal(shape, np.float32) for shape in ((N, H, W, C), (O, C, 3, 3), (O,)))
    return x, weight / np.float32(3 * np.sqrt(C)), bias


@given(
    st.integers(1, 2),
    st.integers(1, 23),
    st.integers(1, 23),
    st.sampled_from([16, 32, 80]),
    st.sampled_from([16, 48, 80]),
    st.sampled_from([(-np.inf, np.inf), (0.0, np.inf), (0.0, 0.5)]),
    st.integers(0, 999),
)
def test_it_is_the_convolution(
    N: int,
    H: int,
    W: int,
    C: int,
    O: int,  # noqa: E741
    bounds: tuple[float, float],
    seed: int,
) -> None:
    x, weight, bias = case(N, H, W, C, O, seed)
    exact, bound = direct(x, weight, bias).clip(*bounds), winograd_allowed(x, weight, bias)
    out = np.full((N, H, W, O), np.nan, np.float32)
    for instructions in native.conv3x3_instructions():
        results = [
            native.Conv3x3(weight, bias, bounds=bounds, threads=threads, instructions=instructions)(x, out).copy()
            for threads in (1, 3)
        ]
        assert np.all(np.abs(results[0] - exact) <= bound)
        np.testing.assert_array_equal(results[0], results[1])


def test_a_point_spreads_its_weights() -> None:
    x = np.zeros((1, 9, 11, 16), np.float32)
    x[0, 4, 6, 3] = 1.0
    weight = np.arange(16 * 16 * 9, dtype=np.float32).reshape(16, 16, 3, 3) / np.float32(4096)
    out = np.empty((1, 9, 11, 16), np.float32)
    bias = np.zeros(16, np.float32)
    native.Conv3x3(weight, bias)(x, out)
    expected = np.zeros_like(out)
    expected[0, 3:6, 5:8] = weight[:, 3, ::-1, ::-1].transpose(1, 2, 0)
    assert np.all(np.abs(out - expected) <= winograd_allowed(x, weight, bias))


def test_bad_pixels_stay_with_their_neighbours() -> None:
    x, weight, bias = case(1, 24, 24, 16, 16, 0)
    x[0, 2, 2, 0] = np.inf
    out = np.empty((1, 24, 24, 16), np.float32)
    native.Conv3x3(weight, bias)(x, out)
    assert not np.isfinite(out[0, 1:4, 1:4]).any()
    assert np.isfinite(out[0, 8:]).all()


def test_a_second_picture_knows_nothing_of_the_first() -> None:
    x, weight, bias = case(1, 21, 17, 16, 16, 0)
    convolve = native.Conv3x3(weight, bias, threads=2)
    once, again = (np.empty((1, 21, 17, 16), np.float32) for _ in range(2))
    convolve(x, once)
    convolve(np.full_like(x, np.nan), np.empty_like(once))
    np.testing.assert_array_equal(convolve(x, again), once)


@pytest.mark.parametrize("shape", [(16, 16, 1, 1), (16, 8, 3, 3), (24, 16, 3, 3), (16, 16, 5, 5), (32, 16, 3, 3)])
def test_weights_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"weight, bias: got .*; expected .* multiples of 16"):
        native.Conv3x3(np.zeros(shape, np.float32), np.zeros(16, np.float32))


def test_arrays_that_do_not_fit_are_refused() -> None:
    x, weight, bias = case(1, 8, 8, 16, 32, 0)
    convolve, out = native.Conv3x3(weight, bias), np.empty((1, 8, 8, 32), np.float32)
    with pytest.raises(ValueError, match="weights: axis 2 is 16, expected 32"):
        convolve(np.zeros((1, 8, 8, 32), np.float32), out)
    with pytest.raises(ValueError, match="output: axis 1 is 7, expected 8"):
        convolve(x, out[:, :7].copy())
    with pytest.raises(TypeError):
        convolve(x[:, :, ::2], out)
    with pytest.raises(ValueError, match=r"threads: .*, got 0"):
        native.Conv3x3(weight, bias, threads=0)
    with pytest.raises(ValueError, match=r"instructions: got 'mmx', this processor has .*any"):
        native.Conv3x3(weight, bias, instructions="mmx")
