"""What a machine that has only a bundle may lack: the CPU kernels, for which the reference stands in, and OpenCV."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from gpu.checks import MissingError

OPS = ("rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge", "overlay")


def stand_in() -> list[str]:
    """Put something in the place of modules that do not import; return their names."""
    replaced = []
    for name, make in {"panrt.plugins.native": _reference, "cv2": _without_opencv}.items():
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = made = make(name)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, made)
            replaced.append(name)
    return replaced


def _reference(name: str) -> ModuleType:
    """The ops as the reference computes them, which gives the same and takes no threads."""
    reference = importlib.import_module("panrt.plugins.reference")
    made = ModuleType(name)
    for op in OPS:
        setattr(made, op, _without_threads(getattr(reference, op)))
    return made


def _without_threads(function: Any) -> Any:
    def call(*inputs: Any, threads: int = 1, **options: Any) -> Any:
        del threads
        return function(*inputs, **options)

    return call


def _without_opencv(name: str) -> ModuleType:
    """A module whose functions say that OpenCV is missing, and whose constants are of no use."""
    made = ModuleType(name)
    made.__getattr__ = _Absent  # type: ignore[method-assign]
    return made


class _Absent:
    """A function or constant of OpenCV."""

    def __init__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        self._name = name

    def __or__(self, other: object) -> _Absent:
        return self

    def __call__(self, *_: object, **__: object) -> Any:
        raise MissingError(f"OpenCV is missing, for cv2.{self._name}")
