"""Fold batch norms into the convolutions before them, so that an exported graph has none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from panrt.model.layers import FrozenBatchNorm2d, NormedConv2d


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> None:
    """Rewrite, in place, every convolution that has fixed statistics after it; group norms stay.

    Computed in float64 and rounded once: y = scale * (w * x) + shift = (scale * w) * x + shift.
    """
    for convolution in network.modules():
        if isinstance(convolution, NormedConv2d) and isinstance(convolution.norm, FrozenBatchNorm2d | nn.BatchNorm2d):
            scale, shift = _affine(convolution.norm)
            weight = convolution.weight.double() * scale.view(-1, 1, 1, 1)
            convolution.weight.copy_(weight)
            convolution.bias = nn.Parameter(shift.to(convolution.weight), requires_grad=False)
            convolution.norm = nn.Identity()


def _affine(norm: FrozenBatchNorm2d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of the same map, float64."""
    weight, bias, mean, variance = norm.weight, norm.bias, norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = weight.double() / torch.sqrt(variance.double() + norm.eps)
    return scale, bias.double() - mean.double() * scale
