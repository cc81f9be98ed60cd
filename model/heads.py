"""The four heads on top of the pyramid; the custom ops between them are in `custom_ops`.

Shapes: N images, A anchors per cell, R RoIs, K detections, C thing classes, S semantic channels (0 = "things"), Hl, Wl
the size of level l, D the pyramid's width. Architectures and initialisations are detectron2's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from panrt.model.config import Activation, BoxHeadConfig, MaskHeadConfig, RpnConfig, SemanticConfig
from panrt.model.layers import conv3x3, init_msra, init_normal, init_xavier, make_activation, make_norm


class RpnOutput(NamedTuple):
    logits: tuple[Tensor, ...]  # per level (N, A, Hl, Wl), objectness
    deltas: tuple[Tensor, ...]  # per level (N, 4A, Hl, Wl), channel 4a + j is delta j of anchor a


class BoxOutput(NamedTuple):
    logits: Tensor  # (N * R, C + 1), background last
    deltas: Tensor  # (N * R, 4C), class-major


class RpnHead(nn.Module):
    """One small network, shared by all levels: 3x3 convolutions, then logits and deltas."""

    def __init__(self, width: int, config: RpnConfig, activation: Activation) -> None:
        super().__init__()
        anchors = len(config.aspect_ratios)
        widths = [width, *(own or width for own in config.conv_widths)]
        layers = [nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(widths)]
        self.activation = make_activation(activation)
        self.conv = layers[0] if len(layers) == 1 else self._stacked(layers)
        self.objectness_logits = nn.Conv2d(widths[-1], anchors, 1)
        self.anchor_deltas = nn.Conv2d(widths[-1], 4 * anchors, 1)
        init_normal(self, std=0.01)

    def _stacked(self, layers: Sequence[nn.Module]) -> nn.Module:
        """The layers as conv0, conv1, ..., with activations between them."""
        stack = nn.Sequential()
        for index, layer in enumerate(layers):
            if index:
                stack.add_module(f"activation{index}", self.activation)
            stack.add_module(f"conv{index}", layer)
        return stack

    def forward(self, pyramid: Sequence[Tensor]) -> RpnOutput:
        hidden = [self.activation(self.conv(level)) for level in pyramid]
        return RpnOutput(
            tuple(self.objectness_logits(x) for x in hidden),
            tuple(self.anchor_deltas(x) for x in hidden),
        )


class BoxHead(nn.Module):
    """Pooled RoIs (N * R, D, S, S) -> class logits and box deltas, by convolutions, if any, and linear layers."""

    def __init__(self, width: int, thing_classes: int, config: BoxHeadConfig, activation: Activation) -> None:
        super().__init__()
        self.activation = make_activation(activation)
        self.convolutions, self.layers = config.convolutions, config.layers
        for index in range(config.convolutions):
            norm = make_norm(config.norm, config.width)
            convolution = conv3x3(config.width if index else width, config.width, separable=False, norm=norm)
            self.add_module(f"conv{index + 1}", convolution)
        pooled = (config.width if config.convolutions else width) * config.pooled_size**2
        for index in range(config.layers):
            self.add_module(f"fc{index + 1}", nn.Linear(config.hidden if index else pooled, config.hidden))
        self.cls_score = nn.Linear(config.hidden, thing_classes + 1)
        self.bbox_pred = nn.Linear(config.hidden, 4 * thing_classes)
        init_xavier(self)
        init_msra(self)  # the convolutions
        init_normal(self.cls_score, std=0.01)
        init_normal(self.bbox_pred, std=0.001)

    def forward(self, pooled: Tensor) -> BoxOutput:
        x = pooled
        for index in range(self.convolutions):
            x = self.activation(self.get_submodule(f"conv{index + 1}")(x))
        x = x.flatten(1)
        for index in range(self.layers):
            x = self.activation(self.get_submodule(f"fc{index + 1}")(x))
        return BoxOutput(self.cls_score(x), self.bbox_pred(x))


class MaskHead(nn.Module):
    """The mask head: pooled RoIs (R, D, S, S) and a class for each -> mask logits (R, 2S, 2S) of that class."""

    def __init__(self, width: int, thing_classes: int, config: MaskHeadConfig, activation: Activation) -> None:
        super().__init__()
        self.thing_classes = thing_classes
        self.fcn = nn.ModuleList(
            conv3x3(
                width if index == 0 else config.width,
                config.width,
                separable=config.separable,
                norm=make_norm(config.norm, config.width),
            )
            for index in range(config.convolutions)
        )
        self.activation = make_activation(activation)
        self.deconv = nn.ConvTranspose2d(config.width if config.convolutions else width, config.width, 2, stride=2)
        self.predictor = nn.Conv2d(config.width, thing_classes, 1)
        init_msra(self)
        init_normal(self.predictor, std=0.001)

    def forward(self, pooled: Tensor, classes: Tensor) -> Tensor:
        x = pooled
        for convolution in self.fcn:
            x = self.activation(convolution(x))
        logits = self.predictor(self.activation(self.deconv(x)))  # (R, C, 2S, 2S)
        # One flat index_select: a plain Gather when exported, where advanced indexing would be a GatherND.
        rows = torch.arange(classes.numel(), device=classes.device) * self.thing_classes + classes.flatten()
        chosen: Tensor = logits.flatten(0, 1).index_select(0, rows)
        return chosen


class SemanticHead(nn.Module):
    """P2..P5 -> semantic logits (N, S, H/4, W/4): each level is brought to 1/4, then all are summed or concatenated."""

    def __init__(self, width: int, channels: int, config: SemanticConfig, activation: Activation) -> None:
        super().__init__()
        self.aggregation = config.aggregation
        for level in (2, 3, 4, 5):
            layers: list[nn.Module] = []
            # P2 is at 1/4 already and gets one convolution; a level above is convolved and doubled until it is there.
            for step in range(max(1, level - 2)):
                convolution = conv3x3(
                    width if step == 0 else config.width,
                    config.width,
                    separable=config.separable,
                    norm=make_norm(config.norm, config.width),
                )
                layers.append(nn.Sequential(convolution, make_activation(activation)))
                if level > 2:
                    layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            setattr(self, f"p{level}", nn.Sequential(*layers))
        merged = config.width * (4 if config.aggregation == "concat" else 1)
        self.predictor = nn.Conv2d(merged, channels, 1)
        init_msra(self)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        maps = [self.get_submodule(f"p{level}")(x) for level, x in zip((2, 3, 4, 5), pyramid, strict=True)]
        merged = torch.cat(maps, dim=1) if self.aggregation == "concat" else sum(maps[1:], start=maps[0])
        logits: Tensor = self.predictor(merged)
        return logits


class DilatedSemanticHead(nn.Module):
    """The baseline without a pyramid: C5 of a dilated trunk -> semantic logits (N, S, H/4, W/4)."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, config: SemanticConfig, activation: Activation
    ) -> None:
        super().__init__()
        self.scale = stride / 4
        self.conv = conv3x3(
            in_channels, config.width, separable=config.separable, norm=make_norm(config.norm, config.width)
        )
        self.activation = make_activation(activation)
        self.predictor = nn.Conv2d(config.width, channels, 1)
        init_msra(self)

    def forward(self, c5: Tensor) -> Tensor:
        logits = self.predictor(self.activation(self.conv(c5)))
        return functional.interpolate(logits, scale_factor=self.scale, mode="bilinear", align_corners=False)
