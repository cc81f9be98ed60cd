"""Signals end a command at any moment with one line and an exit code of their own: no traceback, nothing half done."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}

# Sends a signal when a module is looked for: a moment of the start that does not depend on a clock.
WHEN_IMPORTED = """
import importlib.abc, os, sys
moment, number, sys.argv[1:] = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
class Sender(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == moment:
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Sender())
from panrt.cli import main
main()
"""

# Adds a command, `moment`, of which a test gives the body.
COMMAND = """
import atexit, os, signal, sys, time
from pathlib import Path
from panrt.cli import commands, main
from panrt.files import write_atomically
def send(number):
    os.kill(os.getpid(), number)
def moment(argument: str = "") -> None:
    {body}
commands.app.command("moment")(moment)
sys.argv[1:] = ["moment", "--argument=" + "".join(sys.argv[1:])]
main()
"""


def ended(script: str, *arguments: object) -> tuple[int, str]:
    """The exit code of a script and what it wrote to stderr."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("panrt.cli.commands", signal.SIGINT),
        ("typer", signal.SIGTERM),
        ("panrt.cli.verify", signal.SIGINT),
        ("numpy", signal.SIGINT),
        ("cv2", signal.SIGHUP),
        ("panrt.engine.load", signal.SIGTERM),
        ("onnxruntime", signal.SIGINT),
    ],
)
def test_a_signal_while_a_command_starts_ends_it_without_a_traceback(moment: str, number: signal.Signals) -> None:
    run = ["run", "test://64x64@max?frames=1", "--model", "tabletop", "--threads", "1"]
    assert ended(WHEN_IMPORTED, moment, int(number), *run) == (128 + number, f"error: {WORDS[number]}\n")


@pytest.mark.parametrize("number", WORDS)
def test_what_a_command_writes_is_there_whole_or_not_at_all(tmp_path: Path, number: signal.Signals) -> None:
    body = f"""
    def write(temporary):
        temporary.write_text("half of it")
        send({int(number)})
        time.sleep(60)
    write_atomically(Path(argument), write)
    """
    assert ended(COMMAND.format(body=body), tmp_path / "out.txt") == (128 + number, f"error: {WORDS[number]}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        # while it cleans up after the first: a second signal does not wait for that
        """
    try:
        send(signal.SIGINT)
        time.sleep(60)
    finally:
        send(signal.SIGINT)
        time.sleep(60)
        """,
        # in a finalizer, which swallows what is raised in it
        """
    class Finalized:
        def __del__(self):
            send(signal.SIGINT)
            time.sleep(60)
    del [Finalized()][0]
    time.sleep(60)
        """,
        # where an extension makes an error of its own out of it
        """
    try:
        send(signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        raise ImportError("numpy.core.multiarray failed to import") from None
        """,
        # when all is done, and the interpreter ends
        """
    atexit.register(send, signal.SIGINT)
        """,
    ],
)
def test_ctrl_c_at_any_moment_is_130_and_one_line(body: str) -> None:
    assert ended(COMMAND.format(body=body)) == (130, "error: interrupted\n")


def test_an_ignored_signal_stays_ignored() -> None:
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + COMMAND.format(
        body="send(signal.SIGHUP); print('went on', file=sys.stderr)"
    )
    assert ended(script) == (0, "went on\n")


def test_the_command_is_a_module_as_well() -> None:
    done = subprocess.run([sys.executable, "-m", "panrt", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("panrt ")
