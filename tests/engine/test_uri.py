"""URIs: their parts, and that no credentials in one are ever shown."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panrt.engine.sinks.open import open_sink
from panrt.engine.sources.open import parse
from panrt.engine.uri import Uri, file_path, nearest, network_address, redact, redact_all, split, split_options
from panrt.errors import PanrtError
from panrt.formats.records import legible, line

PIECE = "Zq"  # of passwords: wherever it appears, a password is shown
PASSWORDS = st.lists(st.sampled_from([PIECE, *"#/?[]@:%&= ;\\é\n"]), min_size=1, max_size=8).map(
    lambda pieces: PIECE + "".join(pieces)
)


class BadUriError(PanrtError, ValueError):
    pass


def parts(text: str) -> Uri:
    uri = split(text)
    assert uri is not None
    return uri


def address(text: str) -> str:
    return network_address(parts(text), BadUriError)


def refusal(text: str) -> BadUriError | None:
    try:
        address(text)
    except BadUriError as error:
        return error
    return None


@given(password=PASSWORDS, path=st.sampled_from(["", "/", "/live", "/live?channel=1", "/a/b.mp4"]))
def test_no_password_is_shown_whatever_its_characters(password: str, path: str) -> None:
    text = f"rtsp://admin:{password}@10.0.0.9:554{path}"
    said = [redact(text), redact(text[1:]), redact(" " + text), redact(text.replace("//", "")), redact(text[7:])]
    said += [repr(parts(text)), str(parts(text)), str(refusal(text))]
    assert not [line for line in said if PIECE in line]
    assert redact(text) == f"rtsp://10.0.0.9:554{path}"


@given(password=PASSWORDS)
def test_an_address_names_the_host_and_password_that_were_meant_or_none(password: str) -> None:
    text = f"RTSP://admin:{password}@10.0.0.9:554/live"
    refused = refusal(text)
    if refused is not None:
        assert any(f"%{ord(mark):02X} for {mark}" in str(refused) for mark in set(password) & set("#/?%"))
        return
    read = urlsplit(address(text))
    assert (read.scheme, read.hostname, read.port, read.path) == ("rtsp", "10.0.0.9", 554, "/live")
    assert unquote(read.password or "") == unquote(password)


@given(text=st.text() | st.from_regex(r"[a-z]{2,5}:/{0,3}.*", fullmatch=True))
def test_any_string_can_be_redacted_and_split(text: str) -> None:
    once = redact(text)
    assert redact(once) == once or "***" in once
    uri = split(text)
    if uri is None:
        return
    assert text.lower().startswith(f"{uri.scheme}://")
    assert repr(uri)
    if refusal(text) is None:
        assert uri.host in address(text)
    with contextlib.suppress(BadUriError):
        file_path(uri, BadUriError)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("http://10.0.0.9/snap?user=admin&pwd=Zq&channel=1", "http://10.0.0.9/snap?user=***&pwd=***&channel=1"),
        ("http://10.0.0.9/snap?p%61ssword=Zq", "http://10.0.0.9/snap?p%61ssword=***"),
        ("http://10.0.0.9/snap?anything=Zq&n=12", "http://10.0.0.9/snap?anything=***&n=12"),
        ("http://10.0.0.9/snap?pin=123", "http://10.0.0.9/snap?pin=***"),
        ("http://10.0.0.9/snap?Zq", "http://10.0.0.9/snap?***"),
        ("http://10.0.0.9/snap?password=Zq@Zq", "http://10.0.0.9/snap?password=***"),
        ("rtsp://10.0.0.9/user=Zq&password=Zq&channel=1", "rtsp://10.0.0.9/user=***&password=***&channel=1"),
        ("rtsp://10.0.0.9/user=Zq_password=Zq_channel=1.sdp", "rtsp://10.0.0.9/user=***_password=***_channel=1.sdp"),
        ("rtsp://admin:Zq", "rtsp://***"),
        ("rstp://admin:Zq@10.0.0.9/live", "rstp://10.0.0.9/live"),
        ("rtsp:/admin:Zq@10.0.0.9/live", "rtsp:/10.0.0.9/live"),
        ("//admin:Zq@10.0.0.9/live", "***@10.0.0.9/live"),
        ("admin:Zq@10.0.0.9/live", "***@10.0.0.9/live"),
        ("rtsp://admin:Zq@[fe80::1]:554/live", "rtsp://[fe80::1]:554/live"),
        ("rtsp://10.0.0.9/live#Zq", "rtsp://10.0.0.9/live#***"),
        ("web://127.0.0.1:8080?token=Zq", "web://127.0.0.1:8080?token=***"),
        ("file://admin:Zq@nas/clip.mp4", "file://nas/clip.mp4"),
    ],
)
def test_logins_outside_the_userinfo_are_hidden_too(text: str, seen: str) -> None:
    assert redact(text) == seen
    assert redact_all(f"[http] error for '{text}' (5)") == f"[http] error for '{seen}' (5)" or "://" not in text


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://10.0.0.9:554/live?channel=1&subtype=0",
        "http://host/photo@2x.jpg",
        "test://640x480@60",
        "coco://results/12:30",
        "out.mp4?crf=23&preset=veryfast",
        "shots/0?.png",
        "C:\\clips\\a.mp4",
        "12:30:00.mp4",
        "web://:8080",
        "-",
        "",
    ],
)
def test_what_holds_no_login_is_shown_unchanged(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rtsp:///live", "names no host"),
        ("rtsp://host:99999/live", "port from 1 to 65535"),
        ("rtsp://host:0/live", "port from 1 to 65535"),
        ("rtsp://admin:Zq", "USER:PASSWORD@HOST:PORT"),
        ("rtsp://host:554/a@b", "written %40"),
        ("rtsp://host/live#a", "%23 for #"),
        ("rtsp://ho st/live", "expected rtsp://HOST:PORT"),
        (f"rtsp://host/{'a' * 10_000}", "a URI of 10012 characters"),
    ],
)
def test_an_address_that_is_no_address_is_answered_with_what_is_expected(text: str, said: str) -> None:
    with pytest.raises(BadUriError, match=re.escape(said)) as caught:
        address(text)
    assert PIECE not in str(caught.value)


def test_an_address_holds_nothing_that_could_begin_a_header_of_its_own() -> None:
    assert address("HTTP://host/a b\r\nX: 1?q=\r\né") == "http://host/a%20b%0D%0AX:%201?q=%0D%0A%C3%A9"
    assert address("http://host/photo@2x.jpg") == "http://host/photo@2x.jpg"
    assert address("http://host/a%20b") == "http://host/a%20b"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///a/b.mp4", "/a/b.mp4"),
        ("FILE://localhost/a/b.mp4", "/a/b.mp4"),
        ("file:///a%23b%20c%3F%25.png", "/a#b c?%.png"),
        ("file:///a#b.png", "/a#b.png"),
        ("file:///a?b.png", "/a?b.png"),
        ("file:///k%C3%BCche/é.png", "/küche/é.png"),
        ("file:///%41.png", "/A.png"),
        ("file:///100%.png", "/100%.png"),
    ],
)
def test_a_file_uri_names_the_file_that_its_encoding_says(text: str, path: str) -> None:
    assert file_path(parts(text), BadUriError) == Path(path)


@pytest.mark.parametrize("text", ["file://clip.mp4", "file://clips/a.mp4", "file://admin:Zq@nas/a.mp4", "file://~/a"])
def test_a_file_uri_of_two_slashes_is_answered_with_three(text: str) -> None:
    with pytest.raises(BadUriError, match="three slashes") as caught:
        file_path(parts(text), BadUriError)
    assert PIECE not in str(caught.value)


@pytest.mark.parametrize("text", ["file://", "file:///", "file:///a%00b"])
def test_a_file_uri_that_no_file_can_have_is_refused(text: str) -> None:
    with pytest.raises(BadUriError, match="names no file"):
        file_path(parts(text), BadUriError)


@pytest.mark.parametrize(
    "name", ["12:30.mp4", "a/b://c.mp4", "C:\\a.mp4", "C://a.mp4", "-x.mp4", "concat:a|b", "data:,x", "./rtsp://h/a"]
)
def test_the_name_of_a_file_is_no_uri(name: str) -> None:
    assert split(name) is None


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("out.mp4", "out.mp4", {}),
        ("out.mp4?crf=20&scale=2", "out.mp4", {"crf": "20", "scale": "2"}),
        ("really?.mp4", "really?.mp4", {}),
        ("really?.mp4?crf=20", "really?.mp4", {"crf": "20"}),
        ("a=b.mp4", "a=b.mp4", {}),
        ("a#b%41.mp4?crf=%32", "a#b%41.mp4", {"crf": "2"}),
    ],
)
def test_options_follow_a_name_that_may_hold_question_marks(text: str, name: str, options: dict[str, str]) -> None:
    assert split_options(text) == (name, options)


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all() -> None:
    assert nearest("camra", ("camera", "http")) == "did you mean camera?"
    assert nearest("zzz", ("rtsp", "http")) == "expected one of rtsp, http."


_HOSTILE = ("a\n\x1b[2J", "\ud800", "a" * 7000, "a:" * 3000, "a@" * 3000, "a" * 10**6)


@pytest.mark.parametrize(
    "form", ["{}", "{}://x", "camera://0?{}=1", "test://{}", "demo://{}", "coco://?{}=1", "web://{}"]
)
@pytest.mark.parametrize("text", _HOSTILE, ids=["control", "surrogate", "long", "colons", "ats", "endless"])
def test_whatever_a_uri_holds_what_is_said_of_it_is_one_short_line(form: str, text: str) -> None:
    meanings: tuple[Callable[[str], str], ...] = (lambda uri: parse(uri).uri, lambda uri: open_sink(uri).name)
    for meaning in meanings:
        try:
            said = meaning(form.format(text))
        except PanrtError as error:
            said = str(error)
        else:
            said = legible(said)  # a file may be called that
        assert line(said, longest=2000) is not None
