"""The `panrt` command: how it starts, and how signals end it.

This file imports next to nothing, so that signals are taken care of before the rest is imported; see `signals`.
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
    """Open what the caller closed of input, output and errors, so that no other file gets its number and its text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def _flush_output() -> None:
    """Write out what was printed; if nobody takes it, leave nothing for Python to complain about at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def __getattr__(name: str) -> Any:
    """The commands and what is made of them, imported when they are asked for."""
    if name.startswith("__") or name == "commands":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    commands = importlib.import_module("panrt.cli.commands")
    value = getattr(commands, name)
    # All of them, for a command goes by the name of its module.
    globals().update({key: each for key, each in vars(commands).items() if key not in globals() or callable(each)})
    return value
