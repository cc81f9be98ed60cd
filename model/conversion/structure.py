"""The structure of a checkpoint's network by the shapes of its tensors: depth, widths, layers, norms and classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from panrt.model.backbones.resnet import BLOCKS
from panrt.model.config import (
    BoxHeadConfig,
    FpnConfig,
    InstanceConfig,
    MaskHeadConfig,
    Norm,
    PanopticFPNConfig,
    ResNetConfig,
    SemanticConfig,
)

Shape = tuple[int, ...]
T = TypeVar("T", FpnConfig, BoxHeadConfig, MaskHeadConfig, SemanticConfig, ResNetConfig)


def class_counts(shapes: Mapping[str, Shape], their_name: Callable[[str], str]) -> tuple[int | None, int | None]:
    """Return the numbers of things and stuff that weights were trained on; None if there is no such branch.

    Args:
        shapes: of the tensors, by the file's names.
        their_name: gives the file's name of one of PanRT's tensors.
    """
    things, stuff = ("instance.box_head.cls_score.", "semantic.predictor.")
    return _outputs(shapes, their_name, things), _outputs(shapes, their_name, stuff)


def _outputs(shapes: Mapping[str, Shape], their_name: Callable[[str], str], layer: str) -> int | None:
    """Return the channels of a layer without the one for what is no class; None if it is missing or damaged."""
    weight, bias = (shapes.get(their_name(f"{layer}{part}"), ()) for part in ("weight", "bias"))
    return weight[0] - 1 if weight and weight[:1] == bias else None


def with_structure(
    config: PanopticFPNConfig, shapes: Mapping[str, Shape], their_name: Callable[[str], str]
) -> PanopticFPNConfig:
    """Return the configuration with the structure of these weights; what shapes do not show is unchanged.

    Arguments as for `class_counts`. Classes are unchanged too.

    Raises:
        ValueError: the shapes are none that the network can have.
    """
    seen = _Shapes(shapes, their_name)
    instance, semantic = config.instance, config.semantic
    if instance is not None:
        instance = None if seen.side("instance.box_head.cls_score.weight") is None else _instances(seen, instance)
    if semantic is not None:
        width = seen.side("semantic.p2.0.0.weight")
        semantic = None if width is None else _sized(semantic, width=width, norm=seen.norm("semantic.p2.0.0"))
    fpn = config.fpn
    if fpn is not None:
        fpn = _sized(fpn, width=seen.side("backbone.fpn.output.0.weight"), norm=seen.norm("backbone.fpn.output.0"))
    trunk = _trunk(seen, config.trunk) if isinstance(config.trunk, ResNetConfig) else config.trunk
    return dataclasses.replace(config, trunk=trunk, fpn=fpn, instance=instance, semantic=semantic)


class _Shapes:
    """The shapes, by PanRT's names."""

    def __init__(self, shapes: Mapping[str, Shape], their_name: Callable[[str], str]) -> None:
        self.shapes = shapes
        self.their_name = their_name

    def side(self, name: str, axis: int = 0) -> int | None:
        shape = self.shapes.get(self.their_name(name), ())
        return shape[axis] if len(shape) > axis else None

    def norm(self, layer: str) -> Norm:
        if self.side(f"{layer}.norm.weight") is None:
            return "none"
        return "group" if self.side(f"{layer}.norm.running_mean") is None else "batch"

    def count(self, pattern: str, start: int) -> int:
        """Return how many layers there are: `pattern` with numbers from `start` on."""
        number = start
        while number < 1000 and self.side(pattern.format(number)) is not None:
            number += 1
        return number - start


def _sized(config: T, **found: object) -> T:
    """Replace what was found."""
    known = {name: value for name, value in found.items() if value is not None}
    replaced: T = dataclasses.replace(config, **known)  # type: ignore[arg-type]  # checked by the configuration
    return replaced


def _trunk(seen: _Shapes, trunk: ResNetConfig) -> ResNetConfig:
    blocks = tuple(seen.count(f"backbone.trunk.res{stage}.{{}}.conv1.weight", 0) for stage in (2, 3, 4, 5))
    depth = next((depth for depth, known in BLOCKS.items() if known == blocks), None)
    width, per_group = (seen.side("backbone.trunk.res2.0.conv2.weight", axis) for axis in (0, 1))
    groups = width // per_group if width and per_group else None
    is_group = seen.side("backbone.trunk.stem.conv1.norm.running_mean") is None
    norm = "group" if is_group and seen.side("backbone.trunk.stem.conv1.norm.weight") is not None else "frozen_batch"
    return _sized(trunk, depth=depth, groups=groups, width_per_group=per_group, norm=norm)


def _instances(seen: _Shapes, instance: InstanceConfig) -> InstanceConfig:
    convolutions = seen.count("instance.box_head.conv{}.weight", 1)
    width = seen.side(f"instance.box_head.conv{convolutions}.weight")
    before = width if width is not None else seen.side("backbone.fpn.output.0.weight")
    pooled = seen.side("instance.box_head.fc1.weight", 1)
    box = _sized(
        instance.box,
        convolutions=convolutions,
        width=width,
        norm=seen.norm("instance.box_head.conv1"),
        layers=seen.count("instance.box_head.fc{}.weight", 1) or None,
        hidden=seen.side("instance.box_head.fc1.weight"),
        pooled_size=math.isqrt(pooled // before) if pooled and before else None,
    )
    mask = _sized(
        instance.mask,
        convolutions=seen.count("instance.mask_head.fcn.{}.weight", 0),
        width=seen.side("instance.mask_head.deconv.weight", 1),
        norm=seen.norm("instance.mask_head.fcn.0"),
    )
    layers = seen.count("instance.rpn_head.conv.conv{}.weight", 0)
    names = [f"conv{index}." for index in range(layers)] or [""]
    widths = [seen.side(f"instance.rpn_head.conv.{name}weight") for name in names]
    inputs = seen.side(f"instance.rpn_head.conv.{names[0]}weight", 1)
    found = tuple(width for width in widths if width is not None)
    rpn = instance.rpn
    if len(found) == len(names):
        same = len(found) == 1 and found[0] == inputs
        rpn = dataclasses.replace(rpn, conv_widths=(0,) if same else found)
    return dataclasses.replace(instance, rpn=rpn, box=box, mask=mask)
