"""Signals: SIGINT, SIGTERM and SIGHUP end a command with one line, exit code 128 + the signal's, and no traceback.

    start-up        no command runs yet: the process ends at once
    a command       it is interrupted as by Ctrl-C, cleans up and ends; a second signal ends it at once
    exit            all output is written: the process ends at once

`panrt run` handles the first signal itself and stops with all results written; see `stop_on_signals`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
AGAIN_AFTER = 0.01  # seconds
WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}

_received: int | None = None  # the signal that ends the command
_process = os.getpid()


class Ended(KeyboardInterrupt):
    """A signal ends the command; a KeyboardInterrupt, so that existing clean-up code runs."""


@contextmanager
def handled() -> Iterator[None]:
    """End the process on signals as the module describes, within this context and until the interpreter exits."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as set by nohup, and by shells for background jobs
            signal.signal(number, _leave)
    sys.unraisablehook = _not_lost
    try:
        yield
    except BaseException as error:
        if _received is None or (isinstance(error, SystemExit) and error.code == 128 + _received):
            raise
        _say(_received)  # an interrupt may arrive as another exception: an ImportError of a C extension, an abort
        raise SystemExit(128 + _received) from None
    finally:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _leave)


def begin() -> None:
    """Let signals interrupt the command from now on, so that it cleans up."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextmanager
def second_forces() -> Iterator[None]:
    """End the process at once on a signal that an inner handler passes on, which is the second one."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is _interrupt:
            signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is _interrupt:
                signal.signal(number, handler)


def exit_code() -> int:
    """Return the exit code of the interrupted command."""
    return 128 + (_received or signal.SIGINT)


def word() -> str:
    """Return the message for the interrupted command."""
    return WORDS[signal.Signals(_received or signal.SIGINT).name]


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received  # noqa: PLW0603  (signals are the process's)
    if os.getpid() != _process:  # a forked worker of the command, which ends silently
        os._exit(128 + number)
    _received = number
    for each in SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _leave)
    raise Ended


def _leave(number: int, frame: FrameType | None) -> None:
    _say(number)
    os._exit(128 + number)


def _say(number: int) -> None:
    with suppress(OSError):  # stderr may have no reader
        os.write(2, f"error: {WORDS[signal.Signals(number).name]}\n".encode())


def _not_lost(unraisable: Any) -> None:
    """Repeat an interrupt that was raised, and swallowed, in a finalizer a moment later."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt) and _received is not None:
        signal.signal(signal.SIGALRM, _again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER)
    else:
        sys.__unraisablehook__(unraisable)


def _again(number: int, frame: FrameType | None) -> None:
    raise Ended
