"""PanRT: real-time panoptic segmentation, from a PyTorch Panoptic FPN to an engine that streams.

    with panrt.load("street.onnx") as session:
        result = session(frame)  # (H, W, 3) uint8 BGR
        for result in panrt.stream("rtsp://camera/1", session):
            ...

Every exception is one of `panrt.errors` and can be caught by its name here: `except panrt.SourceError`.

Importing this package is cheap and never imports PyTorch; `panrt.model` and `panrt.export` do when they are imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from panrt import errors, lazy
from panrt.errors import *  # noqa: F403  # all of `errors.__all__`, which imports nothing

if TYPE_CHECKING:
    from panrt.engine.frame import Frame as Frame
    from panrt.engine.load import load as load
    from panrt.engine.pipeline import Stream as Stream
    from panrt.engine.pipeline import stream as stream
    from panrt.engine.predict import predict as predict
    from panrt.engine.results.result import PanopticResult as PanopticResult
    from panrt.engine.results.segment import Segment as Segment
    from panrt.engine.results.tracking import Tracker as Tracker
    from panrt.engine.results.tracking import TrackingConfig as TrackingConfig
    from panrt.engine.session import Session as Session
    from panrt.engine.sources.source import SourceOptions as SourceOptions
    from panrt.formats.thresholds import Thresholds as Thresholds

    __version__: str

# Name -> the module that defines it, imported at the first access.
_LAZY = {
    "Frame": "panrt.engine.frame",
    "PanopticResult": "panrt.engine.results.result",
    "Segment": "panrt.engine.results.segment",
    "Session": "panrt.engine.session",
    "SourceOptions": "panrt.engine.sources.source",
    "Stream": "panrt.engine.pipeline",
    "Thresholds": "panrt.formats.thresholds",
    "Tracker": "panrt.engine.results.tracking",
    "TrackingConfig": "panrt.engine.results.tracking",
    "load": "panrt.engine.load",
    "predict": "panrt.engine.predict",
    "stream": "panrt.engine.pipeline",
}

__all__ = [
    "Frame",
    "PanopticResult",
    "Segment",
    "Session",
    "SourceOptions",
    "Stream",
    "Thresholds",
    "Tracker",
    "TrackingConfig",
    "__version__",
    "load",
    "predict",
    "stream",
]
__all__ += errors.__all__

_find = lazy.names(__name__, _LAZY)


def __getattr__(name: str) -> Any:
    if name == "__version__":  # reading the installed package's metadata takes ten times as long as this import
        from panrt.version import version  # noqa: PLC0415

        return globals().setdefault(name, version())
    return _find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
