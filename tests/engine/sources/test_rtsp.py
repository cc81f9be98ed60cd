"""Cameras over RTSP, from a real server that asks for a login, is killed and comes back."""

from __future__ import annotations

import time

import numpy as np

from panrt.engine.frame import Frame
from panrt.engine.sources import Source, SourceDeniedError, SourceNotFoundError, SourceOptions, State, open_source
from tools.clock import PATIENCE
from tools.streams import PATTERN, bikes, drain, free_port, recorded, rtsp_server, wait_for

QUICK = SourceOptions(timeout=PATIENCE, stall_after=0.4, backoff=(0.1, 0.4))


def states(source: Source) -> list[State]:
    return [transition.state for transition in source.status.history]


def test_filmed_video_comes_over_rtsp_frame_by_frame() -> None:
    port = free_port()
    with (
        rtsp_server(port, recorded(bikes())),
        open_source(f"rtsp://127.0.0.1:{port}/clip", options=SourceOptions(policy="block")) as source,
    ):
        frames = drain(source, most=50)
    with open_source(bikes()) as source:
        original = [frame.image for frame in drain(source)]
    # The stream is what the file holds: its frames, in order and none left out.
    first = int(np.argmin([np.abs(frames[0].image.astype(int) - image).mean() for image in original[:50]]))
    for offset, frame in enumerate(frames):
        assert frame.image.shape == (272, 640, 3)
        assert np.abs(frame.image.astype(int) - original[first + offset]).mean() < 3


def test_a_server_that_is_killed_and_returns_is_found_again_without_a_made_up_frame() -> None:
    port = free_port()
    uri = f"rtsp://127.0.0.1:{port}/clip"
    frames: list[Frame] = []
    with rtsp_server(port, PATTERN):
        source = open_source(uri, options=QUICK).start()
        frames += drain(source, most=5)
    with source:
        wait_for(lambda: source.status.state is State.RECONNECTING)
        frames += filter(None, [source.take()])
        before = len(frames)
        assert source.take(0.5) is None  # nothing is made up while it is away
        restarted_at = time.monotonic()
        assert all(frame.captured_at < restarted_at for frame in frames)
        with rtsp_server(port, PATTERN):
            frames += drain(source, most=5)
        returned = frames[before:]
        assert len(returned) == 5
        assert all(frame.captured_at > restarted_at for frame in returned)
        assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
        assert source.status.reconnects >= 1
    found = states(source)
    assert found[:2] == [State.CONNECTING, State.LIVE]
    assert State.RECONNECTING in found
    assert State.LIVE in found[found.index(State.RECONNECTING) :]
    status = source.status
    assert status.captured == status.delivered + status.dropped + status.waiting


def test_a_wrong_login_is_denied_at_once_and_the_right_one_is_let_in() -> None:
    port = free_port()
    with rtsp_server(port, PATTERN, "admin", "secret"):
        for login in ("", "admin:guess@"):
            with open_source(f"rtsp://{login}127.0.0.1:{port}/clip", options=QUICK) as source:
                assert drain(source) == []
            assert isinstance(source.error, SourceDeniedError)
            assert "guess" not in str(source.error)
            assert states(source) == [State.CONNECTING, State.ENDED]
        with open_source(f"rtsp://admin:secret@127.0.0.1:{port}/clip", options=QUICK) as source:
            assert len(drain(source, most=2)) == 2
        with open_source(f"rtsp://admin:secret@127.0.0.1:{port}/other", options=QUICK) as source:
            assert drain(source) == []
        assert isinstance(source.error, SourceNotFoundError)
