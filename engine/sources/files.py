"""Image and video files, read one after the other."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panrt.engine.frame import PixelFormat
from panrt.engine.sources.source import Captured, Opening
from panrt.engine.sources.video import FORMATS, file_frames
from panrt.errors import (
    ImageDeniedError,
    ImageFileError,
    ImageNotFoundError,
    SourceDeniedError,
    SourceError,
    SourceNotFoundError,
    SourceUndecodableError,
)
from panrt.formats import image_files
from panrt.formats.records import legible

IMAGE_SUFFIXES = image_files.SUFFIXES
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})


def frames(paths: Sequence[Path], opening: Opening) -> Generator[Captured, None, None]:
    """Yield the frames of each file in turn; repeatedly if the options have `loop`.

    A damaged file is recorded and does not stop the others, nor the next round.

    Raises:
        SourceError: the only file is damaged, and is not read again.
    """
    opening.files = len(paths)
    while True:
        shown = 0
        for path in paths:
            if opening.stop.is_set():
                return
            try:
                for captured in captures(path, opening):
                    shown += 1
                    yield captured
            except SourceError as error:
                if len(paths) == 1 and not (opening.options.loop and shown):
                    raise
                opening.note(error)
        if not shown or not opening.options.loop:
            return


def captures(path: Path, opening: Opening) -> Generator[Captured, None, None]:
    """Yield the image of a file, or the frames of a video.

    Raises:
        SourceError: it cannot be read, or is damaged.
    """
    if image_files.is_image_name(path.name):
        yield Captured(read_image(path), file_name=legible(path.name))
    else:
        yield from file_frames(path, opening)


def pixel_formats(paths: Sequence[Path]) -> tuple[PixelFormat, ...]:
    """Return the pixel formats in which frames of all these files can be delivered."""
    return ("bgr8",) if any(image_files.is_image_name(path.name) for path in paths) else FORMATS


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image, (H, W, 3) BGR and upright; see `panrt.formats.image_files.read_image`.

    Raises:
        SourceError: the file does not exist, may not be read, or cannot be decoded.
    """
    try:
        return image_files.read_image(path)
    except ImageNotFoundError as error:
        raise SourceNotFoundError(str(error)) from error
    except ImageDeniedError as error:
        raise SourceDeniedError(str(error)) from error
    except ImageFileError as error:
        raise SourceUndecodableError(str(error)) from error


def select(pattern: str) -> tuple[Path, ...]:
    """Return the files that a path, a folder or a glob names, in natural order: 1, 2, 10.

    Hidden files and folders, whose names begin with a dot, match only a pattern that begins with a dot too.

    Raises:
        SourceNotFoundError: no file matches.
        SourceDeniedError: a folder may not be read.
    """
    path = Path(pattern)
    name = legible(pattern)
    try:
        if path.is_dir():
            found = image_files.images_in(path)
            if not found:
                raise SourceNotFoundError(f"{name}: a folder without images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
            return tuple(found)
        if os.path.lexists(path) or not any(letter in pattern for letter in "*?["):
            return (path,)
        found = image_files.in_natural_order(_matching(path))
    except SourceError:
        raise
    except PermissionError as error:
        raise SourceDeniedError(f"{name}: may not be read.") from error
    except (OSError, ValueError, NotImplementedError, RecursionError) as error:  # too long or deep, a NUL, "a**b"
        reason = getattr(error, "strerror", None) or error
        raise SourceNotFoundError(f"{name}: no such file, folder or pattern ({reason}).") from error
    if not found:
        raise SourceNotFoundError(f"{name}: no image or video matches.")
    return tuple(found)


def _matching(pattern: Path) -> list[Path]:
    base = Path(pattern.anchor) if pattern.is_absolute() else Path()
    relative = str(pattern.relative_to(pattern.anchor)) if pattern.is_absolute() else str(pattern)
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    hidden_wanted = any(part.startswith(".") and any(letter in part for letter in "*?[") for part in pattern.parts)
    named = {*pattern.parts, ".."}

    def is_hidden(file: Path) -> bool:
        return not hidden_wanted and any(part.startswith(".") and part not in named for part in file.parts)

    return [
        file
        for file in base.glob(relative)
        if file.suffix.lower() in known and not is_hidden(file) and not file.is_dir()
    ]
