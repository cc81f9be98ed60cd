"""A local file for FFmpeg as bytes only, without a name through which other files or hosts could be reached.

Given a name, FFmpeg opens further files that the name or the content refers to: `concat:`, numbered images, playlists.
Here it reads from a Python object instead, and demuxers that open further files are disabled.
"""

from __future__ import annotations

import os
import re
import select
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from panrt.engine.sources.source import Opening
from panrt.errors import SourceDeniedError, SourceError, SourceNotFoundError, SourceTimeoutError, SourceUndecodableError
from panrt.formats.records import legible

_LOOK_EVERY = 0.1  # seconds between checks of a silent pipe whether the source is stopped
_MOST_BOXES = 100_000


class LocalFile:
    """A file or a named pipe, for `av.open`.

    Raises:
        SourceError: it cannot be opened, or is neither a file nor a pipe. `read` raises SourceTimeoutError if a pipe
            stays silent.
    """

    def __init__(self, path: Path, opening: Opening) -> None:
        self._path = path
        self._opening = opening
        self._began = False
        suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", path.suffix) else ""
        self.name = f"video{suffix}"  # FFmpeg recognises some formats by it
        self._file = os.fdopen(_opened(path), "rb", buffering=0)
        kind = os.fstat(self._file.fileno())
        self._is_pipe = stat.S_ISFIFO(kind.st_mode)
        if not self._is_pipe and (not stat.S_ISREG(kind.st_mode) or kind.st_size == 0):
            self._file.close()
            what = "the file is empty" if stat.S_ISREG(kind.st_mode) else "neither a file nor a named pipe"
            raise SourceUndecodableError(f"{legible(path)}: {what}.")

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end, or when the source is stopped."""
        if not self._is_pipe:
            return b"" if self._opening.stop.is_set() else self._file.read(size) or b""
        deadline = self._opening.clock.now() + self._opening.options.timeout
        while not self._opening.stop.is_set():
            select.select([self._file], [], [], _LOOK_EVERY)
            data = self._file.read(size)  # None: nothing yet; b"": no writer
            if data or (data == b"" and self._began):
                self._began = True
                return data
            if self._opening.clock.now() > deadline:
                raise SourceTimeoutError(f"{legible(self._path)}: no data for {self._opening.options.timeout:g} s.")
            self._opening.clock.wait(self._opening.stop, _LOOK_EVERY / 10)
        return b""

    def seekable(self) -> bool:
        """Return whether it is a file rather than a pipe."""
        return not self._is_pipe

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position and return it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def missing(self) -> int:
        """Return how many bytes the file's outer structure declares beyond its end; 0 if it declares no size."""
        if self._is_pipe:
            return 0
        with open(os.dup(self._file.fileno()), "rb") as file:
            return missing_bytes(file, os.fstat(file.fileno()).st_size)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        problem = _problem(path, error)
    except ValueError:  # a null byte, or half of a surrogate pair
        problem = SourceNotFoundError(f"{legible(path)}: not a valid file name.")
    raise problem


def _problem(path: Path, error: OSError) -> SourceError:
    name = legible(path)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return SourceNotFoundError(f"{name}: no such file.")
    if isinstance(error, PermissionError):
        return SourceDeniedError(f"{name}: may not be read.")
    return SourceError(f"{name}: {error.strerror}.")


def missing_bytes(file: BinaryIO, size: int) -> int:
    """Return how many bytes a video file of `size` bytes declares beyond its end.

    Reads the boxes of MP4 and MOV, the RIFF chunks of AVI, the segment of Matroska and the packets of MPEG-TS. For a
    file without a declared size, such as one that is being recorded, the answer is 0.
    """
    file.seek(0)
    start = file.read(400)
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"moof", b"styp", b"free", b"skip", b"wide"):
        return max((end - size for end in _media_ends(file, size)), default=0)
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return max((end - size for end in _riff_ends(file, size)), default=0)
    if start[:4] == b"\x1aE\xdf\xa3":
        return max(_segment_end(start) - size, 0)
    for packet in (188, 192):  # 192: with a time stamp before each
        if all(start[at : at + 1] == b"G" for at in (packet - 188, 2 * packet - 188)):
            return -size % packet
    return 0


def _media_ends(file: BinaryIO, size: int) -> Iterator[int]:
    """Yield the ends, beyond the file's end, of outermost boxes that hold frames or their index."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if len(head) < 8 or length < 8:  # the end, or a box that extends to it
            return
        at += length
        if at > size:
            if head[4:8] in (b"mdat", b"moof", b"moov"):
                yield at
            return


def _riff_ends(file: BinaryIO, size: int) -> Iterator[int]:
    at = 0
    for _ in range(_MOST_BOXES):  # files beyond 1 GB have several
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):
            return
        at += 8 + length
        if at > size:
            yield at
            return
        at += length % 2


def _segment_end(start: bytes) -> int:
    """Return the end of a Matroska file by the size of its segment; 0 if unknown."""
    at = 4
    length, at = _ebml_size(start, at)
    at += length or 0
    if start[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    length, at = _ebml_size(start, at + 4)
    return at + length if length else 0


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """Return an EBML number and its end; None for "unknown", whose bits are all ones."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length()
    if width > 8:
        return None, at + 1
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), at + width
