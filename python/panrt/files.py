"""Files that are there whole or not at all, and files that are read whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from panrt.errors import PanrtError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there; on any error `path` is as it was."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(path.stat().st_mode if path.exists() else 0o644)  # not as private as a temporary file
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_whole(path: Path, *, longest: int, error: type[PanrtError], expected: str) -> bytes:
    """Read a regular file of a bounded size; a pipe or a device, which may have no end, is never waited for.

    Args:
        path: of the file; a link to one is followed.
        longest: bytes that it may have.
        error: what to raise.
        expected: what the file should be, for the message, e.g. "an .onnx file of panrt export".

    Raises:
        error: it is a folder, a pipe or a device, or too long.
        OSError: it cannot be opened or read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would block
    try:
        status = os.fstat(handle)
        if (kind := kind_of(status.st_mode)) != "a file":
            raise error(f"{path}: is {kind}, expected {expected}.")
        if status.st_size <= longest:
            with open(handle, "rb", closefd=False) as file:
                content = file.read(longest + 1)
            if len(content) <= longest:
                return content
    finally:
        os.close(handle)
    raise error(f"{path}: has more than {longest} bytes, expected {expected}.")


def kind_of(mode: int) -> str:
    """Return what a message calls a file of this `st_mode`: "a file", "a folder", "a pipe", ..."""
    if stat.S_ISREG(mode):
        return "a file"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
