"""Sample frames: what an int8 export is calibrated on, what a float16 export is checked on, what files are compared on.

Shapes: a frame is (H, W, 3) uint8 BGR of any size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from panrt.export.errors import ExportError
from panrt.files import kind_of

Frame: TypeAlias = NDArray[np.uint8]

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def read_frames(path: str | os.PathLike[str], *, limit: int) -> Iterator[Frame]:
    """At most `limit` frames, spread evenly over the images of a folder or the frames of a clip; one image is one.

    Raises:
        ExportError: there are no images, or one cannot be read; the message names it.
        FileNotFoundError: no such file or folder.
    """
    if limit < 1:
        raise ExportError(f"limit: got {limit}, expected at least 1 frame.")
    path = Path(path)
    if path.is_dir():
        images = sorted(entry for entry in path.iterdir() if _is_image(entry))
        if not images:
            raise ExportError(f"{path}: no images; expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}.")
        return (_read_image(images[index]) for index in _spread(len(images), limit))
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    return iter([_read_image(path)]) if path.suffix.lower() in IMAGE_SUFFIXES else _read_clip(path, limit)


def _is_image(path: Path) -> bool:
    """By its name; hidden files are none, such as the `._a.jpg` that a Mac leaves beside `a.jpg`."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _spread(available: int, limit: int) -> list[int]:
    """Indices, ascending."""
    count = min(available, limit)
    return [index * available // count for index in range(count)]


def _read_image(path: Path) -> Frame:
    _check_kind(path)
    try:
        frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:  # of more pixels than OpenCV takes
        frame = None
    if frame is None:
        raise ExportError(f"{path}: not an image, or a damaged one; remove it or give another folder.")
    return np.asarray(frame, np.uint8)


def _check_kind(path: Path) -> None:
    if (kind := kind_of(path.stat().st_mode)) != "a file":
        raise ExportError(f"{path}: is {kind}, expected an image or a video.")


def _read_clip(path: Path, limit: int) -> Iterator[Frame]:
    found = 0
    _check_kind(path)
    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            total = container.streams.video[0].frames if container.streams.video else 0  # 0: the file does not say
            wanted = set(_spread(total, limit)) if total else set(range(limit))
            for index, frame in enumerate(container.decode(video=0) if container.streams.video else ()):
                if index in wanted:
                    found += 1
                    yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
                if index >= max(wanted):
                    break
    except av.FFmpegError as error:
        raise ExportError(f"{path}: neither an image nor a video that can be read ({error.strerror}).") from error
    if not found:
        raise ExportError(f"{path}: holds no video frames.")
