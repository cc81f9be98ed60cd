"""A clock that advances only when a test says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds of real time after which a thread that should wait on the clock does not


class ManualClock:
    """Threads that wait on it sleep until `advance` reaches the moment that they wait for.

    `advance` goes from one such moment to the next and lets the thread that waits for it work until it waits again, so
    that a test sees the same course of events on any machine, under any load.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._changed = threading.Condition()
        self._now = start
        self._sleepers: dict[int, float] = {}  # by thread: the moment that it waits for

    def now(self) -> float:
        """Return the seconds that the test has let pass."""
        with self._changed:
            return self._now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait as `Clock.wait` does."""
        me = threading.get_ident()
        with self._changed:
            moment = self._now + seconds
            if seconds <= 0:
                return event.is_set()
            self._sleepers[me] = moment
            self._changed.notify_all()
            while self._now < moment and not event.is_set():
                self._changed.wait(0.01)  # the event does not notify
            self._sleepers.pop(me, None)
        return event.is_set()

    def advance(self, seconds: float, *, threads: Callable[[], int] = lambda: 1) -> None:
        """Let time pass.

        Args:
            seconds: how much.
            threads: returns how many threads wait on the clock whenever they have nothing to do.
        """
        with self._changed:
            until = self._now + seconds
            while True:
                self._wait_for(lambda: len(self._sleepers) >= threads())
                moments = sorted(moment for moment in self._sleepers.values() if moment <= until)
                if not moments:
                    break
                self._now = moments[0]
                for thread in [thread for thread, moment in self._sleepers.items() if moment <= self._now]:
                    del self._sleepers[thread]
                self._changed.notify_all()
            self._now = until

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "a thread does not wait on the clock"
            self._changed.wait(0.01)
