"""Results as lines of JSON, in a file or on standard output."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import sys
from pathlib import Path
from typing import Any

from panrt.engine.clock import epoch_of
from panrt.engine.sinks.output import (
    OutputFile,
    claim,
    is_finished,
    system_error,
    write_all,
)
from panrt.engine.sinks.sink import Item
from panrt.errors import ReaderLeftError, SinkError


def record(item: Item, *, rle: bool = False) -> dict[str, Any]:
    """Return a result as plain data, without its map; see `PanopticResult.to_json`."""
    frame = item.frame
    return item.result.to_json(rle=rle) | {
        "source": frame.source,
        "frame_index": frame.index,
        "captured_at": frame.captured_at,
        "captured_at_epoch": epoch_of(frame.captured_at),
        "media_time": frame.media_time,
    }


def json_line(facts: dict[str, Any]) -> bytes:
    """Return plain data as one line of JSON."""
    return json.dumps(facts, separators=(",", ":")).encode() + b"\n"


class JsonLinesWriter:
    """Writes a line of JSON for each result to a file."""

    pending = 0

    def __init__(self, path: Path, *, overwrite: bool = False, rle: bool = False) -> None:
        self._path = path
        self._rle = rle
        self._file: OutputFile | None = claim(path, overwrite=overwrite)
        self.files = (str(self._file.path),)

    def write(self, item: Item) -> None:
        """Write and flush one line, so that a reader of the file sees it at once."""
        line = json_line(record(item, rle=self._rle))
        try:
            self._begun().append(line)
        except SinkError as error:
            if not is_finished(error):
                raise
            self._drop()
            if system_error(error) not in (
                errno.EFBIG,
                errno.ENOENT,
            ):  # at its size limit, or deleted: the line begins a new file
                raise
            self._begun().append(line)

    def idle(self) -> None:
        """Flush to disk if it is due."""
        if self._file is not None:
            self._file.rest()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _begun(self) -> OutputFile:
        if self._file is None:
            self._file = claim(self._path)
            self.files = (str(self._file.path),)
        return self._file

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.drop()


class StandardOutputWriter:
    """Writes a line of JSON for each result to standard output."""

    pending = 0
    files = ()

    def __init__(self, *, rle: bool = False) -> None:
        self._rle = rle
        if sys.stdout is None or sys.stdout.closed:
            raise SinkError("-: standard output is closed; give the sink a file, out.jsonl.")
        self._stream = sys.stdout
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):  # not a file: the output is captured
            self._descriptor = os.dup(sys.stdout.fileno())  # stays valid if descriptor 1 is redirected

    def write(self, item: Item) -> None:
        """Write and flush one line.

        Raises:
            ReaderLeftError: nobody reads standard output any more.
        """
        line = json_line(record(item, rle=self._rle))
        try:
            if self._descriptor is None:
                self._stream.write(line.decode())
                self._stream.flush()
            else:  # bypasses Python's buffer, which would retry a failed write at exit
                write_all(self._descriptor, line)
        except BrokenPipeError as error:
            raise ReaderLeftError("-: nobody reads standard output any more.") from error
        except OSError as error:
            raise SinkError(f"-: standard output: {error.strerror or error}.") from error

    def idle(self) -> None:
        """Check that standard output is still read.

        Raises:
            ReaderLeftError: nobody reads it any more.
        """
        if self._descriptor is None:
            return
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            raise ReaderLeftError("-: nobody reads standard output any more.")

    def close(self) -> None:
        """Close the duplicate; standard output itself stays open."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
