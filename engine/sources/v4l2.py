"""USB cameras and other V4L2 devices, through FFmpeg: MJPG, YUYV, NV12 and their other formats.

FFmpeg returns views of the driver's memory, which is unmapped when the device is closed. So the bytes of a frame are
copied once, as soon as they arrive; in the camera's own pixel format no other work is done.

Shapes: H x W pixels of a frame.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from panrt.engine.frame import Frame, PixelFormat
from panrt.engine.pixel_formats import bgr
from panrt.engine.sources.buffers import Buffers
from panrt.engine.sources.source import Captured, Opening
from panrt.engine.sources.video import pixels, video_stream
from panrt.errors import SourceDeniedError, SourceError, SourceNotFoundError, SourceRefusedError, SourceTimeoutError
from panrt.formats.records import legible
from panrt.formats.video_files import open_video

FORMATS: tuple[PixelFormat, ...] = ("bgr8", "nv12", "yuyv")
# Formats that a camera may be asked for: V4L2's name -> FFmpeg's name.
FOURCCS = {
    "MJPG": "mjpeg",
    "YUYV": "yuyv422",
    "NV12": "nv12",
    "UYVY": "uyvy422",
    "GREY": "gray",
    "YU12": "yuv420p",
    "RGB3": "rgb24",
    "BGR3": "bgr24",
}
# Formats that give a pixel format; the first is requested if the URI names none. "bgr8" is made from any format.
_SOURCES: dict[PixelFormat, tuple[str, ...]] = {"nv12": ("NV12", "MJPG"), "yuyv": ("YUYV",)}
# The pixel format that needs no conversion or, for MJPG, is nearest to the output of its decoder.
NATIVE: dict[str, PixelFormat] = {"NV12": "nv12", "MJPG": "nv12", "YUYV": "yuyv"}
_RAW: dict[str, PixelFormat] = {"yuyv422": "yuyv", "nv12": "nv12"}  # by FFmpeg's name
_NONBLOCK = "+4"  # AVFMT_FLAG_NONBLOCK, so that a silent camera does not block its reader forever
_POLL = 0.002  # seconds
_OLDEST = 10.0  # seconds; an older frame means that the driver uses another clock


@dataclass(frozen=True, kw_only=True)
class V4l2Options:
    """The mode to request from a camera; 0 or "" leaves the choice to the camera."""

    width: int = 0  # set together with the height
    height: int = 0
    fps: int = 0
    fourcc: str = ""  # one of `FOURCCS`: many USB cameras are fast in MJPG only


class Device(NamedTuple):
    """A V4L2 device of this machine."""

    path: Path
    name: str  # by its driver
    is_open_to_us: bool

    @property
    def is_csi(self) -> bool:
        """Whether it is the sensor of a Jetson's CSI camera, which delivers raw Bayer data through V4L2."""
        return self.name.startswith("vi-output")


def devices(root: Path = Path("/")) -> tuple[Device, ...]:
    """Return the V4L2 devices of this machine, in order of their numbers."""
    found = []
    for path in sorted((root / "dev").glob("video[0-9]*"), key=lambda path: (len(path.name), path.name)):
        try:
            name = (root / "sys/class/video4linux" / path.name / "name").read_text(errors="replace")
        except OSError:
            name = ""
        found.append(Device(path, legible(name.strip()), os.access(path, os.R_OK | os.W_OK)))
    return tuple(found)


def v4l2_frames(device: str, uri: str, camera: V4l2Options, opening: Opening) -> Generator[Captured, None, None]:
    """Yield the frames of a V4L2 device, named by its path, until it is lost.

    Raises:
        SourceError: it does not support the requested mode, or delivers no more frames.
    """
    fourcc = _fourcc(uri, camera, opening.options.pixel_format)
    options = {"fflags": _NONBLOCK}
    if fourcc:
        options["input_format"] = FOURCCS[fourcc]  # FFmpeg takes another if the camera lacks this one
    if camera.width:
        options["video_size"] = f"{camera.width}x{camera.height}"
    if camera.fps:
        options["framerate"] = str(camera.fps)
    yield from captured_frames(device, uri, "v4l2", options, opening, fourcc)


def captured_frames(
    file: object, uri: str, demuxer: str, options: Mapping[str, str], opening: Opening, fourcc: str = ""
) -> Generator[Captured, None, None]:
    """Yield frames from a demuxer of FFmpeg.

    Args:
        file: its input.
        uri: its name in messages.
        demuxer: "v4l2", or another whose packets are frames.
        options: of the demuxer.
        opening: of the source.
        fourcc: required format, one of `FOURCCS`; "" for any.

    Raises:
        SourceError: see `v4l2_frames`.
    """
    timeout = opening.options.timeout
    try:
        container = open_video(
            file, format=demuxer, options={**options, "fpsprobesize": "0"}, timeout=(timeout, timeout)
        )
    except (FFmpegError, OSError) as error:
        raise _typed(error, uri, timeout) from error
    with closing(container):
        stream = video_stream(container, uri)
        stream.thread_type = "SLICE"  # threads over frames would hold back one each
        given = _format(stream)
        if fourcc and given != FOURCCS[fourcc]:
            found = next((name for name, known in FOURCCS.items() if known == given), given)
            raise SourceError(
                f"{uri}: the camera delivers {found} instead of {fourcc}; choose another pixel format or fourcc "
                "of those that v4l2-ctl --list-formats-ext shows."
            )
        camera = _Camera(container, stream, uri, opening)
        while (raw := camera.read()) is not None:
            captured = camera.convert(raw)
            if captured is not None:
                yield captured


class _RawFrame(NamedTuple):
    """A frame as the driver delivered it, copied from its buffer."""

    data: NDArray[np.uint8]
    at: float  # seconds of the clock
    media_time: float | None
    is_damaged: bool


class _Camera:
    """An open device."""

    def __init__(
        self, container: av.container.InputContainer, stream: av.VideoStream, uri: str, opening: Opening
    ) -> None:
        self._container, self._stream, self._uri, self._opening = container, stream, uri, opening
        self._wanted = opening.options.pixel_format
        codec = stream.codec_context
        self._raw = _RAW.get(_format(stream))
        height, width = codec.height, codec.width
        shapes = {"yuyv": (height, width, 2), "nv12": (height * 3 // 2, width)}
        self._shape = shapes[self._raw] if self._raw is not None else ()
        self._buffers = Buffers()
        self._reformatter = VideoReformatter()

    def read(self) -> _RawFrame | None:
        """Wait for a frame; return None at the end, or when the source is stopped."""
        opening, timeout = self._opening, self._opening.options.timeout
        begun = opening.clock.now()
        while not opening.stop.is_set():
            try:
                return self._next()
            except BlockingIOError:  # no frame yet
                if opening.clock.now() - begun > timeout:
                    raise SourceTimeoutError(f"{self._uri}: no data for {timeout:g} s.") from None
                opening.clock.wait(opening.stop, _POLL)
            except (FFmpegError, OSError) as error:
                raise _typed(error, self._uri, timeout) from error
        return None

    def convert(self, raw: _RawFrame) -> Captured | None:
        """Return a frame in the requested pixel format; count a damaged one and return None."""
        if raw.is_damaged or (self._raw is not None and raw.data.size != np.prod(self._shape)):
            self._opening.damaged += 1
            return None
        if self._raw is not None and self._wanted in (self._raw, "bgr8"):
            image = raw.data.reshape(self._shape)
            if self._wanted == "bgr8":
                return Captured(bgr(Frame(image, pixel_format=self._raw)), raw.media_time, raw.at)
            return Captured(image, raw.media_time, raw.at, self._raw)
        try:
            [frame] = self._stream.codec_context.decode(av.Packet(raw.data.tobytes()))
        except (FFmpegError, ValueError):  # damaged, or not one frame
            self._opening.damaged += 1
            return None
        image, standard = pixels(frame, self._reformatter, self._wanted, self._uri)
        return Captured(image, raw.media_time, raw.at, self._wanted, standard)

    def _next(self) -> _RawFrame | None:
        """Copy the next packet, so that no array refers to the driver's memory when the device is closed."""
        packets: Any = self._container.demux(self._stream)  # holds the last packet that it returned
        try:
            packet = next(packets, None)
            arrived = self._opening.clock.now()
            if packet is None or (packet.pts is None and not packet.size):
                return None
            data = self._buffers.take(packet.size) if self._raw is not None else np.empty(packet.size, np.uint8)
            data[...] = np.frombuffer(packet, np.uint8)
            taken_at = None if packet.pts is None else float(packet.pts * packet.time_base)
            # V4L2 stamps frames by the monotonic clock of the system.
            age = 0.0 if taken_at is None else time.monotonic() - taken_at
            is_damaged = packet.is_corrupt or not packet.size  # FFmpeg returns an empty packet for an incomplete frame
            return _RawFrame(data, arrived - age if 0 <= age < _OLDEST else arrived, taken_at, is_damaged)
        finally:
            packets.close()


def _format(stream: av.VideoStream) -> str:
    """Return FFmpeg's name of the format that a camera delivers, as in `FOURCCS`."""
    codec = stream.codec_context
    return codec.pix_fmt or "" if codec.name == "rawvideo" else codec.name


def _fourcc(uri: str, camera: V4l2Options, pixel_format: PixelFormat) -> str:
    """Return the format to request from a camera; "" for its own choice."""
    fitting = _SOURCES.get(pixel_format)
    if fitting is None:
        return camera.fourcc
    if camera.fourcc not in ("", *fitting):
        raise SourceError(
            f"{uri}: fourcc {camera.fourcc} does not provide the pixel format {pixel_format}, which is read from "
            f"{' or '.join(fitting)}; leave it out, or use bgr8."
        )
    return camera.fourcc or fitting[0]


_MEANINGS: tuple[tuple[tuple[int, ...], type[SourceError], str], ...] = (
    ((errno.ENOENT,), SourceNotFoundError, "no such device; `panrt doctor` lists the connected ones."),
    (
        (errno.EACCES, errno.EPERM),
        SourceDeniedError,
        "this user may not open it: sudo usermod -aG video $USER, and log in again.",
    ),
    ((errno.EBUSY,), SourceRefusedError, "in use by another program; `fuser -v /dev/video*` names it."),
    ((errno.ENOTTY, errno.ENOSYS), SourceNotFoundError, "not a V4L2 camera."),
    ((errno.ENODEV, errno.ENXIO), SourceRefusedError, "the camera delivers no frames, or no more; is it unplugged?"),
    (
        (errno.EINVAL,),
        SourceError,
        "the camera does not support this format, size or rate (v4l2-ctl --list-formats-ext lists them); "
        "a CSI camera of a Jetson is csi://0.",
    ),
)


def _typed(error: Exception, uri: str, timeout: float) -> SourceError:
    """Return the error that a user can act on for an error of FFmpeg."""
    if isinstance(error, (av.error.ExitError, TimeoutError)):
        return SourceTimeoutError(f"{uri}: no data for {timeout:g} s.")
    number = getattr(error, "errno", None) or 0
    for numbers, kind, text in _MEANINGS:
        if number in numbers:
            return kind(f"{uri}: {text}")
    what = os.strerror(number) if 0 < number < 200 else type(error).__name__
    return SourceRefusedError(f"{uri}: the camera delivers no more frames: {what[0].lower()}{what[1:]}.")
