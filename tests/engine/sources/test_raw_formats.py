"""Sources that deliver frames in their native pixel format, for the GPU to convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from panrt.engine.frame import Frame
from panrt.engine.pixel_formats import bgr
from panrt.engine.sources import SourceOptions, SourceUndecodableError, UnknownSourceError, open_source
from tools.streams import CLIP, IMAGES, drain, turned

NV12 = SourceOptions(pixel_format="nv12")
LIMITED, FULL = 1, 2  # FFmpeg's AVColorRange
BT709, BT601, BT2020 = 1, 5, 9  # FFmpeg's AVColorSpace


COLORS = np.random.default_rng(0).integers(40, 210, (3, 4, 3), np.uint8)


def picture() -> NDArray[np.uint8]:
    """Areas of 16 x 16 pixels, whose middles keep their colours when chroma is halved."""
    return COLORS.repeat(16, axis=0).repeat(16, axis=1)


def middles(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(3, 4, 3), the colours of a `picture`."""
    return image[8::16, 8::16].astype(np.int64)


def planes(image: NDArray[np.uint8], *, space: int, color_range: int) -> NDArray[np.uint8]:
    """(H * 3 / 2, W) of yuv420p, from the definition of a standard."""
    red, blue = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722)}[space]
    b, g, r = np.moveaxis(image.astype(np.float64) / 255, 2, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    zero, luma, chroma = (16, 219, 224) if color_range == LIMITED else (0, 255, 255)
    halves = [(128 + chroma * plane[::2, ::2]).reshape(-1, y.shape[1]) for plane in (u, v)]
    return np.asarray(np.rint(np.concatenate([zero + luma * y, *halves])), np.uint8)


def encode(path: Path, *, pixels: str = "yuv420p", space: int = BT601, color_range: int = LIMITED) -> Path:
    """Four frames of a picture, next to lossless, that say how their colours are meant."""
    options = {"qp": "1", "preset": "ultrafast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width = 48, 64
        stream.pix_fmt = pixels
        stream.codec_context.colorspace = space
        stream.codec_context.color_range = color_range
        content = planes(picture(), space=space, color_range=color_range)
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(content, format="yuv420p")
            frame.colorspace, frame.color_range = space, color_range
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode(None))
    return path


def both(path: Path) -> tuple[list[Frame], list[Frame]]:
    """A video's frames as BGR and in NV12."""
    with open_source(path) as source:
        converted = drain(source)
    with open_source(path, options=NV12) as source:
        raw = drain(source)
    assert source.error is None
    assert len(raw) == len(converted) > 0
    return converted, raw


def test_the_frames_of_a_clip_are_the_same_in_nv12() -> None:
    converted, raw = both(CLIP)
    for frame, other in zip(converted, raw, strict=True):
        height, width, _ = frame.image.shape
        assert (other.pixel_format, other.image.shape, other.hw) == ("nv12", (height * 3 // 2, width), (height, width))
        assert (other.index, other.media_time) == (frame.index, frame.media_time)
    for frame, other in zip(converted[::40], raw[::40], strict=True):
        assert np.abs(bgr(other).astype(int) - frame.image).mean() < 1.5  # FFmpeg rounds chroma another way


@pytest.mark.parametrize(
    ("options", "standard"),
    [
        ({}, "bt601"),
        ({"space": BT709}, "bt709"),
        ({"color_range": FULL}, "bt601"),
        ({"color_range": FULL, "space": BT709}, "bt709"),
        ({"pixels": "yuv444p"}, "bt601"),
        ({"pixels": "yuv420p10le", "space": BT709}, "bt709"),
    ],
)
def test_colours_are_those_that_were_encoded(tmp_path: Path, options: dict[str, Any], standard: str) -> None:
    _, raw = both(encode(tmp_path / "clip.mp4", **options))
    for frame in raw:
        assert frame.yuv_standard == standard
        assert np.abs(middles(bgr(frame)) - COLORS).max() <= 6


def test_a_phone_held_upright_films_upright(tmp_path: Path) -> None:
    clockwise = (0, 1 << 16, -(1 << 16), 0)
    converted, raw = both(turned(encode(tmp_path / "plain.mp4"), tmp_path / "turned.mp4", clockwise))
    assert converted[0].image.shape == (64, 48, 3)
    assert raw[0].hw == (64, 48)
    for image in (converted[0].image, bgr(raw[0])):
        assert np.abs(middles(image) - np.rot90(COLORS, -1)).max() <= 6


def test_what_nv12_cannot_hold_is_said(tmp_path: Path) -> None:
    odd = tmp_path / "odd.avi"
    with av.open(str(odd), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 47, 64, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture()[:47], format="bgr24")))
        container.mux(stream.encode(None))
    with open_source(odd, options=NV12) as source:
        assert drain(source) == []
    assert isinstance(source.error, SourceUndecodableError)
    assert "64 x 47 pixels" in str(source.error)
    assert "use bgr8" in str(source.error)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("test://64x48@30", "gives no frames in nv12, but in bgr8"),
        (str(IMAGES), "gives no frames in nv12, but in bgr8"),
    ],
)
def test_what_has_no_raw_frames_says_so(uri: str, said: str) -> None:
    with pytest.raises(UnknownSourceError, match=said):
        open_source(uri, options=NV12)
    with pytest.raises(UnknownSourceError, match="gives no frames in yuyv, but in bgr8 or nv12"):
        open_source("rtsp://camera/stream", options=SourceOptions(pixel_format="yuyv"))
    with pytest.raises(ValueError, match="pixel_format: got 'p010', expected one of bgr8, rgb8, nv12, yuyv"):
        SourceOptions(pixel_format="p010")  # type: ignore[arg-type]
