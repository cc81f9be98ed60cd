"""The runtime's clock: monotonic seconds, and waits measured in them. Tests replace it with a manual clock."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that never go backwards, even if the time of day is set."""

    def now(self) -> float:
        """Return the seconds since a fixed moment."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until an event is set or this many seconds have passed; return whether it is set."""
        ...


class _Monotonic:
    def now(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


MONOTONIC: Clock = _Monotonic()


def epoch_of(moment: float) -> float | None:
    """Return the seconds since 1970 of a moment of `time.monotonic()`, by the time of day as it is set now.

    Returns:
        None for 0.0, which stands for an unknown moment.
    """
    if not moment:
        return None
    return moment + (time.time() - time.monotonic())  # noqa: TID251  # the time of day is what is asked for
