"""Sources around their readers: unexpected errors, ages of frames, and a program's own images."""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panrt.engine.sources import Source, SourceOptions, SourceUndecodableError, State, open_source
from panrt.engine.sources.pattern import pattern
from panrt.engine.sources.source import Captured, Opening, Spec
from tools.clock import ManualClock
from tools.streams import drain

IMAGE = np.zeros((4, 6, 3), np.uint8)
SECRET = "rtsp://admin:Zq@camera/live"


def test_a_lasting_source_survives_an_error_that_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    opened: list[int] = []

    def reader(opening: Opening) -> Generator[Captured, None, None]:
        opened.append(1)
        yield Captured(IMAGE)
        if len(opened) < 3:
            raise ZeroDivisionError(f"no way to read {SECRET}")
        while not opening.stop.wait(0.01):
            yield Captured(IMAGE)

    spec = Spec("rtsp://camera/live", reader, live=True, lasting=True)
    options = SourceOptions(policy="block", backoff=(0.001, 0.002))
    with caplog.at_level(logging.INFO), Source(spec, options=options) as source:
        assert len(drain(source, most=5)) == 5
    status = source.status
    assert (status.reconnects, status.unexpected) == (2, 2)
    reasons = [transition.reason for transition in status.history if transition.state is State.RECONNECTING]
    assert reasons == 2 * ["ZeroDivisionError: no way to read rtsp://camera/live"]
    assert "Zq" not in caplog.text


@pytest.mark.parametrize(
    ("live", "policy", "age"), [(False, "block", 0.0), (True, "block", 7.0), (False, "latest", 7.0)]
)
def test_only_a_frame_that_came_by_itself_ages_while_it_waits(live: bool, policy: Any, age: float) -> None:
    def reader(opening: Opening) -> Generator[Captured, None, None]:
        yield Captured(IMAGE)

    clock = ManualClock()
    source = Source(Spec("x", reader, live=live), options=SourceOptions(policy=policy, clock=clock)).start()
    source._thread.join()
    clock.advance(7.0, threads=lambda: 0)
    frame = source.take()
    assert frame is not None
    assert clock.now() - frame.captured_at == age


def test_a_generator_of_images_is_a_source_that_ends_with_it() -> None:
    buffer = np.empty((6, 8, 3), np.uint8)

    def images() -> Generator[Any, None, None]:
        for index in range(10):
            buffer[:] = pattern(index, (6, 8))  # the same array, filled anew
            yield buffer

    with open_source(images()) as source:
        frames = drain(source)
    assert (source.name, source.policy, source.error) == ("images", "block", None)
    assert [frame.index for frame in frames] == list(range(10))
    assert all(np.array_equal(frame.image, pattern(frame.index, (6, 8))) for frame in frames)


@pytest.mark.parametrize("images", [[IMAGE, IMAGE], np.stack([IMAGE, IMAGE])])
def test_images_that_are_kept_can_be_shown_again_and_a_generator_once(images: Any) -> None:
    looped = SourceOptions(loop=True)
    with open_source(images, options=looped) as source:
        assert len(drain(source, most=5)) == 5
    with open_source(iter(images), options=looped) as source:
        assert len(drain(source)) == 2


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (np.zeros((4, 6, 2), np.uint8), "(4, 6, 2) uint8"),
        (np.zeros((4, 6, 3), np.int32), "(4, 6, 3) int32"),
        (np.zeros((0, 6, 3), np.uint8), "(0, 6, 3) uint8"),
        ("clip.mp4", "'clip.mp4'"),
        (None, "None"),
    ],
)
def test_an_item_that_is_no_image_is_named(item: Any, found: str) -> None:
    with open_source(iter([IMAGE, item])) as source:
        assert len(drain(source)) == 1
    assert isinstance(source.error, SourceUndecodableError)
    assert f"images: number 1: got {found}, expected an array of (H, W, 3) uint8" in str(source.error)


def test_an_error_of_a_generator_is_the_sources() -> None:
    def images() -> Generator[Any, None, None]:
        yield IMAGE
        raise LookupError("the end of the archive")

    with open_source(images()) as source:
        drain(source)
    assert isinstance(source.error, LookupError)


@pytest.mark.parametrize("given", [0, 1.5, None, object(), b"clip.mp4", {"a": 1}, IMAGE])
def test_sources_of_a_wrong_type_raise_one_type_error_that_lists_the_right_ones(given: Any) -> None:
    with pytest.raises(TypeError, match=r"source: got .*expected a URI or path, or an iterable of images") as caught:
        open_source(given)
    assert "\n" not in str(caught.value)


def test_a_path_is_never_a_uri(tmp_path: Path) -> None:
    with open_source(Path("camera:/0")) as source:
        drain(source)
    assert "no such file" in str(source.error)
