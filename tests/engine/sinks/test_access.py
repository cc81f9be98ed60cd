"""Addresses on which servers listen, and the requests that they answer."""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import parse_headers

import pytest

from panrt.engine.sinks import SinkError, UnknownSinkError, open_sink
from panrt.engine.sinks.access import Access
from panrt.engine.sinks.address import authority, listen, parse_address
from panrt.engine.sinks.request import RejectedError, checked

TOKEN = "a-token-of-22-letters_"


@contextmanager
def access(target: str, **options: str) -> Iterator[tuple[Access, list[socket.socket]]]:
    address = parse_address("web", target, options)
    listeners = listen(address)
    try:
        yield Access(address, listeners), listeners
    finally:
        for listener in listeners:
            listener.close()


def answer(found: Access, host: str | None = "localhost", path: str = "/", *headers: str) -> int:
    """The code of the answer to a request for a page that exists."""
    lines = [*([] if host is None else [f"Host: {host}"]), *headers, "", ""]
    try:
        message = parse_headers(io.BytesIO("\r\n".join(lines).encode()))
        found.check(checked(f"GET {path} HTTP/1.{0 if host is None else 1}", message))
    except RejectedError as error:
        return error.code
    return 200


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


# addresses


@pytest.mark.parametrize(
    ("target", "bound"),
    [
        (":0", {"127.0.0.1", "::1"}),
        (":0/", {"127.0.0.1", "::1"}),
        ("localhost:0", {"127.0.0.1", "::1"}),
        ("127.0.0.1:0", {"127.0.0.1"}),
        ("[::1]:0", {"::1"}),
        ("0.0.0.0:0", {"0.0.0.0"}),
        ("[::]:0", {"::"}),
    ],
)
@needs_ipv6
def test_a_server_listens_where_its_address_says_and_on_loopback_by_default(target: str, bound: set[str]) -> None:
    with access(target) as (found, listeners):
        assert {listener.getsockname()[0] for listener in listeners} == bound
        (port,) = {listener.getsockname()[1] for listener in listeners}
        assert port > 0
        assert re.fullmatch(rf"http://\S+:{port}/(\?token=\S+)?", found.url("/"))
        is_open = bool(bound & {"0.0.0.0", "::"})
        assert bool(found.token) == is_open
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            reachable = "::" in bound or host in bound or (bound == {"0.0.0.0"} and host == "127.0.0.1")
            with socket.socket(family) as client:
                assert (client.connect_ex((host, port)) == 0) == reachable


def test_a_machine_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = socket.socket

    def only_ipv4(family: int, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return kind(family, *rest)

    monkeypatch.setattr(socket, "socket", only_ipv4)
    (listener,) = listen(parse_address("web", ":0", {}))
    assert listener.getsockname()[0] == "127.0.0.1"
    listener.close()
    with pytest.raises(SinkError, match=r"cannot listen on \[::1\]:0: .*; this machine has no IPv6\.$"):
        listen(parse_address("web", "[::1]:0", {}))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("", "expected HOST:PORT or :PORT"),
        ("8080", "expected HOST:PORT or :PORT"),
        ("127.0.0.1", "expected HOST:PORT or :PORT"),
        (":http", "expected HOST:PORT or :PORT"),
        (":-1", "expected HOST:PORT or :PORT"),
        (":٣", "expected HOST:PORT or :PORT"),
        (":" + 5000 * "1", "expected HOST:PORT or :PORT"),
        (":65536", "got port 65536, expected 0 to 65535"),
        (":99999", "got port 99999, expected 0 to 65535"),
        (":8080/page", "expected HOST:PORT or :PORT"),
        ("::1:8080", r"write IPv6 in brackets: web://\[::1\]:8080"),
        ("[::1]", "expected HOST:PORT or :PORT"),
        ("[::1:8080", "expected HOST:PORT or :PORT"),
        ("[1.2.3.4]:8080", "in brackets, expected an IPv6 address"),
        ("[zz]:8080", "in brackets, expected an IPv6 address"),
        ("[fe80::1%eth0]:8080", "with a zone is not supported"),
        ("[fe80::1%25eth0]:8080", "with a zone is not supported"),
        ("*:8080", r"write 0\.0\.0\.0 for every IPv4 address"),
        ("a b:8080", "got the host 'a b'"),
        ("a\nb:8080", "got the host"),
        ("ü:8080", "got the host"),
        (":8080?token=hunter22?host=a", "expected options after the address"),
        (":8080#hunter2", "expected options after the address"),
        ("user:hunter2@0.0.0.0:8080", r"a login in the address is not supported; give a token, \?token=TEXT"),
    ],
)
@pytest.mark.parametrize("scheme", ["web", "metrics"])
def test_what_is_no_address_is_told_in_one_line_without_a_login(scheme: str, target: str, said: str) -> None:
    with pytest.raises(UnknownSinkError, match=said.replace("web:", f"{scheme}:")) as caught:
        open_sink(f"{scheme}://{target}")
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("target", ["{}:0", "[2001:db8::1]:0"])
def test_an_address_of_another_machine_is_told_in_one_line(target: str) -> None:
    with pytest.raises(SinkError, match=r"cannot listen on .*; this machine has no (such address|IPv6)"):
        listen(parse_address("web", target.format("192.0.2.99"), {}))


def test_a_host_that_does_not_exist_and_a_port_without_the_privilege_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SinkError, match=r"no such host 'nowhere\.invalid'"):
        listen(parse_address("web", "nowhere.invalid:0", {}))
    with pytest.raises(SinkError, match=r"no such host"):
        listen(parse_address("web", f"{70 * 'a'}.invalid:0", {}))  # a label too long for the encoding of names

    def no_privilege(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", type("Socket", (socket.socket,), {"bind": no_privilege}))
    with pytest.raises(SinkError, match=r"cannot listen on 127\.0\.0\.1:80: Permission denied; ports below 1024 need"):
        listen(parse_address("web", "127.0.0.1:80", {}))


def test_a_port_that_is_taken_in_one_family_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SinkError, match=f"127.0.0.1:{port}: Address already in use; choose another port, or 0"):
            listen(parse_address("web", f":{port}", {}))


@needs_ipv6
def test_a_port_that_is_free_in_one_family_alone_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def bind(self: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "::1" and len(taken) < 3:
            taken.append(address[1])
            raise OSError(98, "Address already in use")
        super(type(self), self).bind(address)

    monkeypatch.setattr(socket, "socket", type("Socket", (socket.socket,), {"bind": bind}))
    listeners = listen(parse_address("web", ":0", {}))
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    assert len(listeners) == 2
    for listener in listeners:
        listener.close()


def test_the_url_of_a_wildcard_is_one_that_can_be_opened() -> None:
    (listener,) = listen(parse_address("web", "0.0.0.0:0", {}))
    with listener:
        host, _, port = authority(listener).rpartition(":")
        assert host != "0.0.0.0"
        with socket.create_connection((host, int(port)), timeout=60):
            pass


# hosts


HOSTS = [
    ("localhost", 200),
    ("LOCALHOST:8080", 200),
    ("localhost.", 200),
    ("panrt.localhost:1", 200),
    ("127.0.0.1", 200),
    ("127.0.0.1:65535", 200),
    ("127.8.8.8", 200),
    ("[::1]:8080", 200),
    ("[0:0:0:0:0:0:0:1]", 200),
    ("[::ffff:127.0.0.1]", 200),
    (None, 200),  # of HTTP/1.0, which no browser speaks; the token is asked for all the same
    ("evil.example", 403),
    ("localhost.evil.example", 403),
    ("127.0.0.1.evil.example", 403),
    ("127.0.0.1.", 403),
    ("2130706433", 403),
    ("0x7f.1", 403),
    ("0.0.0.0", 403),
    ("[::]", 403),
    ("8.8.8.8", 403),
    ("[::ffff:8.8.8.8]", 403),
    ("evil.example:8080", 403),
    ("localhost:", 400),
    ("localhost:http", 400),
    ("localhost:123456", 400),
    ("user@localhost", 400),
    ("localhost/", 400),
    ("localhost evil", 400),
    ("localhost,evil", 400),
    ("[::1", 400),
    ("::1", 400),
    ("[fe80::1%25eth0]", 400),
    ("", 400),
]


@pytest.mark.parametrize(("host", "expected"), HOSTS)
def test_on_loopback_only_names_that_no_other_site_can_have_are_answered(host: str | None, expected: int) -> None:
    expected = 200 if host == "127.0.0.1." else expected  # the same address
    with access("127.0.0.1:0") as (found, _):
        assert answer(found, host) == expected


def test_own_names_and_those_that_were_given_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Jetson.example.org")
    with access("0.0.0.0:0", host="Proxy.example.com, cam.lan.", token="none") as (found, _):
        for host in ("jetson", "jetson.example.org:80", "JETSON.local", "proxy.example.com", "cam.lan", "CAM.lan."):
            assert answer(found, host) == 200
        for host in ("192.168.1.7:8080", "[2001:db8::1]:8080"):  # a container sees another number than its user
            assert answer(found, host) == 200
        for host in ("evil.example", "example.org", "org", "local"):
            assert answer(found, host) == 403


@pytest.mark.parametrize("host", ["a b", "a/b", "ü", "a,,b c", "evil:80"])
def test_a_further_name_must_be_a_name(host: str) -> None:
    with pytest.raises(UnknownSinkError, match=r"host: got .*, expected a name"):
        parse_address("web", ":0", {"host": host})


# other sites


@pytest.mark.parametrize(
    ("site", "destination", "expected"),
    [
        ("same-origin", "image", 200),
        ("none", "document", 200),
        ("cross-site", "document", 200),  # a link
        ("cross-site", "image", 403),
        ("same-site", "image", 403),  # another port of this host
        ("cross-site", "iframe", 403),
        ("cross-site", "empty", 403),
        ("cross-site", "script", 403),
    ],
)
def test_another_site_may_link_to_a_page_but_not_embed_it(site: str, destination: str, expected: int) -> None:
    headers = f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Dest: {destination}"
    with access("127.0.0.1:0") as (found, _):
        assert answer(found, "localhost", "/", *headers) == expected


# tokens


def test_what_is_open_to_the_network_makes_a_token_of_its_own() -> None:
    tokens = set()
    for _ in range(3):
        with access("0.0.0.0:0") as (found, _):
            tokens.add(found.token)
            assert len(found.token) >= 22  # 128 bits
            assert found.url("/").endswith(f"/?token={found.token}")
            assert answer(found) == 401
            assert answer(found, "localhost", f"/?token={found.token}") == 200
    assert len(tokens) == 3


def test_a_token_comes_by_query_header_or_cookie_and_no_other_way() -> None:
    with access("127.0.0.1:0", token=TOKEN) as (found, _):
        cookie = found.cookie_name
        for path, headers in (
            (f"/?token={TOKEN}", ()),
            (f"/?a=b&token={TOKEN}", ()),
            ("/", (f"Authorization: Bearer {TOKEN}",)),
            ("/", (f"authorization: bearer  {TOKEN} ",)),
            ("/", (f"Cookie: {cookie}={TOKEN}",)),
            ("/", (f'Cookie: a="b; {cookie}={TOKEN}; c={{"d": 1}}',)),
            ("/", (f"Cookie: {cookie}=old", f"Cookie: {cookie}={TOKEN}")),
        ):
            assert answer(found, "localhost", path, *headers) == 200
        for path, headers in (
            ("/", ()),
            ("/?token=", ()),
            (f"/?token={TOKEN}x", ()),
            (f"/?token={TOKEN[:-1]}", ()),
            (f"/?token={TOKEN.upper()}", ()),
            (f"/?TOKEN={TOKEN}", ()),
            ("/?token=%C3%BC", ()),
            ("/?token=none", ()),
            (f"/{TOKEN}", ()),
            ("/", (f"Authorization: Basic {TOKEN}",)),
            ("/", (f"Authorization: {TOKEN}",)),
            ("/", ("Authorization: Bearer \xe4".encode().decode("latin-1"),)),
            ("/", (f"Cookie: panrt={TOKEN}",)),
            ("/", (f"Cookie: {cookie}x={TOKEN}",)),
        ):
            assert answer(found, "localhost", path, *headers) == 401
        assert answer(found, None) == 401
        assert answer(found, "evil.example", f"/?token={TOKEN}") == 403


def test_a_token_that_was_given_is_used_and_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANRT_TOKEN", "token-of-the-environment")
    for options, token in (
        ({"token": TOKEN}, TOKEN),
        ({}, "token-of-the-environment"),
        ({"token": "none"}, ""),
    ):
        for target in ("127.0.0.1:0", "0.0.0.0:0"):
            with access(target, **options) as (found, _):
                assert found.token == token
                assert "token=" not in found.url("/")
                assert (found.note == "") == (not token and target.startswith("127"))
    with access("127.0.0.1:0", token="auto") as (found, _):
        assert found.token not in ("", "auto", "token-of-the-environment")
        assert found.url("/").endswith(found.token)


@pytest.mark.parametrize(
    "token", ["", "short", 129 * "a", "white space", "semi;colon", "ampers&and", "ümlaut-ü", "NONE"]
)
def test_a_token_that_would_not_do_is_told_without_being_shown(token: str) -> None:
    with pytest.raises(UnknownSinkError, match=f"token: got {len(token)} characters, expected 8 to 128") as caught:
        parse_address("web", "0.0.0.0:8080", {"token": token})
    assert not token or token not in str(caught.value)


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def compare(one: bytes, other: bytes) -> bool:
        seen.append((one, other))
        return one == other

    monkeypatch.setattr("panrt.engine.sinks.access.hmac.compare_digest", compare)
    with access("127.0.0.1:0", token=TOKEN) as (found, _):
        assert answer(found, "localhost", "/?token=wrong") == 401
    assert (b"wrong", TOKEN.encode()) in seen


def test_the_name_of_a_sink_shows_neither_token_nor_options() -> None:
    assert open_sink(f"web://0.0.0.0:8080?token={TOKEN}&host=a.b").name == "web://0.0.0.0:8080"
    for uri in (f"web://0.0.0.0:8080?tokn={TOKEN}", f"metrics://:1?token={TOKEN}&policy=x"):
        with pytest.raises(UnknownSinkError) as caught:
            open_sink(uri)
        assert TOKEN not in str(caught.value)
