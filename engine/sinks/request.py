"""The head of an HTTP request, read strictly: what is not clearly right is rejected, and no body is accepted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

LONGEST_HEAD = 16384  # bytes of request line and headers; browsers send the cookies of every local server
LONGEST_LINE = 4096  # bytes of the request line
MOST_HEADERS = 64
MOST_PARAMETERS = 16

_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([!-~]+) HTTP/(\d\.\d)")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_ABSOLUTE = re.compile(r"(?i:http)://([^/?#]*)(.*)", re.DOTALL)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ONCE = "authorization", "content-length", "host", "transfer-encoding"


class RejectedError(Exception):
    """A request that gets no page: the status code, and a line that says why without repeating the request."""

    def __init__(self, code: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.headers = dict(headers or {})


class Request(NamedTuple):
    """A request without a body."""

    method: str  # GET or HEAD
    authorities: tuple[str, ...]  # that it is sent to: of the Host header and of the target
    path: str  # as it was sent, percent-encoded
    query: dict[str, str]
    headers: dict[str, str]  # by name in lower case
    keep_alive: bool


def head_end(received: bytearray) -> int | None:
    """Return the length of the first head in what was received so far; None if it is not complete.

    Raises:
        RejectedError: it will never be a head of the size that is accepted.
    """
    if received and not 0x41 <= received[0] <= 0x5A:  # e.g. 0x16, which opens TLS
        raise RejectedError(400, "expected an HTTP request; this port does not speak TLS")
    line_end = received.find(b"\n", 0, LONGEST_LINE + 2)
    if line_end < 0 and len(received) > LONGEST_LINE:
        raise RejectedError(414, f"the request line is longer than {LONGEST_LINE} bytes")
    if line_end >= 0:
        if received[line_end - 1] != 0x0D:
            raise RejectedError(400, "expected lines that end in CR LF")
        _request_line(bytes(received[: line_end - 1]))
    end = received.find(_END, 0, LONGEST_HEAD)
    if end < 0 and len(received) >= LONGEST_HEAD:
        raise RejectedError(431, f"the headers are longer than {LONGEST_HEAD} bytes")
    return None if end < 0 else end + len(_END)


def parse(head: bytes) -> Request:
    """Read a complete head.

    Raises:
        RejectedError: it is not HTTP/1.0 or 1.1, asks for something other than to read a page, or is ambiguous.
    """
    first, *lines = head.removesuffix(_END).split(b"\r\n")
    method, target, version = _request_line(first)
    headers = _headers(lines)
    if method not in ("GET", "HEAD"):
        raise RejectedError(405, "only GET and HEAD are supported", {"Allow": "GET, HEAD"})
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0" or "expect" in headers:
        raise RejectedError(413, "a request with a body is not supported")
    if "host" not in headers and version != "1.0":
        raise RejectedError(400, "expected a Host header")
    authorities = [headers["host"]] if "host" in headers else []
    if not target.startswith("/"):
        found = _ABSOLUTE.fullmatch(target)
        if found is None:
            raise RejectedError(400, "expected a path, or a URL that begins with http://")
        authorities.append(found[1])
        target = found[2] if found[2].startswith("/") else f"/{found[2]}"
    if "#" in target or _BAD_ESCAPE.search(target):
        raise RejectedError(400, "the path is not a valid URL")
    path, _, query = target.partition("?")
    tokens = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    keep_alive = version != "1.0" and "close" not in tokens
    return Request(method, tuple(authorities), path, _query(query), headers, keep_alive)


def _request_line(line: bytes) -> tuple[str, str, str]:
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise RejectedError(400, "expected a request line such as GET / HTTP/1.1")
    method, target, version = (part.decode("ascii") for part in found.groups())
    if len(line) > LONGEST_LINE:
        raise RejectedError(414, f"the request line is longer than {LONGEST_LINE} bytes")
    if version not in ("1.0", "1.1"):
        raise RejectedError(505, "only HTTP/1.0 and HTTP/1.1 are supported")
    return method, target, version


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MOST_HEADERS:
        raise RejectedError(431, f"there are more than {MOST_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise RejectedError(400, "a header is not NAME: VALUE")
        name, value = found[1].decode("ascii").lower(), found[2].decode("latin-1")
        if name in headers and name in _ONCE:
            raise RejectedError(400, f"there are several {name} headers")
        separator = "; " if name == "cookie" else ", "
        headers[name] = headers[name] + separator + value if name in headers else value
    return headers


def _query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS)
    except ValueError as error:  # too many of them, or not UTF-8
        raise RejectedError(400, "the query is not valid") from error
    query = dict(pairs)
    if len(query) < len(pairs):
        raise RejectedError(400, "a parameter of the query is given twice")
    return query
