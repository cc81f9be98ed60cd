"""Files of pictures and video, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from panrt.engine.frame import PixelFormat
from panrt.engine.sources.errors import SourceDeniedError, SourceError, SourceNotFoundError, SourceUndecodableError
from panrt.engine.sources.source import Opening, Picture
from panrt.engine.sources.video import FORMATS, file_pictures

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})


def pictures(paths: Sequence[Path], opening: Opening) -> Generator[Picture, None, None]:
    """The pictures of every file in turn, again and again where the options say `loop`.

    A file that is damaged does not stop the others, nor the next round; it is noted.

    Raises:
        SourceError: it is the only file, and not to be read again.
    """
    while True:
        shown = 0
        for path in paths:
            if opening.stop.is_set():
                return
            try:
                for picture in _pictures(path, opening):
                    shown += 1
                    yield picture
            except SourceError as error:
                if len(paths) == 1 and not (opening.options.loop and shown):
                    raise
                opening.note(error)
        if not shown or not opening.options.loop:
            return


def _pictures(path: Path, opening: Opening) -> Generator[Picture, None, None]:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        yield Picture(read_image(path))
    else:
        yield from file_pictures(path, opening)


def pixel_formats(paths: Sequence[Path]) -> tuple[PixelFormat, ...]:
    """What frames of all these files can be handed over in."""
    return ("bgr8",) if any(path.suffix.lower() in IMAGE_SUFFIXES for path in paths) else FORMATS


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) BGR; grey pictures get three equal channels, 16 bits become 8, transparency is dropped.

    Raises:
        SourceError: there is no such file, it may not be read, or it does not decode.
    """
    data = _check(path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceUndecodableError(f"{path}: not a picture that OpenCV can read, or one that is damaged.")
    return np.asarray(image, np.uint8)


def _check(path: Path) -> bytes:
    """The content of a file that exists and is not empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{path}: no such file.") from error
    except PermissionError as error:
        raise SourceDeniedError(f"{path}: may not be read.") from error
    if not data:
        raise SourceUndecodableError(f"{path}: the file is empty.")
    return data


def select(pattern: str) -> tuple[Path, ...]:
    """The files that a path, a folder or a glob means, in order of their names.

    Raises:
        SourceNotFoundError: there are none.
    """
    path = Path(pattern)
    if path.is_dir():
        found = tuple(sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES))
        if not found:
            raise SourceNotFoundError(f"{path}: a folder without pictures ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        return found
    if path.exists() or not any(letter in pattern for letter in "*?["):
        return (path,)
    base = Path(path.anchor) if path.is_absolute() else Path()
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    relative = str(path.relative_to(path.anchor)) if path.is_absolute() else pattern
    found = tuple(sorted(file for file in base.glob(relative) if file.suffix.lower() in known))
    if not found:
        raise SourceNotFoundError(f"{pattern}: no picture or video matches.")
    return found
