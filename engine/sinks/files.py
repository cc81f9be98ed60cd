"""Results in files: JSON lines, a folder in the COCO panoptic format, NumPy arrays."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Any, cast

import cv2
import numpy as np

from panrt.engine.sinks.errors import SinkError
from panrt.engine.sinks.sink import Item
from panrt.engine.sinks.video import check_folder
from panrt.model_file import ModelFile


def record(item: Item) -> dict[str, Any]:
    """A result as plain data, without its map."""
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
    """A line of JSON for each result; to standard output where there is no path."""

    def __init__(self, path: Path | None) -> None:
        self._file: IO[str]
        if path is None:
            self._file = sys.stdout
        else:
            check_folder(path.parent, path)
            self._file = _open_text(path)
        self._owned = path is not None

    def write(self, item: Item) -> None:
        """Write one line, out at once: whoever follows the file sees it."""
        self._file.write(json.dumps(record(item), separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._owned:
            self._file.close()


class CocoWriter:
    """`panoptic.json` and `panoptic/000001.png`, ... as the COCO panoptic format has it; images are numbered from 1.

    Annotations are kept on disk until the end, when the JSON is put together: a long stream needs no memory.
    """

    def __init__(self, folder: Path, model: ModelFile) -> None:
        self._folder = folder
        self._pictures = folder / "panoptic"
        check_folder(self._pictures, folder)
        self._model = model
        self._count = 0
        self._images = _open_text(folder / ".images.jsonl", "w+")
        self._annotations = _open_text(folder / ".annotations.jsonl", "w+")

    def write(self, item: Item) -> None:
        """Write the PNG of one result."""
        number = self._count + 1
        name = f"{number:06d}.png"
        annotation, png = item.result.to_coco(image_id=number, file_name=name)
        if not cv2.imwrite(str(self._pictures / name), png):
            raise SinkError(f"{self._pictures / name}: could not be written; is the disk full?")
        height, width = png.shape[:2]
        image = {"id": number, "file_name": name, "height": height, "width": width}
        image |= {"source": item.frame.source, "frame_index": item.frame.index}
        self._images.write(json.dumps(image) + "\n")
        self._annotations.write(json.dumps(annotation) + "\n")
        self._images.flush()
        self._annotations.flush()
        self._count = number

    def close(self) -> None:
        """Put `panoptic.json` together."""
        categories = [
            {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
            for c in (*self._model.things, *self._model.stuff)
        ]
        with _open_text(self._folder / "panoptic.json") as file:
            file.write(f'{{"categories": {json.dumps(categories)}')
            for key, lines in (("images", self._images), ("annotations", self._annotations)):
                file.write(f',\n"{key}": [')
                lines.seek(0)
                for index, line in enumerate(lines):
                    file.write(f"{',' if index else ''}\n{line.rstrip()}")
                file.write("]")
                lines.close()
                Path(lines.name).unlink()
            file.write("}\n")


class NumpyWriter:
    """`000001.npy`, ...: the panoptic map of each result, (H, W) int32; `results.jsonl` says what is in them."""

    def __init__(self, folder: Path) -> None:
        check_folder(folder, folder)
        self._folder = folder
        self._count = 0
        self._index = _open_text(folder / "results.jsonl")

    def write(self, item: Item) -> None:
        """Write one array and its line."""
        name = f"{self._count + 1:06d}.npy"
        np.save(self._folder / name, item.result.panoptic, allow_pickle=False)
        self._index.write(json.dumps({"file": name, **record(item)}) + "\n")
        self._index.flush()
        self._count += 1

    def close(self) -> None:
        """Close the index."""
        self._index.close()


def _open_text(path: Path, mode: str = "w") -> IO[str]:
    try:
        return cast("IO[str]", path.open(mode, encoding="utf-8"))
    except OSError as error:
        raise SinkError(f"{path}: cannot be written: {error.strerror}.") from error
