"""Annotated video, H.264 through PyAV, with the times of the frames as they were.

A video is a chain of fragments of about a second, see `containers`: whatever ends the process, the file plays up to the
last of them. After an error the next frame begins a new file, and the one before plays up to the error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from numpy.typing import NDArray

from panrt.engine.sinks.containers import TICKS, Container, Matroska, Mp4, Sample
from panrt.engine.sinks.drawing import annotated
from panrt.engine.sinks.errors import SinkError
from panrt.engine.sinks.output import OutputFile, claim, make_folder, shown
from panrt.engine.sinks.sink import Item

CODEC = "libx264"
LONGEST_SIDE = 16384  # of H.264 as x264 writes it
_LONGEST_GAP = 10.0  # seconds; a clock that jumps further was set anew
_FRAGMENT = 1.0  # seconds, of the video and of the clock, whichever come first
_FRAGMENT_BYTES = 4 << 20


class VideoWriter:
    """One video for each source: the first in `path`, the second beside it with -2 in its name, and so on."""

    def __init__(
        self,
        path: Path,
        sources: Sequence[str],
        *,
        crf: int,
        preset: str,
        scale: int = 1,
        overwrite: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if CODEC not in av.codecs_available:
            raise SinkError(f"{path}: this PyAV has no H.264 encoder ({CODEC}); install the wheel of av from PyPI.")
        make_folder(path.parent, path)
        self._paths = {
            source: path.with_stem(f"{path.stem}-{number}") if number > 1 else path
            for number, source in enumerate(sources, start=1)
        }
        for wanted in self._paths.values():
            _check_name(wanted)
        self._options = {"crf": str(crf), "preset": preset}
        self._scale = scale
        self._overwrite = overwrite
        self._clock = clock
        self._videos: dict[str, _Video] = {}
        self._files: dict[str, Path] = {}

    @property
    def pending(self) -> int:
        """Frames that wait for their fragment to be whole."""
        return sum(video.pending for video in list(self._videos.values()))

    @property
    def files(self) -> tuple[str, ...]:
        """The newest file of each source."""
        return tuple(map(str, list(self._files.values())))

    def write(self, item: Item) -> None:
        """Encode one frame."""
        source, picture = item.frame.source, annotated(item, scale=self._scale)
        if source not in self._videos:
            self._videos[source] = _Video(
                self._paths[source],
                picture,
                self._options,
                overwrite=self._overwrite and source not in self._files,  # not what was recorded before an error
                avoid=self._paths.values(),
                clock=self._clock,
            )
        video = self._videos[source]
        clock = item.frame.captured_at if item.frame.media_time is None else item.frame.media_time
        try:
            video.write(picture, clock)
        except Exception:
            self._videos.pop(source).drop()
            raise
        self._files[source] = video.path

    def idle(self) -> None:
        """Write fragments that are due although no frame came."""
        for source, video in list(self._videos.items()):
            try:
                video.flush(due=True)
            except Exception:
                self._videos.pop(source).drop()
                raise

    def close(self) -> None:
        """Finish every video."""
        errors = []
        for source in list(self._videos):
            video = self._videos[source]
            try:
                video.close()
            except Exception as error:  # the other videos are to be finished all the same
                errors.append(error)
            finally:
                self._videos.pop(source).drop()
        if errors:
            raise errors[0]


class _Video:
    """One file. Every frame is brought to the size of the first, which is padded to even sides: 4:2:0 needs that."""

    def __init__(
        self,
        path: Path,
        first: NDArray[np.uint8],
        options: dict[str, str],
        *,
        overwrite: bool = False,
        avoid: Collection[Path] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hw = first.shape[0], first.shape[1]
        self._encoder = _encoder(path, self._hw, options)
        self._time_of = clock
        self._clock: float | None = None
        self._gap = 1 / 30  # seconds between the last two frames
        self._time = 0.0
        self._samples: list[Sample] = []
        self._sent = 0  # frames that the encoder was given
        self._flushed = 0
        self._due = clock()  # the first frame goes out at once
        self._container: Container | None = None  # this and the file: from the first packet on
        self._file: OutputFile | None = None
        self._claim = partial(claim, path, overwrite=overwrite, avoid=avoid)
        self.path = path

    @property
    def pending(self) -> int:
        """Frames that are not in the file yet."""
        return self._sent - self._flushed

    def write(self, picture: NDArray[np.uint8], clock: float) -> None:
        height, width = self._hw
        if picture.shape[:2] != self._hw:
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if height % 2 or width % 2:
            padded = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            picture = np.asarray(padded, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts, frame.time_base = round(self._moment(clock) * TICKS), Fraction(1, TICKS)
        self._encode(frame)
        self._sent += 1
        self.flush(due=True)

    def flush(self, *, due: bool = False) -> None:
        """Write what was encoded as a fragment; with `due`, only if it is time."""
        if not self._samples or (due and not self._is_due()):
            return
        if self._file is None or self._container is None:
            self._container = self._begin()
            self._file = self._claim()
            self.path = self._file.path
            self._file.append(self._container.header())
        fragment = self._container.fragment(self._samples, offset=self._file.length)
        self._file.append(fragment.data, seal=fragment.seal)
        self._flushed += len(self._samples)
        self._samples = []
        self._due = self._time_of() + _FRAGMENT

    def close(self) -> None:
        """Write what is left, and what makes the file easier to search."""
        self._encode(None)
        self.flush()
        if self._file is not None and self._container is not None:
            tail, head = self._container.ending(length=self._file.length)
            self._file.append(tail)
            self._file.replace_head(head)
            self._file.close()

    def drop(self) -> None:
        """Leave the file as it is; a file with nothing in it goes."""
        if self._file is not None:
            self._file.drop()

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            packets = self._encoder.encode(frame)
        except FFmpegError as error:
            raise SinkError(f"{shown(self.path)}: H.264: {error.strerror or error}") from error
        self._samples += [Sample(int(packet.pts or 0), bytes(packet), packet.is_keyframe) for packet in packets]

    def _is_due(self) -> bool:
        return (
            self._time_of() >= self._due
            or self._samples[-1].ticks - self._samples[0].ticks >= _FRAGMENT * TICKS
            or sum(len(sample.data) for sample in self._samples) >= _FRAGMENT_BYTES
        )

    def _begin(self) -> Container:
        config = bytes(self._encoder.extradata or b"")
        hw = self._encoder.height, self._encoder.width
        suffix = self.path.suffix.lower()
        return Matroska(hw, config) if suffix == ".mkv" else Mp4(hw, config, quicktime=suffix == ".mov")

    def _moment(self, clock: float) -> float:
        """The time of a frame in the video: as its clock goes, or like the last one where that jumps."""
        if self._clock is not None:
            gap = clock - self._clock
            self._gap = gap if 1e-4 < gap < _LONGEST_GAP else self._gap
            self._time += self._gap
        self._clock = clock
        return self._time


def _encoder(path: Path, hw: tuple[int, int], options: dict[str, str]) -> Any:  # av's stubs name no type for it
    """An encoder that gives a packet for every frame at once, so that no frame is in memory alone for long."""
    height, width = (side + side % 2 for side in hw)
    if max(height, width) > LONGEST_SIDE:
        raise SinkError(
            f"{shown(path)}: a frame of {hw[1]}x{hw[0]} is too large for H.264, whose sides end at {LONGEST_SIDE}; "
            "record it with coco://DIR or npy://DIR."
        )
    encoder: Any = av.CodecContext.create(CODEC, "w")
    encoder.height, encoder.width, encoder.pix_fmt = height, width, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, TICKS), Fraction(30)
    encoder.flags |= Flags.global_header
    encoder.options = {**options, "tune": "zerolatency", "x264-params": "annexb=0"}
    try:
        encoder.open()
    except (FFmpegError, OSError) as error:
        raise SinkError(f"{shown(path)}: H.264 of {width}x{height}: {error.strerror or error}") from error
    return encoder


def _check_name(path: Path) -> None:
    """See now what no retry will mend.

    Raises:
        SinkError: the name is too long, or that of a folder.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SinkError(f"{shown(path)}: cannot be written: {error.strerror}.") from error
    if path.is_dir():
        raise SinkError(f"{shown(path)}: is a folder; expected the name of a file.")
