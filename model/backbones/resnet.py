"""ResNet and ResNeXt trunks as detectron2 builds them.

Shapes: image (N, 3, H, W) normalised BGR, H and W multiples of 32; C2..C5 (N, 256 | 512 | 1024 | 2048, H/s, W/s),
strides s = 4, 8, 16, 32, or held at `output_stride` by dilation. Parameter names are detectron2's
(`res3.0.conv2.norm.weight`).
"""

from __future__ import annotations

import re

from torch import Tensor, nn
from torch.nn import functional

from panrt.model.backbones.trunk import Trunk, TrunkWeights
from panrt.model.config import PanopticFPNConfig, ResNetConfig, TrunkNorm
from panrt.model.layers import FrozenBatchNorm2d, NormedConv2d, init_msra

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _norm(kind: TrunkNorm, channels: int) -> nn.Module:
    return FrozenBatchNorm2d(channels) if kind == "frozen_batch" else nn.GroupNorm(32, channels)


class Stem(nn.Module):
    """A 7x7 convolution of stride 2, then a 3x3 max-pool of stride 2: (N, 3, H, W) -> (N, 64, H/4, W/4)."""

    def __init__(self, norm: TrunkNorm) -> None:
        super().__init__()
        self.conv1 = NormedConv2d(3, 64, 7, stride=2, padding=3, norm=_norm(norm, 64))

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.relu(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 beside a shortcut, which is a projection if the number of channels changes."""

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        stride: int,
        stride_in_1x1: bool,
        groups: int,
        dilation: int,
        norm: TrunkNorm,
    ) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = (
            NormedConv2d(in_channels, out_channels, 1, stride=stride, norm=_norm(norm, out_channels))
            if in_channels != out_channels
            else None
        )
        self.conv1 = NormedConv2d(in_channels, mid_channels, 1, stride=stride_1x1, norm=_norm(norm, mid_channels))
        self.conv2 = NormedConv2d(
            mid_channels,
            mid_channels,
            3,
            stride=stride_3x3,
            padding=dilation,
            dilation=dilation,
            groups=groups,
            norm=_norm(norm, mid_channels),
        )
        self.conv3 = NormedConv2d(mid_channels, out_channels, 1, norm=_norm(norm, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = functional.relu(self.conv1(x))
        x = functional.relu(self.conv2(x))
        return functional.relu(self.conv3(x) + shortcut)


def torchvision_name(name: str) -> str:
    """Return torchvision's name of a tensor of the trunk: `res3.0.conv2.norm.weight` -> `layer2.0.bn2.weight`."""
    name = name.removeprefix("stem.")
    name = re.sub(r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}", name)
    name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    return re.sub(r"conv(\d)\.norm\.", r"bn\1.", name)


def _caffe2_name(name: str) -> str:
    """Return a tensor's name in detectron2's MSRA ResNets: `res3.0.conv2.norm.weight` -> `res3_0_branch2b_bn_s`."""
    suffixes = {
        "norm.weight": "bn_s",
        "norm.bias": "bn_b",
        "norm.running_mean": "bn_rm",
        "norm.running_var": "bn_riv",
        "weight": "w",
    }
    for ours, theirs in suffixes.items():
        if name.endswith(ours):
            name = name.removesuffix(ours) + theirs
            break
    if name.startswith("stem."):
        return name.removeprefix("stem.").replace("conv1.bn", "res_conv1_bn").replace(".", "_")
    name = name.replace("shortcut", "branch1")
    return re.sub(r"conv(\d)", lambda match: "branch2" + "abc"[int(match[1]) - 1], name).replace(".", "_")


def _torchvision_problem(config: PanopticFPNConfig) -> str | None:
    if isinstance(config.trunk, ResNetConfig) and config.trunk.stride_in_1x1:
        return (
            f"torchvision strides in the 3x3 convolutions, {config.name} in the 1x1; use the configuration "
            "panoptic_fpn_r50_torchvision, or another with trunk=ResNetConfig(stride_in_1x1=False)."
        )
    if config.pixel_std == (1.0, 1.0, 1.0):
        return (
            f"torchvision weights expect a scaled input, {config.name} has pixel_std (1, 1, 1); use the "
            "configuration panoptic_fpn_r50_torchvision, or another with pixel_std=(57.375, 57.120, 58.395)."
        )
    return None


_TORCHVISION = TrunkWeights(
    "torchvision ResNet",
    "conv1.weight",
    torchvision_name,
    rgb=True,
    ignored=re.compile(r"fc\..*|.*\.num_batches_tracked"),
    problem=_torchvision_problem,
)
_DETECTRON2 = TrunkWeights(
    "detectron2 ResNet", "stem.conv1.weight", str, rgb=False, ignored=re.compile(r"(stem\.)?fc\..*")
)
# detectron2's converter of torchvision's weights names torchvision as their author; they still expect RGB
_CONVERTED = _DETECTRON2._replace(
    label="torchvision ResNet", rgb=True, author="torchvision", problem=_torchvision_problem
)
_CAFFE2 = TrunkWeights(
    "MSRA ResNet",
    "conv1_w",
    _caffe2_name,
    rgb=False,
    ignored=re.compile(r"(fc|pred).*|.*_momentum|conv1_b"),
    # MSRA's files have the affine part alone; missing statistics are the identity
    optional=re.compile(r".*\.running_(mean|var)"),
)


class ResNet(Trunk):
    """The trunk: image -> (C2, C3, C4, C5)."""

    channels = (256, 512, 1024, 2048)
    weights = (_TORCHVISION, _CONVERTED, _DETECTRON2, _CAFFE2)

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.stem = Stem(config.norm)
        in_channels, total_stride, dilation = 64, 4, 1
        for stage, (blocks, out_channels) in enumerate(zip(BLOCKS[config.depth], self.channels, strict=True)):
            stride = 1 if stage == 0 else 2
            if total_stride * stride > config.output_stride:
                stride, dilation = 1, 2 * dilation
            total_stride *= stride
            layers = []
            for block in range(blocks):
                layers.append(
                    Bottleneck(
                        in_channels,
                        config.groups * config.width_per_group * 2**stage,
                        out_channels,
                        stride=stride if block == 0 else 1,
                        stride_in_1x1=config.stride_in_1x1,
                        groups=config.groups,
                        dilation=dilation,
                        norm=config.norm,
                    )
                )
                in_channels = out_channels
            setattr(self, f"res{stage + 2}", nn.Sequential(*layers))
        init_msra(self)

    def stages(self) -> tuple[nn.Module, ...]:
        """Return the stem and res2..res5 in order; training freezes a prefix of them."""
        return (self.stem, *(self.get_submodule(f"res{level}") for level in (2, 3, 4, 5)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        stem, res2, res3, res4, res5 = self.stages()
        c2 = res2(stem(image))
        c3 = res3(c2)
        c4 = res4(c3)
        return c2, c3, c4, res5(c4)
