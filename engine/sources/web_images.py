"""Images of web servers, downloaded whole within bounds of size and time."""

from __future__ import annotations

import base64
import time
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from panrt import errors
from panrt.engine.sources.source import Captured
from panrt.engine.uri import Uri, network_address
from panrt.formats.image_files import decode_image
from panrt.formats.records import legible

MOST_BYTES = 1 << 28
LONGEST = 60.0  # seconds of a download, however steadily it trickles
_PIECE = 1 << 16


def fetch_image(uri: Uri, *, timeout: float) -> Captured:
    """Download and decode an image.

    Args:
        uri: its address, http or https.
        timeout: seconds without data.

    Raises:
        SourceError: it cannot be downloaded, is too large, takes too long, or is not an image.
    """
    data = _download(uri, timeout)
    name = unquote(PurePosixPath(uri.path).name) or uri.host
    try:
        return Captured(decode_image(data, Path(name)), file_name=legible(name))
    except errors.ImageFileError as error:
        raise errors.SourceUndecodableError(f"{uri}: {error}") from error


def _download(uri: Uri, timeout: float) -> bytes:
    parts = urlsplit(network_address(uri, errors.UnknownSourceError))
    login, _, host = parts.netloc.rpartition("@")
    request = Request(urlunsplit(parts._replace(netloc=host)))  # the opener knows http and https alone
    if login:
        token = base64.b64encode(unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    began, data = time.monotonic(), bytearray()
    try:
        with _opener().open(request, timeout=timeout) as response:
            while piece := response.read1(_PIECE):
                data += piece
                if len(data) > MOST_BYTES:
                    raise errors.SourceUndecodableError(
                        f"{uri}: has more than {MOST_BYTES} bytes, the limit for an image."
                    )
                if time.monotonic() - began > LONGEST:
                    raise errors.SourceTimeoutError(f"{uri}: not complete after {LONGEST:g} s.")
            expected = response.headers.get("Content-Length", "")
    except errors.SourceError:
        raise
    except (URLError, OSError, HTTPException) as error:
        raise _problem(uri, error) from error
    if expected.isdecimal() and int(expected) != len(data):
        raise errors.SourceUndecodableError(f"{uri}: got {len(data)} of {expected} bytes; download it again.")
    return bytes(data)


def _opener() -> OpenerDirector:
    """Return an opener for http and https alone: a redirection cannot lead to a file."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler, HTTPHandler, HTTPSHandler, HTTPRedirectHandler, HTTPErrorProcessor, HTTPDefaultErrorHandler
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _problem(uri: Uri, error: Exception) -> errors.SourceError:
    """Return the error to raise for a failed download."""
    if isinstance(error, HTTPError):
        error.close()
        kind: type[errors.SourceError] = errors.SourceRefusedError
        if error.code in (401, 403, 407):
            kind = errors.SourceDeniedError
        elif error.code in (404, 410):
            kind = errors.SourceNotFoundError
        return kind(f"{uri}: the server answered {error.code} ({legible(error.reason)}).")
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return errors.SourceTimeoutError(f"{uri}: no data in time.")
    return errors.SourceRefusedError(f"{uri}: cannot be downloaded: {legible(reason)}.")
