"""The live page and the pages for machines, asked over HTTP."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import panrt
from panrt.engine.pipeline import Stream
from panrt.engine.sinks import Context, Item, SinkError
from panrt.engine.sinks.address import parse_address
from panrt.engine.sinks.http import prometheus
from panrt.engine.sinks.web import MOST_VIEWERS, WebWriter
from panrt.engine.sources import SourceOptions, open_source
from panrt.engine.sources.pattern import pattern
from panrt.engine.sources.source import SourceStatus, State, Transition
from panrt.engine.status import Meter, SinkStatus
from tools.null_session import NullSession, model_file
from tools.streams import drain, free_port, wait_for

URI = "test://64x48@50"


@contextmanager
def serving(
    scheme: str, *sources: str, options: SourceOptions | None = None, sinks: tuple[str, ...] = ()
) -> Iterator[tuple[Stream, str]]:
    """A stream that runs on a thread of its own, and the address of its pages."""
    address = f"127.0.0.1:{free_port()}"
    uris = sources or (URI,)
    stream = panrt.stream(uris, NullSession(), sinks=[f"{scheme}://{address}", *sinks], options=options, tracker=None)
    thread = threading.Thread(target=lambda: list(stream))
    thread.start()
    try:
        wait_for(lambda: stream.status.results > 3)
        yield stream, f"http://{address}"
    finally:
        stream.stop()
        thread.join(60)
        assert not thread.is_alive()


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def turned_away(url: str) -> bool:
    """Whether one more viewer is; the body, which has no end, is not read."""
    try:
        urllib.request.urlopen(url, timeout=60).close()
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
        for wrong in ("2", "x", "-1", "", "0.0", "%D9%A0", 3000 * "1"):
            assert get(f"{address}/stream.mjpg?source={wrong}") == (
                404,
                "text/plain; charset=utf-8",
                b"source: expected a number from 0 to 1\n",
            )
        assert get(f"{address}/stream.mjpg?view={41 * 'a'}")[0] == 400
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
    assert all(c["count"] == 1 and c["counts"] == [1] for c in facts["classes"])
    assert 0 <= facts["ages"][0] < 5
    assert facts["views"] == []
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
    for viewer in viewers:
        viewer.close()


def test_the_facts_are_of_each_source() -> None:
    with serving("web", URI, "test://32x24@50?frames=1") as (stream, address):
        wait_for(lambda: stream.status.sources[1].state is State.ENDED)
        wait_for(lambda: stream.status.results > 20)
        facts = json.loads(get(f"{address}/status.json")[2])
        ages = []
        wait_for(lambda: ages.append(json.loads(get(f"{address}/status.json")[2])["ages"]) or ages[-1][1] > 0.2)  # type: ignore[func-returns-value]
    assert all(c["counts"] == [1, 1] and c["count"] == 2 for c in facts["classes"])
    assert [source["name"] for source in facts["status"]["sources"]] == [URI, "test://32x24@50?frames=1"]


def test_a_viewer_is_counted_until_its_socket_closes_even_if_no_frame_comes() -> None:
    context = Context(model_file(), lambda: Meter().status((status("cam"),), ()))
    writer = WebWriter(parse_address("web", "127.0.0.1:0", {}), context)
    address = f"http://127.0.0.1:{writer.port}"

    def views() -> list[str]:
        return list(json.loads(get(f"{address}/status.json")[2])["views"])

    for _ in range(2):  # the seats are free again
        viewers = [socket.create_connection(("127.0.0.1", writer.port)) for _ in range(MOST_VIEWERS)]
        for number, viewer in enumerate(viewers):
            viewer.sendall(f"GET /stream.mjpg?view=v{number:02} HTTP/1.0\r\n\r\n".encode())
        wait_for(lambda: views() == [f"v{number:02}" for number in range(MOST_VIEWERS)])
        assert get(f"{address}/stream.mjpg")[::2] == (503, b"there are 16 viewers already\n")
        for viewer in viewers:
            viewer.close()
        wait_for(lambda: views() == [])
    writer.close()


def test_pictures_are_encoded_for_viewers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *rest: encoded.append(1) or encode(*rest))  # type: ignore[func-returns-value]
    context = Context(model_file(), lambda: Meter().status((status(""),), ()))
    writer = WebWriter(parse_address("web", "127.0.0.1:0", {}), context)

    def write() -> None:
        frame = panrt.Frame(pattern(0, (24, 32)))
        writer.write(Item(frame, NullSession()(frame)))

    write()
    assert encoded == []
    with socket.create_connection(("127.0.0.1", writer.port)) as viewer:
        viewer.settimeout(20)
        viewer.sendall(b"GET /stream.mjpg HTTP/1.0\r\n\r\n")
        assert viewer.recv(1 << 16).startswith(b"HTTP/1.1 200")
        for count in (1, 2):
            write()
            assert b"Content-Type: image/jpeg" in viewer.recv(1 << 16)
            assert len(encoded) == count
    writer.close()
    write()  # what comes late is no error


# logins

SECRETS = "hunter2", "s3cret", "p4ss", "t0ken", "fr4gment", "us3r"
LOGINS = (
    "rtsp://us3r:hunter2@cam.example/live?channel=1&password=s3cret",
    "rtsp://us3r:p4ss@word@cam.example:554/live",
    "http://cam.example/video?user=us3r&pwd=p4ss&auth=t0ken&whatever=s3cret#fr4gment",
    "https://us3r@cam.example/?token=t0ken&key=hunter2&s3cret",
    "HTTP://us3r:p4ss@[fd00::1]:8080/x?a=1&ACCESS_TOKEN=t0ken",
)


def status(name: str, reason: str = "") -> SourceStatus:
    """A source that stalls."""
    step = Transition(State.STALLED, 1.0, reason)
    fresh = open_source(URI).status
    return replace(fresh, name=name, uri=name, state=State.STALLED, reason=reason, history=(step, step))


@pytest.mark.parametrize("login", LOGINS)
def test_no_page_shows_the_login_of_a_source_or_sink_wherever_it_stands(login: str) -> None:
    reason = f"cannot open '{login}': Connection refused (tried {login})"
    sink = SinkStatus(login, "failed", 1, 0, 0, 1, 0, f"SinkError: {reason}", True)
    context = Context(
        model_file(), lambda: Meter().status((status(login, reason), status(f"{login}#2", reason)), (sink,))
    )
    writer = WebWriter(parse_address("web", "127.0.0.1:0", {}), context)
    answers = b""
    for path in (
        "/",
        "/status.json",
        "/metrics",
        "/healthz",
        "/stream.mjpg?source=9",
        "/nothing",
        f"/?a={login}",
        "/%",
    ):
        with socket.create_connection(("127.0.0.1", writer.port)) as client:
            client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            while part := client.recv(1 << 16):
                answers += part
    writer.close()
    assert answers.count(b"Connection refused") >= 6  # the reasons are there
    assert [secret for secret in SECRETS if secret.encode() in answers] == []
    assert b"cam.example" in answers or b"fd00::1" in answers
    assert b'#2"' in answers


@pytest.mark.parametrize("scheme", ["web", "metrics"])
def test_a_token_is_printed_once_and_shown_nowhere_else(scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    uri = f"{scheme}://0.0.0.0:{port}"
    stream = panrt.stream(URI, NullSession(), sinks=[uri], tracker=None)
    with stream:
        pairs = stream.pairs()
        next(pairs)
        printed = capfd.readouterr()
        assert printed.out == ""
        path = "/" if scheme == "web" else "/metrics"
        found = re.fullmatch(rf"{uri}: open http://\S+:{port}{path}\?token=(\S+)\n", printed.err)
        assert found
        token = found[1]
        address = f"http://127.0.0.1:{port}"
        assert get(f"{address}{path}")[::2] == (401, b"open the URL that was printed at the start\n")
        assert get(f"{address}/nothing")[0] == 401  # not even which pages there are
        assert get(f"{address}/nothing?token={token}")[0] == 404
        for each in ("/metrics", "/healthz", *(["/status.json", "/"] if scheme == "web" else [])):
            request = urllib.request.Request(f"{address}{each}", headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(request, timeout=20) as response:
                assert "Set-Cookie" not in response.headers
                assert token.encode() not in response.read()
        with urllib.request.urlopen(f"{address}{path}?token={token}", timeout=20) as response:
            cookie = response.headers["Set-Cookie"]
            assert token.encode() not in response.read()
        assert cookie == f"panrt-{port}={token}; Path=/; HttpOnly; SameSite=Strict"
        request = urllib.request.Request(f"{address}{path}", headers={"Cookie": cookie.partition(";")[0]})
        with urllib.request.urlopen(request, timeout=20) as response:
            assert response.status == 200
        assert token not in repr(stream.status)
        pairs.close()
    assert token not in "".join(capfd.readouterr())


# Prometheus


def test_labels_are_escaped_and_unique() -> None:
    names = 'a"b', "a\\b", "a\nb", "a\\nb", "ü", "a{b}", "\udcff.mp4", "", "same", "same", "#", "a\rb", "\u2028"
    sinks = tuple(SinkStatus(name, "open", 1, 1, 0, 0, 0, "", True) for name in names)
    text = prometheus(Meter().status(tuple(map(status, names)), sinks)).encode(errors="backslashreplace").decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    wanted = [name.encode(errors="backslashreplace").decode() for name in names]
    wanted[wanted.index("same") + 1] = "same#2"
    for family, label in (("panrt_source_reconnects", "source"), ("panrt_sink_results", "sink")):
        labels = [sample.labels for sample in families[family].samples]
        assert len({tuple(sorted(each.items())) for each in labels}) == len(labels)
        assert list(dict.fromkeys(each[label] for each in labels)) == wanted


@pytest.mark.parametrize("scheme", ["web", "metrics"])
def test_a_head_request_has_the_headers_of_the_page_and_no_body(scheme: str) -> None:
    with serving(scheme) as (_, address):
        for path in ("/metrics", "/healthz"):
            request = urllib.request.Request(f"{address}{path}", method="HEAD")
            with urllib.request.urlopen(request, timeout=20) as response:
                assert response.headers["Content-Type"] == get(f"{address}{path}")[1]
                assert int(response.headers["Content-Length"]) > 10
                assert response.read() == b""


def test_the_server_tells_prometheus_how_it_does() -> None:
    with serving("metrics") as (_, address):
        get(f"{address}/nothing")
        get(f"{address}/healthz")
        families = {f.name: f for f in text_string_to_metric_families(get(f"{address}/metrics")[2].decode())}
    assert {s.labels["code"]: s.value for s in families["panrt_server_requests"].samples} == {"200": 1, "404": 1}
    assert families["panrt_server_errors"].samples[0].value == 0
    assert 1 <= families["panrt_server_connections"].samples[0].value <= 3
