"""From a URI to a source.

camera://0  /dev/video0      a V4L2 camera; ?width=1280&height=720&fps=30&fourcc=MJPG
csi://0                      a CSI camera of a Jetson; ?width=..&height=..&fps=..&flip=2
rtsp://HOST/PATH             a network camera, also rtsps://
http://HOST/PATH             MJPEG, or a video file by its name; also https://
clip.mp4  photo.jpg          a video or picture; also file:///...
folder/  'shots/*.png'       the pictures of a folder or glob, by name
test://640x480@60            a moving pattern at 60 a second (@max: as fast as it is taken); ?frames=100
demo://tabletop              the clip that comes with PanRT
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from panrt.engine.sources import camera, files, pattern, video
from panrt.engine.sources.demo import demo_clip
from panrt.engine.sources.errors import UnknownSourceError
from panrt.engine.sources.source import Source, SourceOptions, Spec

_NETWORK = "rtsp", "rtsps", "http", "https", "web", "metrics"
_HARMLESS = frozenset(["channel", "fps", "height", "policy", "resolution", "source", "stream", "subtype", "width"])
_LOGIN = re.compile(r"user|login|account|pass|pwd|pw|pin|secret|token|auth|key|sign|session|code", re.IGNORECASE)


def open_source(
    uri: str | Path, *, name: str = "", options: SourceOptions | None = None, wake: threading.Event | None = None
) -> Source:
    """A source for a URI or path, not yet started.

    Args:
        uri: see the top of this file.
        name: what its frames and messages call it; the URI by default.
        options: how it behaves.
        wake: set whenever a frame came or the source ended.

    Raises:
        UnknownSourceError: nothing answers to that URI, or not to its options.
        SourceError: there is no such file. Whatever else is wrong shows when the source is started.
    """
    return Source(parse(str(uri)), name=name, options=options, wake=wake)


def parse(uri: str) -> Spec:
    """What a URI means.

    Raises:
        UnknownSourceError, SourceNotFoundError: as `open_source`.
    """
    if not uri:
        raise UnknownSourceError("source: got an empty name, expected a file or a URI such as camera://0.")
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return _file(uri)
    scheme = scheme.lower()
    if scheme not in _SCHEMES:
        raise UnknownSourceError(f"{redact(uri)}: no source is called {scheme!r}; {nearest(scheme, SCHEMES)}")
    return _SCHEMES[scheme](urlsplit(uri), uri)


def nearest(name: str, names: tuple[str, ...]) -> str:
    """The advice for a name that is unknown."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}."


def redact(uri: str) -> str:
    """A URI without its login: user and password, and what in the query of a network URI may be one."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() not in _NETWORK:
        return uri
    rest, mark, query = rest.rpartition("@")[2].partition("#")[0].partition("?")
    pairs = (_redact_parameter(pair) for pair in query.split("&"))
    return f"{scheme}://{rest}{mark}{'&'.join(pairs)}"


def redact_all(text: str) -> str:
    """Text, such as a message of a library, with every URI in it redacted."""
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+", lambda found: redact(found[0]), text)


def _redact_parameter(pair: str) -> str:
    name, equals, value = pair.partition("=")
    harmless = name.lower() in _HARMLESS or (re.fullmatch(r"\d{1,3}", value) and not _LOGIN.search(name))
    return pair if not pair or (equals and harmless) else f"{name if equals else ''}{equals}***"


def _file(text: str) -> Spec:
    if re.fullmatch(r"/dev/video\d+", text):
        return _v4l2(text, text, camera.CameraOptions())
    paths = files.select(text)
    return Spec(text, partial(files.pictures, paths), live=False, pixel_formats=files.pixel_formats(paths))


def _camera(parts: SplitResult, uri: str) -> Spec:
    device: int | str = parts.path if not parts.netloc else _number(parts.netloc, uri)
    return _v4l2(device, uri, _camera_options(parts, uri))


def _v4l2(device: int | str, uri: str, options: camera.CameraOptions) -> Spec:
    reader = partial(camera.camera_pictures, device, uri, options)
    return Spec(uri, reader, live=True, lasting=True, pixel_formats=camera.V4L2_FORMATS)


def _csi(parts: SplitResult, uri: str) -> Spec:
    reader = partial(camera.csi_pictures, _number(parts.netloc, uri), uri, _camera_options(parts, uri))
    return Spec(uri, reader, live=True, lasting=True, pixel_formats=camera.CSI_FORMATS)


def _network(parts: SplitResult, uri: str) -> Spec:
    if not parts.hostname:
        raise UnknownSourceError(f"{redact(uri)}: names no host; expected {parts.scheme}://HOST/PATH.")
    shown = redact(uri)
    suffix = Path(parts.path).suffix.lower()
    if parts.scheme.startswith("http") and suffix in files.VIDEO_SUFFIXES | files.IMAGE_SUFFIXES:
        return Spec(shown, partial(video.file_pictures, uri, shown), live=False, pixel_formats=video.FORMATS)
    reader = partial(video.live_pictures, uri, shown)
    return Spec(shown, reader, live=True, lasting=True, pixel_formats=video.FORMATS)


def _pattern(parts: SplitResult, uri: str) -> Spec:
    found = re.fullmatch(r"(?:(\d+)x(\d+))?(?:@(\d+(?:\.\d+)?|max))?", parts.netloc)
    if found is None:
        raise UnknownSourceError(f"{uri}: got {parts.netloc!r}, expected WIDTHxHEIGHT@FPS such as 640x480@30.")
    width, height = int(found[1] or 640), int(found[2] or 480)
    fps = None if found[3] == "max" else float(found[3] or 30)
    if not (0 < width <= 16384 and 0 < height <= 16384) or fps == 0:
        raise UnknownSourceError(f"{uri}: got {parts.netloc!r}, expected sizes from 1 to 16384 and a rate above 0.")
    query = _query(parts, uri, ("frames",))
    frames = _number(query["frames"], uri) if "frames" in query else None
    reader = partial(pattern.pattern_pictures, (height, width), fps, frames)
    return Spec(uri, reader, live=fps is not None)


def _camera_options(parts: SplitResult, uri: str) -> camera.CameraOptions:
    names = tuple(field.name for field in dataclasses.fields(camera.CameraOptions))
    query = _query(parts, uri, names)
    fourcc = query.pop("fourcc", "")
    if len(fourcc) not in (0, 4):
        raise UnknownSourceError(f"{uri}: fourcc: got {fourcc!r}, expected four letters such as MJPG.")
    numbers = {name: _number(value, uri) for name, value in query.items()}
    return camera.CameraOptions(fourcc=fourcc, **numbers)


def _query(parts: SplitResult, uri: str, names: tuple[str, ...]) -> dict[str, str]:
    query: Mapping[str, str] = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in query:
        if name not in names:
            raise UnknownSourceError(f"{uri}: there is no option {name!r}; {nearest(name, names)}")
    return dict(query)


def _number(text: str, uri: str) -> int:
    if not text.isdecimal():
        raise UnknownSourceError(f"{uri}: got {text!r} where a number is expected.")
    return int(text)


def _demo(parts: SplitResult, uri: str) -> Spec:
    paths = (demo_clip(parts.netloc),)
    return Spec(uri, partial(files.pictures, paths), live=False, pixel_formats=files.pixel_formats(paths))


_SCHEMES: dict[str, Callable[[SplitResult, str], Spec]] = {
    "camera": _camera,
    "csi": _csi,
    "rtsp": _network,
    "rtsps": _network,
    "http": _network,
    "https": _network,
    "file": lambda parts, _: _file(unquote(parts.path)),
    "test": _pattern,
    "demo": _demo,
}
SCHEMES = tuple(_SCHEMES)
