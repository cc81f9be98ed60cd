"""The layers that the backbones and heads share.

Shapes: maps are (N, C, H, W). Parameter names follow detectron2: a convolution owns the normalisation after it as
`norm`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from panrt.model.config import Activation, Norm


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with fixed statistics and affine: y = (x - mean) / sqrt(var + eps) * weight + bias.

    All four are buffers. A fresh one is the exact identity.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels) - eps)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) of the same map."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class NormedConv2d(nn.Conv2d):
    """A convolution without bias and the normalisation after it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        norm: nn.Module,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        if self.training and isinstance(self.norm, FrozenBatchNorm2d):
            # a gradient through scaled weights is cheap, one through a normalised map is as large as the map
            scale, shift = self.norm.affine()
            normed: Tensor = self._conv_forward(x, self.weight * scale.view(-1, 1, 1, 1), shift)
        else:
            normed = self.norm(super().forward(x))
        return normed


class SeparableConv2d(nn.Sequential):
    """A depthwise 3x3 and a pointwise 1x1 convolution, nothing between them, then `norm` in place of a bias."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = conv1x1(in_channels, out_channels, norm=norm)


def conv1x1(in_channels: int, out_channels: int, *, norm: nn.Module | None = None) -> nn.Module:
    """Return a 1x1 convolution, with a bias or a norm after it."""
    if norm is None:
        return nn.Conv2d(in_channels, out_channels, 1)
    return NormedConv2d(in_channels, out_channels, 1, norm=norm)


def conv3x3(in_channels: int, out_channels: int, *, separable: bool, norm: nn.Module | None = None) -> nn.Module:
    """Return a 3x3 convolution that keeps the size, dense or separable, with a bias or a norm after it."""
    if separable:
        return SeparableConv2d(in_channels, out_channels, norm=norm)
    if norm is None:
        return nn.Conv2d(in_channels, out_channels, 3, padding=1)
    return NormedConv2d(in_channels, out_channels, 3, padding=1, norm=norm)


def make_norm(kind: Norm, channels: int) -> nn.Module | None:
    """Return the norm of pyramid and heads: 32 groups as in the paper, or a batch norm, which can be folded."""
    if kind == "none":
        return None
    return nn.GroupNorm(32, channels) if kind == "group" else nn.BatchNorm2d(channels)


def make_activation(kind: Activation) -> nn.Module:
    return nn.ReLU() if kind == "relu" else nn.ReLU6()


def init_msra(module: nn.Module) -> None:
    """Initialise every convolution of a module as detectron2's `c2_msra_fill`: normal, fan-out, ReLU gain; bias 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            # counted within a group: for depthwise convolutions torch's own fan-out is off by the number of channels
            fan_out = layer.out_channels // layer.groups * math.prod(layer.kernel_size)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_xavier(module: nn.Module) -> None:
    """Initialise convolutions and linear layers as `c2_xavier_fill` of detectron2: U(+-sqrt(3 / fan_in)); zero bias."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_normal(module: nn.Module, std: float) -> None:
    """Initialise every convolution and linear layer of a module with N(0, std) weights and zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
