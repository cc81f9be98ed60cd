"""EfficientNet-Lite0 trunk (Tan and Le 2019; the Lite variant has no squeeze-excitation and clips at 6).

Shapes: image (N, 3, H, W) normalised BGR, H and W multiples of 32; C2..C5 (N, 24 | 40 | 112 | 320, H/s, W/s),
strides s = 4, 8, 16, 32.

TensorFlow's "SAME" padding depends on the input size. For multiples of 32 it is always the same asymmetric pad, which
is what this trunk does: exact, and a constant in an exported graph.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from panrt.model.backbones.trunk import Trunk, TrunkWeights
from panrt.model.layers import FrozenBatchNorm2d, NormedConv2d, init_msra

BATCH_NORM_EPS = 1e-3


class Stage(NamedTuple):
    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),  # C2
    Stage(2, 5, 2, 6, 40),  # C3
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),  # C4
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),  # C5
)
LEVEL_ENDS = (1, 2, 4, 6)  # the stages whose outputs are C2..C5


class SameConv2d(NormedConv2d):
    """A convolution with a frozen norm and TensorFlow's SAME padding for even inputs."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        # stride 2 pads k - 2 in all, the smaller half first: k3 (0, 1), k5 (1, 2)
        before, after = (kernel_size - stride) // 2, (kernel_size - stride + 1) // 2
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=before if before == after else 0,
            groups=groups,
            norm=FrozenBatchNorm2d(out_channels, BATCH_NORM_EPS),
        )
        self.asymmetric = None if before == after else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        padded = x if self.asymmetric is None else functional.pad(x, self.asymmetric)
        if self.groups > 1 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # the bfloat16 gradient of a depthwise 5x5 takes a CPU four times as long as the float32 one
            with torch.autocast("cpu", enabled=False):
                return super().forward(padded.float())
        return super().forward(padded)


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise convolution and a 1x1 projection, added to the input if shapes agree."""

    def __init__(self, in_channels: int, stage: Stage, *, stride: int) -> None:
        super().__init__()
        hidden = in_channels * stage.expansion
        self.expand = None if stage.expansion == 1 else SameConv2d(in_channels, hidden, 1)
        self.depthwise = SameConv2d(hidden, hidden, stage.kernel_size, stride=stride, groups=hidden)
        self.project = SameConv2d(hidden, stage.channels, 1)
        self.has_shortcut = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else functional.relu6(self.expand(x))
        projected: Tensor = self.project(functional.relu6(self.depthwise(hidden)))
        return x + projected if self.has_shortcut else projected


def _package_name(name: str) -> str:
    """Return a name in `efficientnet_lite_pytorch`: `blocks.1.0.project.norm.weight` -> `_blocks.1._bn2.weight`."""
    stem = name.removeprefix("stem.")
    if stem != name:
        return f"_bn0.{stem.removeprefix('norm.')}" if stem.startswith("norm.") else f"_conv_stem.{stem}"
    _, stage, repeat, part, rest = name.split(".", 4)
    block = sum(before.repeats for before in STAGES[: int(stage)]) + int(repeat)
    if rest.startswith("norm."):
        norm = ("expand", "depthwise", "project").index(part)
        return f"_blocks.{block}._bn{norm}.{rest.removeprefix('norm.')}"
    return f"_blocks.{block}._{part}_conv.{rest}"


class EfficientNetLite(Trunk):
    """The trunk: image -> (C2, C3, C4, C5)."""

    channels = (24, 40, 112, 320)
    weights = (
        TrunkWeights(
            "EfficientNet-Lite",
            "_conv_stem.weight",
            _package_name,
            rgb=True,
            ignored=re.compile(r"_conv_head\..*|_bn1\..*|_fc\..*|.*\.num_batches_tracked"),
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList()  # one Sequential a stage
        in_channels = STEM_CHANNELS
        for stage in STAGES:
            layers = []
            for repeat in range(stage.repeats):
                layers.append(InvertedResidual(in_channels, stage, stride=stage.stride if repeat == 0 else 1))
                in_channels = stage.channels
            self.blocks.append(nn.Sequential(*layers))
        init_msra(self)

    def stages(self) -> tuple[nn.Module, ...]:
        """Return the stem and the seven stages in order; training freezes a prefix of them."""
        return (self.stem, *self.blocks)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = functional.relu6(self.stem(image))
        levels = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in LEVEL_ENDS:
                levels.append(x)
        c2, c3, c4, c5 = levels
        return c2, c3, c4, c5
