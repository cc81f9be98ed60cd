"""Live sources that are not on the network: the pattern, and cameras behind OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panrt.engine.sources import SourceNotFoundError, SourceOptions, SourceRefusedError, State, open_source
from panrt.engine.sources.pattern import STEP, pattern
from support.clock import ManualClock
from support.streams import drain


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


class FakeCapture:
    """A V4L2 device: gives `frames` pictures, then is unplugged; the next one that is opened works again."""

    opened = 0
    settings: dict[int, float]

    def __init__(self, device: Any, backend: int) -> None:
        FakeCapture.opened += 1
        self.left = 4
        self.settings = {}

    def isOpened(self) -> bool:  # noqa: N802
        return FakeCapture.opened != 2  # it takes a moment to be back

    def set(self, key: int, value: float) -> bool:
        self.settings[key] = value
        return True

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, Any]:
        return True, np.full((6, 8), 50 + self.left, np.uint8)  # a grey camera

    def release(self) -> None:
        self.left = 0


@pytest.fixture
def fake_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCapture.opened = 0
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)


@pytest.mark.usefixtures("fake_camera")
def test_a_camera_that_is_unplugged_is_opened_again() -> None:
    options = SourceOptions(policy="block", backoff=(0.02, 0.05))
    with open_source("camera://0?width=8&fourcc=MJPG", options=options) as source:
        frames = drain(source, most=8)
    assert [frame.image.shape for frame in frames] == 8 * [(6, 8, 3)]
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [53, 52, 51, 50, 53, 52, 51, 50]
    history = source.status.history
    lost = next(transition for transition in history if transition.state is State.RECONNECTING)
    assert "gives no more frames; is it unplugged?" in lost.reason
    assert source.status.reconnects >= 2  # once it was not back yet


@pytest.mark.usefixtures("fake_camera")
def test_without_reconnect_a_lost_camera_is_the_end() -> None:
    with open_source("camera://0", options=SourceOptions(reconnect=False)) as source:
        drain(source)
    assert isinstance(source.error, SourceRefusedError)


def test_a_camera_that_is_not_there_is_not_found() -> None:
    with open_source("camera://97") as source:
        assert drain(source) == []
    assert isinstance(source.error, SourceNotFoundError)
    assert [transition.state for transition in source.status.history] == [State.CONNECTING, State.ENDED]


def test_a_bug_in_a_reader_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cv2, "VideoCapture", broken)
    with open_source("camera://0") as source:
        drain(source)
    assert isinstance(source.error, ZeroDivisionError)
    assert source.status.state is State.ENDED
