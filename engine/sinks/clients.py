"""Bounds on what the clients of a server consume: connections, threads, descriptors and time.

Each client has a thread, which blocks in its socket. Each step has one deadline in total, not one per byte; when it has
passed, another thread shuts the socket down, which ends the client's thread.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_NEVER = float("inf")
_NO_FILES = errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM


@dataclass(frozen=True)
class Limits:
    """Limits of clients; times in seconds."""

    connections: int = 64  # and threads
    patience: float = 10.0  # for a complete head, from the connection or the last response on
    grace: float = 0.25  # for a complete head, while others wait for a connection
    kept: float = 2.0  # for another request, while others wait: the page sends two per second
    sending: float = 20.0  # for a client to receive a body or a part of a feed
    lingering: float = 1.0  # for a client to read its last response
    look: float = 0.5  # between checks of deadlines, and of viewers that receive nothing


@dataclass
class Counts:
    """Counts of a server. Written under the lock of its clients."""

    connections: int = 0  # open now
    requests: Counter[int] = field(default_factory=Counter)  # by status code
    closed: Counter[str] = field(default_factory=Counter)  # connections that the server ended early, by reason
    errors: int = 0  # pages that raised an exception: bugs


class Client:
    """A connection. Its thread sets the deadlines that other threads enforce."""

    def __init__(self, sock: socket.socket, clock: Callable[[], float]) -> None:
        self.socket = sock
        self.thread: threading.Thread | None = None
        self.deadline = self.room_at = _NEVER  # when it is ended; when it may be ended to make room
        self.is_answered = False
        self.is_late = False  # its request did not arrive in time
        self.is_evicted = False
        self._clock = clock

    def may_send(self, seconds: float, *, grace: float) -> None:
        """Expect a request within this many seconds; within `grace` while others wait for a connection."""
        now = self._clock()
        self.deadline, self.room_at, self.is_answered = now + seconds, now + grace, False

    def is_sent(self, seconds: float = _NEVER) -> None:
        """Expect the client to receive data within this many seconds."""
        self.deadline, self.room_at, self.is_answered = self._clock() + seconds, _NEVER, True

    def shut(self, how: int = socket.SHUT_RDWR) -> None:
        """Shut the socket down, which wakes its thread."""
        with suppress(OSError):  # the client has disconnected
            self.socket.shutdown(how)


class Clients:
    """The clients of one server, by socket. Usable from any thread."""

    def __init__(self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            files = 1 << 20
        self.limits = limits or Limits(connections=max(8, min(Limits.connections, files // 8)))
        self._most_files = files - max(32, files // 8)  # descriptors above it are reserved for the rest of the process
        self._clock = clock
        self._changed = threading.Condition()  # guards all that follows
        self.counts = Counts()
        self._clients: dict[socket.socket, Client] = {}
        self._closed = False

    def __getitem__(self, sock: socket.socket) -> Client:
        with self._changed:
            return self._clients[sock]

    def accept(self, listener: socket.socket) -> tuple[socket.socket, Any]:
        """Return a new connection and its address; it waits in the system's backlog until there is room.

        Raises:
            OSError: no connection is waiting, or no descriptor is free.
        """
        with self._changed:
            while len(self._clients) >= self.limits.connections and not self._closed:
                self._changed.wait(self._make_room())
                self._end_late()
            if self._closed:
                raise OSError(errno.ESHUTDOWN, "closed")
            try:
                sock, address = listener.accept()
                if sock.fileno() >= self._most_files:
                    sock.close()
                    raise OSError(errno.EMFILE, "the remaining descriptors are reserved for the process")
            except OSError as error:
                if error.errno in _NO_FILES:
                    self.counts.closed["files"] += 1
                    self._make_room()
                    self._changed.wait(self.limits.grace)
                raise
            sock.setblocking(True)
            client = self._clients[sock] = Client(sock, self._clock)
            client.may_send(self.limits.patience, grace=self.limits.grace)
            self.counts.connections = len(self._clients)
            return sock, address

    def leave(self, sock: socket.socket, close: Callable[[], None]) -> None:
        """Close a connection."""
        with self._changed:  # from here on the descriptor may be reused, so it must not be shut down
            close()
            self._clients.pop(sock, None)
            self.counts.connections = len(self._clients)
            self._changed.notify_all()

    def look(self) -> None:
        """End clients past their deadline and wake `accept`. To be called periodically."""
        with self._changed:
            self._end_late()
            self._changed.notify_all()

    def count(self, *, code: int = 0, closed: str = "") -> None:
        """Count a response, or a connection that is ended early."""
        with self._changed:
            if code:
                self.counts.requests[code] += 1
            if closed:
                self.counts.closed[closed] += 1

    def count_error(self) -> int:
        """Count a bug; return the number so far."""
        with self._changed:
            self.counts.errors += 1
            return self.counts.errors

    def stop_accepting(self) -> None:
        """Accept no more connections."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def end(self) -> None:
        """End all clients and wait for their threads."""
        with self._changed:
            clients = tuple(self._clients.values())
            for client in clients:
                client.shut()
        for client in clients:
            if client.thread is not None:
                client.thread.join()

    def after_fork(self) -> None:
        """Drop the parent's connections in a forked child; see `forks`."""
        self._changed = threading.Condition()
        for sock in self._clients:
            if sock.fileno() >= 0:
                os.close(sock.detach())  # close() would wait for the file objects of the socket
        self._clients = {}

    def _end_late(self) -> None:
        now = self._clock()
        for client in self._clients.values():
            if client.deadline > now:
                continue
            client.deadline = _NEVER
            client.is_late = True
            if client.is_answered:
                self.counts.closed["slow"] += 1
            # A client whose request is late can still receive a response.
            client.shut(socket.SHUT_RDWR if client.is_answered else socket.SHUT_RD)

    def _make_room(self) -> float:
        """End the client that has been idle longest, if its grace is over; return the seconds to the next check."""
        first = min(self._clients.values(), key=lambda client: client.room_at, default=None)
        if first is None or any(client.is_evicted for client in self._clients.values()):
            return self.limits.look  # or less, once that one has ended
        early = first.room_at - self._clock()
        if early > 0:
            return min(early, self.limits.look)
        first.is_evicted = True
        first.shut()
        self.counts.closed["full"] += 1
        return self.limits.look
