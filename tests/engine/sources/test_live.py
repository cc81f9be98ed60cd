"""Live sources that are not on the network: the pattern, and cameras that come and go."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panrt.engine.sources import SourceNotFoundError, SourceOptions, SourceRefusedError, State, open_source, v4l2
from panrt.engine.sources.pattern import STEP, pattern
from panrt.formats.video_files import open_video
from tools.clock import ManualClock
from tools.streams import drain


def test_the_pattern_keeps_its_rate_and_its_captures_their_moments() -> None:
    with open_source("test://64x48@100?frames=50") as source:
        frames = drain(source)
    status = source.status
    assert status.captured == 50 == len(frames) + status.dropped
    moments = np.array([frame.captured_at for frame in frames])
    indices = np.array([frame.index for frame in frames])
    assert np.allclose(np.diff(moments), 0.01 * np.diff(indices), atol=1e-6)
    assert all(np.array_equal(frame.image, pattern(frame.index, (48, 64))) for frame in frames)


@given(width=st.integers(1, 70), height=st.integers(1, 20), index=st.integers(0, 500))
def test_the_pattern_moves_to_the_left_and_comes_round(width: int, height: int, index: int) -> None:
    picture = pattern(index, (height, width))
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(np.roll(picture, -STEP, axis=1), pattern(index + 1, (height, width)))


def test_latest_gives_the_newest_frame_and_counts_the_others() -> None:
    clock = ManualClock()
    with open_source("test://16x16@200", options=SourceOptions(clock=clock)) as source:
        first = source.take(None)
        clock.advance(0.2525)
        newest = source.take()
    assert first is not None
    assert newest is not None
    assert (first.index, newest.index) == (0, 50)
    assert newest.captured_at - first.captured_at == pytest.approx(0.25)
    assert source.status.dropped == 49


@pytest.fixture
def raw_camera(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A device that gives four frames, then is unplugged; opened a second time it is not back yet. What was opened."""
    frames = tmp_path / "frames.yuyv"
    frames.write_bytes(b"".join(bytes([n]) * 8 * 6 * 2 for n in (53, 52, 51, 50)))
    options = {"pixel_format": "yuyv422", "video_size": "8x6"}
    opened: list[str] = []

    def open_device(file: str, **_: Any) -> Any:
        opened.append(file)
        if len(opened) == 2:
            raise FileNotFoundError(errno.ENOENT, "")
        return open_video(frames, format="rawvideo", options=options)

    monkeypatch.setattr(v4l2, "open_video", open_device)
    return opened


def test_a_camera_that_is_unplugged_is_opened_again(raw_camera: list[str]) -> None:
    options = SourceOptions(policy="block", backoff=(0.02, 0.05), pixel_format="yuyv")
    with open_source("camera://3?width=8&height=6&fourcc=YUYV", options=options) as source:
        frames = drain(source, most=8)
    assert [(frame.image.shape, int(frame.image[0, 0, 0])) for frame in frames] == [
        ((6, 8, 2), n) for n in (53, 52, 51, 50, 53, 52, 51, 50)
    ]
    assert source.status.reconnects >= 2  # once it was not back yet
    assert any("no such device" in transition.reason for transition in source.status.history)
    assert raw_camera[:3] == 3 * ["/dev/video3"]


@pytest.mark.usefixtures("raw_camera")
def test_without_reconnect_a_lost_camera_is_the_end() -> None:
    with open_source("/dev/video0", options=SourceOptions(reconnect=False)) as source:
        drain(source)
    assert isinstance(source.error, SourceRefusedError)


def test_a_camera_that_is_not_there_is_not_found() -> None:
    with open_source("camera://97") as source:
        assert drain(source) == []
    assert isinstance(source.error, SourceNotFoundError)
    assert [transition.state for transition in source.status.history] == [State.CONNECTING, State.ENDED]


def test_a_bug_in_a_reader_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(v4l2, "open_video", broken)
    with open_source("camera://0") as source:
        drain(source)
    assert isinstance(source.error, ZeroDivisionError)
    assert source.status.state is State.ENDED
