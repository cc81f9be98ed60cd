"""Download one file over HTTP: resumed after a cut, checked, and complete under its name or absent.

Nothing but the standard library is used: libraries for this, such as pooch, start a file over after a cut connection,
and cannot check the start of a hash. What has arrived is beside the file as `NAME.part`, with the server's validator in
`NAME.part.json`, so that the next attempt, or the next process, asks for the rest of the same version alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

from panrt.errors import ChecksumError, DownloadError, OfflineError
from panrt.files import locked, move_into_place, read_whole, write_atomically
from panrt.formats import records
from panrt.version import version

if TYPE_CHECKING:
    from panrt.hub.watch import Watch

REMAINS = (".part", ".part.json")  # beside a file whose download has begun; its lock stays
_CHUNK = 1 << 18
_MOST_REDIRECTS = 8
_MOST_REQUESTS = 100  # for one file, however little each of them delivers
_WITHOUT_VALIDATOR = ""
_MEANINGS = {
    401: "the server asks for a login",
    403: "the server denies access",
    404: "the server has no such file",
    410: "the server no longer has this file",
}


class Expected(NamedTuple):
    """Properties of a file that are known before it is downloaded."""

    most_bytes: int
    md5_prefix: str = ""
    sha256: str | None = None


class Patience(NamedTuple):
    """Limits of waiting for a server and of trying again."""

    timeout: float = 30.0  # seconds without a byte
    attempts: int = 5  # in a row that deliver nothing
    longest_wait: float = 120.0  # seconds before another attempt
    sleep: Callable[[float], None] = time.sleep


PATIENCE = Patience()


class _Interrupted(Exception):  # noqa: N818  # never leaves this module
    """A request failed in a way that another one may not."""

    def __init__(self, problem: str, *, wait: float | None = None) -> None:
        super().__init__(problem)
        self.wait = wait  # seconds that the server asks for


def fetch(
    address: str, target: Path, expected: Expected, *, watch: Watch, patience: Patience = PATIENCE, cure: str = ""
) -> str:
    """Download a file unless it is there, and return its SHA-256. Other processes that want it wait.

    Args:
        address: http:// or https://, without a login.
        target: file to write; its folder is created.
        expected: checked before the file gets its name.
        watch: of progress and delays.
        patience: limits of waiting.
        cure: what users can do about an address that has no such file, for messages.

    Raises:
        ChecksumError: the server sent another file.
        OfflineError: the server cannot be reached.
        DownloadError: the server does not have the file, cuts the connection too often, or sends too much; or it cannot
            be written.
    """
    check_address(address)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        busy = f"another process downloads {target.name}; waiting for it"
        with locked(target.with_name(f"{target.name}.lock"), waiting=lambda: watch.line(busy)):
            if target.is_file():
                with contextlib.suppress(ChecksumError):
                    return check(target, expected, source=str(target))
                watch.line(f"{target}: is damaged; downloading it again")
                target.unlink()
            return _Download(address, target, expected, watch, patience, cure).run()
    except DownloadError:
        raise
    except OSError as error:
        raise _unwritable(error, target) from error


def check(path: Path, expected: Expected, *, source: str) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: of the file.
        expected: its hashes.
        source: where it comes from, for messages.

    Raises:
        ChecksumError: it has another one than expected.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    found = sha256.hexdigest()
    if expected.sha256 is not None and found != expected.sha256:
        raise ChecksumError(f"{source}: SHA-256 {found}, expected {expected.sha256}; it is damaged or was replaced.")
    if not md5.hexdigest().startswith(expected.md5_prefix):
        raise ChecksumError(
            f"{source}: MD5 {md5.hexdigest()}, expected one that starts with {expected.md5_prefix}; it is damaged or "
            "another file."
        )
    return found


def check_address(address: str) -> None:
    """Raise DownloadError unless it is an http(s) address with a host and without a login."""
    try:
        parts = urlsplit(address)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise DownloadError("the hub's address is not valid; expected http://HOST/... or https://HOST/...") from None
    if parts.username is not None or parts.password is not None:
        raise DownloadError(
            f"{parts.scheme}://...@{parts.hostname}: a login in an address is not supported; use a mirror without one, "
            "or a folder."
        )
    if not known:
        raise DownloadError(f"{address}: not an address, expected http://HOST/... or https://HOST/...")


class _Download:
    """The download of one file, whose lock is held."""

    def __init__(
        self, address: str, target: Path, expected: Expected, watch: Watch, patience: Patience, cure: str
    ) -> None:
        self.address = address
        self.target = target
        self.part, self.state = (target.with_name(target.name + suffix) for suffix in REMAINS)
        self.expected = expected
        self.watch = watch
        self.patience = patience
        self.cure = f"; {cure}" if cure else ""
        self._continued = False  # a part from one response is followed by one from another

    def run(self) -> str:
        """Return the SHA-256 of the file, which then has its name."""
        try:
            found = self._received()
        except ChecksumError:
            if not self._continued:
                raise
            self.watch.line("the download that was continued is damaged; starting over")
            found = self._received()
        move_into_place(self.part, self.target)
        self._discard()
        return found

    def _received(self) -> str:
        try:
            self._receive_all()
        finally:
            self.watch.finished()
        try:
            return check(self.part, self.expected, source=self.address)
        except ChecksumError:
            self._discard()
            raise

    def _receive_all(self) -> None:
        """Make requests until one has delivered the end of the file."""
        most, fruitless = self._here(), 0
        for _ in range(_MOST_REQUESTS):
            try:
                self._receive()
                return
            except _Interrupted as problem:
                fruitless = 0 if self._here() > most else fruitless + 1
                most = max(most, self._here())
                self._pause(problem, fruitless)
        raise DownloadError(f"{self.address}: cut {_MOST_REQUESTS} times{self._kept()}; try again later.")

    def _pause(self, problem: _Interrupted, fruitless: int) -> None:
        if fruitless >= self.patience.attempts:
            raise DownloadError(
                f"{self.address}: {problem}, {fruitless} times in a row{self._kept()}; try again later."
            ) from problem
        wait = min(2.0**fruitless, 30.0) if problem.wait is None else problem.wait
        if wait > self.patience.longest_wait:
            raise DownloadError(f"{self.address}: {problem}; the server asks to wait {wait:.0f} s; try again then.")
        self.watch.line(f"{problem}; trying again in {wait:.0f} s")
        self.patience.sleep(wait)

    def _kept(self) -> str:
        return "; what has arrived is kept" if self._here() else ""

    def _receive(self) -> None:
        """Make one request for what is missing, and write what comes."""
        have, headers = self._here(), {}
        if have:
            headers = {"Range": f"bytes={have}-", "If-Range": self._validator()}
        with contextlib.closing(self._opened(headers)) as response:
            start = have if response.status == 206 and self._continues(response, have) else 0
            self._continued |= start > 0
            length = _content_length(response)
            total = None if length is None else start + length
            self._check_room(start, total)
            write_atomically(self.state, lambda path: path.write_text(json.dumps(self._state_of(response))))
            end = self._write(response, start, total)
        if total is not None and end < total:
            raise _Interrupted(f"the connection ended at {end:,} of {total:,} bytes")

    def _continues(self, response: http.client.HTTPResponse, have: int) -> bool:
        """Return whether a response has exactly what is missing; if not, nothing that came before is of use."""
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            self._discard()
            raise _Interrupted("the server sent another part than it was asked for")
        return True

    def _write(self, response: http.client.HTTPResponse, start: int, total: int | None) -> int:
        """Append a response to the part that is there, and return where it ends."""
        end = start
        with self.part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            try:
                while chunk := response.read1(_CHUNK):
                    end += len(chunk)
                    if end > self.expected.most_bytes:
                        raise self._too_large(end)
                    _write_all(file.fileno(), chunk)
                    self.watch.received(end, total)
            except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
                raise _Interrupted(f"the connection was cut after {end:,} bytes ({_reason(error)})") from error
        return end

    def _check_room(self, start: int, total: int | None) -> None:
        """Check size and disk before the content comes, not after."""
        if total is None:
            return
        if total > self.expected.most_bytes:
            raise self._too_large(total)
        if shutil.disk_usage(self.target.parent).free < total - start:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.part))

    def _too_large(self, size: int) -> DownloadError:
        self._discard()
        return DownloadError(
            f"{self.address}: has {size:,} bytes or more, expected at most {self.expected.most_bytes:,}; it is not the "
            "file of this model."
        )

    def _here(self) -> int:
        """Return how many bytes of this very file are here; what cannot be continued is not counted."""
        if self.part.is_file() and self._validator() != _WITHOUT_VALIDATOR:
            return self.part.stat().st_size
        return 0

    def _validator(self) -> str:
        """Return what the server named the version of the part by; empty if nothing, or it is of another address."""
        try:
            content = read_whole(self.state, longest=10_000, error=DownloadError, expected="the state of a download")
            state = records.parse(content, source=str(self.state), error=DownloadError, cure="remove it")
        except OSError:  # it is missing or damaged
            return _WITHOUT_VALIDATOR
        found = state.get("validator") if isinstance(state, dict) and state.get("address") == self.address else None
        return found if isinstance(found, str) and re.fullmatch(r"[ -~]{1,1000}", found) else _WITHOUT_VALIDATOR

    def _state_of(self, response: http.client.HTTPResponse) -> Mapping[str, str]:
        tag = response.headers.get("ETag", "")
        strong = tag if tag.startswith('"') else ""  # a weak one does not promise the same bytes
        return {"address": self.address, "validator": strong or response.headers.get("Last-Modified", "")}

    def _discard(self) -> None:
        for path in (self.part, self.state):
            path.unlink(missing_ok=True)

    # requests

    def _opened(self, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Return the response with the content, after redirects to addresses that are no less safe."""
        address = self.address
        for _ in range(_MOST_REDIRECTS):
            try:
                response = _request(address, headers, self.patience.timeout)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in (301, 302, 303, 307, 308):
                        raise self._rejected(error) from error
                    address = self._redirected(address, error.headers.get("Location", ""))
                continue
            except (http.client.HTTPException, OSError) as error:
                raise self._failed(error) from error
            if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
                response.close()
                raise DownloadError(f"{address}: sent with the encoding {encoding!r}, which was not asked for.")
            if response.status not in (200, 206):
                response.close()
                raise DownloadError(f"{address}: the server answered {response.status}, expected the file.")
            return response
        raise DownloadError(f"{self.address}: redirected {_MOST_REDIRECTS} times without an end{self.cure}.")

    def _redirected(self, address: str, location: str) -> str:
        found = urljoin(address, location)
        check_address(found)
        if urlsplit(address).scheme == "https" and urlsplit(found).scheme != "https":
            raise DownloadError(f"{address}: redirected to {found}, which is not encrypted; nothing was downloaded.")
        return found

    def _rejected(self, error: urllib.error.HTTPError) -> Exception:
        """Return what an answer with an error means."""
        if error.code == 416:  # nothing is left to send, or the file is another one
            self._discard()
            return _Interrupted("the server has less than was downloaded; starting over")
        if error.code in (408, 425, 429) or error.code >= 500:
            return _Interrupted(f"the server answered {error.code}", wait=_retry_after(error))
        meaning = _MEANINGS.get(error.code, "the server does not give the file")
        return DownloadError(f"{error.url}: {meaning} ({error.code}){self.cure}.")

    def _failed(self, error: Exception) -> Exception:
        """Return what a request without an answer means."""
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return DownloadError(f"{self.address}: its certificate is not valid: {reason.verify_message}.")
        host = urlsplit(self.address).netloc
        if isinstance(reason, socket.gaierror):
            return OfflineError(f"{self.address}: the host {host} is not found; is there a network?{self.cure}.")
        if isinstance(reason, ConnectionRefusedError) or getattr(reason, "errno", None) in _UNREACHABLE:
            return OfflineError(f"{self.address}: {host} cannot be reached ({_reason(reason)}){self.cure}.")
        return _Interrupted(f"no answer from {host} ({_reason(reason)})")


_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


def _request(address: str, headers: Mapping[str, str], timeout: float) -> http.client.HTTPResponse:
    """Make one request; redirects are errors here, and no scheme but http and https is known."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    asked = {"User-Agent": f"panrt/{version()}", "Accept-Encoding": "identity", **headers}
    response = opener.open(urllib.request.Request(address, headers=asked), timeout=timeout)
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _content_length(response: http.client.HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) and not response.chunked else None


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Return the seconds that an answer asks to wait, given as a number or as a date."""
    text = error.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _unwritable(error: OSError, target: Path) -> DownloadError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        cure = "make room, or set XDG_CACHE_HOME to a folder on another disk."
    else:
        cure = "set XDG_CACHE_HOME to a folder that can be written to."
    return DownloadError(f"{error.filename or target}: {_reason(error).lower()}; {cure}")
