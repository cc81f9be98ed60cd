"""The `panrt` command: how it starts, and how signals end it.

This file imports almost nothing, so that signals are handled before the rest is imported; see `signals`.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress
from typing import Any

from panrt.cli import signals
from panrt.cli.exit_codes import USER_ERROR


def main(commands: str = "panrt.cli.commands", *, name: str = "panrt") -> None:
    """Run the command line of this process: the `app` of the module `commands`, under that name."""
    with signals.handled():
        _fill_standard_handles()
        app = importlib.import_module(commands).app
        signals.begin()
        try:
            app(prog_name=name, args=sys.argv[1:])
        except OSError as error:  # of options that print, such as --version; commands report their own
            with suppress(OSError):
                sys.stderr.write(f"error: standard output: {error.strerror}\n")
            sys.exit(USER_ERROR)
        finally:
            _flush_output()


def _fill_standard_handles() -> None:
    """Open closed standard handles on /dev/null, so that no other file gets their numbers and output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def _flush_output() -> None:
    """Flush printed output; discard it if the reader has gone, so that Python reports no error at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def __getattr__(name: str) -> Any:
    """Import the commands, and the objects made of them, at their first access."""
    if name.startswith("__") or name == "commands":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    commands = importlib.import_module("panrt.cli.commands")
    value = getattr(commands, name)
    # All at once, as a command has the name of its module.
    globals().update({key: each for key, each in vars(commands).items() if key not in globals() or callable(each)})
    return value
