"""Images of a program as a source: arrays from an iterable."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.engine.sources.source import Captured, Opening
from panrt.errors import SourceUndecodableError
from panrt.formats.records import shown


def image_frames(images: Iterable[Any], opening: Opening) -> Generator[Captured, None, None]:
    """Yield the images of an iterable, read in the source's thread; repeatedly if the options have `loop`.

    Raises:
        SourceUndecodableError: an item is not an image; the message names it.
    """
    while True:
        count = 0
        for count, image in enumerate(images, start=1):
            if opening.stop.is_set():
                return
            yield Captured(_checked(image, count - 1))
        if count == 0 or not opening.options.loop:
            return


def _checked(image: object, index: int) -> NDArray[np.uint8]:
    """Return a copy of an image, so that the program may reuse its array."""
    if not isinstance(image, np.ndarray):
        found = f"got {shown(image)}"
    elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        found = f"got {image.shape} {image.dtype}"
    else:
        return np.array(image, order="C")
    raise SourceUndecodableError(f"images: number {index}: {found}, expected an array of (H, W, 3) uint8 in BGR.")
