"""Panoptic maps as NumPy arrays in a folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from panrt.engine.sinks.folders import FileFolder, claim_folder
from panrt.engine.sinks.json_lines import json_line, record
from panrt.engine.sinks.output import (
    OutputFile,
    is_finished,
)
from panrt.engine.sinks.sink import Item
from panrt.errors import SinkError


class NumpyWriter:
    """Writes each panoptic map, (h, w) int32, to `000001.npy`, ... and its segments to `results.jsonl`.

    Maps have the size that the network gave them, `map_height` and `map_width`; areas and boxes are in pixels of the
    frame, `height` and `width`.

    A folder with results is never written to; a new one is created instead.
    """

    pending = 0

    def __init__(self, folder: Path) -> None:
        self._wanted = folder
        self._index: OutputFile | None = None
        self._folder = FileFolder(folder)
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
            index.append(json_line({"file": name, **record(item)}))
        except SinkError as error:
            if is_finished(error):
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
            self._index = claim_folder(self._wanted, "results.jsonl", taken=("000001.npy",))
            self._count = 0
            self._folder = FileFolder(self._index.path.parent)
            self.files = (str(self._index.path.parent),)
        return self._index
