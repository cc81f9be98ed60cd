"""Results in files: JSON lines, a folder in the COCO panoptic format, NumPy arrays."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import filecmp
import io
import json
import logging
import os
import re
import select
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from panrt.engine.sinks.output import (
    OutputFile,
    Rhythm,
    claim,
    make_folder,
    numbered,
    sync,
    sync_folder,
    write_all,
    write_whole,
)
from panrt.engine.sinks.sink import Item
from panrt.errors import ReaderLeftError, SinkError
from panrt.formats.metadata import ModelFile
from panrt.formats.records import legible

LOG = logging.getLogger("panrt.sinks")

JOURNAL = ".panrt-journal.jsonl"  # of a coco:// folder that is being written, or was when the process ended
_PNG_END = b"IEND\xaeB`\x82"


def record(item: Item) -> dict[str, Any]:
    """Return a result as plain data, without its map."""
    result, frame = item.result, item.frame
    return {
        "source": frame.source,
        "frame_index": frame.index,
        "captured_at": frame.captured_at,
        "media_time": frame.media_time,
        "height": result.panoptic.shape[0],
        "width": result.panoptic.shape[1],
        "timings": result.timings._asdict(),
        "segments": [segment._asdict() for segment in result.segments],
    }


class JsonLinesWriter:
    """Writes a line of JSON for each result to a file."""

    pending = 0

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self._path = path
        self._file: OutputFile | None = claim(path, overwrite=overwrite)
        self.files = (str(self._file.path),)

    def write(self, item: Item) -> None:
        """Write and flush one line, so that a reader of the file sees it at once."""
        line = _line(record(item))
        try:
            self._begun().append(line)
        except SinkError as error:
            if not _is_finished(error):
                raise
            self._drop()
            if _errno(error) not in (
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

    def __init__(self) -> None:
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
        line = _line(record(item))
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


class CocoWriter:
    """Writes `panoptic.json` and `panoptic/000001.png`, ... in the COCO panoptic format; images are numbered from 1.

    Annotations go to a journal, from which the JSON is assembled at the end: memory does not grow with the stream, and
    the next run completes the folder of an interrupted one. A folder with results is never written to; a new one is
    created instead.
    """

    pending = 0

    def __init__(self, folder: Path, model: ModelFile) -> None:
        self._wanted = folder
        self._categories = [
            {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
            for c in (*model.things, *model.stuff)
        ]
        self._journal: OutputFile | None = None
        self._folder = _Folder(folder)
        self._count = 0
        self._begun()

    def write(self, item: Item) -> None:
        """Write the PNG of one result."""
        journal = self._begun()
        number = self._count + 1
        name = f"{number:06d}.png"
        annotation, png = item.result.to_coco(image_id=number, file_name=name)
        height, width = png.shape[:2]
        image = {"id": number, "file_name": name, "height": height, "width": width}
        image |= {"source": item.frame.source, "frame_index": item.frame.index}
        # The journal is written first: an entry without its PNG is left out at the end.
        length = journal.length
        try:
            journal.append(_line({"image": image, "annotation": annotation}))
        except SinkError as error:
            if _is_finished(error):
                self._leave()
            raise
        try:
            self._folder.write(f"panoptic/{name}", cv2.imencode(".png", png)[1].tobytes())
        except Exception:
            with contextlib.suppress(OSError):
                journal.cut(length)
            make_folder(self._folder.path / "panoptic", self._folder.path)  # in case the folder was removed
            raise
        self._count = number

    def idle(self) -> None:
        """Flush to disk if it is due."""
        if self._journal is not None:
            self._folder.rest()
            self._journal.rest()

    def close(self) -> None:
        """Assemble `panoptic.json`."""
        if self._journal is not None:
            journal, self._journal = self._journal, None
            try:
                self._folder.sync()
                put_together(journal.path.parent)
            finally:
                journal.close()

    def _begun(self) -> OutputFile:
        """Return the journal of the current folder, or of a new one."""
        while self._journal is None:
            for candidate in _folders(self._wanted):
                _complete(candidate)
            journal = _claim_folder(self._wanted, JOURNAL, taken=("panoptic.json", "panoptic"))
            if not _lock(journal.descriptor) or not os.fstat(journal.descriptor).st_nlink:
                os.close(journal.descriptor)  # another process took it for an abandoned one and removes it
                continue
            folder = journal.path.parent
            try:
                journal.append(_line({"categories": self._categories}))
                make_folder(folder / "panoptic", folder)
            except SinkError:
                journal.cut(0)
                journal.drop()
                raise
            self._journal, self._count, self._folder = journal, 0, _Folder(folder)
            self.files = (str(folder),)
        return self._journal

    def _leave(self) -> None:
        """Complete this folder, so that the next result begins another."""
        with contextlib.suppress(OSError):
            self.close()


class NumpyWriter:
    """Writes each panoptic map, (H, W) int32, to `000001.npy`, ... and its segments to `results.jsonl`.

    A folder with results is never written to; a new one is created instead.
    """

    pending = 0

    def __init__(self, folder: Path) -> None:
        self._wanted = folder
        self._index: OutputFile | None = None
        self._folder = _Folder(folder)
        self._count = 0
        self._begun()

    def write(self, item: Item) -> None:
        """Write one array and then its line."""
        index = self._begun()
        name = f"{self._count + 1:06d}.npy"
        array = io.BytesIO()
        np.save(array, item.result.panoptic, allow_pickle=False)
        try:
            self._folder.write(name, array.getvalue())
            index.append(_line({"file": name, **record(item)}))
        except SinkError as error:
            if _is_finished(error):
                self._index = None
                index.drop()
            raise
        self._count += 1

    def idle(self) -> None:
        """Flush to disk if it is due."""
        if self._index is not None:
            self._folder.rest()
            self._index.rest()

    def close(self) -> None:
        """Close the index."""
        if self._index is not None:
            self._folder.sync()
            self._index.close()

    def _begun(self) -> OutputFile:
        if self._index is None:
            self._index = _claim_folder(self._wanted, "results.jsonl", taken=("000001.npy",))
            self._count = 0
            self._folder = _Folder(self._index.path.parent)
            self.files = (str(self._index.path.parent),)
        return self._index


class _Folder:
    """A folder of many complete files, flushed to disk in batches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fresh: list[Path] = []
        self._rhythm = Rhythm()

    def write(self, name: str, data: bytes) -> None:
        write_whole(self.path / name, data)
        self._fresh.append(self.path / name)
        self._rhythm.beat(self.sync)

    def rest(self) -> None:
        if self._fresh:
            self._rhythm.beat(self.sync)

    def sync(self) -> None:
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


def put_together(folder: Path) -> int:
    """Assemble the `panoptic.json` of a folder from its journal, which is removed once the JSON is on disk.

    Returns:
        The number of its images.

    Raises:
        SinkError: it cannot be written; the journal is kept.
    """
    journal, part = _Journal(folder), folder / ".panoptic.json.part"
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(f'{{"categories": {json.dumps(journal.categories)}')
            for key in ("image", "annotation"):
                file.write(f',\n"{key}s": [')
                for index, entry in enumerate(journal):
                    file.write(f"{',' if index else ''}\n{json.dumps(entry[key])}")
                file.write("]")
            file.write("}\n")
            file.flush()
            sync(file.fileno())
        for target in numbered(folder / "panoptic.json"):  # never overwrite one that another program wrote
            if not os.path.lexists(target):
                part.replace(target)
            elif not target.is_file() or not filecmp.cmp(part, target, shallow=False):
                continue
            break
        part.unlink(missing_ok=True)
        sync_folder(folder)
        journal.path.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise SinkError(
            f"{legible(folder)}: panoptic.json: {error.strerror or error}; {JOURNAL} keeps its contents, and the next "
            f"run that writes to coco://{legible(folder)} completes it."
        ) from error
    return sum(journal.good)


class _Journal:
    """The journal of a folder: a line with the categories, then one for each image.

    The last line may be truncated. Lines that PanRT would not write are skipped: a folder may be of any origin.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.categories: list[Any] = []
        self.good = bytearray()  # by entry: whether its PNG is complete
        for line in self._lines():
            self.categories = line.get("categories", self.categories)
        for entry in self._entries():
            self.good.append(_is_whole(folder / "panoptic" / entry["image"]["file_name"]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (entry for entry, good in zip(self._entries(), self.good, strict=True) if good)

    def _entries(self) -> Iterator[dict[str, Any]]:
        return (line for line in self._lines() if "annotation" in line and _is_image(line.get("image")))

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):
                    if isinstance(facts := json.loads(line), dict):
                        yield facts


def _is_image(value: object) -> bool:
    name = value.get("file_name") if isinstance(value, dict) else None
    return isinstance(name, str) and re.fullmatch(r"[0-9]{6,12}\.png", name) is not None


def _is_whole(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), os.SEEK_END)
            return file.read() == _PNG_END
    except OSError:
        return False


def _complete(folder: Path) -> None:
    """Complete the folder of an interrupted run, unless its process still writes there."""
    try:
        descriptor = os.open(folder / JOURNAL, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # no run was interrupted here
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not _lock(descriptor):
            return
        found = os.fstat(descriptor)
        if not found.st_nlink:
            return  # another process was first, and the name now belongs to a new run
        if found.st_size:
            count = put_together(folder)
            LOG.warning("%s: completed the folder of an interrupted run, %d images", legible(folder), count)
        else:  # the run ended before its first entry
            (folder / JOURNAL).unlink(missing_ok=True)
        for part in (folder / "panoptic").glob(".[0-9]*.png.part"):
            part.unlink(missing_ok=True)
    except OSError as error:
        LOG.warning("%s", error)  # new results can be written nevertheless
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file for as long as it is open; return False if another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _claim_folder(wanted: Path, name: str, *, taken: tuple[str, ...]) -> OutputFile:
    """Create the file `name` in the first of `folder`, `folder-2`, ... that has neither it nor one of `taken`."""
    for candidate in _all_folders(wanted):
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


def _all_folders(wanted: Path) -> Iterator[Path]:
    """Yield `folder`, `folder-2`, ...; a dot in its name does not begin a suffix."""
    yield wanted
    named = wanted if wanted.name not in ("", "..") else Path(os.path.abspath(wanted))
    if not named.name:
        raise SinkError(f"{legible(wanted)}: has results; give another folder.")
    number = 2
    while True:
        yield named.with_name(f"{named.name}-{number}")
        number += 1


def _folders(wanted: Path) -> Iterator[Path]:
    """Yield those of `_all_folders` that exist."""
    for candidate in _all_folders(wanted):
        if not os.path.isdir(candidate):  # like Path.is_dir, but False for a name that is too long
            return
        yield candidate


def _line(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode() + b"\n"


def _errno(error: SinkError) -> int | None:
    return error.__cause__.errno if isinstance(error.__cause__, OSError) else None


def _is_finished(error: SinkError) -> bool:
    """Return whether the file can take no more, even with free space and descriptors."""
    return _errno(error) not in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, None)
