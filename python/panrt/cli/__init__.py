"""The `panrt` command: how it starts, and how signals end it.

This file imports next to nothing, so that signals are taken care of before the rest is imported; see `signals`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from panrt.cli import signals


def main() -> None:
    """Run the command line of this process."""
    with signals.handled():
        from panrt.cli.commands import app

        signals.begin()
        app(prog_name="panrt", args=sys.argv[1:])


def __getattr__(name: str) -> Any:
    """The commands and what is made of them, imported when they are asked for."""
    if name.startswith("__") or name == "commands":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    commands = importlib.import_module("panrt.cli.commands")
    value = getattr(commands, name)
    # All of them, for a command goes by the name of its module.
    globals().update({key: each for key, each in vars(commands).items() if key not in globals() or callable(each)})
    return value
