"""What the clients of a server take: connections and threads, descriptors, time.

A client has a thread, which blocks in its socket. For each step it has a deadline in total, not for each byte; when it
has passed, another thread shuts the socket down, and the client's thread ends by itself.
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
    """What a server did so far. Written under the lock of its clients."""

    connections: int = 0  # open now
    requests: Counter[int] = field(default_factory=Counter)  # by status code
    closed: Counter[str] = field(default_factory=Counter)  # connections that the server ended early, by reason
    errors: int = 0  # pages that could not be made: bugs


class Client:
    """A connection. Its thread says what it waits for; others look at that."""

    def __init__(self, sock: socket.socket, clock: Callable[[], float]) -> None:
        self.socket = sock
        self.thread: threading.Thread | None = None
        self.deadline = self.room_at = _NEVER  # when it is ended; when it may be, to make room for another
        self.is_answered = False
        self.is_late = False  # what it was to send did not come in time
        self.is_evicted = False
        self._clock = clock

    def may_send(self, seconds: float, *, grace: float) -> None:
        """It is the client's turn, for so long; for no longer than `grace` while others wait for a connection."""
        now = self._clock()
        self.deadline, self.room_at, self.is_answered = now + seconds, now + grace, False

    def is_sent(self, seconds: float = _NEVER) -> None:
        """Something is sent to the client, who has so long to take it."""
        self.deadline, self.room_at, self.is_answered = self._clock() + seconds, _NEVER, True

    def shut(self, how: int = socket.SHUT_RDWR) -> None:
        """Have its thread wait no more."""
        with suppress(OSError):  # the client has gone
            self.socket.shutdown(how)


class Clients:
    """Those of one server, by socket. Usable from all threads."""

    def __init__(self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            files = 1 << 20
        self.limits = limits or Limits(connections=max(8, min(Limits.connections, files // 8)))
        self._most_files = files - max(32, files // 8)  # above it descriptors are left to the rest of the process
        self._clock = clock
        self._changed = threading.Condition()  # guards all that follows
        self.counts = Counts()
        self._clients: dict[socket.socket, Client] = {}
        self._closed = False

    def __getitem__(self, sock: socket.socket) -> Client:
        with self._changed:
            return self._clients[sock]

    def accept(self, listener: socket.socket) -> tuple[socket.socket, Any]:
        """Return a new connection and its address; until there is room for it, it waits in the system.

        Raises:
            OSError: there is no connection, or no descriptor for it.
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
                    raise OSError(errno.EMFILE, "the rest is for the rest of the process")
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
        with self._changed:  # from here on the descriptor may be another's, whom nobody must shut down
            close()
            self._clients.pop(sock, None)
            self.counts.connections = len(self._clients)
            self._changed.notify_all()

    def look(self) -> None:
        """End who is late, and see whether there is room. To be called now and then."""
        with self._changed:
            self._end_late()
            self._changed.notify_all()

    def count(self, *, code: int = 0, closed: str = "") -> None:
        """Count an answer, or a connection that is ended early."""
        with self._changed:
            if code:
                self.counts.requests[code] += 1
            if closed:
                self.counts.closed[closed] += 1

    def count_error(self) -> int:
        """Count a bug; how many there were."""
        with self._changed:
            self.counts.errors += 1
            return self.counts.errors

    def refuse(self) -> None:
        """Accept nobody any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def end(self) -> None:
        """End all, and wait for their threads."""
        with self._changed:
            clients = tuple(self._clients.values())
            for client in clients:
                client.shut()
        for client in clients:
            if client.thread is not None:
                client.thread.join()

    def after_fork(self) -> None:
        """See `forks`: a child keeps no client of its parent connected."""
        self._changed = threading.Condition()
        for sock in self._clients:
            if sock.fileno() >= 0:
                os.close(sock.detach())  # close() would wait for the files that were made of it
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
            # Who was to send something can still be told that it did not come in time.
            client.shut(socket.SHUT_RDWR if client.is_answered else socket.SHUT_RD)

    def _make_room(self) -> float:
        """End the client that has waited longest with its request, if it had its time. The seconds to the next look."""
        first = min(self._clients.values(), key=lambda client: client.room_at, default=None)
        if first is None or any(client.is_evicted for client in self._clients.values()):
            return self.limits.look  # or less, when that one has ended
        early = first.room_at - self._clock()
        if early > 0:
            return min(early, self.limits.look)
        first.is_evicted = True
        first.shut()
        self.counts.closed["full"] += 1
        return self.limits.look
