"""Open a source by its URI.

camera://0  /dev/video0      a V4L2 camera; ?width=1280&height=720&fps=30&fourcc=MJPG
csi://0                      a CSI camera of a Jetson; ?width=1920&height=1080&fps=30&mode=1&flip=2
rtsp://HOST/PATH             a network camera, also rtsps://
http://HOST/PATH             MJPEG, or a video file by its name; also https://
clip.mp4  photo.jpg          a video or image, its name taken literally
file:///PATH                 the same by its absolute path, percent-encoded
folder/  'shots/*.png'       the images of a folder or glob, in order of their names
test://640x480@60            a moving pattern at 60 frames per second (@max: unthrottled); ?frames=100
demo://tabletop              the bundled clip

A login is written USER:PASSWORD@HOST, its "#", "/", "?", "@" and "%" as %23, %2F, %3F, %40 and %25. Messages never
show it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from panrt.engine.sources import argus, files, pattern, v4l2, video
from panrt.engine.sources.demo import demo_clip
from panrt.engine.sources.images import image_frames
from panrt.engine.sources.source import Source, SourceOptions, Spec
from panrt.engine.uri import LONGEST, Uri, file_path, nearest, network_address, redact, split
from panrt.errors import SourceNotFoundError, UnknownSourceError
from panrt.formats.records import legible, shown

_SIDE, _RATE = (1, 16384), (1, 1000)
_CAMERA_RANGES = {"width": _SIDE, "height": _SIDE, "fps": _RATE}
_CSI_RANGES = {"width": _SIDE, "height": _SIDE, "fps": _RATE, "mode": (0, 255), "flip": (0, 7)}


def open_source(
    uri: str | os.PathLike[str] | Iterable[Any],
    *,
    name: str = "",
    options: SourceOptions | None = None,
    wake: threading.Event | None = None,
) -> Source:
    """Return a source for a URI or path, or for images, not yet started.

    Args:
        uri: see the top of this file; or images as an iterable of (H, W, 3) uint8 arrays in BGR.
        name: of the source in its frames and messages; by default the URI without its login.
        options: how it behaves.
        wake: set whenever a frame arrives or the source ends.

    Raises:
        UnknownSourceError: the URI or one of its options is unknown.
        SourceError: the file does not exist. Other errors appear when the source is started.
        TypeError: `uri` is none of these.
    """
    return Source(specify(uri), name=name, options=options, wake=wake)


def specify(source: object) -> Spec:
    """Return the specification of a URI, a path or an iterable of images.

    Raises:
        UnknownSourceError, SourceError, TypeError: as `open_source`.
    """
    if isinstance(source, Spec):
        return source
    if isinstance(source, str):
        return parse(source)
    if isinstance(source, os.PathLike):
        return _file(os.fsdecode(source))
    one = (
        isinstance(source, (bytes, bytearray, Mapping)) or getattr(source, "ndim", 4) != 4
    )  # of an array: (N, H, W, 3)
    if isinstance(source, Iterable) and not one:
        return Spec("images", partial(image_frames, source), live=False)
    raise TypeError(
        f"source: got {shown(source)}, expected a URI or path, or an iterable of images, (H, W, 3) uint8 arrays in BGR."
    )


def parse(text: str) -> Spec:
    """Return the specification of a URI.

    Raises:
        UnknownSourceError, SourceNotFoundError: as `open_source`.
    """
    if not text:
        raise UnknownSourceError("source: got an empty name, expected a file or a URI such as camera://0.")
    if len(text) > LONGEST:
        raise UnknownSourceError(f"source: got a name of {len(text)} characters, expected at most {LONGEST}.")
    uri = split(text)
    if uri is None:
        return _file(text)
    if uri.scheme in _SCHEMES:
        return _SCHEMES[uri.scheme](uri)
    if os.path.lexists(text):  # a file in a folder whose name ends in a colon
        return _file(text)
    raise UnknownSourceError(f"{uri}: no source has the scheme {shown(uri.scheme)}; {nearest(uri.scheme, SCHEMES)}")


def _file(text: str) -> Spec:
    if re.fullmatch(r"/dev/video[0-9]+", text):
        return _v4l2(text, text, v4l2.V4l2Options())
    # A name that is not a file may be an address without its scheme, and hold a login.
    name = text if os.path.lexists(text) else redact(text)
    try:
        paths = files.select(text)
    except SourceNotFoundError:
        if name == text:
            raise
        paths = ()
    if name != text and paths in ((), (Path(text),)):
        raise SourceNotFoundError(
            f"{legible(name)}: no such file; an address begins with its scheme, as in rtsp://HOST/PATH."
        )
    formats, reads = files.pixel_formats(paths), (Path(text),) if Path(text).is_dir() else paths
    return Spec(legible(text), partial(files.frames, paths), live=False, pixel_formats=formats, reads=reads)


def _camera(uri: Uri) -> Spec:
    device = f"/dev/video{_number(uri.authority, uri)}" if uri.authority else unquote(uri.path)
    if not device.startswith("/dev/"):
        raise UnknownSourceError(f"{uri}: expected a number, camera://0, or a device, camera:///dev/v4l/by-id/NAME.")
    query = _query(uri, (*_CAMERA_RANGES, "fourcc"))
    fourcc = query.get("fourcc", "").upper()
    if fourcc not in ("", *v4l2.FOURCCS):
        raise UnknownSourceError(f"{uri}: fourcc: got {shown(fourcc)}; {nearest(fourcc, v4l2.FOURCCS)}")
    options = v4l2.V4l2Options(fourcc=fourcc, **_numbers(uri, query, _CAMERA_RANGES))
    if (options.width == 0) != (options.height == 0):
        raise UnknownSourceError(f"{uri}: give both width and height, or neither.")
    return _v4l2(device, uri.shown, options)


def _v4l2(device: str, name: str, options: v4l2.V4l2Options) -> Spec:
    reader = partial(v4l2.v4l2_frames, device, name, options)
    native = v4l2.NATIVE.get(options.fourcc)
    return Spec(name, reader, live=True, lasting=True, pixel_formats=v4l2.FORMATS, native=native)


def _csi(uri: Uri) -> Spec:
    options = argus.CsiOptions(**_numbers(uri, _query(uri, tuple(_CSI_RANGES)), _CSI_RANGES))
    if options.width % 2 or options.height % 2 or options.width * options.height > video.MAX_PIXELS:
        raise UnknownSourceError(
            f"{uri}: got {options.width} x {options.height}, expected even sides and at most "
            f"{video.MAX_PIXELS:,} pixels."
        )
    reader = partial(argus.csi_frames, _number(uri.authority, uri), uri.shown, options)
    return Spec(uri.shown, reader, live=True, lasting=True, pixel_formats=argus.FORMATS, native="nv12")


def _network(uri: Uri) -> Spec:
    network_address(uri, UnknownSourceError)  # raises now rather than when the source starts
    suffix = Path(uri.path).suffix.lower()
    if uri.scheme.startswith("http") and suffix in files.VIDEO_SUFFIXES | files.IMAGE_SUFFIXES:
        return Spec(uri.shown, partial(video.served_frames, uri), live=False, pixel_formats=video.FORMATS)
    return Spec(uri.shown, partial(video.live_frames, uri), live=True, lasting=True, pixel_formats=video.FORMATS)


def _pattern(uri: Uri) -> Spec:
    found = re.fullmatch(r"(?:([0-9]{1,5})x([0-9]{1,5}))?(?:@([0-9]{1,9}(?:\.[0-9]{1,9})?|max))?", uri.authority)
    if found is None:
        raise UnknownSourceError(
            f"{uri}: got {shown(redact(uri.authority))}, expected WIDTHxHEIGHT@FPS such as 640x480@30."
        )
    width, height = int(found[1] or 640), int(found[2] or 480)
    fps = None if found[3] == "max" else float(found[3] or 30)
    if not (0 < width <= 16384 and 0 < height <= 16384) or fps == 0:
        raise UnknownSourceError(
            f"{uri}: got {shown(redact(uri.authority))}, expected sizes from 1 to 16384 and a rate above 0."
        )
    query = _query(uri, ("frames",))
    frames = _number(query["frames"], uri) if "frames" in query else None
    reader = partial(pattern.pattern_frames, (height, width), fps, frames)
    return Spec(uri.shown, reader, live=fps is not None)


def _numbers(uri: Uri, query: Mapping[str, str], ranges: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Return the numeric options of a URI; `ranges` holds the smallest and largest value of each by name."""
    numbers = {name: _number(query[name], uri) for name in ranges if name in query}
    for name, number in numbers.items():
        least, greatest = ranges[name]
        if not least <= number <= greatest:
            raise UnknownSourceError(f"{uri}: {name}: got {number}, expected {least} to {greatest}.")
    return numbers


def _query(uri: Uri, names: tuple[str, ...]) -> dict[str, str]:
    query = uri.options
    for name in query:
        if name not in names:
            raise UnknownSourceError(f"{uri}: unknown option {shown(name)}; {nearest(name, names)}")
    return query


def _number(text: str, uri: Uri) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UnknownSourceError(f"{uri}: got {shown(redact(text))}, expected a number.")
    return int(text)


def _demo(uri: Uri) -> Spec:
    paths = (demo_clip(uri.authority),)
    return Spec(uri.shown, partial(files.frames, paths), live=False, pixel_formats=files.pixel_formats(paths))


_SCHEMES: dict[str, Callable[[Uri], Spec]] = {
    "camera": _camera,
    "csi": _csi,
    "rtsp": _network,
    "rtsps": _network,
    "http": _network,
    "https": _network,
    "file": lambda uri: _file(str(file_path(uri, UnknownSourceError))),
    "test": _pattern,
    "demo": _demo,
}
SCHEMES = tuple(_SCHEMES)
