"""Atomic writes, and complete reads of bounded files."""

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
PACKAGE = Path(__file__).parent  # of the installation; it holds models and data


def cache_folder() -> Path:
    """Return the user's cache folder, which need not exist yet.

    Raises:
        NoCacheFolderError: this user has none.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "panrt"
    except RuntimeError as error:  # no HOME, and a user without an account, as in containers
        raise NoCacheFolderError(
            "This user has no home folder to keep a cache in; set XDG_CACHE_HOME to a folder that it can write to."
        ) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there; on any error `path` is unchanged.

    The content is flushed to disk before the move, and the move before this returns, so that a power failure leaves
    either the old file or the new one. A new file has the default permissions of the process, a replaced one keeps its
    own. A killed process leaves its temporary file behind; the next one that writes `path` removes it.
    """
    _remove_abandoned(path)
    with _temporary(path) as temporary:
        write(temporary)
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        move_into_place(temporary, path)


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a complete file its final name; its content is on the disk before, and the name before this returns."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


@contextmanager
def locked(path: Path, *, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock that one process at a time can hold; it ends with the process.

    Args:
        path: of the lock's file, which is created and stays.
        waiting: called once if another process holds the lock.
    """
    with path.open("w") as lock:
        if not _lock(lock.fileno()):
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing does not free it while a forked process has it open too


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Create a file beside `path`, locked while this process lives and removed at the end."""
    while True:
        temporary = path.parent / f"{_prefix(path)}{secrets.token_hex(4)}{SUFFIX}"
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            if _lock(handle) and not _is_at(handle, temporary):
                continue  # another process took it for abandoned before it was locked
            yield temporary
            return
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of processes that died while they wrote `path`."""
    for entry in _temporaries(path):
        with contextlib.suppress(OSError):  # it belongs to another user, or was removed
            handle = os.open(entry, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if _lock(handle):
                    entry.unlink(missing_ok=True)
            finally:
                os.close(handle)


def _temporaries(path: Path) -> list[Path]:
    """Return the temporary files of `path`, but not those of "a.b" for "a"."""
    prefix, digits = _prefix(path), 8
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []  # the folder is missing or may not be read, which writing reports
    length = len(prefix) + digits + len(SUFFIX)
    return [path.parent / n for n in names if n.startswith(prefix) and n.endswith(SUFFIX) and len(n) == length]


def _prefix(path: Path) -> str:
    """Return the start of a temporary file's name, short enough that the name is valid if that of `path` is."""
    return f".{os.fsdecode(os.fsencode(path.name)[:200])}."


def _lock(handle: int) -> bool:
    """Lock a file and return True; False if another process holds it. A lock ends with its process."""
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
    """Flush a folder's entries to disk."""
    with contextlib.suppress(OSError):  # some network file systems cannot
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_whole(path: Path, *, longest: int, error: type[PanrtError], expected: str) -> bytes:
    """Read a complete regular file of bounded size; never wait for a pipe or a device.

    Args:
        path: of the file; links are followed.
        longest: its largest size in bytes.
        error: type to raise.
        expected: kind of file, for the message, e.g. "an .onnx file of panrt export".

    Raises:
        error: it is a folder, a pipe or a device, or too large.
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
    """Return the name for messages of a file with this `st_mode`: "a file", "a folder", "a pipe", ..."""
    if stat.S_ISREG(mode):
        return "a file"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
