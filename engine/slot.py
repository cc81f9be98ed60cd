"""A small bounded queue between one writing and one reading thread, with a policy for overload and exact counts."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

Policy = Literal["latest", "block"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

T = TypeVar("T")


class SlotCounts(NamedTuple):
    """Counts of a slot's items; always `put == taken + dropped + waiting`."""

    put: int
    taken: int
    dropped: int
    waiting: int


class Slot(Generic[T]):
    """At most `depth` items between one writer and one reader.

    Policy "latest" never makes the writer wait: the oldest item is dropped in favour of the new one, and counted.
    Policy "block" never drops: the writer waits for room. `wake`, if given, is set at every change that concerns the
    reader, so that one reader can wait for several slots.
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
        """Add an item; return False if the slot is closed, or stayed full for `timeout` seconds."""
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
        """Return the oldest item; None if none came within `timeout` seconds (None: no limit) or later."""
        with self._changed:
            if not self._items and timeout != 0.0:
                self._changed.wait_for(lambda: self._closed or bool(self._items), timeout)
            if not self._items:
                return None
            self._taken += 1
            self._changed.notify_all()
            return self._items.popleft()

    def close(self) -> None:
        """Accept no more items; those that wait can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._wake is not None:
            self._wake.set()

    def discard(self) -> int:
        """Drop and count the waiting items; return their number."""
        with self._changed:
            lost = len(self._items)
            self._dropped += lost
            self._items.clear()
            self._changed.notify_all()
            return lost

    def after_fork(self) -> None:
        """Become closed and empty in a forked child, which has neither the writer nor the reader; see `forks`."""
        self._changed, self._wake = threading.Condition(), None
        self._closed = True
        self.discard()

    @property
    def exhausted(self) -> bool:
        """Whether the slot is closed and empty, so that no item will ever be taken again."""
        with self._changed:
            return self._closed and not self._items

    @property
    def counts(self) -> SlotCounts:
        """The counts so far."""
        with self._changed:
            return SlotCounts(self._put, self._taken, self._dropped, len(self._items))
