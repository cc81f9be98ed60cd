"""The network in PyTorch: backbones, FPN, heads, losses, training, checkpoints and panoptic quality.

The names below need PyTorch and import it when they are first used; metrics and class tables, which live here too, do
without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from panrt.model.checkpoints import from_detectron2, load, load_trunk, save
    from panrt.model.panoptic_fpn import PanopticFPN, build

__all__ = ["PanopticFPN", "build", "from_detectron2", "load", "load_trunk", "save"]

_HOMES = {
    "PanopticFPN": "panoptic_fpn",
    "build": "panoptic_fpn",
    "from_detectron2": "checkpoints",
    "load": "checkpoints",
    "load_trunk": "checkpoints",
    "save": "checkpoints",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
