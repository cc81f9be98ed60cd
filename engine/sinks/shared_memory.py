"""Results in shared memory: one process writes, others read the newest without asking for it.

Shapes: H x W the panoptic map. The memory is a file on the system's memory disk, a header and a ring of slots:

    header   8s magic, u32 version, u32 slots, u64 bytes of a slot, u64 results published, u32 state (0 open, 1 closed)
    slot     u64 number when writing began, u64 when it ended, u32 H, u32 W, u32 n, n bytes of JSON, the map int32

A reader copies the newest slot and then looks whether both its numbers still are the one that it wanted: nobody waits.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import re
import struct
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from panrt.engine.result import PanopticResult, Segment, Timings
from panrt.engine.sinks.errors import SinkError
from panrt.engine.sinks.sink import Item

_MAGIC, _VERSION = b"PANRTSHM", 1
_HEADER = struct.Struct("<8sIIQQI")
_PUBLISHED = struct.Struct("<Q"), 24  # and its place in the header
_STATE = struct.Struct("<I"), 32
_NUMBERS = struct.Struct("<QQ")
_SIZES = struct.Struct("<III")
_SLOT_HEADER = _NUMBERS.size + _SIZES.size
_SLOTS_AT = 64
_SLOTS = 4
_TEXT = 1 << 16  # bytes for the JSON of a result
_ALIGN = 64


def memory_path(name: str) -> Path:
    """The file behind a name."""
    memory = Path("/dev/shm")
    return (memory if memory.is_dir() else Path(tempfile.gettempdir())) / f"panrt-{name}"


class SharedMemoryWriter:
    """Publishes each result under a name. A map larger than those before it gets a new, larger memory."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            raise SinkError(f"shm://{name}: got {name!r}, expected 1 to 64 letters, digits, dots and hyphens.")
        self._name = name
        self._path = memory_path(name)
        self._lock = self._path.with_name(self._path.name + ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise SinkError(f"shm://{name}: another process writes there; choose another name.") from error
        self._memory: mmap.mmap | None = None
        self._slot_bytes = 0
        self._number = 0
        self._fence = threading.Lock()

    def write(self, item: Item) -> None:
        """Publish one result."""
        ids = np.ascontiguousarray(item.result.panoptic, np.int32)
        text = _dump(item.result)
        if len(text) > _TEXT:
            raise SinkError(f"shm://{self._name}: {len(item.result.segments)} segments do not fit into {_TEXT} bytes.")
        needed = _SLOT_HEADER + _TEXT + ids.nbytes
        if self._memory is None or needed > self._slot_bytes:
            self._grow(needed)
        memory = self._memory
        assert memory is not None
        self._number += 1
        at = _SLOTS_AT + self._number % _SLOTS * self._slot_bytes
        _NUMBERS.pack_into(memory, at, self._number, 0)
        self._barrier()
        _SIZES.pack_into(memory, at + _NUMBERS.size, *ids.shape, len(text))
        at_text = at + _SLOT_HEADER
        memory[at_text : at_text + len(text)] = text
        at_map = at_text + _TEXT
        np.frombuffer(memory, np.int32, ids.size, at_map).reshape(ids.shape)[:] = ids
        self._barrier()
        _NUMBERS.pack_into(memory, at, self._number, self._number)
        self._barrier()
        _PUBLISHED[0].pack_into(memory, _PUBLISHED[1], self._number)

    def close(self) -> None:
        """Tell the readers, and take the memory away; readers that have it keep what is in it."""
        self._retire()
        self._path.unlink(missing_ok=True)
        Path(self._lock.name).unlink(missing_ok=True)
        self._lock.close()

    def _grow(self, needed: int) -> None:
        self._retire()
        self._slot_bytes = -(-needed // _ALIGN) * _ALIGN
        size = _SLOTS_AT + _SLOTS * self._slot_bytes
        new = self._path.with_name(self._path.name + ".new")
        with new.open("w+b") as file:
            os.fchmod(file.fileno(), 0o600)
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # a disk without room shows here, not as SIGBUS later
            except OSError as error:
                new.unlink()
                raise SinkError(f"shm://{self._name}: {size} bytes of memory: {error.strerror}.") from error
            self._memory = mmap.mmap(file.fileno(), size)
        _HEADER.pack_into(self._memory, 0, _MAGIC, _VERSION, _SLOTS, self._slot_bytes, 0, 0)
        new.replace(self._path)  # a reader sees a whole one or none

    def _retire(self) -> None:
        if self._memory is not None:
            _STATE[0].pack_into(self._memory, _STATE[1], 1)
            self._memory = None  # unmapped when the last array over it goes

    def _barrier(self) -> None:
        """What was written before is visible before what comes after: taking and giving a lock orders both ways."""
        for _ in range(2):
            with self._fence:
                pass


class SharedMemoryReader:
    """Reads the newest result that another process publishes under a name.

    Raises:
        SinkError: what is there is not ours, or of another version.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._path = memory_path(name)
        self._memory: mmap.mmap | None = None
        self._slots = self._slot_bytes = self._seen = self._inode = 0

    def read(self, timeout: float | None = None) -> PanopticResult | None:
        """The newest result that was not read yet; None if none came within `timeout` seconds (None: wait)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            result = self._newest()
            if result is not None:
                return result
            if deadline is not None and time.monotonic() >= deadline:
                return None
            time.sleep(0.001)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory = None

    def __enter__(self) -> SharedMemoryReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _newest(self) -> PanopticResult | None:
        memory = self._memory or self._attach()
        if memory is None:
            return None
        number = _PUBLISHED[0].unpack_from(memory, _PUBLISHED[1])[0]
        if number in (0, self._seen):
            if _STATE[0].unpack_from(memory, _STATE[1])[0] or self._replaced():
                self._memory = None  # closed, or moved to a larger one
                self._seen = 0
            return None
        at = _SLOTS_AT + number % self._slots * self._slot_bytes
        height, width, length = _SIZES.unpack_from(memory, at + _NUMBERS.size)
        at_text = at + _SLOT_HEADER
        at_map = at_text + _TEXT
        if length > _TEXT or at_map + 4 * height * width > at + self._slot_bytes:
            return None  # read while it was written
        text = bytes(memory[at_text : at_text + length])
        ids = np.frombuffer(memory, np.int32, height * width, at_map).reshape(height, width).copy()
        if _NUMBERS.unpack_from(memory, at) != (number, number):
            return None  # it was overtaken; the next look finds a newer one
        self._seen = number
        return _load(text, ids)

    def _replaced(self) -> bool:
        """Whether the memory under the name is another one now: a writer that is killed closes nothing."""
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _attach(self) -> mmap.mmap | None:
        try:
            with self._path.open("rb") as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._inode = os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return None
        magic, version, self._slots, self._slot_bytes, _, state = _HEADER.unpack_from(memory, 0)
        if (magic, version) != (_MAGIC, _VERSION):
            raise SinkError(f"{self._path}: got {magic!r} version {version}, expected {_MAGIC!r} version {_VERSION}.")
        if state:
            return None  # left behind
        self._memory = memory
        return memory


def _dump(result: PanopticResult) -> bytes:
    fields: dict[str, Any] = {
        "segments": result.segments,
        "timings": result.timings,
        "frame_index": result.frame_index,
        "captured_at": result.captured_at,
        "media_time": result.media_time,
        "source": result.source,
        "colors": list(result.colors.items()),
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def _load(text: bytes, panoptic: np.ndarray[Any, np.dtype[np.int32]]) -> PanopticResult:
    fields = json.loads(text)
    segments = tuple(Segment._make((*row[:-1], tuple(row[-1]))) for row in fields.pop("segments"))
    timings = Timings(*fields.pop("timings"))
    colors = {key: tuple(color) for key, color in fields.pop("colors")}
    return PanopticResult(panoptic, segments, timings, colors=colors, **fields)
