"""The colours of a panoptic map over a frame: one picture, whether NumPy or the kernel paints it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from panrt.plugins import native, reference

RED, GREEN = (200, 0, 0), (0, 100, 0)
COLORS = np.array([(9, 9, 9), RED, GREEN], np.uint8)


@pytest.fixture(params=[reference, native])
def overlay(request: pytest.FixtureRequest) -> Any:
    return request.param.overlay


def test_a_segment_is_tinted_by_its_colour_and_void_stays_as_it_is(overlay: Any) -> None:
    frame = np.full((2, 4, 3), 100, np.uint8)
    ids = np.array([[1, 1, 0, 5], [2, 2, 0, -3]], np.int32)
    picture = overlay(frame, ids, COLORS, opacity=0.25, border=0)
    assert picture[0, 0].tolist() == [125, 75, 75]
    assert picture[1, 1].tolist() == [75, 100, 75]
    assert (picture[:, 2:] == 100).all()
    assert (frame == 100).all()


def test_borders_are_opaque_and_half_way_to_white(overlay: Any) -> None:
    ids = np.array([[1, 1, 1, 2, 2]], np.int32)
    picture = overlay(np.zeros((1, 5, 3), np.uint8), ids, COLORS, opacity=0.0, border=2)
    assert picture[0].tolist() == [[0, 0, 0], [228, 128, 128], [228, 128, 128], [0, 0, 0], [0, 0, 0]]


def test_a_map_of_another_size_is_stretched_over_the_frame(overlay: Any) -> None:
    ids = np.array([[1, 2], [2, 1]], np.int32)
    picture = overlay(np.zeros((4, 6, 3), np.uint8), ids, COLORS, opacity=1.0, border=0)
    assert (picture[:2, :3] == RED).all()
    assert (picture[:2, 3:] == GREEN).all()
    assert (picture[2:, :3] == GREEN).all()


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    map_size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    colors=st.integers(0, 8),
    opacity=st.floats(0, 1),
    border=st.sampled_from((0, 1, 2, 5, 64, 1000)),
    seed=st.integers(0, 1000),
)
def test_the_kernel_paints_what_the_reference_paints(
    size: tuple[int, int], map_size: tuple[int, int], colors: int, opacity: float, border: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (*size, 3), np.uint8)
    coarse = rng.integers(-1, 9, (1 + map_size[0] // 4, 1 + map_size[1] // 4))
    ids: NDArray[np.int32] = np.kron(coarse, np.ones((4, 4), int))[: map_size[0], : map_size[1]].astype(np.int32)
    table = rng.integers(0, 256, (colors, 3), np.uint8)
    expected = reference.overlay(frame, ids, table, opacity=opacity, border=border)
    for threads in (1, 3):
        painted = native.overlay(frame, ids, table, opacity=opacity, border=border, threads=threads)
        np.testing.assert_array_equal(painted, expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"frame": np.zeros((4, 4), np.uint8)}, "frame: expected"),
        ({"frame": np.zeros((4, 4, 3), np.float32)}, "frame: expected"),
        ({"panoptic": np.zeros((4, 4), np.int64)}, "panoptic: expected"),
        ({"panoptic": np.zeros((0, 4), np.int32)}, "panoptic: expected h of at least 1"),
        ({"colors": np.zeros((4, 4), np.uint8)}, "colors: expected"),
        ({"opacity": 1.5}, "opacity: expected"),
        ({"border": -1}, "border: expected"),
    ],
)
def test_what_does_not_fit_is_named(overlay: Any, changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "frame": np.zeros((4, 4, 3), np.uint8),
        "panoptic": np.zeros((4, 4), np.int32),
        "colors": COLORS,
        "opacity": 0.5,
        "border": 1,
    } | changed
    with pytest.raises((ValueError, TypeError), match=message):
        overlay(arguments.pop("frame"), arguments.pop("panoptic"), arguments.pop("colors"), **arguments)
