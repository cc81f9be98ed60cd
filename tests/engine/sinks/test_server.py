"""The web server under clients that are slow, many, wrong or hostile. Time passes when a test says so."""

from __future__ import annotations

import json
import random
import re
import resource
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import panrt
from panrt.engine.sinks import SinkError
from panrt.engine.sinks.address import parse_address
from panrt.engine.sinks.clients import Clients, Counts, Limits
from panrt.engine.sinks.server import Response, Server
from panrt.errors import ThreadLimitError
from tools.null_session import NullSession
from tools.streams import free_port, wait_for

PATIENCE, GRACE, KEPT, SENDING = 10.0, 1.0, 4.0, 20.0
LIMITS = Limits(connections=8, patience=PATIENCE, grace=GRACE, kept=KEPT, sending=SENDING, look=0.02)
LARGE = bytes(32 << 20)  # more than the system's buffers take


class Clock:
    """Seconds that pass by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Endless:
    """A feed that always has a part, or never."""

    def __init__(self, part: bytes | None) -> None:
        self._part = part
        self.closed = threading.Event()

    def take(self, timeout: float) -> bytes | None:
        if self._part is None:
            self.closed.wait(timeout)
        return self._part

    def close(self) -> None:
        self.closed.set()


class Serving:
    """A server on a free port, its clock and its feeds."""

    def __init__(self, limits: Limits | None) -> None:
        self.clock = Clock()
        self.feeds: list[Endless] = []
        pages = {
            "/": lambda query: Response(json.dumps(query).encode()),
            "/large": lambda _: Response(LARGE),
            "/full": lambda _: self._feed(LARGE),
            "/empty": lambda _: self._feed(None),
            "/bug": self._bug,
        }
        address = parse_address("web", "127.0.0.1:0", {})
        self.clients = Clients(limits, self.clock)
        self.counts = self.clients.counts
        self.server = Server(address, pages, self.clients)
        self.server.start()

    def _feed(self, part: bytes | None) -> Response:
        self.feeds.append(Endless(part))
        return Response(self.feeds[-1], "multipart/x-mixed-replace; boundary=x")

    def _bug(self, query: Mapping[str, str]) -> Response:
        raise KeyError("the password is hunter2")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and the server see it."""
        self.clock.now += seconds
        self.clients.look()

    def after(self, seconds: float) -> Counts:
        """Return what the server has counted after some more time."""
        self.pass_time(seconds)
        return self.counts

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        client.sendall(data)
        return client

    def ask(self, data: bytes) -> bytes:
        """What comes until the server closes the connection."""
        with self.connect(data) as client:
            return read(client)

    def get(self, path: str) -> bytes:
        return self.ask(f"GET {path} HTTP/1.0\r\n\r\n".encode())


def read_one(client: socket.socket) -> bytes:
    """One answer, its body as long as it says."""
    with client.makefile("rb") as file:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = file.readline()
            assert line, head
            head += line
        found = re.search(rb"Content-Length: (\d+)", head)
        return head + (file.read(int(found[1])) if found else b"")


def read(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def code(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


@contextmanager
def serving(limits: Limits | None = LIMITS) -> Iterator[Serving]:
    found = Serving(limits)
    try:
        yield found
    finally:
        found.server.close()
        assert found.counts.connections == 0


# requests


def request(line: str = "GET / HTTP/1.1", *headers: str, host: str = "localhost") -> bytes:
    return "\r\n".join([line, f"Host: {host}", *headers, "", ""]).encode("latin-1")


REJECTED = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/3.7": (request("GET / HTTP/3.7"), 505),
    "HTTP/1.2": (request("GET / HTTP/1.2"), 505),
    "HTTP/0.9 by name": (request("GET / HTTP/0.9"), 505),
    "lower case": (request("get / HTTP/1.1"), 400),
    "two spaces": (request("GET  / HTTP/1.1"), 400),
    "no target": (request("GET HTTP/1.1"), 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
    "LF in a header": (request("GET / HTTP/1.1", "A: b\nHost: evil"), 400),
    "POST": (request("POST / HTTP/1.1", "Content-Length: 0"), 405),
    "OPTIONS": (request("OPTIONS * HTTP/1.1"), 405),
    "CONNECT": (request("CONNECT localhost:80 HTTP/1.1"), 405),
    "TRACE": (request("TRACE / HTTP/1.1"), 405),
    "a body": (request("GET / HTTP/1.1", "Content-Length: 5") + b"hello", 413),
    "a huge body": (request("GET / HTTP/1.1", f"Content-Length: {10**30}"), 413),
    "a chunked body": (request("GET / HTTP/1.1", "Transfer-Encoding: chunked") + b"ffffffffffffffff\r\n", 413),
    "a body to come": (request("GET / HTTP/1.1", "Expect: 100-continue"), 413),
    "two lengths": (request("GET / HTTP/1.1", "Content-Length: 0", "Content-Length: 0"), 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (request("GET / HTTP/1.1", "Host: localhost"), 400),
    "an empty host": (request(host=""), 400),
    "a login as host": (request(host="user@localhost"), 400),
    "a path as host": (request(host="localhost/x"), 400),
    "another host": (request(host="evil.example"), 403),
    "a folded header": (request("GET / HTTP/1.1", "A: b", " c"), 400),
    "a space before the colon": (request("GET / HTTP/1.1", "A : b"), 400),
    "NUL in a header": (request("GET / HTTP/1.1", "A: \0"), 400),
    "NUL in the path": (request("GET /\0 HTTP/1.1"), 400),
    "a header without a name": (request("GET / HTTP/1.1", ": b"), 400),
    "non-ASCII path": (request("GET /\xe4 HTTP/1.1"), 400),
    "half an escape": (request("GET /%4 HTTP/1.1"), 400),
    "no escape": (request("GET /?a=%zz HTTP/1.1"), 400),
    "not UTF-8": (request("GET /?a=%ff HTTP/1.1"), 400),
    "half a surrogate": (request("GET /?a=%ED%A0%80 HTTP/1.1"), 400),
    "a fragment": (request("GET /#x HTTP/1.1"), 400),
    "a parameter twice": (request("GET /?a=1&a=2 HTTP/1.1"), 400),
    "many parameters": (request("GET /?" + "&".join(f"a{n}" for n in range(100)) + " HTTP/1.1"), 400),
    "a long path": (request("GET /" + 5000 * "a" + " HTTP/1.1"), 414),
    "a long path without an end": (b"GET /" + 5000 * b"a", 414),
    "many headers": (request("GET / HTTP/1.1", *(f"A{n}: b" for n in range(100))), 431),
    "long headers": (request("GET / HTTP/1.1", "A: " + 20000 * "b"), 431),
    "headers without an end": (b"GET / HTTP/1.1\r\nA: " + 20000 * b"b", 431),
    "dots": (request("GET /../../etc/passwd HTTP/1.1"), 404),
    "escaped dots": (request("GET /%2e%2e%2fetc%2fpasswd HTTP/1.1"), 404),
    "slashes alone": (request("GET // HTTP/1.1"), 404),
    "two slashes": (request("GET //etc/passwd HTTP/1.1"), 404),
    "a file": (request("GET /page.html HTTP/1.1"), 404),
    "an escaped NUL": (request("GET /%00 HTTP/1.1"), 404),
    "a relative target": (request("GET etc HTTP/1.1"), 400),
    "another scheme": (request("GET file:///etc/passwd HTTP/1.1"), 400),
    "a URL of another host": (request("GET http://evil.example/ HTTP/1.1"), 403),
    "a URL of this host to another": (request("GET http://localhost/ HTTP/1.1", host="evil.example"), 403),
    "a URL with a login": (request("GET http://a:b@localhost/ HTTP/1.1"), 400),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_is_no_clear_request_for_a_page_is_rejected_and_the_connection_closed(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data, expected = REJECTED[name]
    with serving() as serving_:
        answer = serving_.ask(data)  # ends: the server closes
        assert code(answer) == expected
        head, _, body = answer.partition(b"\r\n\r\n")
        assert len(body) == int(dict(line.split(b": ") for line in head.split(b"\r\n")[1:])[b"Content-Length"])
        assert b"evil" not in answer  # nothing of a request comes back
        assert code(serving_.get("/")) == 200
    assert capfd.readouterr() == ("", "")


def test_who_sends_more_than_is_read_gets_the_answer_and_no_reset() -> None:
    with serving() as serving_:
        answer = serving_.ask(request("POST / HTTP/1.1", "Content-Length: 60000") + bytes(60000))
        assert code(answer) == 405


def test_bytes_at_random_never_end_the_server(capfd: pytest.CaptureFixture[str]) -> None:
    generator = random.Random(0)
    sound = request("GET /?a=b HTTP/1.1", "Cookie: a=b; c=d", "Authorization: Bearer x", "Connection: close")
    with serving() as serving_:
        for _ in range(300):
            data = bytearray(sound)
            for _ in range(generator.randint(1, 8)):
                place = generator.randrange(len(data))
                data[place : place + generator.randint(0, 2)] = generator.randbytes(generator.randint(0, 3))
            with serving_.connect(bytes(data)) as client:
                client.shutdown(socket.SHUT_WR)
                answer = read(client)
                assert not answer or 200 <= code(answer) < 600
        assert serving_.counts.errors == 0
        assert code(serving_.get("/")) == 200
    assert capfd.readouterr() == ("", "")


def test_a_connection_takes_requests_one_after_the_other_and_all_at_once() -> None:
    with serving() as serving_, serving_.connect() as client:
        for number in range(3):
            client.sendall(request(f"GET /?n={number} HTTP/1.1"))
            assert read_one(client).endswith(b'{"n": "%d"}' % number)
        lines = [f"GET /?n={number} HTTP/1.1" for number in range(100)]
        client.sendall(b"".join(map(request, lines)) + request("HEAD /?n=100 HTTP/1.1", "Connection: close"))
        answers = read(client)
        bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers.split(b"HTTP/1.1 200 OK\r\n")[1:]]
        assert bodies == [b'{"n": "%d"}' % number for number in range(100)] + [b""]
        assert b"Content-Length: 12\r\n" in answers.rpartition(b"HTTP/1.1")[2]  # of the HEAD: as GET has it
        assert serving_.counts.requests == {200: 104}


@pytest.mark.parametrize(
    "data",
    [
        request("GET / HTTP/1.1", "Connection: close"),
        request("GET / HTTP/1.1", "Connection: Upgrade, CLOSE"),
        request("GET / HTTP/1.1", "Connection: a", "Connection: close"),
        request("GET / HTTP/1.0"),
        request("GET / HTTP/1.0", "Connection: keep-alive"),
    ],
)
def test_a_connection_is_closed_after_a_request_of_http_1_0_or_where_the_client_wants_it(data: bytes) -> None:
    with serving() as serving_:
        answer = serving_.ask(data + request())
        assert answer.count(b"HTTP/1.1 200 OK") == 1
        assert b"\r\nConnection: close\r\n" in answer


def test_a_request_of_the_absolute_form_is_answered_if_it_names_this_server() -> None:
    with serving() as serving_:
        for target in ("http://localhost/?a=b", "HTTP://LOCALHOST:1/?a=b", "http://127.0.0.1?a=b", "http://[::1]/?a=b"):
            assert serving_.ask(request(f"GET {target} HTTP/1.1", "Connection: close")).endswith(b'{"a": "b"}')


def test_every_answer_forbids_what_other_sites_might_do_with_it() -> None:
    with serving() as serving_:
        for path in ("/", "/nothing", "/%"):
            head = serving_.get(path).partition(b"\r\n\r\n")[0].decode().lower()
            for header in (
                "cache-control: no-store",
                "x-content-type-options: nosniff",
                "cross-origin-resource-policy: same-origin",
                "referrer-policy: no-referrer",
                "x-frame-options: deny",
                "frame-ancestors 'none'",
            ):
                assert header in head
            assert "access-control" not in head
            assert "server:" not in head


def test_a_page_that_raises_is_counted_and_shows_no_traceback(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as serving_:
        for _ in range(3):
            answer = serving_.get("/bug")
            assert code(answer) == 500
            assert b"hunter2" not in answer
        assert serving_.counts.errors == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["web://127.0.0.1:0: a page raised an exception: KeyError"]
    assert "Traceback" not in capfd.readouterr().err


# time


def test_a_head_has_a_deadline_in_total_however_often_a_byte_comes() -> None:
    with serving() as serving_, serving_.connect(b"GET /") as slow, serving_.connect() as idle:
        wait_for(lambda: serving_.counts.connections == 2)
        for _ in range(9):
            serving_.pass_time(PATIENCE / 10)
            slow.sendall(b"a")
            assert serving_.counts.connections == 2
        serving_.pass_time(PATIENCE / 10)
        assert code(read(slow)) == 408
        assert read(idle) == b""


def test_a_connection_that_is_kept_without_a_request_is_closed() -> None:
    with serving() as serving_, serving_.connect(request()) as client:
        assert code(read_one(client)) == 200
        serving_.pass_time(PATIENCE - 0.1)
        client.sendall(request())
        assert code(read_one(client)) == 200  # its time begins again with each answer
        wait_for(lambda: serving_.after(PATIENCE).connections == 0)
        assert client.recv(1) == b""


@pytest.mark.parametrize("path", ["/large", "/full"])
def test_a_client_that_takes_nothing_is_dropped(path: str) -> None:
    with serving() as serving_, serving_.connect(request(f"GET {path} HTTP/1.1")):
        wait_for(lambda: serving_.counts.requests[200] == 1)
        serving_.pass_time(SENDING - 0.1)
        assert serving_.counts.closed["slow"] == 0
        wait_for(lambda: serving_.after(0.1).connections == 0)
        assert serving_.counts.closed["slow"] == 1
        assert all(feed.closed.is_set() for feed in serving_.feeds)


def test_a_client_that_takes_a_large_page_slowly_but_in_time_gets_all_of_it() -> None:
    with serving() as serving_, serving_.connect(request("GET /large HTTP/1.1", "Connection: close")) as client:
        got = bytearray()
        for _ in range(10):
            serving_.pass_time(SENDING / 20)
            got += client.recv(1 << 16)
        got += read(client)
        assert bytes(got).partition(b"\r\n\r\n")[2] == LARGE


@pytest.mark.parametrize("reset", [False, True])
def test_a_viewer_who_leaves_while_nothing_is_shown_is_noticed(reset: bool) -> None:
    with serving() as serving_:
        viewer = serving_.connect(request("GET /empty HTTP/1.1"))
        assert code(viewer.recv(1 << 16)) == 200
        (feed,) = serving_.feeds
        assert not feed.closed.is_set()
        if reset:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        viewer.close()
        assert feed.closed.wait(20)
        wait_for(lambda: serving_.counts.connections == 0)


def test_a_viewer_who_keeps_sending_is_dropped() -> None:
    with serving() as serving_, serving_.connect(request("GET /empty HTTP/1.1")) as viewer:
        wait_for(lambda: len(serving_.feeds) == 1)
        with suppress(ConnectionError):
            while not serving_.feeds[0].closed.is_set():
                viewer.sendall(bytes(1 << 16))
        assert serving_.feeds[0].closed.wait(20)


def test_a_head_request_opens_no_feed() -> None:
    with serving() as serving_:
        assert code(serving_.ask(request("HEAD /empty HTTP/1.1"))) == 200
        assert serving_.feeds[0].closed.is_set()


# numbers


def test_idle_clients_beyond_the_limit_make_room_for_those_who_ask() -> None:
    with serving() as serving_, ExitStack() as clients:
        idle = [clients.enter_context(serving_.connect()) for _ in range(20)]
        wait_for(lambda: serving_.counts.connections == LIMITS.connections)
        asking = clients.enter_context(serving_.connect(request()))
        asking.settimeout(0.05)
        for _ in range(20):
            serving_.pass_time(GRACE)
            try:
                answer = asking.recv(1 << 16)
                break
            except TimeoutError:
                assert serving_.counts.connections <= LIMITS.connections
        assert code(answer) == 200
        assert serving_.counts.closed["full"] > 0
        assert idle[0].recv(1) == b""  # who waited longest


def test_a_client_that_got_a_page_keeps_its_connection_longer_than_those_that_never_asked() -> None:
    with serving() as serving_, ExitStack() as clients:
        page = clients.enter_context(serving_.connect(request()))
        assert code(read_one(page)) == 200
        for _ in range(100):
            clients.enter_context(serving_.connect())
        wait_for(lambda: serving_.counts.connections == LIMITS.connections)
        for _ in range(3):  # as many idle ones come and go each time
            serving_.pass_time(GRACE)
        page.sendall(request())
        assert code(read_one(page)) == 200
        page.settimeout(0.01)

        def left() -> bool:
            serving_.pass_time(GRACE)
            with suppress(TimeoutError):
                return page.recv(1) == b""
            return False

        wait_for(left)
        assert serving_.counts.closed["full"] > LIMITS.connections


def test_clients_with_the_grace_of_a_moment_are_not_pushed_out_by_others() -> None:
    with serving() as serving_, ExitStack() as clients:
        first = [clients.enter_context(serving_.connect(b"GET / HTTP/1.0\r\n")) for _ in range(LIMITS.connections)]
        wait_for(lambda: serving_.counts.connections == LIMITS.connections)
        for _ in range(20):
            clients.enter_context(serving_.connect())
        serving_.pass_time(GRACE / 2)
        for client in first:
            client.sendall(b"\r\n")
            assert code(read(client)) == 200


def test_descriptors_are_left_to_the_rest_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panrt.engine.sinks.clients.resource.getrlimit", lambda _: (40, 40))
    with serving(None) as serving_:  # 8 descriptors are taken already
        assert serving_.clients.limits.connections == 8
        with suppress(ConnectionError):
            assert serving_.get("/") == b""
        wait_for(lambda: serving_.counts.closed["files"] == 1)
    for files, connections in ((256, 32), (512, 64), (resource.RLIM_INFINITY, 64)):
        monkeypatch.setattr("panrt.engine.sinks.clients.resource.getrlimit", lambda _, files=files: (files, files))
        with serving(None) as serving_:
            assert serving_.clients.limits.connections == connections


def test_a_process_without_descriptors_answers_again_when_it_has_some() -> None:
    with serving() as serving_, serving_.connect() as client:
        wait_for(lambda: serving_.counts.connections == 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as waiting:
            waiting.settimeout(20)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                waiting.connect(("127.0.0.1", serving_.server.port))
                waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
                wait_for(lambda: serving_.counts.closed["files"] > 0)
                client.sendall(request())  # who is connected is served
                assert code(read_one(client)) == 200
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            serving_.pass_time(GRACE)
            assert code(read(waiting)) == 200


def test_200_slow_clients_of_every_kind_cost_no_recording_and_few_threads(tmp_path: Path) -> None:
    clients_, frames, port = 200, 500, free_port()
    beginnings = (
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ",
        b"\x16\x03\x01",
        request("GET /stream.mjpg HTTP/1.1"),
    )
    sinks = [f"web://127.0.0.1:{port}", f"npy://{tmp_path / 'npy'}", f"coco://{tmp_path / 'coco'}"]
    stream = panrt.stream(f"test://32x24@max?frames={frames}", NullSession(), sinks=sinks, tracker=None)
    pairs = stream.pairs()
    next(pairs)  # the server answers from here on
    before = threading.active_count()
    with ExitStack() as stack:
        clients: list[socket.socket] = []
        for number, _ in enumerate(pairs):
            if len(clients) < clients_:
                clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)))
                clients[-1].sendall(beginnings[number % len(beginnings)])
                assert threading.active_count() <= before + Limits.connections
            else:
                with suppress(ConnectionError):  # who was dropped
                    clients[number % clients_].sendall(b"a")
    assert len(clients) == clients_
    _, *recordings = stream.status.sinks
    assert [(sink.state, sink.written, sink.lost) for sink in recordings] == 2 * [("closed", frames, 0)]


def test_a_server_that_cannot_start_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = len(list(Path("/proc/self/fd").iterdir()))
    address = parse_address("web", ":0", {})  # two listeners, where there is IPv6
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(ThreadLimitError, match="server web://:0: the system starts no more threads"):
            Server(address, {}).start()
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def one_thread(self: threading.Thread) -> None:
        if started:
            no_thread(self)
        started.append(self)
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", one_thread)
        with suppress(ThreadLimitError):
            server = Server(address, {})
            server.start()
            server.close()  # there is no IPv6
    assert not started[0].is_alive()
    monkeypatch.setenv("PANRT_TOKEN", "short")
    with pytest.raises(SinkError, match="PANRT_TOKEN in the environment: got 5 characters, expected 8 to 128"):
        Server(address, {})
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_client_for_whom_there_is_no_thread_is_closed_and_the_next_one_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with serving() as serving_:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            with serving_.connect() as client:
                assert client.recv(1) == b""
        assert serving_.counts.closed["threads"] == 1
        assert serving_.counts.errors == 0
        assert code(serving_.get("/")) == 200


def test_the_threads_end_with_the_server_whatever_their_clients_do() -> None:
    def clients() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "client of web://127.0.0.1:0"]

    with ExitStack() as stack, serving() as serving_:
        for data in (b"", b"GET /", request("GET /large HTTP/1.1"), request("GET /full HTTP/1.1")):
            stack.enter_context(serving_.connect(data))
        viewer = stack.enter_context(serving_.connect(request("GET /empty HTTP/1.1")))
        assert code(viewer.recv(1 << 16)) == 200
        wait_for(lambda: serving_.counts.requests[200] == 3)
        assert len(clients()) == 5
        serving_.server.close()
        assert clients() == []
        assert [feed.closed.is_set() for feed in serving_.feeds] == [True, True]
