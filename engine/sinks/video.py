"""Annotated video, H.264 through PyAV, with the times of the frames as they were."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from panrt.engine.sinks.drawing import annotated
from panrt.engine.sinks.errors import SinkError
from panrt.engine.sinks.sink import Item

CODEC = "libx264"
_TICKS = 90_000  # a second
_LONGEST_GAP = 10.0  # seconds; a clock that jumps further was set anew


class VideoWriter:
    """One video for each source: the first in `path`, the second beside it with -2 in its name, and so on."""

    def __init__(self, path: Path, sources: Sequence[str], *, crf: int, preset: str, scale: int = 1) -> None:
        if CODEC not in av.codecs_available:
            raise SinkError(f"{path}: this PyAV has no H.264 encoder ({CODEC}); install the wheel of av from PyPI.")
        check_folder(path.parent, path)
        self._paths = {
            source: path.with_stem(f"{path.stem}-{number}") if number > 1 else path
            for number, source in enumerate(sources, start=1)
        }
        self._options = {"crf": str(crf), "preset": preset}
        self._scale = scale
        self._videos: dict[str, _Video] = {}

    def write(self, item: Item) -> None:
        """Encode one frame."""
        source, picture = item.frame.source, annotated(item, scale=self._scale)
        if source not in self._videos:
            self._videos[source] = _Video(self._paths[source], picture, self._options)
        clock = item.frame.captured_at if item.frame.media_time is None else item.frame.media_time
        self._videos[source].write(picture, clock)

    def close(self) -> None:
        """Finish every video."""
        for video in self._videos.values():
            video.close()


class _Video:
    """One file. Every frame is brought to the size of the first, which is padded to even sides: 4:2:0 needs that."""

    def __init__(self, path: Path, first: NDArray[np.uint8], options: dict[str, str]) -> None:
        self._path = path
        self._hw = first.shape[0], first.shape[1]
        self._clock: float | None = None
        self._gap = 1 / 30  # seconds between the last two frames
        self._time = 0.0
        try:
            self._container = av.open(str(path), "w")
            stream = self._container.add_stream(CODEC, rate=30, options=options)
        except (FFmpegError, OSError) as error:
            raise SinkError(f"{path}: {error.strerror or error}") from error
        self._stream = cast(av.VideoStream, stream)
        self._stream.pix_fmt = "yuv420p"
        self._stream.height, self._stream.width = (side + side % 2 for side in self._hw)
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, _TICKS)

    def write(self, picture: NDArray[np.uint8], clock: float) -> None:
        height, width = self._hw
        if picture.shape[:2] != self._hw:
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if height % 2 or width % 2:
            padded = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            picture = np.asarray(padded, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts, frame.time_base = round(self._moment(clock) * _TICKS), Fraction(1, _TICKS)
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def _moment(self, clock: float) -> float:
        """The time of a frame in the video: as its clock goes, or like the last one where that jumps."""
        if self._clock is not None:
            gap = clock - self._clock
            self._gap = gap if 1e-4 < gap < _LONGEST_GAP else self._gap
            self._time += self._gap
        self._clock = clock
        return self._time

    def close(self) -> None:
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()


def check_folder(folder: Path, target: Path) -> None:
    """Make the folder, so that what is wrong with it shows now.

    Raises:
        SinkError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"{target}: {folder} cannot be made: {error.strerror}.") from error
