"""Make the ONNX files of this folder: exports of a network with a trunk of four convolutions.

    PYTHONPATH=tests .venv/bin/python tests/fuzz/corpus/recipe.py

The FPN, the heads, the ops and the exporter are the product's own, with a few channels each, so that a file has every
kind of node that an export has and still loads in a few hundredths of a second.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from panrt.export import to_onnx
from panrt.formats.metadata import Category
from panrt.model import PanopticFPN
from panrt.model.config import (
    BoxHeadConfig,
    EfficientNetLiteConfig,
    FpnConfig,
    InstanceConfig,
    MaskHeadConfig,
    MergeConfig,
    PanopticFPNConfig,
    RoiConfig,
    RpnConfig,
    SemanticConfig,
)
from panrt.model.data.classes import ClassTable

FOLDER = Path(__file__).parent
SIDE = 64
CLASSES = ClassTable(
    (Category(1, "mug", True, (200, 30, 30)), Category(2, "fork", True, (30, 200, 30))),
    (Category(7, "table", False, (30, 30, 200)), Category(9, "floor", False, (90, 90, 90))),
)


class Trunk(nn.Module):
    """Image -> C2..C5 of four channels each."""

    channels = (4, 4, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        strides = ((3, 4), (4, 2), (4, 2), (4, 2))
        self.stages = nn.ModuleList(nn.Conv2d(inputs, 4, stride, stride=stride) for inputs, stride in strides)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.stages:
            image = stage(image).clamp(0, 6)
            maps.append(image)
        return tuple(maps)


def config() -> PanopticFPNConfig:
    """A network of four to eight channels."""
    return PanopticFPNConfig(
        name="tiny",
        classes=CLASSES,
        input_hw=(SIDE, SIDE),
        activation="relu6",
        trunk=EfficientNetLiteConfig(),
        fpn=FpnConfig(width=4, norm="batch", separable=True),
        instance=InstanceConfig(
            rpn=RpnConfig(
                anchor_sizes=(8.0, 16.0, 32.0, 64.0, 128.0),
                aspect_ratios=(1.0,),
                pre_nms_top_k=16,
                post_nms_top_k=8,
            ),
            roi=RoiConfig(canonical_size=32.0),
            box=BoxHeadConfig(pooled_size=2, hidden=4, max_detections=4),
            mask=MaskHeadConfig(pooled_size=4, width=4, convolutions=1, norm="batch", separable=True),
        ),
        semantic=SemanticConfig(width=4, norm="batch", separable=True),
        merge=MergeConfig(score_threshold=0.3, stuff_area_limit=16),
    )


def network() -> PanopticFPN:
    """Untrained, but far from undecided: it finds things and stuff."""
    torch.manual_seed(0)
    network = PanopticFPN(config())
    wide = network.backbone.trunk.channels
    network.backbone.trunk = Trunk()  # type: ignore[assignment]  # stands for the real one
    assert network.backbone.fpn is not None
    for lateral, channels in zip(network.backbone.fpn.lateral, wide, strict=True):
        convolution = (
            lateral
            if isinstance(lateral, nn.Conv2d)
            else next(module for module in lateral.modules() if isinstance(module, nn.Conv2d))
        )
        assert convolution.weight.shape[1] == channels
        convolution.in_channels = 4
        convolution.weight = nn.Parameter(torch.randn(4, 4, 1, 1))
    assert network.instance is not None
    with torch.no_grad():
        network.instance.box_head.cls_score.weight.mul_(60)
        network.instance.mask_head.predictor.weight.mul_(60)
    return network.eval()


def main() -> None:
    """Write all files."""
    rng = np.random.default_rng(0)
    samples = list(rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8))
    model = network()
    fixed: dict[str, Any] = {"input_hw": (SIDE, SIDE)}
    to_onnx(model, FOLDER / "fp32.onnx", **fixed, valid_hw=(48, 64), output_hw=(36, 48))
    to_onnx(model, FOLDER / "fp16.onnx", **fixed, precision="fp16", target="tensorrt-10.3")
    to_onnx(model, FOLDER / "int8.onnx", **fixed, precision="int8", samples=samples, int8_heads=True)
    to_onnx(model, FOLDER / "open.onnx", input_hw=None)
    for path in FOLDER.glob("*.onnx"):
        proto = onnx.load(path)
        del proto.functions[:]  # two thirds of a file; `add_functions` gives them back
        path.with_suffix(".onnx.gz").write_bytes(gzip.compress(proto.SerializeToString(deterministic=True), mtime=0))
        path.unlink()


if __name__ == "__main__":
    main()
