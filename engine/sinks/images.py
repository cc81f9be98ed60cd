"""Results as image files: annotated frames, or their segment IDs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from panrt.engine.sinks.drawing import annotated
from panrt.engine.sinks.output import make_folder, numbered, write_whole
from panrt.engine.sinks.sink import Item
from panrt.errors import SinkError
from panrt.formats.records import legible

Render = Callable[[Item], NDArray[Any]]


def render_ids(item: Item) -> NDArray[np.uint16]:
    """Return the segment ID of each pixel of the frame, (H, W).

    Raises:
        SinkError: an ID needs more than 16 bits.
    """
    ids = item.result.ids()
    if ids.max(initial=0) > np.iinfo(np.uint16).max:
        raise SinkError(f"masks: got the segment ID {ids.max()}, expected at most 65535; use npy://DIR.")
    return ids.astype(np.uint16)


def render_overlay(item: Item) -> NDArray[np.uint8]:
    """Return the frame with its segments drawn over it, (H, W, 3) BGR."""
    return annotated(item)


class ImageWriter:
    """Writes each result to an image file of its own: `out.jpg`, then `out-2.jpg`, ...

    An existing file is kept, and the next number taken. With `overwrite` the first result replaces `out.jpg`.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        make_folder(path.parent, path)
        self._names, self._suffix, self._overwrite = numbered(path), path.suffix, overwrite
        self.files: tuple[str, ...] = ()

    def write(self, item: Item) -> None:
        """Write one image."""
        path = _publish(self._names, _encode(render_overlay(item), self._suffix), overwrite=self._overwrite)
        self.files, self._overwrite = (str(path),), False

    def close(self) -> None:
        """Do nothing: every file is complete."""


class ImageFolderWriter:
    """Writes each result to an image in a folder, by the name of its file: `street.jpg`; else 000001.jpg, ..."""

    def __init__(self, folder: Path, render: Render, *, suffix: str, overwrite: bool = False) -> None:
        make_folder(folder, folder)
        self._folder, self._render, self._suffix, self._overwrite = folder, render, suffix, overwrite
        self._count = 0
        self._written: set[str] = set()  # names of image files, which an overwriting run replaces once
        self.files = (str(folder),)

    def write(self, item: Item) -> None:
        """Write one image."""
        self._count += 1
        stem = PurePath(item.result.file_name).stem
        name = (stem if stem and not stem.startswith(".") else f"{self._count:06d}") + self._suffix
        data = _encode(self._render(item), self._suffix)
        _publish(numbered(self._folder / name), data, overwrite=self._overwrite and name not in self._written)
        if item.result.file_name:
            self._written.add(name)

    def close(self) -> None:
        """Do nothing: every file is complete."""


def _encode(image: NDArray[Any], suffix: str) -> bytes:
    try:
        good, data = cv2.imencode(suffix, image)
    except cv2.error:  # its text names only OpenCV's source files
        good, data = False, np.zeros(0, np.uint8)
    if not good:
        raise SinkError(f"a frame of {image.shape[1]}x{image.shape[0]} cannot be encoded as {suffix}; use .png.")
    return data.tobytes()


def _publish(names: Iterator[Path], data: bytes, *, overwrite: bool) -> Path:
    """Write a complete file under the first name that does not exist, or under the first name; return it."""
    path = next(names)
    if overwrite:
        write_whole(path, data)
        return path
    part = path.with_name(f".{path.name}.{os.getpid()}.new")
    write_whole(part, data)
    try:
        while True:
            with contextlib.suppress(FileExistsError):
                os.link(part, path)  # never replaces a file
                return path
            path = next(names)
    except OSError as error:
        raise SinkError(f"{legible(path)}: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)
