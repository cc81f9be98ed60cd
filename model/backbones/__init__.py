"""Trunks: image -> C2..C5 at strides 4, 8, 16, 32. Each has a configuration class and a module of this package."""

from __future__ import annotations

from panrt.model.backbones.efficientnet_lite import EfficientNetLite
from panrt.model.backbones.resnet import ResNet
from panrt.model.backbones.trunk import Trunk
from panrt.model.config import EfficientNetLiteConfig, ResNetConfig, TrunkConfig

TRUNKS: tuple[type[Trunk], ...] = (ResNet, EfficientNetLite)


def build_trunk(config: TrunkConfig) -> Trunk:
    """Return the trunk of a configuration, with random weights."""
    match config:
        case ResNetConfig():
            return ResNet(config)
        case EfficientNetLiteConfig():
            return EfficientNetLite()
