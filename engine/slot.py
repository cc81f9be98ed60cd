"""The place between a thread that makes things and a thread that takes them: small, bounded, and honest about drops."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

Policy = Literal["latest", "block"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

T = TypeVar("T")


class SlotCounts(NamedTuple):
    """What went through a slot: `put == taken + dropped + waiting`, always."""

    put: int
    taken: int
    dropped: int
    waiting: int


class Slot(Generic[T]):
    """At most `depth` items between one writer and one reader.

    Policy "latest" never makes the writer wait: the oldest item gives way to the new one and counts as dropped. Policy
    "block" never drops: the writer waits for room. `wake`, where given, is set whenever the reader has reason to look,
    so that one reader can wait for several slots.
    """

    def __init__(self, policy: Policy, *, depth: int = 1, wake: threading.Event | None = None) -> None:
        self.policy = policy
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._wake = wake
        self._closed = False
        self._put = self._taken = self._dropped = 0

    def put(self, item: T, *, timeout: float | None = None) -> bool:
        """Hand over an item; False if the slot is closed, or if there was no room for `timeout` seconds."""
        with self._changed:
            if self.policy == "block":
                self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth, timeout)
                if len(self._items) >= self._depth:
                    return False
            if self._closed:
                return False
            if len(self._items) >= self._depth:
                self._items.popleft()
                self._dropped += 1
            self._items.append(item)
            self._put += 1
            self._changed.notify_all()
        if self._wake is not None:
            self._wake.set()
        return True

    def take(self, timeout: float | None = 0.0) -> T | None:
        """The oldest item; None if none came within `timeout` seconds (None: wait), or none will come any more."""
        with self._changed:
            if not self._items and timeout != 0.0:
                self._changed.wait_for(lambda: self._closed or bool(self._items), timeout)
            if not self._items:
                return None
            self._taken += 1
            self._changed.notify_all()
            return self._items.popleft()

    def close(self) -> None:
        """Take nothing in any more; what is inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._wake is not None:
            self._wake.set()

    def discard(self) -> int:
        """Drop what is inside, counted; how many items that were."""
        with self._changed:
            lost = len(self._items)
            self._dropped += lost
            self._items.clear()
            self._changed.notify_all()
            return lost

    def after_fork(self) -> None:
        """Be closed and empty in a forked child, where whoever wrote or read is not; see `forks`."""
        self._changed, self._wake = threading.Condition(), None
        self._closed = True
        self.discard()

    @property
    def exhausted(self) -> bool:
        """Closed and empty: nothing will ever come out again."""
        with self._changed:
            return self._closed and not self._items

    @property
    def counts(self) -> SlotCounts:
        """What went through so far."""
        with self._changed:
            return SlotCounts(self._put, self._taken, self._dropped, len(self._items))
