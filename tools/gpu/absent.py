"""Stand-ins for what a machine with only a bundle may lack: the CPU kernels and optional packages."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from tools.gpu.checks import MissingError

NATIVE = "panrt.plugins.native"
OPS = ("rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge", "overlay")


def stand_in(*packages: str) -> list[str]:
    """Put something in the place of modules that do not import; return their names.

    Args:
        packages: beside the CPU kernels and OpenCV; a use of anything in them raises MissingError.
    """
    replaced = []
    for name in (NATIVE, "cv2", *packages):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = made = _reference(name) if name == NATIVE else _absent(name)
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


def _absent(package: str) -> ModuleType:
    """A module whose functions say that it is missing, and whose constants are of no use."""
    made = ModuleType(package)
    made.__getattr__ = _Absent(package).__getattr__  # type: ignore[method-assign]
    return made


class _Absent:
    """An attribute of a package that is not installed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self._name}.{name}")

    def __or__(self, other: object) -> _Absent:
        return self

    def __call__(self, *_: object, **__: object) -> Any:
        raise MissingError(f"{self._name} is missing: {self._name.split('.')[0]} does not import")
