"""The live page and the pages for machines, asked over HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from benchmarks.null_session import NullSession
from prometheus_client.parser import text_string_to_metric_families

import panrt
from panrt.engine.pipeline import Stream
from panrt.engine.sinks import SinkError
from panrt.engine.sinks.web import MOST_VIEWERS
from panrt.engine.sources import SourceOptions, open_source
from support.streams import drain, free_port, wait_for

URI = "test://64x48@50"


@contextmanager
def serving(
    scheme: str, *sources: str, options: SourceOptions | None = None, sinks: tuple[str, ...] = ()
) -> Iterator[tuple[Stream, str]]:
    """A stream that runs on a thread of its own, and the address of its pages."""
    address = f"127.0.0.1:{free_port()}"
    uris = sources or (URI,)
    stream = panrt.stream(uris, NullSession(), sinks=[f"{scheme}://{address}", *sinks], options=options, track=False)
    thread = threading.Thread(target=lambda: list(stream))
    thread.start()
    try:
        wait_for(lambda: stream.status.results > 3)
        yield stream, f"http://{address}"
    finally:
        stream.stop()
        thread.join(20)
        assert not thread.is_alive()


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def turned_away(url: str) -> bool:
    """Whether one more viewer is; the body, which has no end, is not read."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 503
    return False


def test_the_stream_of_the_page_shows_the_overlay_of_the_newest_frames() -> None:
    with serving("web", URI, "test://32x24@50") as (stream, address):
        for number, hw in enumerate([(48, 64), (24, 32)]):
            url = f"{address}/stream.mjpg?source={number}"
            with open_source(url, options=SourceOptions(policy="block", reconnect=False)) as source:
                frames = drain(source, most=5)
            assert [frame.image.shape[:2] for frame in frames] == 5 * [hw]
            assert len({frame.image.tobytes() for frame in frames}) == 5
            assert 20 < np.mean([frame.image.mean() for frame in frames]) < 220
        assert get(f"{address}/stream.mjpg?source=2")[0] == 404
        assert get(f"{address}/stream.mjpg?source=x")[0] == 404
        status = stream.status
    assert status.sinks[0].failed == 0
    assert status.healthy


def test_the_page_and_its_facts_tell_classes_rate_age_and_losses() -> None:
    with serving("web") as (_, address):
        code, kind, page = get(f"{address}/")
        assert (code, kind) == (200, "text/html; charset=utf-8")
        assert b"/status.json" in page
        assert b"http://" not in page  # nothing is fetched from elsewhere
        assert b"https://" not in page
        facts = json.loads(get(f"{address}/status.json")[2])
        assert get(f"{address}/nothing")[0] == 404
    assert facts["model"] == "null"
    assert [(c["name"], c["color"], c["is_thing"]) for c in facts["classes"]] == [
        ("bright", [230, 60, 40], True),
        ("dark", [40, 90, 160], False),
    ]
    assert all(c["count"] == 1 for c in facts["classes"])
    status = facts["status"]
    assert status["results"] > 0
    assert status["trouble"] == []
    assert 0 < status["age"]["last"] < 5
    (source,) = status["sources"]
    assert source["state"] == "live"
    assert source["captured"] >= source["delivered"] + source["dropped"]


@pytest.mark.parametrize("scheme", ["web", "metrics"])
def test_prometheus_can_read_the_metrics(scheme: str) -> None:
    with serving(scheme, "test://64x48@50?frames=100000", URI) as (stream, address):
        code, kind, body = get(f"{address}/metrics")
        results = stream.status.results
    assert code == 200
    assert kind.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert 0 < families["panrt_results"].samples[0].value <= results
    assert families["panrt_results"].type == "counter"
    ages = {sample.labels["quantile"]: sample.value for sample in families["panrt_frame_age_seconds"].samples}
    assert 0 < ages["0.5"] <= ages["0.99"] <= ages["1"]
    states = [s.labels for s in families["panrt_source_state"].samples if s.value == 1]
    assert [labels["state"] for labels in states] == ["live", "live"]
    frames = {
        s.labels["outcome"]: s.value for s in families["panrt_source_frames"].samples if s.labels["source"] == URI
    }
    assert frames["captured"] >= frames["delivered"] + frames["dropped"] > 0


def test_health_turns_bad_with_a_source_and_says_why() -> None:
    options = SourceOptions(stall_after=0.15)
    with serving("metrics", URI, options=options) as (_, address):
        code, _, body = get(f"{address}/healthz")
        assert (code, json.loads(body)) == (200, {"healthy": True, "trouble": []})
    with serving("metrics", "test://64x48@3", options=options) as (_, address):
        answers = []
        wait_for(lambda: answers.append(get(f"{address}/healthz")) or answers[-1][0] == 503)  # type: ignore[func-returns-value]
    assert "stalled (no frame for 0.15 s)" in json.loads(answers[-1][2])["trouble"][0]


def test_a_port_that_is_taken_is_told_before_the_first_frame() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        stream = panrt.stream(URI, NullSession(), sinks=[f"web://127.0.0.1:{port}"])
        with pytest.raises(SinkError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            list(stream)
    assert stream.status.results == 0


def test_viewers_that_never_read_stop_neither_the_stream_nor_its_end() -> None:
    with serving("web") as (stream, address):
        port = int(address.rpartition(":")[2])
        viewers = [socket.create_connection(("127.0.0.1", port)) for _ in range(MOST_VIEWERS)]
        for viewer in viewers:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            viewer.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: turned_away(f"{address}/stream.mjpg"))
        before = stream.status.results
        wait_for(lambda: stream.status.results > before + 20)
        assert stream.status.sinks[0].failed == 0
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 5
    for viewer in viewers:
        viewer.close()
