"""Video through FFmpeg: files, RTSP, and what HTTP serves (MJPEG and files).

A file is decoded frame by frame. A live stream is decoded in full as well, with nothing held back to be smoothed, and
its frames carry the time at which they arrived.

With the pixel format nv12 colours are not converted: of what the decoder wrote, planes of 4:2:0, the two of chroma are
interleaved.

Shapes: H x W pixels of a frame.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Generator
from urllib.parse import urlsplit

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from panrt.engine.frame import PixelFormat, YuvStandard
from panrt.engine.sources.errors import (
    SourceDeniedError,
    SourceError,
    SourceNotFoundError,
    SourceRefusedError,
    SourceTimeoutError,
    SourceUndecodableError,
)
from panrt.engine.sources.source import Opening, Picture

# Look at half a second of a stream at most before the first frame, and count no frames to guess its rate. What was
# looked at is shown too: "nobuffer" would throw it away, and with it the key frame that a stream often begins with.
_LIVE = {
    "analyzeduration": "500000",
    "flags": "low_delay",
    "fpsprobesize": "0",
    "probesize": "500000",
}

FORMATS: tuple[PixelFormat, ...] = ("bgr8", "nv12")
# By FFmpeg's AVColorSpace. What says nothing (2) is taken for BT.601, as by the conversion to BGR.
_STANDARDS: dict[int, YuvStandard] = {1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601"}


def file_pictures(address: str, uri: str, opening: Opening) -> Generator[Picture, None, None]:
    """Every frame of a video file or of one on a web server."""
    with _open(address, uri, {}, opening) as container:
        stream = _video_stream(container, uri)
        stream.thread_type = "AUTO"
        started = time.monotonic()
        count = 0
        first_time: float | None = None
        for picture in _decode(container, stream, uri, opening):
            count += 1
            media_time = picture.media_time
            if opening.realtime and media_time is not None:
                first_time = media_time if first_time is None else first_time
                opening.stop.wait(max(started + media_time - first_time - time.monotonic(), 0.0))
            yield picture._replace(captured_at=None)
        if count == 0:
            raise SourceUndecodableError(f"{uri}: holds no frame that can be decoded; is the file complete?")
        if count + opening.damaged < stream.frames:
            raise SourceUndecodableError(
                f"{uri}: ends after {count} of its {stream.frames} frames; the file is cut short."
            )


def live_pictures(address: str, uri: str, opening: Opening) -> Generator[Picture, None, None]:
    """The frames of a live stream as they come, each with the time of its arrival."""
    options = dict(_LIVE)
    if address.startswith("rtsp"):
        options["rtsp_transport"] = opening.options.rtsp_transport
    with _open(address, uri, options, opening) as container:
        stream = _video_stream(container, uri)
        stream.thread_type = "SLICE"  # threads over frames would hold back one each
        stream.codec_context.flags |= av.codec.context.Flags.low_delay
        yield from _decode(container, stream, uri, opening)


def _open(address: str, uri: str, options: dict[str, str], opening: Opening) -> av.container.InputContainer:
    timeout = opening.options.timeout
    try:
        return av.open(address, options=options, timeout=(timeout, timeout))
    except (FFmpegError, OSError) as error:
        raise _typed(error, address, uri, timeout) from error


def _video_stream(container: av.container.InputContainer, uri: str) -> av.VideoStream:
    if not container.streams.video:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceUndecodableError(f"{uri}: expected video, found {kinds}.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise SourceUndecodableError(f"{uri}: its video codec is unknown to FFmpeg {av.ffmpeg_version_info}.")
    return stream


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, uri: str, opening: Opening
) -> Generator[Picture, None, None]:
    """Frames, captured when the packet that completed them arrived."""
    reformatter = VideoReformatter()
    packets = container.demux(stream)
    while not opening.stop.is_set():
        try:
            packet = next(packets, None)
        except (FFmpegError, OSError) as error:
            raise _typed(error, uri, uri, opening.options.timeout) from error
        if packet is None:
            return
        arrived = time.monotonic()
        try:
            frames = packet.decode()
        except FFmpegError:  # decoding goes on at the next frame that stands alone
            opening.damaged += 1
            continue
        for frame in frames:
            image, standard = _pixels(frame, reformatter, opening.options.pixel_format, uri)
            yield Picture(image, frame.time, arrived, opening.options.pixel_format, standard)


def _pixels(
    frame: av.VideoFrame, reformatter: VideoReformatter, pixel_format: PixelFormat, uri: str
) -> tuple[NDArray[np.uint8], YuvStandard]:
    """A decoded frame in a pixel format, upright, and its standard.

    Raises:
        SourceUndecodableError: nv12 cannot hold it.
    """
    turns = round(frame.rotation / 90) % 4  # a phone held upright
    if pixel_format == "bgr8":
        image = np.asarray(reformatter.reformat(frame, format="bgr24").to_ndarray(), np.uint8)
        return np.ascontiguousarray(np.rot90(image, turns)), "bt601"
    standard = _STANDARDS.get(int(frame.colorspace))
    if standard is None or frame.width % 2 or frame.height % 2:
        raise SourceUndecodableError(
            f"{uri}: frames of {frame.width} x {frame.height} pixels in FFmpeg's colour space {int(frame.colorspace)} "
            "cannot be handed over in nv12, which is for even sides and BT.601 or BT.709; take bgr8."
        )
    limited = reformatter.reformat(frame, format="nv12", dst_color_range="MPEG")
    image = np.asarray(limited.to_ndarray(), np.uint8)  # (H * 3 / 2, W)
    if turns:
        luma, chroma = image[: frame.height], image[frame.height :].reshape(frame.height // 2, frame.width // 2, 2)
        luma, chroma = np.rot90(luma, turns), np.rot90(chroma, turns)
        image = np.concatenate([luma, chroma.reshape(-1, luma.shape[1])])
    return image, standard


_NOT_A_VIDEO = (av.error.InvalidDataError, av.error.DecoderNotFoundError, av.error.DemuxerNotFoundError)
_CAUSES: tuple[tuple[tuple[type[Exception], ...], type[SourceError], str, str], ...] = (
    # what FFmpeg raises, what it is to us, and what to say of a stream and of a file
    (
        (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, PermissionError),
        SourceDeniedError,
        "needs a login (SCHEME://USER:PASSWORD@HOST/PATH), or the one given is wrong",
        "may not be read",
    ),
    (
        (av.error.HTTPNotFoundError, FileNotFoundError),
        SourceNotFoundError,
        "the server has no such stream",
        "no such file",
    ),
    (
        (av.error.ExitError, TimeoutError),
        SourceTimeoutError,
        "nothing came for {timeout:g} s",
        "took longer than {timeout:g} s",
    ),
    (
        _NOT_A_VIDEO,
        SourceUndecodableError,
        "not video that FFmpeg can read",
        "not a video that FFmpeg can read, or damaged",
    ),
)


def _typed(error: Exception, address: str, uri: str, timeout: float) -> SourceError:
    """What an error of FFmpeg means to who gave the URI. FFmpeg's own text may hold a password, so it is not used."""
    host = urlsplit(address).hostname if "://" in address else None
    for raised, meaning, of_stream, of_file in _CAUSES:
        if isinstance(error, raised):
            return meaning(f"{uri}: {(of_file if host is None else of_stream).format(timeout=timeout)}.")
    if host is not None and not _resolves(host):
        return SourceNotFoundError(f"{uri}: there is no host {host!r}.")
    what = str(getattr(error, "strerror", None) or type(error).__name__)
    kind = SourceUndecodableError if host is None else SourceRefusedError
    return kind(f"{uri}: {what[0].lower()}{what[1:]}.")


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror:
        return False
    return True
