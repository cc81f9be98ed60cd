"""Annotated video, H.264 through PyAV, with the original times of the frames.

A video consists of fragments of half a second: however the process ends, the file plays up to the last complete one.
FFmpeg writes to memory, from which complete fragments are copied to the file. So FFmpeg never sees a full disk, after
which PyAV would crash the process. After an error the next frame begins a new file; the old one plays up to the error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import PictureType
from numpy.typing import NDArray

from panrt.engine.sinks.drawing import annotated
from panrt.engine.sinks.output import OutputFile, claim, make_folder
from panrt.engine.sinks.sink import Item
from panrt.errors import SinkError
from panrt.formats.records import legible

CODEC = "libx264"
_TICKS = 90_000  # per second
LONGEST_SIDE = 16384  # limit of x264
_LONGEST_GAP = 10.0  # seconds; a larger jump means that the clock was reset
_FRAGMENT = 0.5  # seconds of the video or of the clock, whichever comes first


class _Format(NamedTuple):
    """A container format of FFmpeg, with its options for fragments."""

    name: str
    options: dict[str, str]


_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_FORMATS = {
    ".mp4": _Format("mp4", _FRAGMENTED),
    ".mov": _Format("mov", _FRAGMENTED),
    ".mkv": _Format("matroska", {"cluster_size_limit": "0", "flush_packets": "1"}),  # each frame is a fragment
}


class VideoWriter:
    """Writes one video for each source: the first to `path`, the second to `name-2`, and so on."""

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
        """The number of frames whose fragment is not complete."""
        return sum(video.pending for video in list(self._videos.values()))

    @property
    def files(self) -> tuple[str, ...]:
        """The newest file of each source."""
        writing = {source: video.path for source, video in list(self._videos.items()) if video.begun}
        return tuple(map(str, (self._files | writing).values()))

    def write(self, item: Item) -> None:
        """Encode one frame."""
        source, image = item.frame.source, annotated(item, scale=self._scale)
        if source not in self._videos:
            self._videos[source] = _Video(
                self._paths[source],
                image,
                self._options,
                overwrite=self._overwrite and source not in self._files,  # keep the file of before an error
                avoid=self._paths.values(),
                clock=self._clock,
            )
        video = self._videos[source]
        clock = item.frame.captured_at if item.frame.media_time is None else item.frame.media_time
        try:
            video.write(image, clock)
        except Exception:
            self._drop(source)
            raise

    def idle(self) -> None:
        """Flush to disk if it is due."""
        for source, video in list(self._videos.items()):
            try:
                video.idle()
            except Exception:
                self._drop(source)
                raise

    def close(self) -> None:
        """Finish every video."""
        errors = []
        for source in list(self._videos):
            video = self._videos[source]
            try:
                video.close()
            except Exception as error:  # the other videos must be finished too
                errors.append(error)
            self._drop(source)
        if errors:
            raise errors[0]

    def _drop(self, source: str) -> None:
        video = self._videos.pop(source)
        video.drop()
        if video.begun:
            self._files[source] = video.path


class _Video:
    """One file. Every frame is resized to the first one's size, padded to even sides as 4:2:0 requires."""

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
        self._hw = height, width = first.shape[0], first.shape[1]
        if max(self._hw) > LONGEST_SIDE:
            raise SinkError(
                f"{legible(path)}: a frame of {width}x{height} is too large for H.264, {LONGEST_SIDE} at most; "
                "record it with coco://DIR or npy://DIR."
            )
        self.path = path
        self._now = clock
        self._clock: float | None = None
        self._gap = 1 / 30  # seconds between the last two frames
        self._time = 0.0
        self._sent = self._muxed = self._flushed = 0  # frames
        self._fragment_began: tuple[float, float] | None = None  # in the video, and on the clock
        self._claim = partial(claim, path, overwrite=overwrite, avoid=avoid)
        self._file: OutputFile | None = None  # from the first complete fragment on
        self._memory = _Memory() if path.suffix.lower() == ".mkv" else _Pipe()
        self._header: list[tuple[int, bytes]] = []  # until the first fragment is complete
        form = _FORMATS[path.suffix.lower()]
        self._container = av.open(self._memory, "w", format=form.name, container_options=form.options)  # noqa: TID251
        # Every frame leaves the encoder at once: frames that wait there would be lost with the process.
        stream = self._container.add_stream(CODEC, rate=30, options={**options, "tune": "zerolatency"})
        self._stream = cast(av.VideoStream, stream)
        self._stream.pix_fmt = "yuv420p"
        self._stream.height, self._stream.width = (side + side % 2 for side in self._hw)
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, _TICKS)

    @property
    def begun(self) -> bool:
        """Whether the file at `path` exists and has content."""
        return self._file is not None and self._file.length > 0

    @property
    def pending(self) -> int:
        """The number of frames that are not in the file yet."""
        return self._sent - self._flushed

    def write(self, image: NDArray[np.uint8], clock: float) -> None:
        """Encode a frame, and write the fragment before it if that is long enough."""
        height, width = self._hw
        if image.shape[:2] != self._hw:
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if height % 2 or width % 2:
            padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            image = np.asarray(padded, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
        moment = self._moment(clock)
        frame.pts, frame.time_base = round(moment * _TICKS), Fraction(1, _TICKS)
        if self._is_due(moment):  # a key frame ends the fragment before it
            frame.pict_type = PictureType.I
            self._fragment_began = moment, self._now()
        self._encode(frame)
        self._sent += 1

    def idle(self) -> None:
        """Flush to disk if it is due."""
        if self._file is not None:
            self._file.rest()

    def close(self) -> None:
        """Write the remaining frames and the index for seeking."""
        self._encode(None)
        self._container.close()
        if self._muxed:
            self._flush(self._sent)
        if self._file is not None:
            self._file.close()

    def drop(self) -> None:
        """Close the file without further frames, and remove it if it is empty."""
        with suppress(FFmpegError):
            self._container.close()  # into memory
        if self._file is not None:
            self._file.drop()

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
                self._muxed += 1
                if self._muxed == 1:
                    self._header, self._memory.pieces = self._memory.pieces, []
                self._flush(self._muxed - 1)  # a muxer writes a fragment when the frame after it comes
        except FFmpegError as error:
            raise SinkError(f"{legible(self.path)}: H.264: {error.strerror or error}") from error

    def _flush(self, frames: int) -> None:
        """Write the output of the muxer, if any; afterwards this many frames are in the file."""
        if not self._memory.pieces:
            return
        pieces = self._header + self._memory.pieces
        self._header, self._memory.pieces = [], []
        if self._file is None:
            self._file = self._claim()
            self.path = self._file.path
        data = bytearray()
        patches: list[tuple[int, bytes]] = []
        for position, piece in pieces:
            if position == self._file.length + len(data):
                data += piece
            else:
                patches.append((position, piece))
        start = max(data.find(b"moof") - 4, 0) if data[4:8] == b"ftyp" else 0  # end of the header
        if start:
            self._file.append(bytes(data[:start]))
        rest = bytes(data[start:])
        if rest[4:8] == b"moof":  # hidden until it is complete: players reject a truncated fragment
            self._file.append(rest[:4] + b"free" + rest[8:], seal=rest[:8])
        else:
            self._file.append(rest)
        for position, piece in patches:
            self._file.patch(position, piece)
        self._flushed = frames

    def _is_due(self, moment: float) -> bool:
        began = self._fragment_began
        return began is None or moment - began[0] >= _FRAGMENT or self._now() - began[1] >= _FRAGMENT

    def _moment(self, clock: float) -> float:
        """Return the time of a frame in the video: by its clock, or by the last interval if that jumps."""
        if self._clock is not None:
            gap = clock - self._clock
            self._gap = gap if 1e-4 < gap < _LONGEST_GAP else self._gap
            self._time += self._gap
        self._clock = clock
        return self._time


class _Pipe:
    """The output of a muxer, in memory; without `seek`, so that the muxer only appends."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []  # position, bytes
        self._position = 0

    def write(self, data: bytes) -> int:
        self.pieces.append((self._position, bytes(data)))
        self._position += len(data)
        return len(data)


class _Memory(_Pipe):
    """The output of a muxer that seeks back to fill in lengths."""

    def __init__(self) -> None:
        super().__init__()
        self._length = 0

    def write(self, data: bytes) -> int:
        super().write(data)
        self._length = max(self._length, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position


def _check_name(path: Path) -> None:
    """Check a name for errors that no retry would fix.

    Raises:
        SinkError: the name is too long, or is a folder.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SinkError(f"{legible(path)}: cannot be written: {error.strerror}.") from error
    if path.is_dir():
        raise SinkError(f"{legible(path)}: is a folder; expected the name of a file.")
