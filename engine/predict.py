"""Images of any kind through a model, one after the other.

Shapes: H x W pixels of an image.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from panrt.engine.conversion import COLOR_ORDERS, ColorOrder
from panrt.engine.frame import Frame
from panrt.engine.load import load
from panrt.engine.pipeline import Stream, stream
from panrt.engine.pixel_formats import bgr
from panrt.engine.results.result import PanopticResult
from panrt.engine.session import Session
from panrt.engine.sinks.open import SinkTarget
from panrt.engine.sources import files, images
from panrt.engine.sources.open import parse
from panrt.engine.sources.source import Captured, Opening, SourceOptions, Spec
from panrt.engine.sources.web_images import fetch_image
from panrt.engine.uri import Uri, split
from panrt.errors import SourceError, UnknownSourceError
from panrt.formats.records import shown

Entry: TypeAlias = "Path | Uri | Spec | Any"  # a file, an address, another source, or an image


class Prediction(NamedTuple):
    """An image and its result."""

    image: NDArray[np.uint8]  # (H, W, 3) BGR
    result: PanopticResult

    def overlay(self) -> NDArray[np.uint8]:
        """Return the image with its segments drawn over it, (H, W, 3) BGR."""
        return self.result.overlay(self.image)


class Predictions(Iterator[Prediction]):
    """The predictions of images, computed as they are taken. Closed at its end, or by `close` or a `with` block."""

    def __init__(self, stream: Stream, session: Session | None) -> None:
        """Iterate over a stream; a session that is given is closed with it."""
        self.stream = stream
        self._steps = stream.pairs()
        self._session = session

    def __next__(self) -> Prediction:
        try:
            item = next(self._steps)
        except BaseException:
            self.close()
            raise
        return Prediction(bgr(item.frame), item.result)

    def close(self) -> None:
        """Stop, complete what sinks write, and close the session unless the caller opened it. Idempotent."""
        self.stream.close()
        if self._session is not None:
            self._session.close()

    def __enter__(self) -> Predictions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def predict(
    source: object,
    model: str | os.PathLike[str] | Session,
    *,
    pixel_format: ColorOrder = "bgr8",
    sinks: SinkTarget | Sequence[SinkTarget] = (),
    timeout: float = 10.0,
    **options: Any,
) -> Predictions:
    """Segment images: `for image, result in panrt.predict("photos/", "tabletop"): ...`.

    Args:
        source: a path, folder, glob or http(s) address; an array, tensor, image of Pillow or `Frame`, see
            `panrt.engine.conversion`; or several of these, in a list or another iterable, such as a generator.
        model: as `panrt.load` takes it, or an open session, which is left open.
        pixel_format: the order of colours in arrays, "bgr8" or "rgb8".
        sinks: where results are written, as for `panrt.stream`; "images://DIR" writes annotated images.
        timeout: seconds that a server may stay silent.
        options: of `panrt.load`, such as backend and input_hw.

    Raises:
        SourceError, UnknownSourceError, TypeError: the source is invalid; raised by a step for items of an iterable. A
            file that cannot be read does not stop the others, and its error is raised at the end.
        ModelFileError, FileNotFoundError, ValueError, ...: as `panrt.load` and `panrt.stream` do.
    """
    if pixel_format not in COLOR_ORDERS:
        raise ValueError(f"pixel_format: got {pixel_format!r}, expected {' or '.join(COLOR_ORDERS)}.")
    entries = _entries(source)
    known = entries if isinstance(entries, list) else []
    reads = tuple(entry for entry in known if isinstance(entry, Path))

    def read(opening: Opening) -> Generator[Captured, None, None]:
        opening.files = len(known) or opening.files
        for number, entry in enumerate(entries):
            if opening.stop.is_set():
                return
            try:
                yield from _captures(entry, opening, number, pixel_format)
            except SourceError as error:
                if len(known) == 1:
                    raise
                opening.note(error)

    session = model if not isinstance(model, (str, os.PathLike)) else load(model, **options)
    own = session if session is not model else None
    try:
        spec = Spec("images", read, live=False, reads=reads)
        running = stream(
            spec, session, sinks=sinks, options=SourceOptions(policy="block", timeout=timeout), tracker=None
        )
    except BaseException:
        if own is not None:
            own.close()
        raise
    return Predictions(running, own)


def _entries(source: object) -> list[Entry] | Iterator[Entry]:
    """Return what a source consists of: a list, or an iterator over an iterable that is read as it goes."""
    if isinstance(source, str):
        return _named(source)
    if isinstance(source, os.PathLike):
        return list(files.select(os.fsdecode(source)))
    if isinstance(source, (list, tuple)):
        return [entry for each in source for entry in _entries(each)]
    if isinstance(source, Frame) or _is_image(source):
        return [source]
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, Mapping)):
        return (entry for each in source for entry in _entries(each))
    raise TypeError(f"source: got {shown(source)}, expected a path or address, an image, or several of these.")


def _is_image(source: object) -> bool:
    """Return whether it is one image, and no batch of them."""
    is_array = hasattr(source, "__array__") or hasattr(source, "__array_interface__")
    return is_array and getattr(source, "ndim", 3) != 4


def _named(text: str) -> list[Entry]:
    """Return what a path, a glob or a URI names."""
    uri = split(text)
    is_video = uri is not None and Path(uri.path).suffix.lower() in files.VIDEO_SUFFIXES
    if uri is not None and uri.scheme in ("http", "https") and not is_video:
        return [uri]
    if uri is None and text and not text.startswith("/dev/"):
        return list(files.select(text))
    spec = parse(text)
    if spec.live:
        raise UnknownSourceError(f"{spec.uri}: is a live source, expected images; use panrt run or panrt.stream.")
    return [spec]


def _captures(entry: Entry, opening: Opening, number: int, pixel_format: ColorOrder) -> Generator[Captured, None, None]:
    if isinstance(entry, Path):
        yield from files.captures(entry, opening)
    elif isinstance(entry, Uri):
        yield fetch_image(entry, timeout=opening.options.timeout)
    elif isinstance(entry, Spec):
        yield from entry.reader(opening)
    else:
        yield images.captured(entry, name=f"images: number {number}", pixel_format=pixel_format)
