"""Images that a program has, as a source: arrays from an iterable."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.engine.sources.source import Opening, Picture
from panrt.errors import SourceUndecodableError
from panrt.formats.records import shown


def image_pictures(images: Iterable[Any], opening: Opening) -> Generator[Picture, None, None]:
    """The images of an iterable, which is read in the thread of the source, once; again where the options say `loop`.

    Raises:
        SourceUndecodableError: an item is no image; the message says which.
    """
    while True:
        count = 0
        for count, image in enumerate(images, start=1):
            if opening.stop.is_set():
                return
            yield Picture(_checked(image, count - 1))
        if count == 0 or not opening.options.loop:
            return


def _checked(image: object, index: int) -> NDArray[np.uint8]:
    """A copy of an image, so that the program may fill its array anew."""
    if not isinstance(image, np.ndarray):
        found = f"got {shown(image)}"
    elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        found = f"got {image.shape} {image.dtype}"
    else:
        return np.array(image, order="C")
    raise SourceUndecodableError(f"images: number {index}: {found}, expected an array of (H, W, 3) uint8 in BGR.")
