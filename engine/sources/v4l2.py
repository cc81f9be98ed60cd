"""USB cameras, and whatever else is a V4L2 device, through FFmpeg: MJPG, YUYV, NV12 and other formats of theirs.

The memory that a driver writes to is gone when its device is closed, and FFmpeg gives views of it. So the bytes of a
frame are copied once, as soon as they are there; with the pixel format that the camera writes that is all.

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
from panrt.engine.sources.source import Opening, Picture
from panrt.engine.sources.video import pixels, video_stream
from panrt.errors import SourceDeniedError, SourceError, SourceNotFoundError, SourceRefusedError, SourceTimeoutError
from panrt.formats.records import legible
from panrt.formats.video_files import open_video

FORMATS: tuple[PixelFormat, ...] = ("bgr8", "nv12", "yuyv")
# What a camera may be asked for, by its name in V4L2; FFmpeg's names.
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
# What goes with a pixel format; the first is asked for where the URI says nothing. "bgr8" is made of anything.
_SOURCES: dict[PixelFormat, tuple[str, ...]] = {"nv12": ("NV12", "MJPG"), "yuyv": ("YUYV",)}
# What need not be converted, or, of MJPG, what is nearest to what its decoder writes.
NATIVE: dict[str, PixelFormat] = {"NV12": "nv12", "MJPG": "nv12", "YUYV": "yuyv"}
_RAW: dict[str, PixelFormat] = {"yuyv422": "yuyv", "nv12": "nv12"}  # by FFmpeg's name
_NONBLOCK = "+4"  # AVFMT_FLAG_NONBLOCK, so that a camera that falls silent does not hold its reader for ever
_POLL = 0.002  # seconds
_OLDEST = 10.0  # seconds of age that a frame can have; a driver whose clock says more has another one


@dataclass(frozen=True, kw_only=True)
class V4l2Options:
    """What to ask a camera for; 0 or "" leaves it to the camera."""

    width: int = 0  # with the height or not at all
    height: int = 0
    fps: int = 0
    fourcc: str = ""  # one of `FOURCCS`: many USB cameras are fast in MJPG only


class Device(NamedTuple):
    """A V4L2 device of this machine."""

    path: Path
    name: str  # that its driver gave it
    is_open_to_us: bool

    @property
    def is_csi(self) -> bool:
        """Whether it is the sensor of a Jetson's CSI camera, which gives raw Bayer data here."""
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


def v4l2_pictures(device: str, uri: str, camera: V4l2Options, opening: Opening) -> Generator[Picture, None, None]:
    """Frames of a V4L2 device by its path, until it is gone.

    Raises:
        SourceError: it does not give what was asked for, or nothing any more.
    """
    fourcc = _fourcc(uri, camera, opening.options.pixel_format)
    options = {"fflags": _NONBLOCK}
    if fourcc:
        options["input_format"] = FOURCCS[fourcc]  # FFmpeg takes another where the camera has not this one
    if camera.width:
        options["video_size"] = f"{camera.width}x{camera.height}"
    if camera.fps:
        options["framerate"] = str(camera.fps)
    yield from captured_pictures(device, uri, "v4l2", options, opening, fourcc)


def captured_pictures(
    file: object, uri: str, demuxer: str, options: Mapping[str, str], opening: Opening, fourcc: str = ""
) -> Generator[Picture, None, None]:
    """Frames from a demuxer of FFmpeg.

    Args:
        file: what it reads.
        uri: what messages call it.
        demuxer: "v4l2", or one whose packets are frames as well.
        options: of the demuxer.
        opening: of the source.
        fourcc: what frames must be, one of `FOURCCS`; "" for anything.

    Raises:
        SourceError: see `v4l2_pictures`.
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
                f"{uri}: the camera gives {found} in place of {fourcc}; take another pixel format or fourcc, of those "
                "that v4l2-ctl --list-formats-ext shows."
            )
        camera = _Camera(container, stream, uri, opening)
        while (captured := camera.read()) is not None:
            picture = camera.picture(captured)
            if picture is not None:
                yield picture


class _Captured(NamedTuple):
    """A frame as the driver delivered it, copied out of its buffer."""

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

    def read(self) -> _Captured | None:
        """Wait for a frame; None at the end, or when nobody wants it any more."""
        opening, timeout = self._opening, self._opening.options.timeout
        begun = opening.clock.now()
        while not opening.stop.is_set():
            try:
                return self._next()
            except BlockingIOError:  # nothing there yet
                if opening.clock.now() - begun > timeout:
                    raise SourceTimeoutError(f"{self._uri}: nothing came for {timeout:g} s.") from None
                opening.clock.wait(opening.stop, _POLL)
            except (FFmpegError, OSError) as error:
                raise _typed(error, self._uri, timeout) from error
        return None

    def picture(self, captured: _Captured) -> Picture | None:
        """A frame in the pixel format that is wanted; None if it is damaged, which is counted."""
        if captured.is_damaged or (self._raw is not None and captured.data.size != np.prod(self._shape)):
            self._opening.damaged += 1
            return None
        if self._raw is not None and self._wanted in (self._raw, "bgr8"):
            image = captured.data.reshape(self._shape)
            if self._wanted == "bgr8":
                return Picture(bgr(Frame(image, pixel_format=self._raw)), captured.media_time, captured.at)
            return Picture(image, captured.media_time, captured.at, self._raw)
        try:
            [frame] = self._stream.codec_context.decode(av.Packet(captured.data.tobytes()))
        except (FFmpegError, ValueError):  # damaged, or not one frame
            self._opening.damaged += 1
            return None
        image, standard = pixels(frame, self._reformatter, self._wanted, self._uri)
        return Picture(image, captured.media_time, captured.at, self._wanted, standard)

    def _next(self) -> _Captured | None:
        """Copy the next packet, so that nothing refers to the driver's memory when the device is closed."""
        packets: Any = self._container.demux(self._stream)  # holds the packet that it gave last
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
            is_damaged = packet.is_corrupt or not packet.size  # of a frame that came in part, FFmpeg gives nothing
            return _Captured(data, arrived - age if 0 <= age < _OLDEST else arrived, taken_at, is_damaged)
        finally:
            packets.close()


def _format(stream: av.VideoStream) -> str:
    """FFmpeg's name of what a camera gives, as in `FOURCCS`."""
    codec = stream.codec_context
    return codec.pix_fmt or "" if codec.name == "rawvideo" else codec.name


def _fourcc(uri: str, camera: V4l2Options, pixel_format: PixelFormat) -> str:
    """Return what to ask a camera for; "" for its own choice."""
    fitting = _SOURCES.get(pixel_format)
    if fitting is None:
        return camera.fourcc
    if camera.fourcc not in ("", *fitting):
        raise SourceError(
            f"{uri}: fourcc {camera.fourcc} does not go with the pixel format {pixel_format}, which is read from "
            f"{' or '.join(fitting)}; leave it out, or take bgr8."
        )
    return camera.fourcc or fitting[0]


_MEANINGS: tuple[tuple[tuple[int, ...], type[SourceError], str], ...] = (
    ((errno.ENOENT,), SourceNotFoundError, "no such device; `panrt doctor` lists those that are there."),
    (
        (errno.EACCES, errno.EPERM),
        SourceDeniedError,
        "this user may not open it: sudo usermod -aG video $USER, and log in anew.",
    ),
    ((errno.EBUSY,), SourceRefusedError, "in use by another program; `fuser -v /dev/video*` names it."),
    ((errno.ENOTTY, errno.ENOSYS), SourceNotFoundError, "not a V4L2 camera."),
    ((errno.ENODEV, errno.ENXIO), SourceRefusedError, "the camera gives no frames, or no more; is it unplugged?"),
    (
        (errno.EINVAL,),
        SourceError,
        "the camera does not give this format, size or rate (v4l2-ctl --list-formats-ext shows what it gives); "
        "a CSI camera of a Jetson is csi://0.",
    ),
)


def _typed(error: Exception, uri: str, timeout: float) -> SourceError:
    """What an error of FFmpeg means to who gave the URI."""
    if isinstance(error, (av.error.ExitError, TimeoutError)):
        return SourceTimeoutError(f"{uri}: nothing came for {timeout:g} s.")
    number = getattr(error, "errno", None) or 0
    for numbers, kind, said in _MEANINGS:
        if number in numbers:
            return kind(f"{uri}: {said}")
    what = os.strerror(number) if 0 < number < 200 else type(error).__name__
    return SourceRefusedError(f"{uri}: the camera gives no more frames: {what[0].lower()}{what[1:]}.")
