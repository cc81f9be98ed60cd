"""PanRT: real-time panoptic segmentation, from a PyTorch Panoptic FPN to an engine that streams.

    with panrt.load("street.onnx") as session:
        result = session(frame)  # (H, W, 3) uint8 BGR
        for result in panrt.stream("rtsp://camera/1", session):
            ...

Importing this package is cheap and never imports PyTorch; `panrt.model` and `panrt.export` do when they are imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panrt.engine.frame import Frame as Frame
    from panrt.engine.load import load as load
    from panrt.engine.pipeline import stream as stream
    from panrt.engine.results.result import PanopticResult as PanopticResult
    from panrt.engine.results.result import Segment as Segment

    __version__: str

# Name -> where it is; imported when it is asked for.
_LAZY = {
    "Frame": "panrt.engine.frame",
    "PanopticResult": "panrt.engine.results.result",
    "Segment": "panrt.engine.results.result",
    "load": "panrt.engine.load",
    "stream": "panrt.engine.pipeline",
}

__all__ = ["Frame", "PanopticResult", "Segment", "__version__", "load", "stream"]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # asking the installation takes ten times as long as this import
        from panrt.version import version  # noqa: PLC0415

        return globals().setdefault(name, version())
    if name not in _LAZY:
        raise AttributeError(f"module 'panrt' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
