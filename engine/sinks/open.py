"""Open a sink by its URI.

    out.mp4  out.mkv        annotated video, H.264; ?crf=23&preset=veryfast&scale=1
    out.jsonl  -            a line of JSON for each result, in a file or on standard output; ?masks=rle
    out.jpg  out.png        an annotated image for each result, out.jpg, out-2.jpg, ...
    images://FOLDER         annotated images by the names of their files; ?format=png
    masks://FOLDER          the segment ID of each pixel, as PNG images of 16 bits
    coco://FOLDER           a folder in the COCO panoptic format
    npy://FOLDER            panoptic maps as NumPy arrays, and results.jsonl
    shm://NAME              shared memory, for `SharedMemoryReader` in another process
    window://               a window on the screen
    web://:8080             a live page, with /metrics and /healthz, for this machine; web://0.0.0.0:8080 for the
                            network, which then needs a token; ?token=TEXT, auto or none, ?host=NAME
    metrics://:9090         only /metrics for Prometheus and /healthz; addresses and options as for web://
    callable                a Python function, called with each `PanopticResult`

An existing file or folder of results is never overwritten: the new one gets a number, out-2.mp4. Files accept
?overwrite=yes. In Python a `pathlib.Path` is always a path, whatever characters it has, and has no options.

?policy=block makes the stream wait for a sink, ?policy=latest drops old results in favour of new ones. By default
recordings (files and folders) follow the policy of their stream, and views drop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from panrt.engine.results.result import PanopticResult
from panrt.engine.sinks.address import OPTIONS, parse_address
from panrt.engine.sinks.coco import CocoWriter
from panrt.engine.sinks.http import MetricsWriter
from panrt.engine.sinks.images import ImageFolderWriter, ImageWriter, render_ids, render_overlay
from panrt.engine.sinks.json_lines import JsonLinesWriter, StandardOutputWriter
from panrt.engine.sinks.numpy_arrays import NumpyWriter
from panrt.engine.sinks.shared_memory import SharedMemoryWriter
from panrt.engine.sinks.sink import Context, Item, Sink, SinkSpec, Writer
from panrt.engine.sinks.video import VideoWriter
from panrt.engine.sinks.web import WebWriter
from panrt.engine.sinks.window import WindowWriter
from panrt.engine.slot import POLICIES
from panrt.engine.uri import LONGEST, file_path, nearest, redact, split, split_options
from panrt.errors import UnknownSinkError
from panrt.formats.records import legible

_VIDEO = (".mp4", ".mkv", ".mov")
_IMAGES = (".jpg", ".jpeg", ".png")
_LINES = (".jsonl", ".ndjson")
_OVERWRITE = ("no", "yes")
_FORMATS = ("jpg", "png")  # of annotated images in a folder
_MASKS = ("none", "rle")  # of segments in JSON lines
_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_SCALES = ("1", "2", "3", "4")  # factors by which a video is larger than its frames


Opener: TypeAlias = Callable[[Context], Writer]


class _Prepared(NamedTuple):
    """A sink whose target and options are parsed."""

    open: Opener
    name: str = ""  # without secrets; "": the URI


class _Kind(NamedTuple):
    """A kind of sink, by its scheme in `_KINDS`: all that a new one has to declare."""

    prepare: Callable[[str, Mapping[str, str]], _Prepared]  # target, options; raises UnknownSinkError
    recording: bool
    options: tuple[str, ...] = ()  # beside `policy`
    overlays: bool = False
    is_folder: bool = False
    needs_target: bool = False


SinkTarget: TypeAlias = "str | os.PathLike[str] | Sink | Callable[[PanopticResult], object]"


def open_sink(target: SinkTarget) -> Sink:
    """Return a sink, not yet started.

    Args:
        target: a URI or path, see the top of this file; a function that takes a `PanopticResult`; or a sink.

    Raises:
        UnknownSinkError: the URI or one of its options is unknown.
        TypeError: `target` is none of these.
    """
    if isinstance(target, Sink):
        return target
    if isinstance(target, (str, os.PathLike)) and isinstance(text := os.fspath(target), str):
        if len(text) > LONGEST:
            raise UnknownSinkError(f"sink: got a name of {len(text)} characters, expected at most {LONGEST}.")
        return _open(text, *(_split(text) if isinstance(target, str) else (*_file(text), {})))
    if callable(target) and not isinstance(target, type):
        name = getattr(target, "__qualname__", type(target).__qualname__)
        return Sink(SinkSpec(name, lambda _: _CallWriter(target), recording=True))
    raise TypeError(
        f"sinks: got {type(target).__name__}, expected a URI or path, a function that takes a PanopticResult, or a "
        "Sink of open_sink."
    )


class _CallWriter:
    """Calls a function of the user."""

    def __init__(self, function: Callable[[PanopticResult], object]) -> None:
        self._function = function

    def write(self, item: Item) -> None:
        """Call the function with a result."""
        self._function(item.result)

    def close(self) -> None:
        """Do nothing: a function needs no closing."""


def _open(uri: str, scheme: str, target: str, options: Mapping[str, str]) -> Sink:
    kind = _KINDS[scheme]
    for name in options:
        if name not in (*kind.options, "policy"):
            advice = nearest(name, (*kind.options, "policy"))
            raise UnknownSinkError(f"{legible(redact(uri))}: unknown option {legible(name)!r}; {advice}")
    policy = options.get("policy")
    if policy is not None and policy not in POLICIES:
        raise UnknownSinkError(
            f"{legible(redact(uri))}: policy: got {legible(policy)!r}, expected {' or '.join(POLICIES)}."
        )
    if kind.needs_target and not target:
        raise UnknownSinkError(f"{legible(uri)}: names no target; expected {scheme}://NAME.")
    if "\0" in target:
        raise UnknownSinkError(f"{legible(uri)}: a name cannot hold a NUL character.")
    if options.get("overwrite", "no") not in _OVERWRITE:
        raise UnknownSinkError(
            f"{legible(redact(uri))}: overwrite: got {legible(options['overwrite'])!r}, expected "
            f"{' or '.join(_OVERWRITE)}."
        )
    prepared = kind.prepare(target, options)
    overlays = kind.overlays and options.get("scale", "1") == "1"  # enlarged ones are drawn on enlarged frames
    return Sink(
        SinkSpec(
            prepared.name or legible(uri),
            prepared.open,
            kind.recording,
            policy,
            overlays,
            target=Path(target or "-") if kind.recording else None,
            is_folder=kind.is_folder,
        )
    )


def _split(text: str) -> tuple[str, str, dict[str, str]]:
    """Return the scheme, the target and the options of a URI or file name."""
    target, options = split_options(text)
    uri = split(target)
    if uri is not None and uri.scheme in _KINDS:
        return uri.scheme, target.partition("://")[2], options
    if uri is not None and uri.scheme == "file":
        target = str(file_path(uri, UnknownSinkError))
    elif uri is not None:
        raise UnknownSinkError(f"{uri}: no sink has the scheme {legible(uri.scheme)!r}; {nearest(uri.scheme, _KINDS)}")
    if target == "-":
        return "jsonl", "", options
    return (*_file(target), options)


def _file(path: str) -> tuple[str, str]:
    """Return the scheme that the suffix of a file implies, and its path."""
    suffix = Path(path).suffix.lower()
    if suffix in _VIDEO:
        return "video", path
    if suffix in _IMAGES:
        return "image", path
    if suffix in _LINES:
        return "jsonl", path
    raise UnknownSinkError(
        f"{legible(redact(path))}: unknown kind of file; expected a name that ends in "
        f"{', '.join((*_VIDEO, *_IMAGES, *_LINES))}, "
        f"or one of {', '.join(f'{name}://' for name in _KINDS)}."
    )


def _video(target: str, options: Mapping[str, str], context: Context) -> Writer:
    crf = options.get("crf", "23")
    if not crf.isdecimal() or int(crf) > 51:
        raise UnknownSinkError(f"{target}: crf: got {crf!r}, expected 0 (best) to 51.")
    scale = options.get("scale", "1")
    if scale not in _SCALES:
        raise UnknownSinkError(f"{target}: scale: got {scale!r}, expected {' or '.join(_SCALES)}.")
    sources = [source.name for source in context.status().sources]
    preset = options.get("preset", "veryfast")
    if preset not in _PRESETS:
        raise UnknownSinkError(f"{target}: unknown preset {preset!r}; {nearest(preset, _PRESETS)}")
    overwrite = options.get("overwrite") == "yes"
    return VideoWriter(Path(target), sources, crf=int(crf), preset=preset, scale=int(scale), overwrite=overwrite)


def _lines(target: str, options: Mapping[str, str], _: Context) -> Writer:
    masks = options.get("masks", "none")
    if masks not in _MASKS:
        raise UnknownSinkError(f"{target or '-'}: masks: got {legible(masks)!r}, expected {' or '.join(_MASKS)}.")
    if not target:
        return StandardOutputWriter(rle=masks == "rle")
    return JsonLinesWriter(Path(target), overwrite=options.get("overwrite") == "yes", rle=masks == "rle")


def _images(target: str, options: Mapping[str, str], _: Context) -> Writer:
    kind = options.get("format", "jpg")
    if kind not in _FORMATS:
        raise UnknownSinkError(f"images://{target}: format: got {legible(kind)!r}, expected {' or '.join(_FORMATS)}.")
    overwrite = options.get("overwrite") == "yes"
    return ImageFolderWriter(Path(target), render_overlay, suffix=f".{kind}", overwrite=overwrite)


def _mask_images(target: str, options: Mapping[str, str], _: Context) -> Writer:
    return ImageFolderWriter(Path(target), render_ids, suffix=".png", overwrite=options.get("overwrite") == "yes")


def _server(scheme: str, writer: type[WebWriter] | type[MetricsWriter], *, overlays: bool = False) -> _Kind:
    def prepare(target: str, options: Mapping[str, str]) -> _Prepared:
        address = parse_address(scheme, target, options)
        return _Prepared(lambda context: writer(address, context), address.uri)

    return _Kind(prepare, recording=False, options=OPTIONS, overlays=overlays)


def _later(
    open_writer: Callable[[str, Mapping[str, str], Context], Writer],
) -> Callable[[str, Mapping[str, str]], _Prepared]:
    """Prepare a kind of sink that checks its target and options when it is opened."""
    return lambda target, options: _Prepared(lambda context: open_writer(target, options, context))


_KINDS: dict[str, _Kind] = {
    "video": _Kind(_later(_video), recording=True, options=("crf", "preset", "scale", "overwrite"), overlays=True),
    "image": _Kind(
        _later(lambda target, options, _: ImageWriter(Path(target), overwrite=options.get("overwrite") == "yes")),
        recording=True,
        options=("overwrite",),
        overlays=True,
        needs_target=True,
    ),
    "images": _Kind(
        _later(_images),
        recording=True,
        options=("format", "overwrite"),
        overlays=True,
        is_folder=True,
        needs_target=True,
    ),
    "masks": _Kind(_later(_mask_images), recording=True, options=("overwrite",), is_folder=True, needs_target=True),
    "jsonl": _Kind(_later(_lines), recording=True, options=("overwrite", "masks")),
    "coco": _Kind(
        _later(lambda target, _, context: CocoWriter(Path(target), context.model)),
        recording=True,
        is_folder=True,
        needs_target=True,
    ),
    "npy": _Kind(
        _later(lambda target, *_: NumpyWriter(Path(target))), recording=True, is_folder=True, needs_target=True
    ),
    "shm": _Kind(_later(lambda target, *_: SharedMemoryWriter(target)), recording=False, needs_target=True),
    "window": _Kind(_later(lambda *_: WindowWriter()), recording=False, overlays=True),
    "web": _server("web", WebWriter, overlays=True),
    "metrics": _server("metrics", MetricsWriter),
}
SCHEMES = tuple(_KINDS)
