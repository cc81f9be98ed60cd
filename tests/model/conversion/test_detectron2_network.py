"""A converted network computes what detectron2's layers compute, written out under detectron2's names.

The golden cases hold detectron2's own outputs for its published networks. Here are the options that those do not use:
group norms in trunk, pyramid and heads, convolutions in the box head, a stacked RPN head, average fusion,
class-agnostic heads, RGB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from panrt.model.conversion.convert import Conversion, convert
from panrt.model.panoptic_fpn import PanopticFPN
from panrt.model.weight_files import Weights

Tensors = dict[str, Tensor]
BLOCKS = (3, 4, 6, 3)
CONFIG = {
    "_BASE_": "Base-Panoptic-FPN.yaml",
    "MODEL": {
        "RESNETS": {"NORM": "GN", "STRIDE_IN_1X1": False},
        "FPN": {"NORM": "GN", "FUSE_TYPE": "avg", "OUT_CHANNELS": 64},
        "RPN": {"CONV_DIMS": [-1, 32]},
        "ROI_HEADS": {"NUM_CLASSES": 3},
        "ROI_BOX_HEAD": {"NUM_CONV": 2, "CONV_DIM": 32, "NUM_FC": 1, "FC_DIM": 48, "NORM": "GN"},
        "ROI_MASK_HEAD": {"NORM": "GN", "NUM_CONV": 2, "CONV_DIM": 32},
        "SEM_SEG_HEAD": {"NUM_CLASSES": 5, "CONVS_DIM": 32},
    },
    "INPUT": {"FORMAT": "RGB"},
}


def detectron2_tensors(seed: int = 0) -> Tensors:
    """Random weights of that network, by the names and shapes that detectron2's modules have."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int, norm: bool) -> None:
        shapes[f"{name}.weight"] = shape
        for part in ("norm.weight", "norm.bias") if norm else ("bias",):
            shapes[f"{name}.{part}"] = shape[:1]

    conv("backbone.bottom_up.stem.conv1", 64, 3, 7, 7, norm=True)
    before = 64
    for stage, blocks in enumerate(BLOCKS):
        mid, after = 64 * 2**stage, 256 * 2**stage
        for block in range(blocks):
            name = f"backbone.bottom_up.res{stage + 2}.{block}"
            if block == 0:
                conv(f"{name}.shortcut", after, before, 1, 1, norm=True)
            conv(f"{name}.conv1", mid, before, 1, 1, norm=True)
            conv(f"{name}.conv2", mid, mid, 3, 3, norm=True)
            conv(f"{name}.conv3", after, mid, 1, 1, norm=True)
            before = after
        conv(f"backbone.fpn_lateral{stage + 2}", 64, after, 1, 1, norm=True)
        conv(f"backbone.fpn_output{stage + 2}", 64, 64, 3, 3, norm=True)
        for step in range(max(1, stage)):
            conv(f"sem_seg_head.p{stage + 2}.{2 * step}", 32, 32 if step else 64, 3, 3, norm=True)
    conv("sem_seg_head.predictor", 5, 32, 1, 1, norm=False)
    rpn = "proposal_generator.rpn_head"
    conv(f"{rpn}.conv.conv0", 64, 64, 3, 3, norm=False)
    conv(f"{rpn}.conv.conv1", 32, 64, 3, 3, norm=False)
    conv(f"{rpn}.objectness_logits", 3, 32, 1, 1, norm=False)
    conv(f"{rpn}.anchor_deltas", 12, 32, 1, 1, norm=False)
    conv("roi_heads.box_head.conv1", 32, 64, 3, 3, norm=True)
    conv("roi_heads.box_head.conv2", 32, 32, 3, 3, norm=True)
    conv("roi_heads.box_head.fc1", 48, 32 * 7 * 7, norm=False)
    conv("roi_heads.box_predictor.cls_score", 4, 48, norm=False)
    conv("roi_heads.box_predictor.bbox_pred", 4, 48, norm=False)  # class-agnostic
    conv("roi_heads.mask_head.mask_fcn1", 32, 64, 3, 3, norm=True)
    conv("roi_heads.mask_head.mask_fcn2", 32, 32, 3, 3, norm=True)
    conv("roi_heads.mask_head.deconv", 32, 32, 2, 2, norm=False)
    conv("roi_heads.mask_head.predictor", 1, 32, 1, 1, norm=False)  # class-agnostic
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.05 if len(shape) > 1 else 0.3)
        + (1 if name.endswith("norm.weight") else 0)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return detectron2_tensors()


def converted(folder: Path, tensors: Tensors, config: dict[str, Any] = CONFIG) -> Conversion:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return convert(Weights(tensors, author=""), folder / "model_final.pth", config=str(path))


@pytest.fixture(scope="module")
def network(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> PanopticFPN:
    return converted(tmp_path_factory.mktemp("network"), tensors).model


# detectron2's layers


def conv_gn(tensors: Tensors, name: str, x: Tensor, *, stride: int = 1, relu: bool = False) -> Tensor:
    weight = tensors[f"{name}.weight"]
    x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    x = functional.group_norm(x, 32, tensors[f"{name}.norm.weight"], tensors[f"{name}.norm.bias"], eps=1e-5)
    return x.relu() if relu else x


def conv(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    weight = tensors[f"{name}.weight"]
    return functional.conv2d(x, weight, tensors[f"{name}.bias"], padding=weight.shape[-1] // 2)


def pyramid(tensors: Tensors, rgb: Tensor) -> list[Tensor]:
    x = conv_gn(tensors, "backbone.bottom_up.stem.conv1", rgb, stride=2, relu=True)
    x = functional.max_pool2d(x, 3, stride=2, padding=1)
    maps = []
    for stage, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            name, stride = f"backbone.bottom_up.res{stage + 2}.{block}", 2 if stage and not block else 1
            shortcut = conv_gn(tensors, f"{name}.shortcut", x, stride=stride) if block == 0 else x
            y = conv_gn(tensors, f"{name}.conv1", x, relu=True)
            y = conv_gn(tensors, f"{name}.conv2", y, stride=stride, relu=True)
            x = (conv_gn(tensors, f"{name}.conv3", y) + shortcut).relu()
        maps.append(x)
    levels: list[Tensor] = []
    inner = conv_gn(tensors, "backbone.fpn_lateral5", maps[3])
    levels = [conv_gn(tensors, "backbone.fpn_output5", inner)]
    for level in (4, 3, 2):
        lateral = conv_gn(tensors, f"backbone.fpn_lateral{level}", maps[level - 2])
        inner = (lateral + functional.interpolate(inner, scale_factor=2.0, mode="nearest")) / 2
        levels.insert(0, conv_gn(tensors, f"backbone.fpn_output{level}", inner))
    return [*levels, levels[-1][:, :, ::2, ::2]]


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    # two orders of summation of some thousand float32 products, through as many layers
    assert float((found - expected).abs().max()) <= 1e-3 * float(expected.abs().max())


@torch.no_grad()
def test_trunk_and_pyramid_with_group_norm_and_average_fusion(tensors: Tensors, network: PanopticFPN) -> None:
    image = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean = torch.tensor([103.530, 116.280, 123.675])  # in the network's order, which is RGB here
    rgb = (image.flip(-1).float() - mean).permute(0, 3, 1, 2)
    found = network.backbone(network.prepare(image))
    for level, expected in zip(found, pyramid(tensors, rgb), strict=True):
        close(level, expected)


@torch.no_grad()
def test_a_stacked_rpn_head(tensors: Tensors, network: PanopticFPN) -> None:
    assert network.instance is not None
    x = torch.randn(1, 64, 5, 7, generator=torch.Generator().manual_seed(2))
    rpn = "proposal_generator.rpn_head"
    hidden = conv(tensors, f"{rpn}.conv.conv1", conv(tensors, f"{rpn}.conv.conv0", x).relu()).relu()
    found = network.instance.rpn_head([x])
    close(found.logits[0], conv(tensors, f"{rpn}.objectness_logits", hidden))
    close(found.deltas[0], conv(tensors, f"{rpn}.anchor_deltas", hidden))


@torch.no_grad()
def test_a_box_head_with_convolutions_and_class_agnostic_boxes(tensors: Tensors, network: PanopticFPN) -> None:
    assert network.instance is not None
    pooled = torch.randn(6, 64, 7, 7, generator=torch.Generator().manual_seed(3))
    x = conv_gn(tensors, "roi_heads.box_head.conv1", pooled, relu=True)
    x = conv_gn(tensors, "roi_heads.box_head.conv2", x, relu=True).flatten(1)
    x = functional.linear(x, tensors["roi_heads.box_head.fc1.weight"], tensors["roi_heads.box_head.fc1.bias"]).relu()
    scores, boxes = (
        functional.linear(
            x, tensors[f"roi_heads.box_predictor.{n}.weight"], tensors[f"roi_heads.box_predictor.{n}.bias"]
        )
        for n in ("cls_score", "bbox_pred")
    )
    found = network.instance.box_head(pooled)
    close(found.logits, scores)
    close(found.deltas, torch.cat([boxes] * 3, 1))


@torch.no_grad()
def test_a_mask_head_with_group_norm_and_class_agnostic_masks(tensors: Tensors, network: PanopticFPN) -> None:
    assert network.instance is not None
    pooled = torch.randn(4, 64, 14, 14, generator=torch.Generator().manual_seed(4))
    x = conv_gn(tensors, "roi_heads.mask_head.mask_fcn1", pooled, relu=True)
    x = conv_gn(tensors, "roi_heads.mask_head.mask_fcn2", x, relu=True)
    weight, bias = (tensors[f"roi_heads.mask_head.deconv.{part}"] for part in ("weight", "bias"))
    x = functional.conv_transpose2d(x, weight, bias, stride=2).relu()
    expected = conv(tensors, "roi_heads.mask_head.predictor", x)[:, 0]
    close(network.instance.mask_head(pooled, torch.tensor([0, 1, 2, 1])), expected)


@torch.no_grad()
def test_a_semantic_head_of_another_width(tensors: Tensors, network: PanopticFPN) -> None:
    assert network.semantic is not None
    generator = torch.Generator().manual_seed(5)
    maps = [torch.randn(1, 64, 32 // 2**i, 64 // 2**i, generator=generator) for i in range(4)]
    total = torch.zeros(1, 32, 32, 64)
    for level, start in zip((2, 3, 4, 5), maps, strict=True):
        x = start
        for step in range(max(1, level - 2)):
            x = conv_gn(tensors, f"sem_seg_head.p{level}.{2 * step}", x, relu=True)
            if level > 2:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + x
    close(network.semantic(maps), conv(tensors, "sem_seg_head.predictor", total))


def test_the_whole_network_runs(network: PanopticFPN) -> None:
    result = network(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    assert result.panoptic.shape == (1, 64, 96)


def test_a_group_norm_in_the_weights_alone_is_an_error(tensors: Tensors, tmp_path: Path) -> None:
    plain = {**CONFIG, "MODEL": {**CONFIG["MODEL"], "FPN": {"OUT_CHANNELS": 64}}}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"backbone\.fpn_lateral2\.bias: missing"):
        converted(tmp_path, tensors, plain)
