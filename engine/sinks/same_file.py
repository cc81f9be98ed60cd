"""Detection of sinks that would overwrite a source or another sink, before anything is written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from panrt.engine.sinks.sink import SinkSpec
from panrt.errors import SameFileError
from panrt.formats.records import legible

_NO_PICTURES = frozenset({".jsonl", ".ndjson"})  # no image source reads these, so they may be in its folder


def reject_same_files(sources: Iterable[tuple[str, Sequence[Path]]], sinks: Sequence[SinkSpec]) -> None:
    """Check that no sink writes to a file that a source reads, and no two sinks to one place.

    Links and relative names are resolved, and names that differ only by case on a case-insensitive file system.

    Args:
        sources: the name of each, and the files and folders that it reads.
        sinks: their specifications.

    Raises:
        SameFileError: the two are the same; the message names both.
    """
    seen: dict[tuple[object, ...], str] = {}
    for sink in sinks:
        if sink.target is None or _is_device(sink.target):
            continue
        name = legible(sink.uri)
        for key in _keys(sink.target):
            if key in seen:
                raise SameFileError(f"{name}: the sink {seen[key]} writes to it too; give each its own name.")
        seen |= dict.fromkeys(_keys(sink.target), name)
    for source, paths in sources:
        for path in paths:
            for sink in sinks:
                if sink.target is None or _is_device(sink.target) or not _meet(path, sink.target, sink.is_folder):
                    continue
                where = "is in the folder" if path.is_dir() else "is the folder of" if sink.is_folder else "is"
                raise SameFileError(
                    f"{legible(sink.uri)}: {where} the source {legible(source)}; choose another place for the sink."
                )


def _keys(path: Path) -> set[tuple[object, ...]]:
    """Return keys that are equal for the same file: its resolved path, and its inode if it exists."""
    keys: set[tuple[object, ...]] = {(os.path.realpath(path) if path.name != "-" else "-",)}
    try:
        found = path.stat()
    except OSError:
        return keys
    return keys | {(found.st_dev, found.st_ino)}


def _is_device(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _meet(source: Path, target: Path, is_folder: bool) -> bool:
    if source.is_dir():
        if not is_folder and target.suffix.lower() in _NO_PICTURES:
            return False
        return any(_keys(source) & _keys(folder) for folder in (target, *Path(os.path.realpath(target)).parents))
    return bool(_keys(source.parent if is_folder else source) & _keys(target))
