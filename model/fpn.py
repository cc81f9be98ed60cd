"""Feature pyramid (Lin et al. 2017) as detectron2 builds it.

Shapes: C2..C5 (N, C_l, H/s, W/s) -> P2..P6 (N, width, H/s, W/s) with s = 4..64; P6 has ceil of half of P5.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from panrt.model.config import FpnConfig
from panrt.model.layers import conv1x1, conv3x3, init_xavier, make_norm

STRIDES = (4, 8, 16, 32, 64)  # of P2..P6
ROI_LEVELS = 4  # RoIs and the semantic branch read P2..P5, P6 is for the RPN alone


class Fpn(nn.Module):
    """The feature pyramid: (C2, .., C5) -> (P2, .., P6)."""

    def __init__(self, in_channels: Sequence[int], config: FpnConfig) -> None:
        super().__init__()
        width = config.width
        self.fusion = config.fusion
        self.lateral = nn.ModuleList(conv1x1(c, width, norm=make_norm(config.norm, width)) for c in in_channels)
        self.output = nn.ModuleList(
            conv3x3(width, width, separable=config.separable, norm=make_norm(config.norm, width)) for _ in in_channels
        )
        init_xavier(self)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        merged: Tensor | None = None
        pyramid: list[Tensor] = []
        for c, lateral, output in zip(reversed(maps), reversed(self.lateral), reversed(self.output), strict=True):
            x: Tensor = lateral(c)
            if merged is not None:
                x = x + functional.interpolate(merged, scale_factor=2.0, mode="nearest")
                x = x / 2 if self.fusion == "average" else x
            merged = x
            pyramid.insert(0, output(merged))
        # P6 takes every second cell of P5 and computes nothing
        return (*pyramid, functional.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
