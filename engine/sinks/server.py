"""The standard library's web server, with bounds on what its clients take: connections, threads, files and time.

    accepted ──▶ head is read ──▶ page is sent ──▶ next head ...      (a client may keep its connection)
                                └─▶ feed: parts as they come          (a viewer of a stream)

Each connection has a thread, which blocks in its socket. Each step has a deadline in total, not for each byte: when it
has passed, the thread that accepts connections shuts the socket down, and the connection's thread ends by itself. Some
file descriptors are always left to the rest of the process.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import Any, NamedTuple, Protocol

from panrt.engine import forks, threads
from panrt.engine.sinks.access import Access
from panrt.engine.sinks.address import Address, listen
from panrt.engine.sinks.request import Lines, RejectedError, Request, checked

LOG = logging.getLogger("panrt.sinks")

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
    """A body without an end, taken part by part by the thread of its viewer."""

    def take(self, timeout: float) -> bytes | None:
        """Wait for a part that was not taken yet and return the newest; None if none comes, b"" if none ever will."""
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

    connections: int = 64  # and threads
    patience: float = 10.0  # for a whole head, from the connection or the last answer on
    grace: float = 0.25  # for a whole head, while others wait for a connection: theirs came while they waited
    kept: float = 2.0  # for another request, likewise: the page asks twice a second
    sending: float = 20.0  # for a body or a part of a feed to be taken
    lingering: float = 1.0  # for a client to read its last answer
    look: float = 0.5  # between looks at deadlines, and at viewers to whom nothing is sent


@dataclass
class Counts:
    """What a server did so far. Written under its lock."""

    connections: int = 0  # open now
    requests: Counter[int] = field(default_factory=Counter)  # by status code
    closed: Counter[str] = field(default_factory=Counter)  # connections that the server ended early, by reason
    errors: int = 0  # pages that could not be made: bugs


class _Connection:
    """A client. Its thread says what it waits for, and the threads of the listeners look at it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.thread: threading.Thread | None = None
        self.deadline = self.room_at = _NEVER  # when it is ended; when it may be, to make room for another
        self.answered = False  # an answer is under way
        self.late = False  # what it was to send did not come in time
        self.evicted = False

    def waits(self, deadline: float, room_at: float) -> None:
        """For the client to send something."""
        self.deadline, self.room_at, self.answered = deadline, room_at, False

    def answers(self, deadline: float) -> None:
        """Something is made for the client, or sent to it."""
        self.deadline, self.room_at, self.answered = deadline, _NEVER, True

    def shut(self, how: int) -> None:
        """Have its thread wait no more."""
        with suppress(OSError):  # the client has gone
            self.socket.shutdown(how)


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
        self.uri = address.uri
        self.counts = counts or Counts()
        self.clock = clock
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            files = 1 << 20
        self.limits = limits or Limits(connections=max(8, min(Limits.connections, files // 8)))
        self._most_files = files - max(32, files // 8)  # above it descriptors are left to recordings
        self._pages = pages
        self._changed = threading.Condition()  # guards the next two and the counts
        self._connections: dict[socket.socket, _Connection] = {}
        self._closing = False
        listeners = listen(address)
        self.port: int = listeners[0].getsockname()[1]
        with ExitStack() as failed:
            for listener in listeners:
                failed.callback(listener.close)
            self.access = Access(address, listeners)
            failed.pop_all()
        self._doors = [_Door(self, listener) for listener in listeners]
        forks.watch(self)

    def start(self) -> None:
        """Begin to answer.

        Raises:
            ThreadLimitError: the system starts no more threads.
        """
        try:
            for door in self._doors:
                threads.start(door.thread)
        except threads.ThreadLimitError:
            self.close()
            raise

    def close(self) -> None:
        """Answer no more, and wait for the threads to end. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for door in self._doors:
            door.close()
        with self._changed:
            connections = tuple(self._connections.values())
            for connection in connections:
                connection.shut(socket.SHUT_RDWR)
        for connection in connections:
            if connection.thread is not None:
                connection.thread.join()

    def after_fork(self) -> None:
        """See `forks`: a child neither listens nor keeps the parent's clients connected."""
        for sock in (*self._connections, *(door.socket for door in self._doors)):
            if sock.fileno() >= 0:
                os.close(sock.detach())  # close() would wait for the files that were made of it
        self._changed = threading.Condition()
        self._connections, self._doors = {}, []

    def look(self) -> None:
        """End what is past its deadline, and accept who waits if there is room. Happens by itself now and then."""
        with self._changed:
            self._end_what_is_late()
            self._changed.notify_all()

    def accept(self, listener: socket.socket) -> tuple[socket.socket, Any]:
        """Take a connection from the system; until there is room for it, it waits there.

        Raises:
            OSError: there is no connection, or no descriptor for it.
        """
        with self._changed:
            while len(self._connections) >= self.limits.connections and not self._closing:
                self._changed.wait(self._make_room())
                self._end_what_is_late()
            if self._closing:
                raise OSError(errno.ESHUTDOWN, "closed")
            try:
                sock, peer = listener.accept()
                if sock.fileno() >= self._most_files:
                    sock.close()
                    raise OSError(errno.EMFILE, "the descriptors that are left are for the rest of the process")
            except OSError as error:
                if error.errno in _NO_FILES:
                    self.counts.closed["files"] += 1
                    self._make_room()
                    self._changed.wait(self.limits.grace)
                raise
            sock.setblocking(True)
            connection = self._connections[sock] = _Connection(sock)
            self.counts.connections = len(self._connections)
            now = self.clock()
            connection.waits(now + self.limits.patience, now + self.limits.grace)
            return sock, peer

    def connection(self, sock: socket.socket) -> _Connection:
        """Return what is known of a connection that was accepted and not left."""
        with self._changed:
            return self._connections[sock]

    def leave(self, sock: socket.socket, close: Callable[[], None]) -> None:
        """Close a connection."""
        with self._changed:  # so that nobody else touches the descriptor, which may be another's from here on
            close()
            self._connections.pop(sock, None)
            self.counts.connections = len(self._connections)
            self._changed.notify_all()

    def count(self, *, code: int = 0, closed: str = "") -> None:
        """Count an answer, or a connection that is ended early."""
        with self._changed:
            if code:
                self.counts.requests[code] += 1
            if closed:
                self.counts.closed[closed] += 1

    def report_bug(self) -> None:
        """Count an exception that is being handled; one line for the first, the traceback only for debugging."""
        with self._changed:
            self.counts.errors += 1
            first = self.counts.errors == 1
        if first:
            LOG.warning("%s: a page could not be made: %s", self.uri, type(sys.exc_info()[1]).__name__)
        LOG.debug("%s: a page could not be made", self.uri, exc_info=True)

    def page(self, request: Request) -> Response:
        """Return the answer to a request.

        Raises:
            RejectedError: there is none.
        """
        page = self._pages.get(request.path)
        if page is None:
            raise RejectedError(404, "there is no such page")
        try:
            response = page(request.query)
        except RejectedError:
            raise
        except Exception as error:  # a bug in a page must end neither the server nor the stream
            self.report_bug()
            raise RejectedError(500, "the page could not be made") from error
        if self.access.token and "token" in request.query:
            cookie = f"{self.access.cookie_name}={self.access.token}; Path=/; HttpOnly; SameSite=Strict"
            response = response._replace(headers={**response.headers, "Set-Cookie": cookie})
        return response

    def _end_what_is_late(self) -> None:
        now = self.clock()
        for connection in self._connections.values():
            if connection.deadline <= now:
                connection.deadline = _NEVER
                connection.late = True
                if connection.answered:
                    self.counts.closed["slow"] += 1
                # Who was to send something can still be told that it did not come in time.
                connection.shut(socket.SHUT_RDWR if connection.answered else socket.SHUT_RD)

    def _make_room(self) -> float:
        """End the connection that has waited longest for its request, if it had its time; when to look again."""
        first = min(self._connections.values(), key=lambda connection: connection.room_at, default=None)
        if first is None or any(connection.evicted for connection in self._connections.values()):
            return self.limits.look  # or when that one has ended
        early = first.room_at - self.clock()
        if early > 0:
            return min(early, self.limits.look)
        first.evicted = True
        first.shut(socket.SHUT_RDWR)
        self.counts.closed["full"] += 1
        return self.limits.look


class _Door(ThreadingHTTPServer):
    """What `http.server` does for one listener; a server has one for IPv4 and one for IPv6."""

    def __init__(self, owner: Server, listener: socket.socket) -> None:
        BaseServer.__init__(self, listener.getsockname(), _Handler)  # TCPServer's would make another socket
        self.socket = listener
        self.owner = owner
        self.thread = threading.Thread(
            target=self.serve_forever, args=(owner.limits.look,), name=f"server {owner.uri}", daemon=True
        )

    def close(self) -> None:
        if self.thread.ident is not None:
            with suppress(OSError):  # idempotent
                self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
            self.shutdown()
            self.thread.join()
        self.server_close()

    def service_actions(self) -> None:
        self.owner.look()

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.owner.accept(self.socket)

    def process_request(self, request: Any, client_address: Any) -> None:
        connection = self.owner.connection(request)
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name=f"client of {self.owner.uri}",
            daemon=True,
        )
        threads.start(thread)
        connection.thread = thread

    def shutdown_request(self, request: Any) -> None:
        self.owner.leave(request, lambda: super(_Door, self).shutdown_request(request))

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, threads.ThreadLimitError):
            self.owner.count(closed="threads")
        elif not isinstance(error, OSError):  # of which each is a client that has gone
            self.owner.report_bug()


class _Handler(BaseHTTPRequestHandler):
    """A connection, in a thread of its own."""

    protocol_version = default_request_version = request_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 0  # `Lines` has a buffer
    server: _Door
    rfile: Lines

    def setup(self) -> None:
        super().setup()
        self._owner = self.server.owner
        self._limits = self._owner.limits
        self._state = self._owner.connection(self.connection)
        self.rfile = Lines(self.rfile)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):
                self.connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def handle(self) -> None:
        super().handle()
        # Closed with unread bytes, a socket resets, and the client may never see the answer.
        self._wait_for_client(self._limits.lingering, self._limits.grace)
        self.connection.shutdown(socket.SHUT_WR)
        left = _IGNORED
        while left > 0 and (data := self.connection.recv(left)):
            left -= len(data)

    def handle_one_request(self) -> None:
        self.command = ""
        try:
            if self.rfile.begin():
                super().handle_one_request()
            else:
                self.close_connection = True
        except RejectedError as error:
            self._reject(error)
        except EOFError:  # in the middle of a head
            self.close_connection = True
            if self._state.late:
                self._owner.count(closed="deadline")
                self._reject(RejectedError(408, "the request took too long"))

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self._asked = checked(self.requestline, self.headers)
        tokens = {token.strip().lower() for token in self._asked.header("connection").split(",")}
        self.close_connection = self.request_version == "HTTP/1.0" or "close" in tokens
        self._owner.access.check(self._asked)
        return True

    def handle_expect_100(self) -> bool:
        return True  # says nothing: there is a rejection to come

    def do_GET(self) -> None:
        self._state.answers(self._owner.clock() + self._limits.sending)
        self._respond(self._owner.page(self._asked))

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._reject(RejectedError(code, HTTPStatus(code).phrase))  # the message may repeat the request

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each request would be written by whoever asks."""

    def _reject(self, error: RejectedError) -> None:
        self.close_connection = True
        self._respond(Response(f"{error}\n".encode(), code=error.code, headers=error.headers))

    def _respond(self, response: Response) -> None:
        self._owner.count(code=response.code)
        self._state.answers(self._owner.clock() + self._limits.sending)
        body = response.body
        headers = {**_HEADERS, "Content-Type": response.kind, **response.headers}
        with ExitStack() as seat:
            if isinstance(body, bytes):
                headers["Content-Length"] = str(len(body))
            else:
                seat.callback(body.close)
                self.close_connection = True
            if self.close_connection:
                headers["Connection"] = "close"
            self.send_response_only(response.code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                pass
            elif isinstance(body, bytes):
                self.wfile.write(body)
            else:
                self._show(body)
        self._wait_for_client(self._limits.patience, self._limits.kept)

    def _show(self, feed: Feed) -> None:
        """Send what a feed gives until it ends or the viewer leaves."""
        ignored = 0
        while ignored <= _IGNORED:
            self._state.deadline = _NEVER  # TCP finds out whether it is still there
            part = feed.take(self._limits.look)
            if part == b"":
                return
            if part is not None:
                self._state.answers(self._owner.clock() + self._limits.sending)
                self.wfile.write(part)
            with suppress(BlockingIOError):
                data = self.connection.recv(_IGNORED, socket.MSG_DONTWAIT)
                if not data:
                    return
                ignored += len(data)

    def _wait_for_client(self, patience: float, grace: float) -> None:
        now = self._owner.clock()
        self._state.waits(now + patience, now + grace)
