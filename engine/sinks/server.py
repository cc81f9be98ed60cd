"""A small web server on one thread, whatever its clients do.

    accepted ──▶ head is read ──▶ page is sent ──▶ next head ...      (a client may keep its connection)
                                └─▶ feed: parts as they come          (a viewer of a stream)

One thread waits for all sockets at once, so that idle clients cost no thread. Each step has a deadline in total, not
for each byte. Bounds: connections, size of a head, one part of a feed for each viewer, and file descriptors: some are
always left to the rest of the process.
"""

from __future__ import annotations

import errno
import logging
import resource
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple, Protocol

from panrt.engine.sinks.access import Access
from panrt.engine.sinks.address import Address, listen
from panrt.engine.sinks.errors import SinkError
from panrt.engine.sinks.request import LONGEST_HEAD, RejectedError, Request, head_end, parse

LOG = logging.getLogger("panrt.sinks")

_CHUNK = 16384  # bytes that are read at once
_IGNORED = 1 << 16  # bytes that a client may send while nothing is expected of it
_SEND_BUFFER = 1 << 18  # bytes of a connection in the kernel: pictures that wait there only age
_NEVER = float("inf")
_NO_FILES = errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM
_KEEP_ALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))  # finds viewers whose machine is gone
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the URL may hold a token
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Feed(Protocol):
    """A body without an end, taken part by part by the server's thread."""

    def take(self) -> bytes | None:
        """Return the newest part that was not taken yet; None if there is none, or the feed has ended."""
        ...

    def close(self) -> None:
        """The viewer has gone."""
        ...


class Response(NamedTuple):
    """An answer: a body, or a feed."""

    body: bytes | Feed
    kind: str = "text/plain; charset=utf-8"
    code: int = 200
    headers: Mapping[str, str] = {}


Page = Callable[[Mapping[str, str]], Response]


@dataclass(frozen=True)
class Limits:
    """What clients may take; times in seconds."""

    connections: int = 128
    patience: float = 10.0  # for a whole head, from the connection or the last answer on
    grace: float = 0.25  # for a whole head, while others wait for a connection: theirs came while they waited
    kept: float = 2.0  # for another request, likewise: the page asks twice a second
    sending: float = 20.0  # for a body or a part of a feed to be taken
    lingering: float = 1.0  # for a client to read why it was rejected


@dataclass
class Counts:
    """What a server did so far. Written by its thread."""

    connections: int = 0  # open now
    requests: Counter[int] = field(default_factory=Counter)  # by status code
    closed: Counter[str] = field(default_factory=Counter)  # connections that the server ended early, by reason
    errors: int = 0  # pages that could not be made: bugs
    turns: int = 0  # of the thread, in each of which it looks at every socket and deadline


class _Connection:
    """A client."""

    def __init__(self, sock: socket.socket, now: float, limits: Limits) -> None:
        self.socket = sock
        self.received = bytearray()
        self.output = memoryview(b"")  # what is left to send
        self.feed: Feed | None = None
        self.since = now  # when it was accepted, or its last answer was sent
        self.deadline = now + limits.patience
        self.served = False  # it got a page
        self.last = False  # after this answer it is closed
        self.lingers = False  # all is sent, and the client should read it before the connection goes
        self.ignored = 0  # bytes that it sent out of turn
        self.events = 0  # that the selector looks for

    @property
    def waits(self) -> bool:
        """Whether it is its turn to send a request."""
        return not self.output and self.feed is None and not self.lingers


class Server:
    """Serves pages by path from `start` until it is closed.

    Raises:
        SinkError: the address cannot be had.
    """

    def __init__(
        self,
        address: Address,
        pages: Mapping[str, Page],
        *,
        counts: Counts | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uri = address.uri
        self._pages = pages
        self._clock = clock
        self.counts = counts or Counts()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            files = 1 << 20
        self.limits = limits or Limits(connections=max(8, min(Limits.connections, files // 8)))
        self._most_files = files - max(32, files // 8)  # above it descriptors are left to recordings
        self._connections: set[_Connection] = set()
        self._accepts = False
        self._accept_at = self._paused_until = -_NEVER
        self._closing = False
        self._listeners = listen(address)
        self.port: int = self._listeners[0].getsockname()[1]
        with ExitStack() as failed:
            for listener in self._listeners:
                failed.callback(listener.close)
            self.access = Access(address, self._listeners)
            try:
                self._selector = failed.enter_context(selectors.DefaultSelector())
                self._wakes, self._wake = socket.socketpair()
            except OSError as error:
                raise SinkError(f"{address.uri}: the server cannot start: {error.strerror}.") from error
            failed.pop_all()
        for end in (self._wakes, self._wake):
            end.setblocking(False)
        self._selector.register(self._wakes, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name=f"server {address.uri}", daemon=True)

    def start(self) -> None:
        """Begin to answer.

        Raises:
            SinkError: the system has no thread left.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            self._release()
            raise SinkError(f"{self._uri}: the server cannot start: {error}.") from error

    def wake(self) -> None:
        """Look at feeds and deadlines now. May be called from any thread."""
        with suppress(OSError):  # full: it will wake all the same; closed: it has ended
            self._wake.send(b"\0")

    def close(self) -> None:
        """Answer no more. Idempotent."""
        self._closing = True
        self.wake()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        finally:
            self._release()

    def _release(self) -> None:
        for connection in tuple(self._connections):
            self._drop(connection)
        self._selector.close()
        for sock in (*self._listeners, self._wakes, self._wake):
            sock.close()

    def _turn(self) -> None:
        self._listen_if_there_is_room()
        due = min((connection.deadline for connection in self._connections), default=_NEVER)
        if not self._accepts:
            due = min(due, self._accept_at)
        timeout = None if due == _NEVER else max(0.0, due - self._clock())
        for key, events in self._selector.select(timeout):
            if isinstance(key.data, _Connection):
                self._attend(key.data, events)
            elif key.fileobj is self._wakes:
                with suppress(BlockingIOError):
                    while self._wakes.recv(_CHUNK):
                        pass
                for connection in tuple(self._connections):
                    if connection.feed is not None and not connection.output:
                        self._attend(connection, 0)
            elif isinstance(key.fileobj, socket.socket):
                self._accept(key.fileobj)
        now = self._clock()
        for connection in tuple(self._connections):
            if connection.deadline <= now:
                self._expire(connection)
        self.counts.turns += 1

    # Connections that come

    def _listen_if_there_is_room(self) -> None:
        """Take connections from the system, or leave them there while there is no room."""
        self._accept_at = self._paused_until
        if len(self._connections) >= self.limits.connections:
            self._accept_at = max(self._accept_at, min(map(self._room_at, self._connections)))
        accepts = self._clock() >= self._accept_at
        if accepts != self._accepts:
            self._accepts = accepts
            for listener in self._listeners:
                if accepts:
                    self._selector.register(listener, selectors.EVENT_READ)
                else:
                    self._selector.unregister(listener)

    def _accept(self, listener: socket.socket) -> None:
        if len(self._connections) >= self.limits.connections and not self._make_room():
            return
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if error.errno in _NO_FILES:
                self._pause("files")
            return  # the client has gone, or another error of this connection alone
        if sock.fileno() >= self._most_files:
            sock.close()
            self._pause("files")
            return
        connection = _Connection(sock, self._clock(), self.limits)
        self._connections.add(connection)
        self.counts.connections = len(self._connections)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for name, value in _KEEP_ALIVE:
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            self._watch(connection)
        except OSError:
            self._drop(connection)

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for its request, if it had its time."""
        first = min(self._connections, key=self._room_at)
        if self._room_at(first) > self._clock():
            return False
        self._drop(first, "full")
        return True

    def _room_at(self, connection: _Connection) -> float:
        """When a connection may be closed to make room for another."""
        if not connection.waits:
            return _NEVER
        return connection.since + (self.limits.kept if connection.served else self.limits.grace)

    def _pause(self, reason: str) -> None:
        self.counts.closed[reason] += 1
        self._paused_until = self._clock() + self.limits.grace

    # Connections that are there

    def _attend(self, connection: _Connection, events: int) -> None:
        """Do for a connection what can be done without waiting."""
        if connection not in self._connections:
            return  # it was closed in this turn, to make room
        try:
            if events & selectors.EVENT_READ and not self._receive(connection):
                self._drop(connection)
                return
            self._send(connection)
            if connection.waits and connection.received:
                self._answer_next(connection)
                self._send(connection)
            if connection in self._connections:
                self._watch(connection)
        except OSError:
            self._drop(connection)  # the client has gone
        except Exception:  # a bug in a feed must end neither the server nor the stream
            self._report_bug()
            self._drop(connection)

    def _report_bug(self) -> None:
        """Count an exception that is being handled; one line for the first, the traceback only for debugging."""
        self.counts.errors += 1
        if self.counts.errors == 1:
            LOG.warning("%s: a page could not be made: %s", self._uri, type(sys.exc_info()[1]).__name__)
        LOG.debug("%s: a page could not be made", self._uri, exc_info=True)

    def _receive(self, connection: _Connection) -> bool:
        """Take what the client sent; False if it left, or sends what nobody asked for."""
        try:
            data = connection.socket.recv(_CHUNK)
        except BlockingIOError:
            return True
        if not data:
            return False
        if connection.waits:
            connection.received += data
            return True
        connection.ignored += len(data)
        return connection.ignored <= _IGNORED

    def _send(self, connection: _Connection) -> None:
        while True:
            if not connection.output and connection.feed is not None:
                part = connection.feed.take()
                if part is None:
                    connection.deadline = _NEVER  # TCP finds out whether it is still there
                    return
                self._begin(connection, part)
            if not connection.output:
                return
            try:
                sent = connection.socket.send(connection.output)
            except BlockingIOError:
                return
            connection.output = connection.output[sent:]
            if not connection.output and connection.feed is None:
                self._finish(connection)

    def _begin(self, connection: _Connection, output: bytes) -> None:
        connection.output = memoryview(output)
        connection.deadline = self._clock() + self.limits.sending

    def _finish(self, connection: _Connection) -> None:
        """An answer was sent."""
        connection.since = self._clock()
        connection.deadline = connection.since + self.limits.patience
        if connection.last:
            # Closed with unread bytes, a socket resets, and the client may never see the answer.
            connection.socket.shutdown(socket.SHUT_WR)
            connection.lingers = True
            connection.deadline = connection.since + self.limits.lingering
            connection.received.clear()

    def _answer_next(self, connection: _Connection) -> None:
        """Answer the first request of what was received, if it is whole."""
        request: Request | None = None
        try:
            end = head_end(connection.received)
            if end is None:
                return
            head = bytes(connection.received[:end])
            del connection.received[:end]
            request = parse(head)
            self.access.check(request)
            response = self._page(request)
        except RejectedError as error:
            response = Response(f"{error}\n".encode(), code=error.code, headers=error.headers)
            connection.last = True
        connection.served = connection.served or response.code == 200
        is_feed = not isinstance(response.body, bytes)
        connection.last = connection.last or is_feed or request is None or not request.keep_alive
        self.counts.requests[response.code] += 1
        only_head = request is not None and request.method == "HEAD"
        if not isinstance(response.body, bytes):
            if only_head:
                response.body.close()
            else:
                connection.feed = response.body
        answer = self._head(response, connection.last)
        self._begin(connection, answer if only_head or not isinstance(response.body, bytes) else answer + response.body)

    def _page(self, request: Request) -> Response:
        page = self._pages.get(request.path)
        if page is None:
            raise RejectedError(404, "there is no such page")
        try:
            response = page(request.query)
        except RejectedError:
            raise
        except Exception as error:  # a bug in a page must end neither the server nor the stream
            self._report_bug()
            raise RejectedError(500, "the page could not be made") from error
        if self.access.token and "token" in request.query:
            cookie = f"{self.access.cookie_name}={self.access.token}; Path=/; HttpOnly; SameSite=Strict"
            response = response._replace(headers={**response.headers, "Set-Cookie": cookie})
        return response

    def _head(self, response: Response, last: bool) -> bytes:
        headers = {**_HEADERS, "Content-Type": response.kind, **response.headers}
        if isinstance(response.body, bytes):
            headers["Content-Length"] = str(len(response.body))
        if last:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {response.code} {HTTPStatus(response.code).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _watch(self, connection: _Connection) -> None:
        """Wait for what a connection needs next."""
        # While a client is being answered nothing is read from it: what it sends waits in the system, bounded.
        answering = bool(connection.output) or (connection.waits and self._has_request(connection))
        events = selectors.EVENT_WRITE if answering else selectors.EVENT_READ
        if connection.feed is not None:
            events |= selectors.EVENT_READ  # shows that the viewer has gone
        if events == connection.events:
            return
        if connection.events:
            self._selector.modify(connection.socket, events, connection)
        else:
            self._selector.register(connection.socket, events, connection)
        connection.events = events

    def _has_request(self, connection: _Connection) -> bool:
        """Whether another request of this connection has come; other connections have their turn first."""
        return b"\r\n\r\n" in connection.received or len(connection.received) >= LONGEST_HEAD

    def _expire(self, connection: _Connection) -> None:
        if not connection.waits or not connection.received:
            self._drop(connection, "" if connection.lingers or connection.waits else "slow")
            return
        self.counts.requests[408] += 1
        self.counts.closed["deadline"] += 1
        connection.last = True
        connection.received.clear()
        response = Response(b"the request took too long\n", code=408)
        assert isinstance(response.body, bytes)
        self._begin(connection, self._head(response, last=True) + response.body)
        self._attend(connection, 0)

    def _drop(self, connection: _Connection, reason: str = "") -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self.counts.connections = len(self._connections)
        if reason:
            self.counts.closed[reason] += 1
        if connection.events:
            self._selector.unregister(connection.socket)
        connection.socket.close()
        if connection.feed is not None:
            connection.feed.close()
