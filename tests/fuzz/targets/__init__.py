"""The targets by name; a target's module is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import lru_cache

from fuzz.target import Target

_MODULES = {
    "checkpoints": ("pickle", "torch", "safetensors"),
    "models": ("onnx", "metadata", "plan"),
    "datasets": ("coco", "classes"),
    "media": ("pictures", "clips"),
    "network": ("live", "rtsp", "http", "memory"),
    "words": ("benchmark", "uris"),
    "kernels": ("kernels", "bindings"),
}
NAMES = tuple(name for names in _MODULES.values() for name in names)
_MODULES |= {"planted": ("planted",)}  # of the tests of all this


@lru_cache
def load(name: str) -> Target:
    """A target by its name."""
    module = next(module for module, names in _MODULES.items() if name in names)
    targets: Iterable[Target] = importlib.import_module(f"fuzz.targets.{module}").TARGETS
    return next(target for target in targets if target.name == name)
