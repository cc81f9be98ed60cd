"""Results in a folder in the COCO panoptic format."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from panrt.engine.sinks.folders import FileFolder, claim_folder, existing_folders
from panrt.engine.sinks.json_lines import json_line
from panrt.engine.sinks.output import (
    OutputFile,
    is_finished,
    make_folder,
    numbered,
    sync,
    sync_folder,
)
from panrt.engine.sinks.sink import Item
from panrt.errors import SinkError
from panrt.formats.metadata import ModelFile
from panrt.formats.records import legible

LOG = logging.getLogger("panrt.sinks")

JOURNAL = ".panrt-journal.jsonl"  # in a coco:// folder that is being written, or whose process was interrupted
_PNG_END = b"IEND\xaeB`\x82"


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
        self._folder = FileFolder(folder)
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
        # The journal is written first: an entry without its PNG is omitted at the end.
        length = journal.length
        try:
            journal.append(json_line({"image": image, "annotation": annotation}))
        except SinkError as error:
            if is_finished(error):
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
            for candidate in existing_folders(self._wanted):
                _complete(candidate)
            journal = claim_folder(self._wanted, JOURNAL, taken=("panoptic.json", "panoptic"))
            if not _lock(journal.descriptor) or not os.fstat(journal.descriptor).st_nlink:
                os.close(journal.descriptor)  # another process took it for an abandoned one and removes it
                continue
            folder = journal.path.parent
            try:
                journal.append(json_line({"categories": self._categories}))
                make_folder(folder / "panoptic", folder)
            except SinkError:
                journal.cut(0)
                journal.drop()
                raise
            self._journal, self._count, self._folder = journal, 0, FileFolder(folder)
            self.files = (str(folder),)
        return self._journal

    def _leave(self) -> None:
        """Complete this folder, so that the next result begins another."""
        with contextlib.suppress(OSError):
            self.close()


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
