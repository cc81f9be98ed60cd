"""The standard library's web server, made strict with requests and bounded in the resources of clients.

    accepted ──▶ head is read ──▶ page is sent ──▶ next head ...      (a client may keep its connection)
                                └─▶ feed: parts as they arrive        (a viewer of a stream)

Each connection has a thread. `clients` bounds their number and time; `request` bounds a head, and rejects requests that
`http.server` would accept.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from typing import Any, NamedTuple, Protocol

from panrt.engine import forks, threads
from panrt.engine.sinks.access import Access
from panrt.engine.sinks.address import Address, listen
from panrt.engine.sinks.clients import Clients
from panrt.engine.sinks.request import Lines, RejectedError, checked
from panrt.errors import ThreadLimitError

LOG = logging.getLogger("panrt.sinks")

_IGNORED = 1 << 16  # bytes that a client may send while none are expected
_SEND_BUFFER = 1 << 18  # bytes of a connection in the kernel: images that wait there only age
_KEEP_ALIVE = (
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
)  # detects viewers whose machine is unreachable
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
    """An endless body, taken part by part by the thread of its viewer."""

    def take(self, timeout: float) -> bytes | None:
        """Wait for a new part and return the newest; None if none arrives in time, b"" at the end of the feed."""
        ...

    def close(self) -> None:
        """Release the feed after its viewer has disconnected."""
        ...


class Response(NamedTuple):
    """A response: a body, or a feed."""

    body: bytes | Feed
    kind: str = "text/plain; charset=utf-8"
    code: int = 200
    headers: Mapping[str, str] = {}


Page = Callable[[Mapping[str, str]], Response]


class Server:
    """Serves pages by path from `start` until it is closed.

    Raises:
        SinkError: no socket can listen at the address.
    """

    def __init__(self, address: Address, pages: Mapping[str, Page], clients: Clients | None = None) -> None:
        self.uri = address.uri
        self.pages = pages
        self.clients = clients or Clients()
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
        """Begin to accept connections.

        Raises:
            ThreadLimitError: the system starts no more threads.
        """
        try:
            for door in self._doors:
                threads.start(door.thread)
        except ThreadLimitError:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections and wait for their threads. Idempotent."""
        self.clients.stop_accepting()
        for door in self._doors:
            door.close()
        self.clients.end()

    def after_fork(self) -> None:
        """Stop listening in a forked child; see `forks`."""
        for door in self._doors:
            door.socket.close()
        self._doors = []
        self.clients.after_fork()

    def report_bug(self) -> None:
        """Count the exception being handled; log a line for the first, and tracebacks at debug level."""
        if self.clients.count_error() == 1:
            LOG.warning("%s: a page raised an exception: %s", self.uri, type(sys.exc_info()[1]).__name__)
        LOG.debug("%s: a page raised an exception", self.uri, exc_info=True)


class _Door(ThreadingHTTPServer):
    """The `http.server` of one listener; a server has one for IPv4 and one for IPv6."""

    def __init__(self, owner: Server, listener: socket.socket) -> None:
        BaseServer.__init__(self, listener.getsockname(), _Handler)  # TCPServer's would create another socket
        self.socket = listener
        self.owner = owner
        self.thread = threading.Thread(
            target=self.serve_forever, args=(owner.clients.limits.look,), name=f"server {owner.uri}", daemon=True
        )

    def close(self) -> None:
        if self.thread.ident is not None:
            with suppress(OSError):  # idempotent
                self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
            self.shutdown()
            self.thread.join()
        self.server_close()

    def service_actions(self) -> None:
        self.owner.clients.look()

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.owner.clients.accept(self.socket)

    def process_request(self, request: Any, client_address: Any) -> None:
        client = self.owner.clients[request]
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name=f"client of {self.owner.uri}",
            daemon=True,
        )
        threads.start(thread)
        client.thread = thread

    def shutdown_request(self, request: Any) -> None:
        self.owner.clients.leave(request, lambda: super(_Door, self).shutdown_request(request))

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, ThreadLimitError):
            self.owner.clients.count(closed="threads")
        elif not isinstance(error, OSError):  # each is a client that has disconnected
            self.owner.report_bug()


class _Handler(BaseHTTPRequestHandler):
    """A connection, in its own thread."""

    protocol_version = default_request_version = request_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 0  # `Lines` has a buffer
    server: _Door
    rfile: Lines

    def setup(self) -> None:
        super().setup()
        self._owner = self.server.owner
        self._clients = self._owner.clients
        self._limits = self._clients.limits
        self._client = self._clients[self.connection]
        self.rfile = Lines(self.rfile)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):
                self.connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def handle(self) -> None:
        super().handle()
        # A socket closed with unread bytes is reset, and the client may never receive the response.
        self._client.may_send(self._limits.lingering, grace=self._limits.grace)
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
            if self._client.is_late:
                self._clients.count(closed="deadline")
                self._reject(RejectedError(408, "the request took too long"))

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self._asked = checked(self.requestline, self.headers)
        tokens = {token.strip().lower() for token in self._asked.header("connection").split(",")}
        self.close_connection = self.request_version == "HTTP/1.0" or "close" in tokens
        self._owner.access.check(self._asked)
        self._client.is_sent(self._limits.sending)
        return True

    def handle_expect_100(self) -> bool:
        return True  # sends nothing: the request is rejected later

    def do_GET(self) -> None:
        page = self._owner.pages.get(self._asked.path)
        if page is None:
            raise RejectedError(404, "no such page")
        try:
            response = page(self._asked.query)
        except RejectedError:
            raise
        except Exception as error:  # a bug in a page must not end the server or the stream
            self._owner.report_bug()
            raise RejectedError(500, "the page raised an exception") from error
        access = self._owner.access
        if access.token and "token" in self._asked.query:
            cookie = f"{access.cookie_name}={access.token}; Path=/; HttpOnly; SameSite=Strict"
            response = response._replace(headers={**response.headers, "Set-Cookie": cookie})
        self._respond(response)

    do_HEAD = do_GET  # noqa: N815  (http.server's name)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._reject(RejectedError(code, HTTPStatus(code).phrase))  # the message may repeat the request

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: any client could fill the log."""

    def _reject(self, error: RejectedError) -> None:
        self.close_connection = True
        self._respond(Response(f"{error}\n".encode(), code=error.code, headers=error.headers))

    def _respond(self, response: Response) -> None:
        self._clients.count(code=response.code)
        self._client.is_sent(self._limits.sending)
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
        self._client.may_send(self._limits.patience, grace=self._limits.kept)

    def _show(self, feed: Feed) -> None:
        """Send the parts of a feed until it ends or the viewer disconnects."""
        ignored = 0
        while ignored <= _IGNORED:
            self._client.is_sent()  # TCP detects whether it is still connected
            part = feed.take(self._limits.look)
            if part == b"":
                return
            if part is not None:
                self._client.is_sent(self._limits.sending)
                self.wfile.write(part)
            with suppress(BlockingIOError):
                data = self.connection.recv(_IGNORED, socket.MSG_DONTWAIT)
                if not data:
                    return
                ignored += len(data)
