"""Results in a folder in the COCO panoptic format."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import cv2

from panrt.engine.clock import epoch_of
from panrt.engine.results.coco import image_number
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
from panrt.formats.records import legible, line

LOG = logging.getLogger("panrt.sinks")

JOURNAL = ".panrt-journal.jsonl"  # in a coco:// folder that is being written, or whose process was interrupted
SCHEMA = 2  # of `panoptic.json`, as `info.schema`; without one, PNGs had the size of the map
_INFO = {"description": "panoptic segmentation by PanRT", "schema": SCHEMA}
_LONGEST_NAME = 240  # bytes of the name of a PNG
_PNG_END = b"IEND\xaeB`\x82"


class CocoWriter:
    """Writes `panoptic.json` and `panoptic/000001.png`, ... in the COCO panoptic format; frames are numbered from 1.

    The results of image files keep the names, `panoptic/street.png` for street.jpg, and the numbers, 139 for
    000000000139.jpg, as far as these are unique.

    Annotations go to a journal, from which the JSON is assembled at the end: memory does not grow with the stream, and
    the next run completes the folder of an interrupted one. A folder with results is never written to; a new one is
    created instead.
    """

    pending = 0

    def __init__(self, folder: Path, model: ModelFile) -> None:
        self._wanted = folder
        self._categories = [
            {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)} for c in model.categories
        ]
        self._journal: OutputFile | None = None
        self._folder = FileFolder(folder)
        self._numbers = _Numbers()
        self._begun()

    def write(self, item: Item) -> None:
        """Write the PNG of one result, of the frame's size."""
        journal = self._begun()
        file_name = item.result.file_name
        number, name = self._numbers.of(file_name)
        annotation, png = item.result.to_coco(image_id=number, file_name=name)
        # The journal is written first: an entry without its PNG is omitted at the end.
        length = journal.length
        try:
            image = _image(item, number, file_name or name)
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
        self._numbers.take(number, name, is_file=bool(file_name))

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
            self._journal, self._numbers, self._folder = journal, _Numbers(), FileFolder(folder)
            self.files = (str(folder),)
        return self._journal

    def _leave(self) -> None:
        """Complete this folder, so that the next result begins another."""
        with contextlib.suppress(OSError):
            self.close()


def _image(item: Item, number: int, file_name: str) -> dict[str, Any]:
    """Return the entry of an image."""
    (height, width), (map_height, map_width) = item.result.frame_hw, item.result.map_hw
    return {
        "id": number,
        "file_name": file_name,
        "height": height,
        "width": width,
        "map_height": map_height,
        "map_width": map_width,
        "source": item.frame.source,
        "frame_index": item.frame.index,
        "captured_at": item.frame.captured_at,
        "captured_at_epoch": epoch_of(item.frame.captured_at),
    }


class _Numbers:
    """Numbers and names of images in a folder: those of their files, as far as these are unique.

    Only names and numbers of image files are remembered, so that memory does not grow with a video.
    """

    def __init__(self) -> None:
        self._last = 0  # number that was counted
        self._numbers: set[int] = set()  # of image files
        self._stems: set[str] = set()  # of their PNGs

    def of(self, file_name: str) -> tuple[int, str]:
        """Return the number of the next image, and the name of its PNG."""
        number = image_number(file_name)
        if number is None or number <= self._last or number in self._numbers:
            number = self._last + 1
            while number in self._numbers:
                number += 1
        stem, counted = PurePath(file_name).stem, f"{number:06d}"
        is_another = stem.isdecimal() and stem != counted and f"{int(stem):06d}" == stem  # the name of another number
        if is_another or not _is_png_name(f"{stem}.png") or stem in self._stems:
            stem = counted
        return number, f"{stem}.png"

    def take(self, number: int, name: str, *, is_file: bool) -> None:
        """Mark a number and the name of a PNG as used, by an image file or by another frame."""
        if is_file:
            self._numbers.add(number)
            self._stems.add(PurePath(name).stem)
        else:
            self._last = number


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
            file.write(f'{{"info": {json.dumps(_INFO)},\n"categories": {json.dumps(journal.categories)}')
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
        for entry in self._lines():
            self.categories = entry.get("categories", self.categories)
        for entry in self._entries():
            self.good.append(_is_whole(folder / "panoptic" / entry["annotation"]["file_name"]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (entry for entry, good in zip(self._entries(), self.good, strict=True) if good)

    def _entries(self) -> Iterator[dict[str, Any]]:
        return (entry for entry in self._lines() if "image" in entry and _is_annotation(entry.get("annotation")))

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as file:
            for text in file:
                with contextlib.suppress(ValueError, RecursionError):
                    if isinstance(facts := json.loads(text), dict):
                        yield facts


def _is_annotation(value: object) -> bool:
    return isinstance(value, dict) and _is_png_name(value.get("file_name"))


def _is_png_name(name: object) -> bool:
    """Return whether it is the name of a PNG that PanRT writes: of a visible file in the folder itself."""
    if line(name) is None or not isinstance(name, str) or len(name.encode()) > _LONGEST_NAME:
        return False
    return name.endswith(".png") and not name.startswith(".") and "/" not in name


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
        for part in (folder / "panoptic").glob(".*.png.part"):
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
