"""The network in PyTorch: backbones, FPN, heads, losses, training, checkpoints and panoptic quality.

The names below need PyTorch and import it when they are first used; metrics and class tables, which live here too, do
without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from panrt import lazy

if TYPE_CHECKING:
    from panrt.model.checkpoints import from_detectron2, load, load_trunk, save
    from panrt.model.panoptic_fpn import PanopticFPN, build

__all__ = ["PanopticFPN", "build", "from_detectron2", "load", "load_trunk", "save"]

__getattr__ = lazy.names(
    __name__,
    {
        "PanopticFPN": "panrt.model.panoptic_fpn",
        "build": "panrt.model.panoptic_fpn",
        "from_detectron2": "panrt.model.checkpoints",
        "load": "panrt.model.checkpoints",
        "load_trunk": "panrt.model.checkpoints",
        "save": "panrt.model.checkpoints",
    },
)
