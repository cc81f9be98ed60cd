"""Files of recordings: existing ones are kept, and each is readable up to its last complete record after any crash.

If a name exists, a number is added, `out.mp4` becomes `out-2.mp4`, so that an unattended machine that restarts keeps
its earlier recordings. Files are created exclusively: two processes never get the same name.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import stat
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from panrt.errors import ReaderLeftError, SinkError
from panrt.formats.records import legible

LOG = logging.getLogger("panrt.sinks")

_EVERY = 1.0  # seconds between flushes to disk
_SHARE = 20  # ... or longer: this multiple of the duration of the last one


class Rhythm:
    """Decides when to flush to disk: every second, or less often on a slow disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock() + _EVERY

    def beat(self, sync: Callable[[], None]) -> None:
        """Call `sync` if it is due."""
        begun = self._clock()
        if begun < self._due:
            return
        sync()
        ended = self._clock()
        self._due = ended + max(_EVERY, _SHARE * (ended - begun))


class OutputFile:
    """A file that grows by complete records. A record that could not be written completely is removed again.

    Created by `claim`. Devices and named pipes are written to directly.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.length = 0
        mode = os.fstat(descriptor).st_mode
        self._regular = stat.S_ISREG(mode)
        self._known = False  # whether its name is on disk
        self._dirty = False  # whether it has data that are not on disk
        self._rhythm = Rhythm()

    def append(self, data: bytes, *, seal: bytes = b"") -> None:
        """Write a record, then `seal` over its first bytes, which mark it as absent until then.

        Raises:
            SinkError: the record was not written; the file is unchanged or was deleted.
        """
        with self._named():
            self._check_presence()
            if not self._regular:
                write_all(self.descriptor, seal + data[len(seal) :])
                self.length += len(data)
                return
            try:
                write_all(self.descriptor, data)
                if seal:
                    os.pwrite(self.descriptor, seal, self.length)
            except OSError:
                self.cut(self.length)
                raise
            self.length += len(data)
            self._dirty = True
            self._rhythm.beat(self.sync)

    def cut(self, length: int) -> None:
        """Truncate the file to its first `length` bytes."""
        if self._regular:
            self.length = length
            os.ftruncate(self.descriptor, length)
            os.lseek(self.descriptor, length, os.SEEK_SET)

    def patch(self, position: int, data: bytes) -> None:
        """Overwrite bytes, once the file is on disk."""
        if self._regular:
            with self._named():
                self.sync()
                os.pwrite(self.descriptor, data, position)
                self._dirty = True

    def rest(self) -> None:
        """Flush to disk if it is due while nothing is written."""
        if self._regular:
            with self._named():
                self._rhythm.beat(self.sync)

    def sync(self) -> None:
        """Flush written data to disk."""
        if self._regular and self._dirty:
            sync(self.descriptor)
            if not self._known:
                sync_folder(self.path.parent)
                self._known = True
            self._dirty = False

    def close(self) -> None:
        """Flush and close the file. Idempotent.

        Raises:
            SinkError: the disk reported an error.
        """
        if self.descriptor < 0:
            return
        with self._named():
            try:
                self.sync()
            finally:
                descriptor, self.descriptor = self.descriptor, -1
                os.close(descriptor)

    def drop(self) -> None:
        """Close the file, ignoring errors, and remove it if it is empty."""
        with contextlib.suppress(OSError):
            if self._regular and not self.length and os.path.samestat(self.path.stat(), os.fstat(self.descriptor)):
                self.path.unlink()
        with contextlib.suppress(OSError):
            self.close()

    def _check_presence(self) -> None:
        if self._regular and not os.fstat(self.descriptor).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "deleted while PanRT wrote to it")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            raise ReaderLeftError(f"{legible(self.path)}: nobody reads it any more.") from error
        except OSError as error:
            raise SinkError(f"{legible(self.path)}: {error.strerror or error}.") from error


def claim(path: Path, *, overwrite: bool = False, avoid: Collection[Path] = ()) -> OutputFile:
    """Open a new file for writing: the first of `path`, `name-2`, `name-3`, ... that does not exist.

    Args:
        path: where to write; missing folders are created. A device or a named pipe is opened directly.
        overwrite: truncate and use an existing file.
        avoid: numbered names that are reserved for other files.

    Raises:
        SinkError: the file cannot be created or opened.
    """
    make_folder(path.parent, path)
    try:
        existing = path.stat() if path.exists() else None
        if existing is not None and stat.S_ISDIR(existing.st_mode):
            raise SinkError(f"{legible(path)}: is a folder; expected the name of a file.")
        if existing is not None and not stat.S_ISREG(existing.st_mode):
            return _special(path)
        if overwrite:
            return OutputFile(path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
        for candidate in numbered(path):
            if candidate != path and candidate in avoid:
                continue
            with contextlib.suppress(FileExistsError):
                file = OutputFile(candidate, os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                if candidate != path:
                    LOG.warning("%s exists; writing %s", legible(path), legible(candidate))
                return file
    except OSError as error:
        if isinstance(error, SinkError):
            raise
        raise SinkError(f"{legible(path)}: cannot be written: {error.strerror or error}.") from error
    raise AssertionError  # the candidates never end


def _special(path: Path) -> OutputFile:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise SinkError(f"{legible(path)}: a named pipe without a reader; start its reader first.") from error
        raise
    os.set_blocking(descriptor, True)
    return OutputFile(path, descriptor)


def numbered(path: Path) -> Iterator[Path]:
    """Yield `path`, then `name-2`, `name-3`, ..., with the number before a suffix such as `.mp4`."""
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1


def make_folder(folder: Path, target: Path) -> None:
    """Create a folder.

    Raises:
        SinkError: it cannot be created; the message names `target`, the file or folder to be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"{legible(target)}: {legible(folder)} cannot be created: {error.strerror}.") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically, even if the process is killed."""
    part = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise SinkError(f"{legible(path)}: {error.strerror or error}.") from error


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes, which the system may accept in pieces."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # a pipe that another process made non-blocking
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def sync(descriptor: int) -> None:
    """Flush a file to disk, if its file system supports that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def system_error(error: SinkError) -> int | None:
    """Return the system's number of the error that a SinkError was raised from; None if it has none."""
    return error.__cause__.errno if isinstance(error.__cause__, OSError) else None


def is_finished(error: SinkError) -> bool:
    """Return whether the file can take no more, even with free space and descriptors."""
    return system_error(error) not in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, None)
