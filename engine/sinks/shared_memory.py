"""Results in shared memory: one process writes, others read the newest without synchronising with it.

Shapes: H x W pixels of the panoptic map. The memory is a file on the system's RAM disk, a header and a ring of slots:

    header   8s magic, u32 version, u32 slots, u64 bytes of a slot, u64 results published, u32 state (0 open, 1 closed)
    slot     u64 number set before writing, u64 number set after, u32 H, u32 W, u32 n, n bytes of JSON, the map int32

The JSON holds `frame_hw` (height and width of the frame, which the map shows whole), `segments` (rows of id, category
id, name, is_thing, score, area and box, in pixels of the map), `captured_at` (seconds of CLOCK_MONOTONIC),
`captured_at_epoch` (seconds since 1970; null if unknown), `media_time`, `frame_index`, `source`, `file_name`, `colors`
and `timings`. Version 3 added `frame_hw`, `captured_at_epoch` and `file_name`.

A reader copies the newest slot, then checks that both its numbers are still the expected one: no side ever waits.

The writer holds a lock (flock) on the file while it lives, so that readers detect its end. Only their owner can read
the files. Both sides copy with `pread` and `pwrite`, so that a truncated file is an error, not a signal as with mapped
memory.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import struct
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from panrt.engine.results.result import PanopticResult, Timings
from panrt.engine.results.segment import Segment
from panrt.engine.sinks.sink import Item
from panrt.errors import SharedMemoryError, SinkError, WriterGoneError
from panrt.formats.records import parse, real, shown, whole

_MAGIC, _VERSION = b"PANRTSHM", 3
_HEADER = struct.Struct("<8sIIQQI")
_PUBLISHED = struct.Struct("<Q"), 24  # and its offset in the header
_STATE = struct.Struct("<I"), 32
_OPEN, _CLOSED = 0, 1
_NUMBERS = struct.Struct("<QQ")
_SIZES = struct.Struct("<III")
_SLOT_HEADER = _NUMBERS.size + _SIZES.size
_SLOTS_AT = 64
_SLOTS = 4
_MOST_SLOTS = 64
_SPARE_TEXT = 1 << 14  # bytes reserved for more segments than the first result has
_ALIGN = 64
_MOST_PIXELS = 1 << 28  # of a frame
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", re.ASCII)
_LOOK_EVERY = 32  # polls for a result, a millisecond apart, between checks of the writer

Buffer = TypeVar("Buffer", bytearray, memoryview)

_fence = threading.Lock()


def memory_path(name: str) -> Path:
    """Return the file of a name.

    Raises:
        SinkError: the name is invalid.
    """
    if _NAME.fullmatch(name) is None or ".." in name or name.endswith((".lock", ".new")):
        raise SinkError(
            f"shm://: got the name {shown(name)}, expected 1 to 64 letters, digits, dots, hyphens and underscores that "
            "do not begin with a dot or end in .lock or .new."
        )
    memory = Path("/dev/shm")
    return (memory if memory.is_dir() else Path(tempfile.gettempdir())) / f"panrt-{name}"


class SharedMemoryWriter:
    """Publishes each result under a name. A result that does not fit gets a new, larger memory.

    Raises:
        SinkError: another process writes under the name, or a foreign file has it.
    """

    def __init__(self, name: str) -> None:
        self._path = memory_path(name)
        self._uri = f"shm://{name}"
        self._lock_path = self._path.with_name(self._path.name + ".lock")
        self._lock = -1  # file descriptors; -1: none
        self._memory = -1
        self._size = 0
        self._slot_bytes = 0
        self._number = 0
        self._take_name()

    def write(self, item: Item) -> None:
        """Publish one result.

        Raises:
            SinkError: no memory is left, or another process took the name.
        """
        ids = np.ascontiguousarray(item.result.panoptic, np.int32)
        text = _dump(item.result)
        needed = _SLOT_HEADER + len(text) + ids.nbytes
        self._stay_in_place()
        if self._memory < 0 or needed > self._slot_bytes:
            self._grow(needed + _SPARE_TEXT)
        self._number += 1
        at = _SLOTS_AT + self._number % _SLOTS * self._slot_bytes
        self._put(_NUMBERS.pack(self._number, 0), at)
        _barrier()
        self._put(_SIZES.pack(*ids.shape, len(text)) + text, at + _NUMBERS.size)
        self._put(ids.reshape(-1).view(np.uint8).data, at + _SLOT_HEADER + len(text))
        _barrier()
        self._put(_NUMBERS.pack(self._number, self._number), at)
        _barrier()
        self._put(_PUBLISHED[0].pack(self._number), _PUBLISHED[1])

    def close(self) -> None:
        """Mark the memory as closed and unlink it; attached readers can still read it. Idempotent."""
        if self._memory >= 0 and _place(self._memory, self._path) == "here":
            self._path.unlink(missing_ok=True)
        self._retire()
        if self._lock >= 0 and _place(self._lock, self._lock_path) == "here":
            self._lock_path.unlink(missing_ok=True)
        self._give_lock_back()

    def _take_name(self) -> None:
        """Become the only writer under the name, by locking its lock file."""
        try:
            while self._lock < 0:
                lock = self._open(self._lock_path, os.O_RDWR | os.O_CREAT)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    os.close(lock)
                    raise self._taken() from error
                if _place(lock, self._lock_path) == "here":
                    self._lock = lock
                else:
                    os.close(lock)  # its file was unlinked before it was locked: lock the current one
            self._check_that_nobody_writes()
        except OSError as error:
            self._give_lock_back()
            if isinstance(error, SinkError):
                raise
            raise SinkError(f"{self._uri}: {self._path}: {error.strerror}; choose another name.") from error

    def _check_that_nobody_writes(self) -> None:
        """Check the lock of the memory itself: the lock file may have been unlinked by another program."""
        try:
            memory = self._open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            if _is_held(memory):
                raise self._taken()
            self._path.unlink(missing_ok=True)  # left behind by a writer that died
        finally:
            os.close(memory)

    def _taken(self) -> SinkError:
        return SinkError(f"{self._uri}: another process writes under this name; choose another.")

    def _give_lock_back(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _stay_in_place(self) -> None:
        """Detect a memory that was unlinked, replaced or truncated, or an unlinked lock, and take the name again."""
        if self._memory >= 0 and (
            _place(self._memory, self._path) != "here" or os.fstat(self._memory).st_size != self._size
        ):
            self._retire()
            self._check_that_nobody_writes()
        if self._lock < 0 or _place(self._lock, self._lock_path) != "here":
            self._give_lock_back()
            self._retire()  # so that its lock is not taken for another writer's
            self._take_name()

    def _open(self, path: Path, flags: int) -> int:
        """Open a file that belongs to this user and is not a link."""
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
            os.close(descriptor)
            raise SinkError(f"{self._uri}: {path} is not a file of this user; remove it or choose another name.")
        return descriptor

    def _grow(self, needed: int) -> None:
        slot_bytes = -(-needed // _ALIGN) * _ALIGN
        size = _SLOTS_AT + _SLOTS * slot_bytes
        new = self._path.with_name(self._path.name + ".new")
        memory = -1
        try:
            new.unlink(missing_ok=True)
            memory = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(memory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(memory, 0, size)  # raises if the disk is full
            os.pwrite(memory, _HEADER.pack(_MAGIC, _VERSION, _SLOTS, slot_bytes, 0, _OPEN), 0)
            new.replace(self._path)  # atomic for readers
        except OSError as error:
            if memory >= 0:
                os.close(memory)
                new.unlink(missing_ok=True)
            raise SinkError(f"{self._uri}: {size} bytes of memory: {error.strerror}.") from error
        self._retire()
        self._memory, self._slot_bytes, self._size = memory, slot_bytes, size

    def _put(self, data: bytes | memoryview, at: int) -> None:
        written = os.pwrite(self._memory, data, at)
        if written != len(data):
            raise SinkError(f"{self._uri}: wrote {written} of {len(data)} bytes; is the RAM disk full?")

    def _retire(self) -> None:
        if self._memory >= 0:
            os.pwrite(self._memory, _STATE[0].pack(_CLOSED), _STATE[1])
            os.close(self._memory)
            self._memory = -1


class _Layout(NamedTuple):
    """The header of a memory, checked against the file's size."""

    slots: int
    slot_bytes: int
    published: int
    state: int


class SharedMemoryReader:
    """Reads the newest result that another process publishes under a name.

    Raises:
        SinkError: the name is invalid.
    """

    _memory = -1  # file descriptor; -1: none

    def __init__(self, name: str) -> None:
        self._path = memory_path(name)
        self._seen = 0

    def __del__(self) -> None:
        self.close()

    def read(self, timeout: float | None = None) -> PanopticResult | None:
        """Return the newest unread result; None if none came within `timeout` seconds (None: no limit).

        It also waits for a writer that has not started yet, or that has closed and may be followed by another.

        Raises:
            WriterGoneError: the writer died; another call waits for the next one.
            SharedMemoryError: the memory was not written by PanRT, is damaged, or is of another version.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        looks = 0
        while True:
            result = self._newest(look_for_writer=looks % _LOOK_EVERY == 0)
            if result is not None:
                return result
            if deadline is not None and time.monotonic() >= deadline:
                return None
            looks += 1
            time.sleep(0.001)

    def close(self) -> None:
        """Detach from the memory. Idempotent."""
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
        self._seen = 0

    def __enter__(self) -> SharedMemoryReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _newest(self, *, look_for_writer: bool) -> PanopticResult | None:
        if self._memory < 0 and not (look_for_writer and self._attach()):
            return None
        try:
            is_held = not look_for_writer or _is_held(
                self._memory
            )  # checked first: a writer without the lock publishes no more
            layout = self._layout()
            if layout.published not in (0, self._seen):
                return self._copy(layout)
        except SharedMemoryError:
            replaced = _place(self._memory, self._path) == "replaced"
            self.close()
            if replaced:
                return None  # its writer has already replaced it
            raise
        place = _place(self._memory, self._path) if look_for_writer else "here"
        if layout.state == _CLOSED or place == "replaced":
            self.close()  # the next poll opens the current one
        elif not is_held:
            self.close()
            raise WriterGoneError(f"{self._path}: its writing process has ended; read again to wait for another.")
        return None

    def _attach(self) -> bool:
        """Open the memory; return False if it does not exist or has no writer."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SharedMemoryError(f"{self._path}: {error.strerror}; is it the file of another user?") from error
        self._memory, self._seen = descriptor, 0
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or os.geteuid() not in (0, found.st_uid):
                raise SharedMemoryError(f"{self._path}: is not a file of this user.")
            layout = self._layout()
            if layout.state == _OPEN and _is_held(descriptor):
                return True
        except SharedMemoryError:
            self.close()
            raise
        self.close()  # left behind by a writer that died
        return False

    def _layout(self) -> _Layout:
        size = os.fstat(self._memory).st_size
        header = os.pread(self._memory, _HEADER.size, 0)
        if len(header) < _HEADER.size or header[: len(_MAGIC)] != _MAGIC:
            raise SharedMemoryError(
                f"{self._path}: got {shown(header[:8])}, expected {_MAGIC!r}; not written by PanRT."
            )
        _, version, slots, slot_bytes, published, state = _HEADER.unpack(header)
        if version != _VERSION:
            raise SharedMemoryError(
                f"{self._path}: got version {version}, expected {_VERSION}; use one version of PanRT on both sides."
            )
        fits = 1 <= slots <= _MOST_SLOTS and slot_bytes >= _SLOT_HEADER and size == _SLOTS_AT + slots * slot_bytes
        if not fits or state not in (_OPEN, _CLOSED):
            raise SharedMemoryError(
                f"{self._path}: got {slots} slots of {slot_bytes} bytes, state {state}, in {size} bytes; it is damaged."
            )
        return _Layout(slots, slot_bytes, published, state)

    def _copy(self, layout: _Layout) -> PanopticResult | None:
        """Return the newest result; None if it was overwritten while it was read: the next poll finds a newer one."""
        number = layout.published
        at = _SLOTS_AT + number % layout.slots * layout.slot_bytes
        head = self._get(bytearray(_SLOT_HEADER), at)
        height, width, length = _SIZES.unpack_from(head, _NUMBERS.size)
        fits = _SLOT_HEADER + length + 4 * height * width <= layout.slot_bytes
        text, ids = b"", np.empty((0, 0), np.int32)
        if fits:
            text = bytes(self._get(bytearray(length), at + _SLOT_HEADER))
            ids = np.empty((height, width), np.int32)
            self._get(ids.reshape(-1).view(np.uint8).data, at + _SLOT_HEADER + length)
        _barrier()
        numbers = _NUMBERS.unpack_from(self._get(bytearray(_NUMBERS.size), at))
        if _NUMBERS.unpack_from(head) != (number, number) or numbers != (number, number):
            return None
        if not fits:
            raise SharedMemoryError(
                f"{self._path}: got a map of {height} x {width} that its slot cannot hold; it is damaged."
            )
        self._seen = number
        return _load(self._path, text, ids)

    def _get(self, into: Buffer, at: int) -> Buffer:
        """Fill a buffer from the memory; raise if another process truncated it."""
        if os.preadv(self._memory, [into], at) != len(into):
            raise SharedMemoryError(f"{self._path}: it was truncated while it was read.")
        return into


def _barrier() -> None:
    """Order memory accesses: acquiring and releasing a lock is a barrier in both directions."""
    for _ in range(2):
        with _fence:
            pass


def _is_held(memory: int) -> bool:
    """Return whether a living writer holds the lock of a memory, without taking it."""
    try:
        fcntl.flock(memory, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(memory, fcntl.LOCK_UN)
    return False


def _place(descriptor: int, path: Path) -> Literal["here", "absent", "replaced"]:
    """Return whether an open file is the one at a path."""
    mine = os.fstat(descriptor)
    try:
        there = path.lstat()
    except FileNotFoundError:
        return "absent"
    return "here" if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino) else "replaced"


def _dump(result: PanopticResult) -> bytes:
    fields: dict[str, Any] = {
        "frame_hw": result.frame_hw,
        "segments": result.map_segments,
        "timings": result.timings,
        "frame_index": result.frame_index,
        "captured_at": result.captured_at,
        "captured_at_epoch": result.captured_at_epoch,
        "media_time": result.media_time,
        "source": result.source,
        "file_name": result.file_name,
        "colors": list(result.colors.items()),
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def _load(path: Path, text: bytes, panoptic: NDArray[np.int32]) -> PanopticResult:
    cure = "use one version of PanRT on both sides"
    fields = parse(text, source=str(path), error=SharedMemoryError, cure=cure)
    try:
        return PanopticResult(
            panoptic,
            tuple(_segment(row) for row in fields["segments"]),
            Timings(*map(_real, fields["timings"])),
            _whole(fields["frame_index"]),
            _real(fields["captured_at"]),
            None if fields["media_time"] is None else _real(fields["media_time"]),
            _text(fields["source"]),
            {_whole(key): (_whole(red), _whole(green), _whole(blue)) for key, (red, green, blue) in fields["colors"]},
            frame_hw=_size(fields["frame_hw"]),
            file_name=_text(fields["file_name"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SharedMemoryError(f"{path}: got {shown(fields)}, expected the fields of a result; {cure}.") from error


def _segment(row: Any) -> Segment:
    number, category, name, is_thing, score, area, (x0, y0, x1, y1) = row
    if not isinstance(is_thing, bool):
        raise TypeError("is_thing")
    box = _whole(x0), _whole(y0), _whole(x1), _whole(y1)
    return Segment(_whole(number), _whole(category), _text(name), is_thing, _real(score), _whole(area), box)


def _size(value: Any) -> tuple[int, int]:
    height, width = map(_whole, value)
    if min(height, width) < 0 or height * width > _MOST_PIXELS:
        raise ValueError("a size")
    return height, width


def _whole(value: object) -> int:
    found = whole(value)
    if found is None:
        raise TypeError("expected a whole number")
    return found


def _real(value: object) -> float:
    found = real(value)
    if found is None:
        raise TypeError("expected a number")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value
