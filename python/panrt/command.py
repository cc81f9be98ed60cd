"""The entry of the `panrt` command: signals that come while it starts, and those that end it.

It imports nothing that takes time before signals are looked after.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def main() -> None:
    """Run the command line of this process; SIGTERM ends it as Ctrl-C does, with temporary files removed."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from panrt.cli import app  # noqa: PLC0415 - takes a third of a second, in which Ctrl-C may be pressed

        app(prog_name="panrt", args=sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # the second one ends it at once
    raise SystemExit(TERMINATED)
