"""Threads that are started where the system may have no more of them."""

from __future__ import annotations

import threading

from panrt.errors import PanrtError


class ThreadLimitError(PanrtError, RuntimeError):
    """The system starts no more threads for this process."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: the system starts no more threads for this process (limits: `ulimit -u`, a container's pids.max, "
            "memory); end other processes, raise the limit, or use fewer threads."
        )


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        ThreadLimitError: the system does not.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if thread.ident is not None:  # it ran before: not the system's fault
            raise
        raise ThreadLimitError(thread.name) from error
