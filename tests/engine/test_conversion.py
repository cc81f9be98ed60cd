"""Whatever a program has for an image becomes the same frame, or an error that says how to convert it."""

from __future__ import annotations

import io
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import panrt
from panrt.engine.conversion import COLOR_ORDERS, ColorOrder, as_frame, to_bgr
from panrt.errors import FrameError, SourceUndecodableError
from tools.null_session import NullSession

BGR: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
RGB = np.ascontiguousarray(BGR[..., ::-1])
GREY = np.ascontiguousarray(BGR[..., 0])
ALPHA: NDArray[np.uint8] = np.dstack([BGR, 255 - GREY])


class ArrayLike:
    """An array of another library."""

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return BGR


def turned() -> Image.Image:
    """The image as a camera on its side stores it, with the orientation that turns it upright."""
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # stored turned to the left
    Image.fromarray(np.rot90(RGB)).save(data, "PNG", exif=exif)
    return Image.open(data)


SAME: dict[str, Any] = {
    "BGR": BGR,
    "a view": np.dstack([BGR, BGR])[..., :3],
    "BGR and alpha": ALPHA,
    "floats": BGR / 255,
    "half floats": torch.from_numpy(BGR / 255).to(torch.float64),
    "channels last": torch.from_numpy(BGR),
    "channels first": torch.from_numpy(BGR.transpose(2, 0, 1).copy()),
    "float channels first": torch.from_numpy(BGR.transpose(2, 0, 1) / 255).float().requires_grad_(),
    "an array of another library": ArrayLike(),
    "Pillow": Image.fromarray(RGB),
    "Pillow and alpha": Image.fromarray(np.dstack([RGB, GREY])),
    "Pillow, turned": turned(),
}


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_of_colour_image_becomes_the_same_array(kind: str) -> None:
    converted = to_bgr(SAME[kind])
    np.testing.assert_array_equal(converted, BGR)
    assert converted.dtype == np.uint8


@pytest.mark.parametrize(
    "image",
    [GREY, GREY[..., None], torch.from_numpy(GREY), torch.from_numpy(GREY[None]), Image.fromarray(GREY), GREY / 255],
    ids=["array", "one channel", "tensor", "channel first", "Pillow", "floats"],
)
def test_grey_images_get_three_equal_channels(image: object) -> None:
    np.testing.assert_array_equal(to_bgr(image), np.dstack([GREY] * 3))


def test_rgb_is_asked_for_by_name_and_pillow_s_colours_are_known() -> None:
    np.testing.assert_array_equal(to_bgr(RGB, pixel_format="rgb8"), BGR)
    np.testing.assert_array_equal(to_bgr(np.dstack([RGB, GREY]), pixel_format="rgb8"), BGR)
    np.testing.assert_array_equal(to_bgr(Image.fromarray(RGB), pixel_format="rgb8"), BGR)
    assert get_args(ColorOrder) == COLOR_ORDERS
    with pytest.raises(ValueError, match="pixel_format: got 'rgb', expected bgr8 or rgb8"):
        to_bgr(RGB, pixel_format="rgb")  # type: ignore[arg-type]


def test_bgr_is_not_copied_and_a_frame_not_touched() -> None:
    assert to_bgr(BGR) is BGR
    frame = panrt.Frame(RGB, 7, pixel_format="rgb8")
    assert as_frame(frame) is frame


def test_floats_are_rounded_to_the_nearest_byte() -> None:
    steps = np.linspace(0, 1, 256 * 3, dtype=np.float64).reshape(16, 16, 3)
    np.testing.assert_array_equal(to_bgr(steps), np.rint(steps * 255))
    exact = torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16)
    assert to_bgr(exact)[..., 0].tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (BGR.astype(np.uint16), r"got \(5, 7, 3\) uint16, .*; \(image >> 8\)\.astype\(np\.uint8\) converts 16 bits"),
        (BGR.astype(np.int64), r"got \(5, 7, 3\) int64, .*; convert it to uint8"),
        (BGR.astype(np.float32), r"got floats from \d+ to \d+, expected 0 to 1; divide values up to 255 by 255"),
        (BGR / 255 - 0.5, r"got floats from -0\.5 to .*before its normalisation"),
        (np.full((2, 2), np.nan), "got floats from nan to nan"),
        (BGR.transpose(2, 0, 1), r"got \(3, 5, 7\) uint8, .*; image\.transpose\(1, 2, 0\) puts the channels last"),
        (BGR[None], r"got \(1, 5, 7, 3\) uint8, .*; pass the images of a batch one by one"),
        (BGR[:0], r"got \(0, 7, 3\) uint8, .*; it has no pixels"),
        (BGR[..., :2], r"got \(5, 7, 2\) uint8, expected an array of \(H, W, 3\) uint8 in BGR"),
        (BGR[0, 0], r"got \(3,\) uint8"),
        (np.array([["a"]]), r"got \(1, 1\) <U1"),
        (torch.zeros(4, 3, 2, 2), r"got \(4, 3, 2, 2\) float32, .*one by one"),
        (Image.fromarray(GREY.astype(np.int32)), "got an image of Pillow in mode I, whose range is unknown"),
        (Image.new("RGB", (0, 3)), "got an image of Pillow without pixels"),
        (None, "got None, expected an array .* an image of Pillow or a tensor of PyTorch"),
        (7, "got 7, expected an array"),
        ([[1, 2]], r"got .*expected an array"),
    ],
)
def test_anything_else_is_an_error_with_a_cure(image: object, message: str) -> None:
    with pytest.raises(FrameError, match=f"^frame: {message}"):
        to_bgr(image)


def test_a_truncated_file_of_pillow_is_an_error() -> None:
    data = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(data, "JPEG")
    with pytest.raises(FrameError, match="Pillow cannot convert this image of mode RGB to RGB"):
        to_bgr(Image.open(io.BytesIO(data.getvalue()[:-40])))


def test_sessions_and_streams_take_all_of_them() -> None:
    session = NullSession()
    expected = session(BGR).panoptic
    for image in SAME.values():
        np.testing.assert_array_equal(session(image).panoptic, expected)
        np.testing.assert_array_equal(session(BGR).overlay(image), session(BGR).overlay(BGR))
    images = [*SAME.values(), panrt.Frame(BGR, file_name="a.jpg"), panrt.Frame(RGB, pixel_format="rgb8")]
    items = list(panrt.stream(iter(images), session, tracker=None).pairs())
    assert [item.result.file_name for item in items] == [""] * len(SAME) + ["a.jpg", ""]
    for item in items[:-1]:
        np.testing.assert_array_equal(item.result.panoptic, expected)
    np.testing.assert_array_equal(items[-1].frame.image, RGB)


def test_a_stream_names_the_image_that_it_cannot_convert() -> None:
    with pytest.raises(SourceUndecodableError, match=r"^images: number 1: got \(5, 7, 3\) int64"):
        list(panrt.stream(iter([BGR, BGR.astype(np.int64)]), NullSession()))
