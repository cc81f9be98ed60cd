"""Cameras over HTTP, and servers that are no cameras."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import cv2
import numpy as np
import pytest

from panrt.engine.sources import (
    Source,
    SourceDeniedError,
    SourceError,
    SourceNotFoundError,
    SourceOptions,
    SourceRefusedError,
    SourceTimeoutError,
    SourceUndecodableError,
    State,
    open_source,
)
from tools.clock import PATIENCE
from tools.streams import CLIP, drain, free_port, http_server, wait_for

QUICK = SourceOptions(timeout=PATIENCE, stall_after=0.4, backoff=(0.1, 0.4))


def states(source: Source) -> list[State]:
    return [transition.state for transition in source.status.history]


# what answers, but not with video


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [("rtsp", SourceRefusedError), ("http", SourceRefusedError)],
)
def test_a_port_where_nobody_listens_is_refused(scheme: str, kind: type[SourceError]) -> None:
    with open_source(f"{scheme}://127.0.0.1:{free_port()}/clip", options=QUICK) as source:
        assert drain(source) == []
    assert isinstance(source.error, kind)
    assert "refused" in str(source.error)


def test_a_host_that_is_unknown_is_not_found() -> None:
    with open_source("rtsp://camera.invalid/clip", options=QUICK) as source:
        assert drain(source) == []
    assert isinstance(source.error, SourceNotFoundError)
    assert "no such host 'camera.invalid'" in str(source.error)


def test_a_server_that_says_nothing_is_a_time_out() -> None:
    given_up = threading.Event()
    with http_server(lambda _: wait_for(given_up.is_set)) as port:
        options = SourceOptions(timeout=0.5)
        with open_source(f"http://127.0.0.1:{port}/stream", options=options) as source:
            assert drain(source) == []
        given_up.set()
    assert isinstance(source.error, SourceTimeoutError)
    assert "no data for 0.5 s" in str(source.error)


@pytest.mark.parametrize(
    ("code", "kind"), [(404, SourceNotFoundError), (401, SourceDeniedError), (503, SourceRefusedError)]
)
def test_a_web_servers_refusal_is_told_as_it_was_meant(code: int, kind: type[SourceError]) -> None:
    with (
        http_server(lambda handler: handler.send_error(code)) as port,
        open_source(f"http://127.0.0.1:{port}/stream", options=QUICK) as source,
    ):
        assert drain(source) == []
    assert isinstance(source.error, kind)


def test_a_web_page_is_no_video() -> None:
    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "2500")
        handler.end_headers()
        handler.wfile.write(b"<html>not a camera</html>" * 100)

    with http_server(page) as port, open_source(f"http://127.0.0.1:{port}/stream", options=QUICK) as source:
        assert drain(source) == []
    assert isinstance(source.error, SourceUndecodableError)


# HTTP


def mjpeg(handler: BaseHTTPRequestHandler, *, frames: int, pause: float = 0.0) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
    handler.end_headers()
    for index in range(frames):
        image = np.full((48, 64, 3), 10 * (index % 20), np.uint8)
        jpeg = cv2.imencode(".jpg", image)[1].tobytes()
        head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        handler.wfile.write(head.encode() + jpeg + b"\r\n")
        handler.wfile.flush()
        time.sleep(pause)


def test_mjpeg_over_http_comes_picture_by_picture_and_is_connected_again_when_it_ends() -> None:
    options = SourceOptions(policy="block", timeout=PATIENCE, backoff=(0.05, 0.1))
    with (
        http_server(lambda handler: mjpeg(handler, frames=12, pause=0.01)) as port,
        open_source(f"http://127.0.0.1:{port}/stream", options=options) as source,
    ):
        frames = drain(source, most=20)
    levels = [round(float(frame.image.mean()) / 10) for frame in frames]
    start = levels[0]
    assert levels[: 12 - start] == list(range(start, 12))
    assert 0 in levels[12 - start :] or 1 in levels[12 - start :]  # from its start again
    assert source.status.reconnects >= 1
    assert State.RECONNECTING in states(source)


def test_a_stream_that_falls_silent_is_stalled_then_lost() -> None:
    lost = threading.Event()

    def falls_silent(handler: BaseHTTPRequestHandler) -> None:
        mjpeg(handler, frames=40)
        wait_for(lost.is_set)

    with http_server(falls_silent) as port:
        options = SourceOptions(policy="block", timeout=1.0, stall_after=0.2, backoff=(5.0, 5.0))
        with open_source(f"http://127.0.0.1:{port}/stream", options=options) as source:
            frames = drain(source, most=40)
            wait_for(lambda: source.status.state is State.RECONNECTING)
            lost.set()
            found = states(source)
    assert len(frames) >= 30  # FFmpeg keeps some back
    assert found[:2] == [State.CONNECTING, State.LIVE]
    assert found[-2:] == [State.STALLED, State.RECONNECTING]


def test_a_video_file_on_a_web_server_is_read_in_full() -> None:
    def file(handler: BaseHTTPRequestHandler) -> None:
        data = CLIP.read_bytes()
        start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[start:])

    with http_server(file) as port, open_source(f"http://127.0.0.1:{port}/clip.mp4", options=QUICK) as source:
        frames = drain(source)
    assert (len(frames), source.error, source.policy) == (200, None, "block")


def test_stopping_does_not_wait_for_a_silent_camera_for_ever() -> None:
    asked, closed = threading.Event(), threading.Event()

    def silent(_: BaseHTTPRequestHandler) -> None:
        asked.set()
        wait_for(closed.is_set)

    with http_server(silent) as port:
        source = open_source(f"http://127.0.0.1:{port}/stream", options=SourceOptions(timeout=0.6)).start()
        wait_for(asked.is_set)
        source.close()
        assert not source._thread.is_alive()
        closed.set()
    assert source.status.state is State.ENDED
    assert Path(source.name).name == "stream"
