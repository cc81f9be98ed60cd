"""Frozen normalisation is one affine map, whichever way it is computed; heads and pyramid take one or none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from panrt.model.config import FpnConfig, MaskHeadConfig, Norm
from panrt.model.fpn import Fpn
from panrt.model.heads import MaskHead
from panrt.model.layers import FrozenBatchNorm2d, NormedConv2d


def test_a_frozen_norm_within_the_weights_has_the_values_and_gradients_of_one_behind_them() -> None:
    random = torch.Generator().manual_seed(0)
    conv = NormedConv2d(3, 4, 3, padding=1, norm=FrozenBatchNorm2d(4))
    for buffer in conv.norm.buffers():
        buffer.copy_(torch.rand(4, generator=random) + 0.1)
    x = torch.randn(2, 3, 5, 6, generator=random, requires_grad=True)
    found: list[tuple[torch.Tensor, ...]] = []
    for training in (True, False):
        conv.train(training).zero_grad()
        x = x.detach().requires_grad_()
        y = conv(x)
        y.square().sum().backward()
        assert x.grad is not None
        assert conv.weight.grad is not None
        found.append((y, x.grad.clone(), conv.weight.grad.clone()))
    for within, behind in zip(*found, strict=True):
        torch.testing.assert_close(within, behind, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("norm", "layers"), [("none", 0), ("batch", 8 + 4)])
def test_pyramid_and_mask_head_are_normalised_where_the_configuration_says_so(norm: Norm, layers: int) -> None:
    fpn = Fpn((8, 8, 8, 8), FpnConfig(width=16, norm=norm, separable=True))
    head = MaskHead(16, 3, MaskHeadConfig(width=16, norm=norm, separable=True), "relu6")
    found = [module for part in (fpn, head) for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(found) == layers
