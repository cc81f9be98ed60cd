"""Export of a model to one portable ONNX file, and of that file to a TensorRT engine.

The names below need PyTorch and ONNX, and import them when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from panrt.errors import ExportError
    from panrt.export.build import build_engine
    from panrt.export.onnx import to_onnx
    from panrt.export.verify import compare

__all__ = ["ExportError", "build_engine", "compare", "to_onnx"]

_HOMES = {
    "ExportError": "errors",
    "build_engine": "build",
    "compare": "verify",
    "to_onnx": "onnx",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
