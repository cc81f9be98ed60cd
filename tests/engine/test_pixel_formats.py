"""Pixel formats converted to BGR: the same values from every converter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panrt.engine.frame import Frame, PixelFormat, YuvStandard
from panrt.engine.pixel_formats import PIXEL_FORMATS, YUV_STANDARDS, bgr
from panrt.errors import FrameError
from panrt.plugins import frame_reference

SHAPES = {"nv12": (3, 2), "yuyv": (2, 2, 2), "bgr8": (2, 2, 3), "rgb8": (2, 2, 3)}  # of 2 x 2 pixels


def noise(pixel_format: PixelFormat, standard: YuvStandard, rows: int, columns: int, seed: int) -> Frame:
    """2 x rows by 2 x columns pixels."""
    height, width, *channels = SHAPES[pixel_format]
    shape = rows * height, columns * width, *channels
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Frame(image, pixel_format=pixel_format, yuv_standard=standard)


@given(
    st.sampled_from(PIXEL_FORMATS),
    st.sampled_from(YUV_STANDARDS),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_the_host_converts_as_the_gpu_does(
    pixel_format: PixelFormat, standard: YuvStandard, rows: int, columns: int, seed: int
) -> None:
    frame = noise(pixel_format, standard, rows, columns, seed)
    hw = 2 * rows, 2 * columns
    expected = frame_reference.preprocess(
        frame.image,
        frame_reference.Letterbox(hw, hw),
        pixel_format=pixel_format.upper(),
        standard=standard.upper(),
    )
    assert frame.hw == hw
    np.testing.assert_array_equal(bgr(frame), expected)


def test_frames_in_bgr_are_not_copied() -> None:
    frame = noise("bgr8", "bt601", 4, 4, 0)
    assert bgr(frame) is frame.image


def test_parts_of_larger_images_are_converted_too() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 2), np.uint8)
    part = image[2:10, 4:12]
    whole = bgr(Frame(image, pixel_format="yuyv"))
    np.testing.assert_array_equal(bgr(Frame(part, pixel_format="yuyv")), whole[2:10, 4:12])


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (Frame(np.zeros((4, 4), np.uint8), pixel_format="nv21"), "got pixel_format 'nv21', .*; expected one of bgr8"),  # type: ignore[arg-type]
        (Frame(np.zeros((6, 4), np.uint8), pixel_format="nv12", yuv_standard="bt2020"), "yuv_standard 'bt2020'"),  # type: ignore[arg-type]
        (Frame(np.zeros((5, 4), np.uint8), pixel_format="nv12"), r"got \(5, 4\) uint8 as nv12, expected \(H \* 3 / 2"),
        (Frame(np.zeros((6, 3), np.uint8), pixel_format="nv12"), r"got \(6, 3\)"),
        (Frame(np.zeros((6, 4, 1), np.uint8), pixel_format="nv12"), r"got \(6, 4, 1\)"),
        (Frame(np.zeros((0, 4), np.uint8), pixel_format="nv12"), r"got \(0, 4\)"),
        (Frame(np.zeros((4, 3, 2), np.uint8), pixel_format="yuyv"), r"got \(4, 3, 2\) uint8 as yuyv"),
        (Frame(np.zeros((4, 4), np.uint8), pixel_format="yuyv"), r"got \(4, 4\)"),
        (Frame(np.zeros((4, 4, 3), np.int8), pixel_format="rgb8"), r"got \(4, 4, 3\) int8 as rgb8"),
        (Frame("picture.jpg", pixel_format="rgb8"), "got str as rgb8"),  # type: ignore[arg-type]
        (Frame(np.zeros((4, 4), np.uint8)), r"expected .*\(H, W, 3\)"),
    ],
)  # fmt: skip
def test_an_image_that_is_not_of_its_format_is_refused(frame: Frame, said: str) -> None:
    with pytest.raises(FrameError, match=said):
        bgr(frame)
