"""URIs of sources and sinks: parsing, advice for unknown names, and redaction for messages.

    SCHEME://AUTHORITY/PATH?QUERY    a URI; the scheme may be in upper case
    anything else                    the name of a file, taken literally

Messages never show a login: the text form of a `Uri` is redacted, and `redact` removes logins from any string, valid
URI or not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes

from panrt.errors import PanrtError
from panrt.formats.records import legible

HIDDEN = "***"
LONGEST = 8192  # characters of a URI

# One letter is no scheme but a drive, as in C:/clips.
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_SCHEME_ONLY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/*)(.*)", re.DOTALL)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[^\[\]@:/\s]+)?\]|[^\[\]@:\s\x00-\x1f\x7f]*)(?::([0-9]{0,5}))?")
_OPTIONS = re.compile(r"[A-Za-z][A-Za-z0-9_-]*=[^&?]*(?:&[A-Za-z][A-Za-z0-9_-]*=[^&?]*)*")
_LOCAL = ("camera", "coco", "csi", "demo", "file", "npy", "shm", "test", "window")  # have no login

# Names of query parameters that hold a login, and of those that are known not to. A parameter on neither list is shown
# only if it is a small number, so that a password under an unforeseen name stays hidden.
_LOGIN = re.compile(
    r"user|usr|login|account|pass|pas$|pwd|psw|pw$|^pw|(?<![a-z])pin|secret|token|auth|key|mail|cred|sign|sig$|session|sid$|jwt|hash|nonce|code",
    re.IGNORECASE,
)
_PLAIN = re.compile(
    "camera|channel|ch|codec|compression|crf|flip|format|fourcc|fps|frames|height|policy|preset|profile|proto|quality|"
    "res|resolution|rotation|scale|size|stream|subtype|transport|transportmode|type|unicast|videocodec|width",
    re.IGNORECASE,
)
# A login inside a path, as in rtsp://HOST/user=admin_password=x_channel=1.sdp: up to the next parameter.
_LOGIN_IN_PATH = re.compile(
    r"((?:user|usr|username|login|password|passwd|passwort|pass|pwd|psw|pw|token|secret|auth|key)=)"
    r"(?:(?!_[A-Za-z]+=)[^&;/?])*",
    re.IGNORECASE,
)
_UNSAFE = {"#": "%23", "/": "%2F", "?": "%3F", "@": "%40", "[": "%5B", "]": "%5D", "%": "%25"}


@dataclass(frozen=True, repr=False)
class Uri:
    """The parts of a URI, not decoded. Printed, formatted or logged, it shows no login."""

    scheme: str  # in lower case
    authority: str  # the text before the first "/", "?" or "#"
    path: str
    query: str
    fragment: str

    @property
    def options(self) -> dict[str, str]:
        """The query as names and values; the last one of a repeated name."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def host(self) -> str:
        """The host of a network address, without the brackets of IPv6; "" if the authority names none."""
        found = _ADDRESS.fullmatch(self.authority.rpartition("@")[2])
        return found[1].strip("[]") if found else ""

    @property
    def shown(self) -> str:
        """The URI without its login, for messages: one line, with the middle elided if it is long."""
        return legible(redact(self._text()))

    def _text(self) -> str:
        query = f"?{self.query}" if self.query else ""
        fragment = f"#{self.fragment}" if self.fragment else ""
        return f"{self.scheme}://{self.authority}{self.path}{query}{fragment}"

    def __repr__(self) -> str:
        return f"Uri({self.shown!r})"

    def __str__(self) -> str:
        return self.shown


def split(text: str) -> Uri | None:
    """Return the parts of a URI; None if the text is a file name, such as `12:30.mp4` or `a/b://c`."""
    found = _URI.fullmatch(text)
    if found is None:
        return None
    rest, hash_mark, fragment = found[2].partition("#")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    return Uri(found[1].lower(), authority, slash + path, query, fragment if hash_mark else "")


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """Return the name of a file and the options that follow it, as in `out.mp4?crf=20&scale=2`.

    Text after a "?" that is not `name=value` belongs to the name: `really?.mp4`.
    """
    name, mark, query = text.rpartition("?")
    if mark and _OPTIONS.fullmatch(query):
        return name, dict(parse_qsl(query, keep_blank_values=True))
    return text, {}


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known ones, or all of them."""
    names = tuple(names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(names)}."


def file_path(uri: Uri, error: type[PanrtError]) -> Path:
    """Return the path that a `file:` URI names, its percent-encoding decoded.

    Raises:
        error: it names a host, nothing, or an impossible file name.
    """
    if uri.authority.lower() not in ("", "localhost"):
        raise error(
            f"{uri}: got a host after file://; name the file by three slashes and its absolute path, "
            "file:///path/name, or without file://."
        )
    raw = uri.path
    if uri.query:  # neither has a meaning in the name of a file on disk
        raw += f"?{uri.query}"
    if uri.fragment:
        raw += f"#{uri.fragment}"
    decoded = unquote_to_bytes(raw.encode("utf-8", "surrogateescape"))
    if not decoded.strip(b"/") or b"\0" in decoded:
        raise error(f"{uri}: names no file; expected file:///path/name.")
    return Path(decoded.decode("utf-8", "surrogateescape"))


def network_address(uri: Uri, error: type[PanrtError]) -> str:
    """Return a network URI in the one form that every library parses alike. It holds the login: never show it.

    Raises:
        error: it names no host, or its login holds characters that are invalid there; the message names them.
    """
    text = uri._text()
    if len(text) > LONGEST:
        raise error(f"{uri.scheme}: got a URI of {len(text)} characters, expected at most {LONGEST}.")
    rest = text.partition("://")[2]
    if _is_ambiguous(rest):
        raise error(f"{uri}: {_advice(rest.rpartition('@')[0])}")
    if uri.fragment:
        raise error(f"{uri}: {_advice('#')}")
    login, at, address = uri.authority.rpartition("@")
    if re.search(r"%(?![0-9A-Fa-f]{2})", login):
        raise error(f"{uri}: {_advice('%')}")
    found_address = _ADDRESS.fullmatch(address)
    if found_address is None or int(found_address[2] or 1) not in range(1, 65536):
        raise error(
            f"{uri}: expected {uri.scheme}://HOST:PORT/PATH with a port from 1 to 65535, or with a login "
            f"{uri.scheme}://USER:PASSWORD@HOST:PORT/PATH."
        )
    if not found_address[1]:
        raise error(f"{uri}: names no host; expected {uri.scheme}://HOST/PATH.")
    user, colon, password = login.partition(":")
    login = _quoted(user, "") + colon + _quoted(password, "")
    query = f"?{_quoted(uri.query, '/?:@!$&*+,;=()')}" if uri.query else ""
    return f"{uri.scheme}://{login}{at}{address}{_quoted(uri.path, '/:@!$&*+,;=()')}{query}"


def _quoted(text: str, safe: str) -> str:
    """Percent-encode every character that is neither safe nor encoded already."""
    return quote(text, safe=safe + "%'~", errors="surrogatepass")


def _advice(text: str) -> str:
    """Return how to write the characters of `text` that would end a login too early."""
    found = [mark for mark in _UNSAFE if mark in text]
    written = ", ".join(f"{_UNSAFE[mark]} for {mark}" for mark in found)
    return f"in a user name or password write {written}; an @ that does not end the login is written %40."


def redact(text: str) -> str:
    """Return a URI, or any string, without its login.

    The user and password before an "@" are removed, and values of the query are hidden unless they are known to be
    harmless. Show an existing file by its name instead, as it may look like a login: `12:30@cam.mp4`.
    """
    found = _SCHEME_ONLY.match(text)
    if found is None:
        return _without_login("", text)
    if not found[2]:  # a file such as a:b.mp4, or a login whose scheme was forgotten
        return _without_login("", text)
    if found[1].lower() in _LOCAL and "@" not in found[3].partition(":")[2]:
        return text
    return _without_login(f"{found[1]}:{found[2]}", found[3])


def redact_all(text: str) -> str:
    """Return text, such as a message of a library, with every URI in it redacted."""
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"]+", lambda found: redact(found[0]), text)


def _without_login(start: str, rest: str) -> str:
    """Return `start`, a scheme and its slashes, and `rest` without the login."""
    before, _, after = rest.rpartition("@")
    if not start:
        rest = f"{HIDDEN}@{after}" if ":" in before else rest
        return _LOGIN_IN_PATH.sub(rf"\1{HIDDEN}", rest)
    if _is_ambiguous(rest):
        rest = after
    rest, hash_mark, _ = rest.partition("#")
    rest, mark, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    authority = authority.rpartition("@")[2]
    if _ADDRESS.fullmatch(authority) is None:  # USER:PASSWORD, and the host was forgotten
        authority = HIDDEN
    path = _LOGIN_IN_PATH.sub(rf"\1{HIDDEN}", slash + path)
    query = "&".join(_shown_parameter(pair) for pair in query.split("&"))
    return f"{start}{authority}{path}{mark}{query}{f'#{HIDDEN}' if hash_mark else ''}"


def _shown_parameter(pair: str) -> str:
    name, equals, value = pair.partition("=")
    plain = unquote(name)
    if not pair or (equals and not value):
        return pair
    if equals and (_PLAIN.fullmatch(plain) or (re.fullmatch(r"\d{1,3}", value) and not _LOGIN.search(plain))):
        return pair
    return f"{name}={HIDDEN}" if equals else HIDDEN


def _is_ambiguous(rest: str) -> bool:
    """Return whether the last "@" may end a login that holds "/", "?" or "#", so that the host is uncertain."""
    end = re.search(r"[/?#]", rest)
    if end is None or "@" not in rest[end.start() :]:
        return False
    authority, tail = rest[: end.start()], rest[end.start() :].rpartition("@")[0]
    if "@" in authority or "#" in tail or _ADDRESS.fullmatch(authority) is None:
        return True
    parameter = re.fullmatch(r"/[^?@]*\?(?:[^?]*&)?([^?&=@]+)=[^?&=@]*", tail)
    if parameter is not None and _LOGIN.search(unquote(parameter[1])):  # ?user=a@b.c
        return False
    return ":" in authority or ":" in tail
