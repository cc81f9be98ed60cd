"""From a URI to a sink.

    out.mp4  out.mkv        annotated video, H.264; ?crf=23&preset=veryfast&scale=1
    out.jsonl  -            a line of JSON for each result, in a file or on standard output
    coco://FOLDER           a folder in the COCO panoptic format
    npy://FOLDER            panoptic maps as NumPy arrays, and results.jsonl
    shm://NAME              shared memory, for `SharedMemoryReader` in another process
    window://               a window on the screen
    web://:8080             a live page, with /metrics and /healthz, for this machine; web://0.0.0.0:8080 for the
                            network, which then needs a token; ?token=TEXT, auto or none, ?host=NAME
    metrics://:9090         /metrics for Prometheus and /healthz, alone; addresses and options as for web://

?policy=block makes the stream wait for a sink, ?policy=latest lets results give way; recordings (files and folders) do
as their stream does by default, views drop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from panrt.engine.sinks.address import OPTIONS, parse_address
from panrt.engine.sinks.errors import UnknownSinkError
from panrt.engine.sinks.files import CocoWriter, JsonLinesWriter, NumpyWriter
from panrt.engine.sinks.http import MetricsWriter
from panrt.engine.sinks.shared_memory import SharedMemoryWriter
from panrt.engine.sinks.sink import Context, Sink, SinkSpec, Writer
from panrt.engine.sinks.video import VideoWriter
from panrt.engine.sinks.web import WebWriter
from panrt.engine.sinks.window import WindowWriter
from panrt.engine.slot import POLICIES
from panrt.engine.uri import file_path, nearest, redact, split, split_options

_VIDEO = (".mp4", ".mkv", ".mov")
_LINES = (".jsonl", ".ndjson")
_SCALES = ("1", "2", "3", "4")  # times that a video is larger than its frames


class _Kind(NamedTuple):
    open: Callable[[str, Mapping[str, str], Context], Writer]
    recording: bool
    options: tuple[str, ...] = ()
    pictures: bool = False


def open_sink(uri: str) -> Sink:
    """A sink for a URI, not yet started.

    Raises:
        UnknownSinkError: nothing answers to that URI, or not to its options.
    """
    scheme, target, options = _split(uri)
    kind = _KINDS[scheme]
    for name in options:
        if name not in (*kind.options, "policy"):
            advice = nearest(name, (*kind.options, "policy"))
            raise UnknownSinkError(f"{redact(uri)}: there is no option {name!r}; {advice}")
    policy = options.get("policy")
    if policy is not None and policy not in POLICIES:
        raise UnknownSinkError(f"{redact(uri)}: policy: got {policy!r}, expected {' or '.join(POLICIES)}.")
    shown = uri
    if scheme in ("web", "metrics"):
        shown = parse_address(scheme, target, options).uri
    elif scheme in ("coco", "npy", "shm") and not target:
        raise UnknownSinkError(f"{uri}: names nothing; expected {scheme}://NAME.")
    pictures = kind.pictures and options.get("scale", "1") == "1"  # larger ones are drawn from larger frames
    return Sink(SinkSpec(shown, lambda context: kind.open(target, options, context), kind.recording, policy, pictures))


def _split(text: str) -> tuple[str, str, dict[str, str]]:
    """The scheme, what it is about, and the options."""
    target, options = split_options(text)
    uri = split(target)
    if uri is not None and uri.scheme in _KINDS:
        return uri.scheme, target.partition("://")[2], options
    if uri is not None and uri.scheme == "file":
        target = str(file_path(uri, UnknownSinkError))
    elif uri is not None:
        raise UnknownSinkError(f"{uri}: no sink is called {uri.scheme!r}; {nearest(uri.scheme, _KINDS)}")
    if target == "-":
        return "jsonl", "", options
    suffix = Path(target).suffix.lower()
    if suffix in _VIDEO:
        return "video", target, options
    if suffix in _LINES:
        return "jsonl", target, options
    raise UnknownSinkError(
        f"{redact(text)}: what is to be written there? A file ends in {', '.join((*_VIDEO, *_LINES))}; "
        f"else there are {', '.join(f'{name}://' for name in _KINDS)}."
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
    return VideoWriter(Path(target), sources, crf=int(crf), preset=preset, scale=int(scale))


def _server(scheme: str, writer: type[WebWriter] | type[MetricsWriter], *, pictures: bool = False) -> _Kind:
    def start(target: str, options: Mapping[str, str], context: Context) -> Writer:
        return writer(parse_address(scheme, target, options), context)

    return _Kind(start, recording=False, options=OPTIONS, pictures=pictures)


_KINDS: dict[str, _Kind] = {
    "video": _Kind(_video, recording=True, options=("crf", "preset", "scale"), pictures=True),
    "jsonl": _Kind(lambda target, _, __: JsonLinesWriter(Path(target) if target else None), recording=True),
    "coco": _Kind(lambda target, _, context: CocoWriter(Path(target), context.model), recording=True),
    "npy": _Kind(lambda target, _, __: NumpyWriter(Path(target)), recording=True),
    "shm": _Kind(lambda target, _, __: SharedMemoryWriter(target), recording=False),
    "window": _Kind(lambda _, __, ___: WindowWriter(), recording=False, pictures=True),
    "web": _server("web", WebWriter, pictures=True),
    "metrics": _server("metrics", MetricsWriter),
}
SCHEMES = tuple(_KINDS)
