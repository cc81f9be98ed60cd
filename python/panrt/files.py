"""Files that are there whole or not at all, and files that are read whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from panrt.errors import NoCacheFolderError, PanrtError

SUFFIX = ".part"
PACKAGE = Path(__file__).parent  # of the installation: models and data lie in it


def cache_folder() -> Path:
    """The user's folder for what can be made again; it need not be there yet.

    Raises:
        NoCacheFolderError: there is none for this user.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "panrt"
    except RuntimeError as error:  # no HOME, and a user that the system does not know, as in containers
        raise NoCacheFolderError(
            "This user has no home folder to keep a cache in; set XDG_CACHE_HOME to a folder that it can write to."
        ) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there; on any error `path` is as it was.

    What was written is on the disk before it is moved, and the move before this returns, so that a power cut leaves the
    old file or the new one. A new file has the permissions that the process gives to files, a replaced one those that
    it had. A process that was killed leaves its temporary file behind; the next one that writes `path` removes it.
    """
    _remove_abandoned(path)
    with _temporary(path) as temporary:
        write(temporary)
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new file beside `path`, locked as long as this process lives and removed in the end."""
    while True:
        temporary = path.parent / f"{_prefix(path)}{secrets.token_hex(4)}{SUFFIX}"
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            if _lock(handle) and not _is_at(handle, temporary):
                continue  # another process took it for an abandoned one, before it was locked
            yield temporary
            return
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of processes that died while they wrote `path`."""
    for entry in _temporaries(path):
        with contextlib.suppress(OSError):  # it is somebody else's, or gone
            handle = os.open(entry, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if _lock(handle):
                    entry.unlink(missing_ok=True)
            finally:
                os.close(handle)


def _temporaries(path: Path) -> list[Path]:
    """Of this very file: beside "a" may lie one of "a.b"."""
    prefix, digits = _prefix(path), 8
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []  # the folder is missing or may not be read; writing will tell
    length = len(prefix) + digits + len(SUFFIX)
    return [path.parent / n for n in names if n.startswith(prefix) and n.endswith(SUFFIX) and len(n) == length]


def _prefix(path: Path) -> str:
    """Short enough that the name of the temporary file is not too long where that of the file is not."""
    return f".{os.fsdecode(os.fsencode(path.name)[:200])}."


def _lock(handle: int) -> bool:
    """Whether nobody else holds the file, and now we do; a lock ends with the process that holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or the file system has no locks
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    """Write a folder's entries to the disk."""
    with contextlib.suppress(OSError):  # some network file systems cannot
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
