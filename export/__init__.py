"""Export of a model to one portable ONNX file, and of that file to a TensorRT engine.

The names below need PyTorch and ONNX, and import them when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from panrt import lazy

if TYPE_CHECKING:
    from panrt.errors import ExportError
    from panrt.export.build import build_engine
    from panrt.export.onnx import to_onnx
    from panrt.export.verify import compare

__all__ = ["ExportError", "build_engine", "compare", "to_onnx"]

__getattr__ = lazy.names(
    __name__,
    {
        "ExportError": "panrt.errors",
        "build_engine": "panrt.export.build",
        "compare": "panrt.export.verify",
        "to_onnx": "panrt.export.onnx",
    },
)
