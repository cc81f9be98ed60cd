"""Request parsing: limits and a strict form of heads, beyond the checks of `http.server`."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from email.message import Message
from typing import NamedTuple
from urllib.parse import parse_qsl

LONGEST_HEAD = 16384  # bytes of request line and headers; browsers send the cookies of every local server
LONGEST_LINE = 4096  # bytes of the request line
MOST_HEADERS = 64
MOST_PARAMETERS = 16

_REQUEST_LINE = re.compile(rb"[A-Z]{1,20} [!-~]+ HTTP/\d\.\d\r\n")
_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n")
_ABSOLUTE = re.compile(r"(?i:http)://([^/?#]*)(.*)", re.DOTALL)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ONCE = "authorization", "content-length", "host", "transfer-encoding"


class RejectedError(Exception):
    """A request that is rejected: the status code, and a reason that does not repeat the request."""

    def __init__(self, code: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.headers = dict(headers or {})


class Lines(io.BufferedReader):
    """The input of a client for `http.server`: lines of heads, bounded and unambiguous.

    Reading raises RejectedError for other lines, and EOFError if the client disconnects within a head.
    """

    def begin(self) -> bool:
        """Wait for a head; return whether one begins."""
        self._left = LONGEST_HEAD
        self._lines = 0
        first = self.peek(1)[:1]
        if first and not first.isupper():  # e.g. 0x16, which opens TLS
            raise RejectedError(400, "expected an HTTP request; this port does not speak TLS")
        return bool(first)

    def readline(self, _: int | None = -1, /) -> bytes:
        """Return the next line of a head."""
        first = self._lines == 0
        bound = LONGEST_LINE + 2 if first else self._left
        line = super().readline(bound + 1)
        self._left -= len(line)
        self._lines += 1
        if len(line) > bound and first:
            raise RejectedError(414, f"the request line is longer than {LONGEST_LINE} bytes")
        if len(line) > bound:
            raise RejectedError(431, f"the headers are longer than {LONGEST_HEAD} bytes")
        if not line.endswith(b"\n"):
            raise EOFError
        if not line.endswith(b"\r\n"):
            raise RejectedError(400, "expected lines that end in CR LF")
        if first and _REQUEST_LINE.fullmatch(line) is None:
            raise RejectedError(400, "expected a request line such as GET / HTTP/1.1")
        if first and not line.endswith((b"/1.0\r\n", b"/1.1\r\n")):
            raise RejectedError(505, "only HTTP/1.0 and HTTP/1.1 are supported")
        if self._lines > MOST_HEADERS + 2:
            raise RejectedError(431, f"there are more than {MOST_HEADERS} headers")
        if not first and line != b"\r\n" and _HEADER.fullmatch(line) is None:
            raise RejectedError(400, "a header is not NAME: VALUE")
        return line


class Request(NamedTuple):
    """A request without a body."""

    authorities: tuple[str, ...]  # from the Host header and the target
    path: str  # percent-encoded, as received
    query: dict[str, str]
    headers: Message

    def header(self, name: str, default: str = "") -> str:
        """Return the value of a header, joined if it is repeated."""
        separator = "; " if name == "cookie" else ", "
        return separator.join(value.strip(" \t") for value in self.headers.get_all(name, [default]))


def checked(line: str, headers: Message) -> Request:
    """Return the request of a head.

    Args:
        line: the request line, as checked by `Lines`.
        headers: as parsed by `http.server`.

    Raises:
        RejectedError: it is not a request to read a page, or is ambiguous.
    """
    method, target, version = line.split(" ")
    for name in _ONCE:
        if len(headers.get_all(name, [])) > 1:
            raise RejectedError(400, f"there are several {name} headers")
    if method not in ("GET", "HEAD"):
        raise RejectedError(405, "only GET and HEAD are supported", {"Allow": "GET, HEAD"})
    if "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0" or "expect" in headers:
        raise RejectedError(413, "a request with a body is not supported")
    if "host" not in headers and version == "HTTP/1.1":
        raise RejectedError(400, "expected a Host header")
    authorities = [text.strip(" \t") for text in headers.get_all("host", [])]
    if not target.startswith("/"):
        found = _ABSOLUTE.fullmatch(target)
        if found is None:
            raise RejectedError(400, "expected a path, or a URL that begins with http://")
        authorities.append(found[1])
        target = found[2] if found[2].startswith("/") else f"/{found[2]}"
    if "#" in target or _BAD_ESCAPE.search(target):
        raise RejectedError(400, "the path is not a valid URL")
    path, _, text = target.partition("?")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS)
    except ValueError as error:  # too many of them, or not UTF-8
        raise RejectedError(400, "the query is not valid") from error
    if len(dict(pairs)) < len(pairs):
        raise RejectedError(400, "a parameter of the query is repeated")
    return Request(tuple(authorities), path, dict(pairs), headers)
