"""A file is downloaded whole or not at all, whatever the server does."""

from __future__ import annotations

import email.message
import errno
import hashlib
import io
import resource
import shutil
import socket
import threading
import types
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from panrt.errors import ChecksumError, DownloadError, OfflineError
from panrt.hub import download
from panrt.hub.download import Expected, Patience, check_address, fetch
from support.hub_server import Heard, Hub, Request, md5_prefix

CONTENT = bytes(range(256)) * 4000  # about a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()
EXPECTED = Expected(2 * len(CONTENT), md5_prefix(CONTENT))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(CONTENT).running() as server:
        yield server


class Client:
    """Downloads into a folder, and notes what it waits."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.target = hub, folder / "weights" / "model.pkl"
        self.heard, self.waits = Heard(), list[float]()

    def fetch(self, expected: Expected = EXPECTED, *, path: str = "/model.pkl", attempts: int = 3) -> str:
        patience = Patience(timeout=10, attempts=attempts, sleep=self.waits.append)
        address = self.hub.address + path
        return fetch(address, self.target, expected, watch=self.heard, patience=patience, cure="use a mirror")

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.target.parent.iterdir()} - {"model.pkl.lock"}


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub, tmp_path)


def cut_at(hub: Hub, position: int) -> Callable[[Request], None]:
    return lambda request: hub.serve(request, until=position)


def status(code: int, **headers: str) -> Callable[[Request], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: request.answer(code, b"no", named)


# whole files


def test_file_gets_its_name_when_it_is_whole_and_checked(client: Client) -> None:
    assert client.fetch() == SHA256
    assert client.target.read_bytes() == CONTENT
    assert client.files == {"model.pkl"}
    assert client.heard.progress[-1] == (len(CONTENT), len(CONTENT))
    assert client.heard.ends == 1


def test_file_that_is_here_needs_no_request(client: Client) -> None:
    client.fetch()
    assert client.fetch() == SHA256
    assert len(client.hub.requests) == 1


def test_file_that_was_damaged_on_the_disk_is_downloaded_again(client: Client) -> None:
    client.fetch()
    client.target.write_bytes(CONTENT[:-1] + b"!")
    assert client.fetch() == SHA256
    assert client.target.read_bytes() == CONTENT
    assert any("is damaged" in line for line in client.heard.lines)


def test_progress_is_reported_while_a_slow_server_still_sends(client: Client) -> None:
    half, heard_of_it = len(CONTENT) // 2, threading.Event()
    received = client.heard.received

    def notice(done: int, total: int | None) -> None:
        received(done, total)
        if done >= half:
            heard_of_it.set()

    def slow(request: Request) -> None:
        request.answer(200, CONTENT[:half], {"Content-Length": str(len(CONTENT))})
        assert heard_of_it.wait(30)
        request._handler.wfile.write(CONTENT[half:])

    client.heard.received = notice  # type: ignore[method-assign]
    client.hub.plays = [slow]
    assert client.fetch() == SHA256
    assert len(client.hub.requests) == 1


def test_two_downloads_of_one_file_are_one_request(client: Client, tmp_path: Path) -> None:
    other = Client(client.hub, tmp_path)
    waits = threading.Event()
    other.heard.line = lambda text: waits.set()  # type: ignore[method-assign]

    def when_the_other_waits(request: Request) -> None:
        thread.start()
        assert waits.wait(30)
        client.hub.serve(request)

    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(other.fetch()))
    client.hub.plays = [when_the_other_waits]
    assert client.fetch() == SHA256
    thread.join()
    assert (found, len(client.hub.requests)) == ([SHA256], 1)


# cut connections


def test_cut_download_continues_where_it_ended(client: Client) -> None:
    client.hub.plays = [cut_at(client.hub, 300_000), cut_at(client.hub, 700_000)]
    assert client.fetch() == SHA256
    assert [request.start for request in client.hub.requests] == [0, 300_000, 700_000]
    assert client.hub.requests[1].headers["If-Range"] == client.hub.tag
    assert client.waits == [1.0, 1.0]  # each delivered something, so patience begins again
    assert client.files == {"model.pkl"}


def test_download_continues_after_a_process_that_gave_up(client: Client) -> None:
    client.hub.plays = [cut_at(client.hub, 400_000), status(500)]
    with pytest.raises(DownloadError, match=r"answered 500, 1 times in a row; what has arrived is kept"):
        client.fetch(attempts=1)
    assert not client.target.exists()
    assert client.fetch() == SHA256
    assert client.hub.requests[-1].start == 400_000


@pytest.mark.parametrize("tag", ["", 'W/"v1"'])
def test_version_that_the_server_cannot_name_is_not_continued(tmp_path: Path, tag: str) -> None:
    with Hub(CONTENT, tag).running() as hub:
        client = Client(hub, tmp_path)
        hub.plays = [cut_at(hub, 400_000)]
        assert client.fetch() == SHA256
        assert "Range" not in hub.requests[1].headers


def test_file_that_changed_after_a_cut_starts_over(client: Client) -> None:
    new = CONTENT[::-1]

    def change(request: Request) -> None:
        client.hub.content, client.hub.tag = new, '"v2"'
        client.hub.serve(request)

    client.hub.plays = [cut_at(client.hub, 400_000), change]
    assert client.fetch(Expected(len(new))) == hashlib.sha256(new).hexdigest()
    assert client.target.read_bytes() == new


def test_part_that_was_damaged_on_the_disk_starts_over_once(client: Client) -> None:
    def damage(request: Request) -> None:
        part = client.target.with_name("model.pkl.part")
        part.write_bytes(b"!" + part.read_bytes()[1:])
        client.hub.serve(request)

    client.hub.plays = [cut_at(client.hub, 400_000), damage]
    assert client.fetch() == SHA256
    assert [request.start for request in client.hub.requests] == [0, 400_000, 0]


@pytest.mark.parametrize("state", [b"", b"[" * 9000, b"{}", b'{"address": 1, "validator": []}', b"{" * 20_000])
def test_damaged_state_of_a_download_starts_over(client: Client, state: bytes) -> None:
    def damage(request: Request) -> None:
        client.target.with_name("model.pkl.part.json").write_bytes(state)
        request.answer(500)

    client.hub.plays = [cut_at(client.hub, 400_000), damage]
    assert client.fetch() == SHA256
    assert client.hub.requests[-1].start == 0


def test_part_that_was_not_asked_for_is_not_taken(client: Client) -> None:
    def elsewhere(request: Request) -> None:
        body = CONTENT[5:]
        request.answer(206, body, {"Content-Range": f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"})

    client.hub.plays = [cut_at(client.hub, 400_000), elsewhere]
    assert client.fetch() == SHA256


def test_server_that_always_announces_too_much_is_given_up(client: Client) -> None:
    client.hub.plays = [lambda request: client.hub.serve(request, length=len(CONTENT) + 10)] * 50
    with pytest.raises(DownloadError, match=r"3 times in a row"):
        client.fetch(Expected(2 * len(CONTENT)))
    assert not client.target.exists()
    assert len(client.hub.requests) < 10


def test_server_that_announces_too_little_is_found_by_the_hash(client: Client) -> None:
    client.hub.plays = [lambda request: client.hub.serve(request, length=len(CONTENT) - 10)]
    with pytest.raises(ChecksumError):
        client.fetch()
    assert client.files == set()


def test_silent_server_is_asked_again(client: Client) -> None:
    over = threading.Event()

    def silent(_: Request) -> None:
        over.wait(30)

    client.hub.plays = [silent]
    patience = Patience(timeout=0.2, attempts=3, sleep=lambda _: None)
    try:
        found = fetch(f"{client.hub.address}/m", client.target, EXPECTED, watch=client.heard, patience=patience)
    finally:
        over.set()
    assert found == SHA256
    assert any("no answer from 127.0.0.1" in line for line in client.heard.lines)


# what the server says


def test_other_file_than_expected_leaves_nothing(client: Client) -> None:
    with pytest.raises(ChecksumError, match=r"/model\.pkl: MD5 [0-9a-f]{32}, expected one that starts with abcdef"):
        client.fetch(EXPECTED._replace(md5_prefix="abcdef"))
    with pytest.raises(ChecksumError, match=f"SHA-256 {SHA256}, expected {'0' * 64}"):
        client.fetch(EXPECTED._replace(sha256="0" * 64))
    assert client.files == set()
    assert len(client.hub.requests) == 2  # it is not asked for again


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(404, "has no such file"), (403, "denies access"), (410, "no longer has"), (418, "does not give")],
)
def test_answer_that_is_final_is_one_error_with_a_cure(client: Client, code: int, meaning: str) -> None:
    client.hub.plays = [status(code)]
    with pytest.raises(DownloadError, match=rf"/model\.pkl: the server {meaning}.* \({code}\); use a mirror\.$"):
        client.fetch()
    assert (len(client.hub.requests), client.waits) == (1, [])


@pytest.mark.parametrize(
    ("after", "waited"),
    [("7", 7.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("Thu, 01 Jan 1970 00:00:00", 0.0), ("soon", 2.0), ("", 2.0)],
)
def test_busy_server_is_given_the_time_that_it_asks_for(client: Client, after: str, waited: float) -> None:
    client.hub.plays = [status(429, Retry_After=after)]
    assert client.fetch() == SHA256
    assert client.waits == [waited]


def test_server_that_asks_for_an_hour_is_not_waited_for(client: Client) -> None:
    client.hub.plays = [status(503, Retry_After="3600")]
    with pytest.raises(DownloadError, match=r"answered 503; the server asks to wait 3600 s"):
        client.fetch()
    assert client.waits == []


def test_waits_grow_and_end(client: Client) -> None:
    client.hub.plays = [status(500)] * 9
    with pytest.raises(DownloadError, match=r"answered 500, 5 times in a row; try again later"):
        client.fetch(attempts=5)
    assert client.waits == [2.0, 4.0, 8.0, 16.0]


def test_content_in_an_encoding_is_not_taken_for_the_file(client: Client) -> None:
    client.hub.plays = [client.hub.serve_encoded]
    with pytest.raises(DownloadError, match=r"encoding 'gzip', which was not asked for"):
        client.fetch()


@pytest.mark.parametrize("announced", [True, False])
def test_file_that_is_too_large_is_not_kept(client: Client, announced: bool) -> None:
    def endless(request: Request) -> None:
        request.answer(200, CONTENT, {"Connection": "close"}, announced=announced)
        request.cut()

    client.hub.plays = [endless]
    with pytest.raises(DownloadError, match=r"has [\d,]+ bytes or more, expected at most 1,000; it is not the file"):
        client.fetch(EXPECTED._replace(most_bytes=1000))
    assert client.files == set()


# redirects


def redirect(location: str) -> Callable[[Request], None]:
    return status(302, Location=location)


def test_redirect_is_followed_and_continued(client: Client) -> None:
    client.hub.plays = [redirect("/elsewhere"), cut_at(client.hub, 1000), redirect(f"{client.hub.address}/again")]
    assert client.fetch() == SHA256
    assert [request.path for request in client.hub.requests] == ["/model.pkl", "/elsewhere", "/model.pkl", "/again"]


def test_redirects_without_an_end_are_an_error(client: Client) -> None:
    client.hub.plays = [redirect("/model.pkl")] * 20
    with pytest.raises(DownloadError, match=r"redirected 8 times without an end"):
        client.fetch()


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_redirect_leads_to_no_other_scheme(client: Client, location: str) -> None:
    client.hub.plays = [redirect(location)]
    with pytest.raises(DownloadError, match=r"not an address, expected http://HOST"):
        client.fetch()
    assert client.files == set()


def test_redirect_never_leads_to_a_less_safe_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(address: str, *_: object) -> None:
        asked.append(address)
        headers = email.message.Message()
        headers["Location"] = "http://hub.test/model.pkl"
        raise urllib.error.HTTPError(address, 301, "Moved", headers, io.BytesIO())

    asked: list[str] = []
    monkeypatch.setattr(download, "_request", answer)
    with pytest.raises(DownloadError, match=r"redirected to http://hub\.test/model\.pkl, which is not encrypted"):
        fetch("https://hub.test/model.pkl", tmp_path / "model.pkl", EXPECTED, watch=Heard())
    assert asked == ["https://hub.test/model.pkl"]


# addresses and networks


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://h/x", "h/x", "http://", "http://h:99999/x", "http://["]
)
def test_address_has_a_scheme_and_a_host(address: str) -> None:
    with pytest.raises(DownloadError, match=r"expected http://HOST"):
        check_address(address)


def test_login_in_an_address_is_rejected_and_not_shown() -> None:
    with pytest.raises(
        DownloadError, match=r"^http://\.\.\.@hub\.test: a login in an address is not supported"
    ) as found:
        check_address("http://someone:secret@hub.test/x")
    assert "secret" not in str(found.value)


def test_server_that_is_not_there_is_reported_at_once(client: Client, tmp_path: Path) -> None:
    with Hub(CONTENT).running() as gone:
        address = gone.address
    waits: list[float] = []
    with pytest.raises(OfflineError, match=r"127\.0\.0\.1:\d+ cannot be reached \(Connection refused\); use a mirror"):
        fetch(
            f"{address}/m", client.target, EXPECTED, watch=Heard(), patience=Patience(sleep=waits.append),
            cure="use a mirror",
        )  # fmt: skip
    assert waits == []


def test_unknown_host_is_reported_as_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(OfflineError, match=r"the host hub\.invalid is not found; is there a network\?"):
        fetch("http://hub.invalid/m", tmp_path / "m", EXPECTED, watch=Heard())


# disks


def test_full_disk_is_noticed_before_the_download(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1000))
    with pytest.raises(DownloadError, match=r"model\.pkl\.part: no space left on device; make room, or set XDG"):
        client.fetch()
    assert client.heard.progress == []


def test_disk_that_fills_up_during_the_download_is_one_error(client: Client) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(DownloadError, match=r"file too large; make room, or set XDG_CACHE_HOME"):
            client.fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not client.target.exists()
    assert client.fetch() == SHA256  # and continues when there is room
    assert client.hub.requests[-1].start == 500_000


def test_folder_that_cannot_be_written_to_is_named(client: Client, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(DownloadError, match=r"weights.*; set XDG_CACHE_HOME to a folder that can be written to"):
        client.fetch()


def test_error_numbers_of_full_disks_are_told_from_others() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        assert "make room" in str(download._unwritable(OSError(number, "x"), Path("m")))
    assert "make room" not in str(download._unwritable(OSError(errno.EACCES, "x"), Path("m")))
