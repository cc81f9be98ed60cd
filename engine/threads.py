"""Threads that are started where the system may have no more of them."""

from __future__ import annotations

import threading

from panrt.errors import ThreadLimitError


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
