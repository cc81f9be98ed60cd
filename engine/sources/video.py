"""Video through FFmpeg: files, RTSP, and what HTTP serves (MJPEG and files).

Files and live streams are decoded frame by frame. Live frames are not buffered for smoothing, and carry the time of
their arrival.

FFmpeg reads only the named file or stream: a local file as bytes, a server by the protocols of its URI, and never
through demuxers that open further files. The text of an FFmpeg error may hold a password, so neither the text nor the
exception leaves this module.

With the pixel format nv12 colours are not converted: the decoder's two 4:2:0 chroma planes are interleaved.

Shapes: H x W pixels of a frame.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from panrt import errors
from panrt.engine.frame import PixelFormat, YuvStandard
from panrt.engine.sources.local_file import LocalFile
from panrt.engine.sources.source import Captured, Opening
from panrt.engine.uri import Uri, network_address
from panrt.formats.records import legible
from panrt.formats.video_files import open_video

MAX_PIXELS = 8192 * 4320  # of a frame: 8K; the decoder and the waiting frames then use less than 2 GB
_LARGE = 1 << 23  # pixels; larger frames are decoded without one in memory for each thread

# Probe at most half a second of a stream before the first frame, and count no frames to guess its rate. Probed frames
# are delivered too: "nobuffer" would discard them, and with them the key frame that a stream often begins with.
_LIVE = {
    "analyzeduration": "500000",
    "flags": "low_delay",
    "fpsprobesize": "0",
    "probesize": "500000",
}
# The protocols that may be used, by the scheme of the URI.
_PROTOCOLS = {
    "rtsp": "rtsp,rtp,srtp,udp,tcp",
    "rtsps": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
    "http": "http,https,httpproxy,tcp,tls",
    "https": "http,https,httpproxy,tcp,tls",
    "hls": "http,https,httpproxy,tcp,tls,crypto",
}
# Demuxers that open files named in a file, or other files whose names they guess.
_PLAY_LISTS = {
    "applehttp",
    "concat",
    "concatf",
    "dash",
    "hls",
    "imf",
    "rtp",
    "rtsp",
    "sap",
    "sdp",
    "webm_dash_manifest",
}
_NEIGHBOURS = {"alias_pix", "brender_pix", "image2", "lavfi", "mlv", "vapoursynth", "vobsub"}
_DEMUXERS = frozenset(",".join(av.formats_available).split(",")) - _PLAY_LISTS - _NEIGHBOURS

FORMATS: tuple[PixelFormat, ...] = ("bgr8", "nv12")
# By FFmpeg's AVColorSpace. An unspecified one (2) is taken for BT.601, as in the conversion to BGR.
_STANDARDS: dict[int, YuvStandard] = {1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601"}
_Packet: TypeAlias = "av.Packet[av.VideoStream]"
_NO_TIMESTAMPS = 128  # FFmpeg's AVFMT_NOTIMESTAMPS
_LONGEST_GAP = 10.0  # seconds between two frames of a file; a larger jump means that its clock was reset


@dataclass(frozen=True)
class _Address:
    """The place of a video. The address of a stream, which holds its login, is formed only when it is opened."""

    name: str  # for messages, without a login
    target: LocalFile | Uri
    host: str  # "" for a file


@dataclass
class _Video:
    """A video that is being read."""

    container: av.container.InputContainer
    stream: av.VideoStream
    address: _Address
    packets: int = 0
    ends_inside_packet: bool = False


def file_frames(path: Path, opening: Opening) -> Generator[Captured, None, None]:
    """Yield every frame of a local video file.

    Raises:
        SourceError: it cannot be read; or, after its last frame, it is truncated.
    """
    with closing(LocalFile(path, opening)) as file:
        address = _Address(legible(path), file, "")
        cut = ""
        try:
            with _open(address, _options("", address), opening) as container:
                video = _Video(container, video_stream(container, address.name), address)
                yield from _paced(_decode(video, opening), address, opening)
                cut = _cut(file, video)
        except errors.SourceUndecodableError:
            cut = _cut(file, None)
            if not cut:
                raise
        if cut and not opening.stop.is_set():
            raise errors.SourceUndecodableError(
                f"{address.name}: the file is truncated: {cut}; earlier frames were read."
            )


def _cut(file: LocalFile, video: _Video | None) -> str:
    """Return how a file is truncated, as far as that is detectable; "" for a complete file.

    Fewer frames than declared prove nothing: edit lists, dropped and packed frames have the same effect. Fewer bytes
    than declared prove it, unless every frame was read.
    """
    missing = file.missing()
    if missing and (video is None or not 0 < video.stream.frames <= video.packets):
        return f"{missing:,} bytes that it declares are missing"
    return "it ends inside a packet" if video is not None and video.ends_inside_packet else ""


def served_frames(uri: Uri, opening: Opening) -> Generator[Captured, None, None]:
    """Yield every frame of a video file on a web server."""
    address = _Address(uri.shown, uri, uri.host)
    with _open(address, _options(uri.scheme, address), opening) as container:
        video = _Video(container, video_stream(container, address.name), address)
        yield from _paced(_decode(video, opening), address, opening)


def _paced(
    frames: Generator[Captured, None, None], address: _Address, opening: Opening
) -> Generator[Captured, None, None]:
    """Yield frames of a file, at its own speed if `opening` asks for real time."""
    pace = Pace()
    started = opening.clock.now()
    count = 0
    for captured in frames:
        count += 1
        if opening.realtime:
            opening.clock.wait(opening.stop, started + pace.moment(captured.media_time) - opening.clock.now())
        yield captured._replace(captured_at=None)
    if count == 0 and not opening.stop.is_set():
        raise errors.SourceUndecodableError(
            f"{address.name}: holds no frame that can be decoded; expected a complete file with frames of at "
            f"most {MAX_PIXELS:,} pixels (8192 x 4320)."
        )


class Pace:
    """The due times of a file's frames, in seconds after the first; jumps of the file's clock are skipped."""

    def __init__(self) -> None:
        self._clock: float | None = None
        self._gap = 0.0
        self._moment = 0.0

    def moment(self, media_time: float | None) -> float:
        """Return when the next frame, with this time on the file's clock, is due."""
        if media_time is not None and self._clock is not None:
            gap = media_time - self._clock
            self._gap = gap if 0 <= gap <= _LONGEST_GAP else self._gap
            self._moment += self._gap
        self._clock = self._clock if media_time is None else media_time
        return self._moment


def live_frames(uri: Uri, opening: Opening) -> Generator[Captured, None, None]:
    """Yield the frames of a live stream as they arrive, each with the time of its arrival."""
    address = _Address(uri.shown, uri, uri.host)
    options = _LIVE | _options(uri.scheme, address)
    if uri.scheme.startswith("rtsp"):
        options["rtsp_transport"] = opening.options.rtsp_transport
    with _open(address, options, opening) as container:
        stream = video_stream(container, address.name)
        stream.thread_type = "SLICE"  # threads over frames would hold back one each
        stream.codec_context.flags |= av.codec.context.Flags.low_delay
        has_clock = _has_clock(container.format)
        for captured in _decode(_Video(container, stream, address), opening):
            yield captured if has_clock else captured._replace(media_time=None)


def _has_clock(demuxer: av.ContainerFormat) -> bool:
    """Return whether the stream carries times. If not (MJPEG, raw H.264), FFmpeg invents them: 25 per second."""
    invented = ("image2pipe", "ingenient", "obu", "rawvideo")
    return not (int(demuxer.flags) & _NO_TIMESTAMPS or demuxer.name in invented or demuxer.name.endswith("_pipe"))


def _options(scheme: str, address: _Address) -> dict[str, str]:
    """Return FFmpeg options with the demuxers and protocols allowed for a local file (no scheme) or a URI."""
    demuxers = _DEMUXERS
    if scheme.startswith("rtsp"):
        demuxers = frozenset({"rtsp"})
    elif isinstance(address.target, Uri) and Path(address.target.path).suffix.lower() in (".m3u8", ".m3u"):
        scheme, demuxers = "hls", demuxers | {"hls", "applehttp"}
    return {
        "format_whitelist": ",".join(sorted(demuxers)),
        "max_pixels": str(MAX_PIXELS),
        "protocol_whitelist": _PROTOCOLS.get(scheme, "none"),
    }


def _open(address: _Address, options: dict[str, str], opening: Opening) -> av.container.InputContainer:
    target, timeout = address.target, opening.options.timeout
    try:
        return open_video(
            target if isinstance(target, LocalFile) else network_address(target, errors.UnknownSourceError),
            options=options,
            timeout=(timeout, timeout),
            buffer_size=1 << 18,
        )
    except errors.SourceError as error:  # of reading the file
        problem = error
    except (FFmpegError, OSError) as error:
        problem = _typed(error, address, timeout)
    raise problem  # not `from` the error, whose text holds the login


def video_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    """Return the first video stream of a container; `name` is its name in messages.

    Raises:
        SourceUndecodableError: it has no video, or one of an unknown codec or too large.
    """
    if not container.streams.video:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise errors.SourceUndecodableError(f"{name}: expected video, found {kinds}.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise errors.SourceUndecodableError(f"{name}: its video codec is unknown to FFmpeg {av.ffmpeg_version_info}.")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise errors.SourceUndecodableError(
            f"{name}: declares frames of {width} x {height} pixels, expected at most {MAX_PIXELS:,} "
            "(8192 x 4320); scale it down."
        )
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # also for size changes within the stream
    stream.thread_type = "AUTO" if width * height <= _LARGE else "SLICE"
    return stream


def _decode(video: _Video, opening: Opening) -> Generator[Captured, None, None]:
    """Yield decoded frames; the capture time is the arrival of the packet that completed the frame."""
    reformatter = VideoReformatter()
    packets = video.container.demux(video.stream)
    while not opening.stop.is_set():
        packet = _next(packets, video.address, opening.options.timeout)
        if packet is None:
            return
        arrived = opening.clock.now()
        if packet.size:  # the last one is empty, and flushes the decoder
            video.packets += 1
            video.ends_inside_packet = packet.is_corrupt
        try:
            frames = packet.decode()
        except FFmpegError:  # decoding continues at the next key frame
            opening.damaged += 1
            continue
        for frame in frames:
            image, standard = pixels(frame, reformatter, opening.options.pixel_format, video.address.name)
            yield Captured(image, frame.time, arrived, opening.options.pixel_format, standard)


def _next(
    packets: Iterator[av.Packet[av.VideoStream]], address: _Address, timeout: float
) -> av.Packet[av.VideoStream] | None:
    try:
        return next(packets, None)
    except errors.SourceError as error:  # of reading the file
        problem = error
    except (FFmpegError, OSError) as error:
        problem = _typed(error, address, timeout)
    raise problem


def pixels(
    frame: av.VideoFrame, reformatter: VideoReformatter, pixel_format: PixelFormat, name: str
) -> tuple[NDArray[np.uint8], YuvStandard]:
    """Return a decoded frame in a pixel format, upright, and its YUV standard.

    Raises:
        SourceUndecodableError: nv12 cannot represent it.
    """
    shown = orientation(display_matrix(frame))
    if pixel_format == "bgr8":
        image = np.asarray(reformatter.reformat(frame, format="bgr24").to_ndarray(), np.uint8)
        return np.ascontiguousarray(shown.apply(image)), "bt601"
    standard = _STANDARDS.get(int(frame.colorspace))
    if standard is None or frame.width % 2 or frame.height % 2:
        raise errors.SourceUndecodableError(
            f"{name}: frames of {frame.width} x {frame.height} pixels in FFmpeg's colour space {int(frame.colorspace)} "
            "cannot be delivered in nv12, which requires even sides and BT.601 or BT.709; use bgr8."
        )
    limited = reformatter.reformat(frame, format="nv12", dst_color_range="MPEG")
    image = np.asarray(limited.to_ndarray(), np.uint8)  # (H * 3 / 2, W)
    if shown != Orientation():
        luma, chroma = image[: frame.height], image[frame.height :].reshape(frame.height // 2, frame.width // 2, 2)
        luma, chroma = shown.apply(luma), shown.apply(chroma)
        image = np.concatenate([luma, chroma.reshape(-1, luma.shape[1])])
    return image, standard


class Orientation(NamedTuple):
    """One of the eight transformations from a frame's pixels to the upright image."""

    transposed: bool = False  # first
    flipped_rows: bool = False
    flipped_columns: bool = False

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a view of (H, W) or (H, W, C) pixels in this orientation."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.flipped_rows else 1, :: -1 if self.flipped_columns else 1]


def orientation(matrix: Sequence[int]) -> Orientation:
    """Return the orientation of a display matrix; the nearest one if it is not a multiple of a right angle.

    Args:
        matrix: 9 numbers (a b u, c d v, x y w), or none. A pixel at (x, y) is shown at (ax + cy, bx + dy).
    """
    if not matrix:
        return Orientation()
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposed=True, flipped_rows=b < 0, flipped_columns=c < 0)
    return Orientation(flipped_rows=d < 0, flipped_columns=a < 0)


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...]:
    """Return the display matrix of a frame, from its file or its stream; () if it has none."""
    # Not frame.side_data, which makes a reference cycle with the frame: its megabytes of pixels would stay until the
    # next garbage collection, which does not know their size.
    data = cast(Any, SideDataContainer)(frame).get(SideDataType.DISPLAYMATRIX)
    content = b"" if data is None else bytes(data)
    return struct.unpack("=9i", content) if len(content) == 36 else ()


_NOT_A_VIDEO = (
    av.error.InvalidDataError,
    av.error.DecoderNotFoundError,
    av.error.DemuxerNotFoundError,
)
_CAUSES: tuple[tuple[tuple[type[Exception], ...], type[errors.SourceError], str, str], ...] = (
    # FFmpeg's error, the SourceError to raise, its message for a stream and for a file
    (
        (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, PermissionError),
        errors.SourceDeniedError,
        "needs a login (SCHEME://USER:PASSWORD@HOST/PATH), or the one given is wrong",
        "may not be read",
    ),
    (
        (av.error.HTTPNotFoundError, FileNotFoundError),
        errors.SourceNotFoundError,
        "the server has no such stream",
        "no such file",
    ),
    (
        (av.error.ExitError, TimeoutError),
        errors.SourceTimeoutError,
        "no data for {timeout:g} s",
        "took longer than {timeout:g} s",
    ),
    (
        _NOT_A_VIDEO,
        errors.SourceUndecodableError,
        "not video that FFmpeg can read",
        "not a video that FFmpeg can read, or damaged (playlists and other lists of files are not read)",
    ),
)


def _typed(error: Exception, address: _Address, timeout: float) -> errors.SourceError:
    """Return the SourceError for an error of FFmpeg, whose own text may hold a password and is not used."""
    if getattr(error, "errno", None) == errno.EINVAL:  # a demuxer that is not allowed
        error = av.error.InvalidDataError(errno.EINVAL, "")
    for raised, meaning, of_stream, of_file in _CAUSES:
        if isinstance(error, raised):
            return meaning(f"{address.name}: {(of_stream if address.host else of_file).format(timeout=timeout)}.")
    if address.host and not _resolves(address.host):
        return errors.SourceNotFoundError(f"{address.name}: no such host {address.host!r}.")
    number = getattr(error, "errno", None) or 0  # FFmpeg's own numbers are above those of the system
    what = os.strerror(number) if 0 < number < 200 else type(error).__name__
    kind = errors.SourceRefusedError if address.host else errors.SourceUndecodableError
    return kind(f"{address.name}: {what[0].lower()}{what[1:]}.")


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except (socket.gaierror, UnicodeError):
        return False
    return True
