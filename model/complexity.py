"""Parameters and multiply-adds of a network, part by part, without computing anything.

Counted are convolutions and matrix products, one multiply-add each for a product and its addition. Normalisation,
activation, resizing and the custom ops are not counted, as is customary. R = `post_nms_top_k` RoIs pass the box head
and K = `max_detections` the mask head, which is what an engine of fixed shapes computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from panrt.model.config import PanopticFPNConfig
from panrt.model.custom_ops import CustomOps, Tensors, output_shapes
from panrt.model.panoptic_fpn import PanopticFPN
from panrt.plugins.schema import Op

PARTS = {
    "trunk": "backbone.trunk.",
    "fpn": "backbone.fpn.",
    "rpn head": "instance.rpn_head.",
    "box head": "instance.box_head.",
    "mask head": "instance.mask_head.",
    "semantic head": "semantic.",
}


class PartComplexity(NamedTuple):
    part: str  # a key of PARTS, or "total"
    parameters: int  # trainable; frozen statistics are buffers and not counted
    multiply_adds: int  # of one image


def complexity(config: PanopticFPNConfig, *, height: int, width: int) -> tuple[PartComplexity, ...]:
    """Return the parts of the network, in order, and their total.

    Args:
        config: the network.
        height: valid size of the input in pixels; it is padded to a multiple of 32.
        width: likewise.
    """
    with torch.device("meta"):
        model = PanopticFPN(config).eval()
        image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    multiply_adds = dict.fromkeys(PARTS, 0)

    def count_calls_of(module: nn.Module, part: str) -> None:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            multiply_adds[part] += _multiply_adds(module, inputs[0], output)

        module.register_forward_hook(hook)

    for name, module in model.named_modules():
        for part, prefix in PARTS.items():
            if name.startswith(prefix) and isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                count_calls_of(module, part)
    model.branches(image, ops=_ShapesOnly())
    rows = []
    for part, prefix in PARTS.items():
        parameters = sum(value.numel() for name, value in model.named_parameters() if name.startswith(prefix))
        if parameters > 0 or multiply_adds[part] > 0:
            rows.append(PartComplexity(part, parameters, multiply_adds[part]))
    total = PartComplexity("total", sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows))
    return (*rows, total)


def _multiply_adds(module: nn.Module, x: Tensor, output: Tensor) -> int:
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    taps = math.prod(module.kernel_size)
    if isinstance(
        module, nn.ConvTranspose2d
    ):  # scatters each input to a kernel of outputs, where a convolution gathers
        return x.numel() * module.out_channels * taps // module.groups
    return output.numel() * module.in_channels * taps // module.groups


class _ShapesOnly(CustomOps):
    """The custom ops, computing only shapes."""

    def run(self, op: Op, inputs: Tensors, attributes: Mapping[str, Any]) -> Sequence[Tensor]:
        first = inputs[0] if isinstance(inputs[0], Tensor) else inputs[0][0]
        dtypes = (torch.int32 if tensor.type == "int32" else first.dtype for tensor in op.outputs)
        shapes = output_shapes(op, inputs, attributes)
        return [first.new_zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
