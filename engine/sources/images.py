"""Images of a program as a source: frames, arrays, tensors and images of Pillow from an iterable."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import numpy as np

from panrt.engine.conversion import ColorOrder, to_bgr
from panrt.engine.frame import Frame
from panrt.engine.sources.source import Captured, Opening
from panrt.errors import FrameError, SourceUndecodableError


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
            yield captured(image, name=f"images: number {count - 1}")
        if count == 0 or not opening.options.loop:
            return


def captured(image: object, *, name: str, pixel_format: ColorOrder = "bgr8") -> Captured:
    """Return a copy of an image, so that the program may reuse its array.

    Args:
        image: a `Frame`, or what `panrt.engine.conversion` converts.
        name: of the image in messages.
        pixel_format: the order of an array's colours.

    Raises:
        SourceUndecodableError: it is not an image.
    """
    if isinstance(image, Frame):
        return Captured(
            np.array(image.image, order="C"),
            image.media_time,
            image.captured_at or None,
            image.pixel_format,
            image.yuv_standard,
            image.file_name,
        )
    try:
        return Captured(np.array(to_bgr(image, pixel_format=pixel_format, name=name), order="C"))
    except FrameError as error:
        raise SourceUndecodableError(str(error)) from error
