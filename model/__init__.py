"""The network in PyTorch: backbones, FPN, heads, losses, training, checkpoints and panoptic quality."""

from panrt.model.checkpoints import from_detectron2, load, load_trunk, save
from panrt.model.panoptic_fpn import PanopticFPN, build

__all__ = ["PanopticFPN", "build", "from_detectron2", "load", "load_trunk", "save"]
