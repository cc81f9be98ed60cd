"""Start threads, with a PanRT error if the system has reached its limit of them."""

from __future__ import annotations

import threading

from panrt.errors import ThreadLimitError


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        ThreadLimitError: the system starts no more threads.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if thread.ident is not None:  # it was started before: a bug, not a limit
            raise
        raise ThreadLimitError(thread.name) from error
