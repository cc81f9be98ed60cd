"""Sample frames: for int8 calibration, for the checks of float16 exports, and for comparisons of files.

Shapes: a frame is (H, W, 3) uint8 BGR of any size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from panrt.errors import ExportError, ImageDeniedError, ImageFileError, ImageNotFoundError
from panrt.files import kind_of
from panrt.formats import image_files
from panrt.formats.records import legible
from panrt.formats.video_files import open_video

Frame: TypeAlias = NDArray[np.uint8]

MAX_PIXELS = 8192 * 4320  # of a frame of a clip


def read_frames(path: str | os.PathLike[str], *, limit: int) -> Iterator[Frame]:
    """Return at most `limit` frames, spread evenly over the images of a folder or the frames of a clip, or one image.

    Images are upright and in natural order, hidden files excluded.

    Raises:
        ExportError: there are no images, or one cannot be read; the message names it.
        FileNotFoundError: no such file or folder.
    """
    if limit < 1:
        raise ExportError(f"limit: got {limit}, expected at least 1 frame.")
    path = Path(path)
    name = legible(path)
    try:
        found = image_files.images_in(path) if path.is_dir() else None
        exists = path.exists()
    except (OSError, ValueError) as error:  # no permission, too long a name, a NUL
        raise ExportError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if found is not None:
        if not found:
            raise ExportError(
                f"{name}: no images; expected files that end in {', '.join(sorted(image_files.SUFFIXES))}."
            )
        return (_read_image(found[index]) for index in _spread(len(found), limit))
    if not exists:
        raise FileNotFoundError(f"{name}: no such file or folder.")
    return iter([_read_image(path)]) if image_files.is_image_name(path.name) else _read_clip(path, limit)


def _spread(available: int, limit: int) -> list[int]:
    """Return indices, ascending."""
    count = min(available, limit)
    return [index * available // count for index in range(count)]


def _read_image(path: Path) -> Frame:
    try:
        return image_files.read_image(path)
    except (ImageFileError, ImageNotFoundError, ImageDeniedError) as error:
        raise ExportError(f"{error} Remove it or give another folder.") from error


def _check_kind(path: Path) -> None:
    if (kind := kind_of(path.stat().st_mode)) != "a file":
        raise ExportError(f"{path}: is {kind}, expected an image or a video.")


def _read_clip(path: Path, limit: int) -> Iterator[Frame]:
    _check_kind(path)
    total = sum(1 for _ in _decode(path))  # what a file declares is often wrong: edit lists, dropped frames
    wanted = set(_spread(total, limit))
    for index, frame in enumerate(_decode(path)):
        if index in wanted:
            yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
        if index >= max(wanted):
            return
    if not total:
        raise ExportError(f"{path}: holds no video frames.")


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    """Yield the frames of a file. FFmpeg gets its bytes alone, so that nothing that it names is opened."""
    options = {"protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)}
    try:
        with path.open("rb") as file, open_video(file, options=options) as container:
            if container.streams.video:
                container.streams.video[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
                yield from container.decode(video=0)
    except av.FFmpegError as error:
        raise ExportError(f"{path}: neither an image nor a video that can be read ({error.strerror}).") from error
