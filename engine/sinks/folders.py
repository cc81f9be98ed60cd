"""Folders of results: a new one for each run, with many files that are flushed to disk in batches."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from panrt.engine.sinks.output import (
    OutputFile,
    Rhythm,
    make_folder,
    sync,
    sync_folder,
    write_whole,
)
from panrt.errors import SinkError
from panrt.formats.records import legible

LOG = logging.getLogger("panrt.sinks")


class FileFolder:
    """A folder of many complete files, flushed to disk in batches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fresh: list[Path] = []
        self._rhythm = Rhythm()

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically."""
        write_whole(self.path / name, data)
        self._fresh.append(self.path / name)
        self._rhythm.beat(self.sync)

    def rest(self) -> None:
        """Flush to disk if it is due."""
        if self._fresh:
            self._rhythm.beat(self.sync)

    def sync(self) -> None:
        """Flush all files to disk."""
        fresh, self._fresh = self._fresh, []
        for path in fresh:
            with contextlib.suppress(FileNotFoundError):  # removed by another program
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    sync(descriptor)
                finally:
                    os.close(descriptor)
        for folder in {path.parent for path in fresh}:
            with contextlib.suppress(FileNotFoundError):
                sync_folder(folder)


def claim_folder(wanted: Path, name: str, *, taken: tuple[str, ...]) -> OutputFile:
    """Create the file `name` in the first of `folder`, `folder-2`, ... that has neither it nor one of `taken`."""
    for candidate in _candidates(wanted):
        if candidate != wanted and os.path.exists(candidate) and not os.path.isdir(candidate):
            continue
        make_folder(candidate, wanted)
        try:
            if any(os.path.lexists(candidate / each) for each in taken):
                continue
            descriptor = os.open(candidate / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            raise SinkError(f"{legible(candidate)}: cannot be written: {error.strerror or error}.") from error
        if candidate != wanted:
            LOG.warning("%s has results; writing %s", legible(wanted), legible(candidate))
        return OutputFile(candidate / name, descriptor)
    raise AssertionError  # the candidates never end


def existing_folders(wanted: Path) -> Iterator[Path]:
    """Yield those of `_candidates` that exist."""
    for candidate in _candidates(wanted):
        if not os.path.isdir(candidate):  # like Path.is_dir, but False for a name that is too long
            return
        yield candidate


def _candidates(wanted: Path) -> Iterator[Path]:
    """Yield `folder`, `folder-2`, ...; a dot in its name does not begin a suffix."""
    yield wanted
    named = wanted if wanted.name not in ("", "..") else Path(os.path.abspath(wanted))
    if not named.name:
        raise SinkError(f"{legible(wanted)}: has results; give another folder.")
    number = 2
    while True:
        yield named.with_name(f"{named.name}-{number}")
        number += 1
