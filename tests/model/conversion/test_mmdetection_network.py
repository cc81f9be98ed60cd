"""A converted network computes what mmdetection computes, from the image to the panoptic map.

Its layers are written out under mmdetection's names; anchors, deltas, proposals, levels, detections and fusion are
NumPy's, in `support.mmdetection`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from panrt.model.conversion.convert import Conversion, convert
from panrt.model.custom_ops import KERNELS, Detections, Proposals
from panrt.model.heads import RpnOutput
from panrt.model.panoptic_fpn import Branches, Instances, PanopticFPN, merge
from panrt.model.weight_files import Weights
from support import mmdetection

Array = NDArray[Any]
THINGS, STUFF = 4, 3
NAMES = ["cup", "plate", "fork", "spoon", "floor", "wall", "table"]
HW = (64, 96)


def config() -> mmdetection.Config:
    model = mmdetection.MODEL
    for path, value in {
        "roi_head.bbox_head.num_classes": THINGS,
        "roi_head.mask_head.num_classes": THINGS,
        "semantic_head.num_things_classes": THINGS,
        "semantic_head.num_stuff_classes": STUFF,
        "semantic_head.num_classes": STUFF + 1,
        "panoptic_fusion_head.num_things_classes": THINGS,
        "panoptic_fusion_head.num_stuff_classes": STUFF,
        "test_cfg.rpn.nms_pre": 80,
        "test_cfg.rpn.max_per_img": 120,
        "test_cfg.panoptic.stuff_area_limit": 100,
    }.items():
        model = mmdetection.changed(path, value, model)
    return model


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return mmdetection.tensors(mmdetection.shapes(things=THINGS, stuff=STUFF))


@pytest.fixture(scope="module")
def conversion(tensors: dict[str, Tensor]) -> Conversion:
    counters = {"backbone.bn1.num_batches_tracked": torch.tensor(7)}
    meta = {"cfg": mmdetection.config_text(config()), "dataset_meta": {"classes": NAMES}}
    return convert(Weights({**tensors, **counters}, author="", meta=meta), Path("epoch_12.pth"))


@pytest.fixture(scope="module")
def network(conversion: Conversion) -> PanopticFPN:
    return conversion.model


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randint(0, 256, (1, *HW, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def branches(network: PanopticFPN, image: Tensor) -> Branches:
    with torch.inference_mode():
        return network.branches(image)


def test_the_checkpoint_describes_itself(conversion: Conversion) -> None:
    classes = conversion.model.config.classes
    assert conversion.framework == "mmdetection"
    assert conversion.description == "the configuration in epoch_12.pth"
    assert [c.name for c in classes.things + classes.stuff] == NAMES
    assert conversion.notes == ()
    assert len(set(conversion.names.values())) == len(conversion.names)


# Layers


def conv(tensors: dict[str, Tensor], name: str, x: Tensor, *, stride: int = 1) -> Tensor:
    weight = tensors[f"{name}.weight"]
    return functional.conv2d(x, weight, tensors.get(f"{name}.bias"), stride=stride, padding=weight.shape[-1] // 2)


def batch_norm(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (tensors[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
    shape = (1, -1, 1, 1)
    scale = weight / (var + 1e-5).sqrt()
    return (x - mean.view(shape)) * scale.view(shape) + bias.view(shape)


def mmdetection_pyramid(tensors: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """DetDataPreprocessor, ResNet of the style "pytorch" and FPN."""
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    x = ((image.flip(-1).float() - mean) / std).permute(0, 3, 1, 2)
    x = batch_norm(tensors, "backbone.bn1", conv(tensors, "backbone.conv1", x, stride=2)).relu()
    x = functional.max_pool2d(x, 3, stride=2, padding=1)
    maps = []
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            name, stride = f"backbone.layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = batch_norm(tensors, f"{name}.bn1", conv(tensors, f"{name}.conv1", x)).relu()
            y = batch_norm(tensors, f"{name}.bn2", conv(tensors, f"{name}.conv2", y, stride=stride)).relu()
            y = batch_norm(tensors, f"{name}.bn3", conv(tensors, f"{name}.conv3", y))
            if block == 0:
                x = batch_norm(tensors, f"{name}.downsample.1", conv(tensors, f"{name}.downsample.0", x, stride=stride))
            x = (x + y).relu()
        maps.append(x)
    laterals = [conv(tensors, f"neck.lateral_convs.{i}.conv", maps[i]) for i in range(4)]
    for i in (3, 2, 1):
        laterals[i - 1] = laterals[i - 1] + functional.interpolate(laterals[i], size=laterals[i - 1].shape[2:])
    levels = [conv(tensors, f"neck.fpn_convs.{i}.conv", laterals[i]) for i in range(4)]
    return [*levels, levels[3][:, :, ::2, ::2]]


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    # two orders of summation of some thousand float32 products, through as many layers
    assert float((found - expected).abs().max()) <= 1e-3 * float(expected.abs().max())


@torch.no_grad()
def test_the_pyramid_is_mmdetections(tensors: dict[str, Tensor], branches: Branches, image: Tensor) -> None:
    for found, expected in zip(branches.pyramid, mmdetection_pyramid(tensors, image), strict=True):
        close(found, expected)


@torch.no_grad()
def test_the_rpn_head_is_mmdetections(tensors: dict[str, Tensor], branches: Branches) -> None:
    assert branches.instances is not None
    for level, x in enumerate(branches.pyramid):
        hidden = conv(tensors, "rpn_head.rpn_conv", x).relu()
        close(branches.instances.rpn.logits[level], conv(tensors, "rpn_head.rpn_cls", hidden))
        close(branches.instances.rpn.deltas[level], conv(tensors, "rpn_head.rpn_reg", hidden))


@torch.no_grad()
def test_the_box_head_is_mmdetections(tensors: dict[str, Tensor], network: PanopticFPN) -> None:
    assert network.instance is not None
    x = pooled = torch.randn(5, 256, 7, 7, generator=torch.Generator().manual_seed(2))
    x = x.flatten(1)
    for layer in ("shared_fcs.0", "shared_fcs.1"):
        name = f"roi_head.bbox_head.{layer}"
        x = functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"]).relu()
    found = network.instance.box_head(pooled)
    for part, layer in ((found.logits, "fc_cls"), (found.deltas, "fc_reg")):
        name = f"roi_head.bbox_head.{layer}"
        close(part, functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"]))


@torch.no_grad()
def test_the_mask_head_is_mmdetections(tensors: dict[str, Tensor], network: PanopticFPN) -> None:
    assert network.instance is not None
    x = pooled = torch.randn(4, 256, 14, 14, generator=torch.Generator().manual_seed(3))
    for index in range(4):
        x = conv(tensors, f"roi_head.mask_head.convs.{index}.conv", x).relu()
    weight, bias = (tensors[f"roi_head.mask_head.upsample.{part}"] for part in ("weight", "bias"))
    x = conv(tensors, "roi_head.mask_head.conv_logits", functional.conv_transpose2d(x, weight, bias, stride=2).relu())
    labels = torch.tensor([3, 0, 1, 2])
    close(network.instance.mask_head(pooled, labels), x[torch.arange(4), labels])


def mmdetection_semantic_logits(tensors: dict[str, Tensor], pyramid: tuple[Tensor, ...]) -> Tensor:
    """PanopticFPNHead: channels of the stuff, then that of the things."""
    total = torch.zeros(())
    for level, start in enumerate(pyramid[:4]):
        x = start
        for step in range(max(1, level)):
            name = f"semantic_head.conv_upsample_layers.{level}.conv.{step}"
            x = conv(tensors, f"{name}.conv", x)
            x = functional.group_norm(x, 32, tensors[f"{name}.gn.weight"], tensors[f"{name}.gn.bias"]).relu()
            if level:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + x
    return conv(tensors, "semantic_head.conv_logits", total)


@torch.no_grad()
def test_the_semantic_head_is_mmdetections_with_the_things_first(
    tensors: dict[str, Tensor], branches: Branches
) -> None:
    assert branches.semantic_logits is not None
    expected = mmdetection_semantic_logits(tensors, branches.pyramid)
    close(branches.semantic_logits, expected[:, [STUFF, *range(STUFF)]])


# Boxes


def test_proposals_are_mmdetections(network: PanopticFPN) -> None:
    """Random logits without ties; some deltas beyond both limits of the coder."""
    assert network.instance is not None
    generator = np.random.default_rng(4)
    sizes = [(HW[0] // s, HW[1] // s) for s in (4, 8, 16, 32)] + [(1, 2)]
    logits = [generator.normal(size=(3, *hw)).astype(np.float32) for hw in sizes]
    deltas = [generator.normal(size=(12, *hw)).astype(np.float32) for hw in sizes]
    for level in deltas:
        level[generator.random(level.shape) < 0.05] = -6
        level[generator.random(level.shape) < 0.05] = 6
    rpn = network.instance.propose(
        RpnOutput(*(tuple(torch.from_numpy(x)[None] for x in levels) for levels in (logits, deltas))),
        input_hw=(HW[0] - 3, HW[1] - 5),
    )
    expected = mmdetection.rpn_predict(logits, deltas, (HW[0] - 3, HW[1] - 5), nms_pre=80, most=120)
    count = int(rpn.roi_count[0])
    assert count == len(expected)
    np.testing.assert_allclose(rpn.rois[0, :count].numpy(), expected, atol=2e-3)  # of 32 * 62.5 pixels in float32


def detect(network: PanopticFPN, logits: Array, deltas: Array, rois: Array, hw: tuple[int, int]) -> Detections:
    assert network.instance is not None
    proposals = Proposals(torch.from_numpy(rois)[None], torch.tensor([len(rois)], dtype=torch.int32))
    return network.instance._detect(
        torch.from_numpy(logits)[None], torch.from_numpy(deltas)[None], proposals, hw, KERNELS
    )


def crowd(seed: int, count: int) -> tuple[Array, Array, Array]:
    """RoIs in a few clusters, so that boxes of several classes overlap; logits of some are sure."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(10, 80, (4, 2))[generator.integers(0, 4, count)]
    sizes = generator.uniform(8, 40, (count, 2))
    rois = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1) + generator.normal(size=(count, 4))
    rois = np.clip(rois, 0, [HW[1], HW[0]] * 2).astype(np.float32)
    logits = (generator.normal(size=(count, THINGS + 1)) * 3).astype(np.float32)
    deltas = generator.normal(size=(count, 4 * THINGS)).astype(np.float32)
    deltas[generator.random(deltas.shape) < 0.03] = -25
    return logits, deltas, rois


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_detections_are_mmdetections_with_suppression_over_all_classes(
    network: PanopticFPN, seed: int, count: int
) -> None:
    logits, deltas, rois = crowd(seed, count)
    found = detect(network, logits, deltas, rois, HW)
    boxes, scores, labels = mmdetection.bbox_predict(logits, deltas, rois, HW)
    kept = int(found.count[0])
    assert kept == len(boxes)
    np.testing.assert_allclose(found.scores[0, :kept].numpy(), scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes[0, :kept].numpy(), boxes, atol=1e-3)
    assert found.classes[0, :kept].tolist() == labels.tolist()
    assert found.classes.dtype == torch.int32
    assert not found.classes[0, kept:].any()


def test_suppression_within_a_class_would_give_others() -> None:
    """The property above can fail: somewhere the two kinds of suppression differ."""
    differ = []
    for seed in range(20):
        logits, deltas, rois = crowd(seed, 60)
        counts = [len(mmdetection.bbox_predict(logits, deltas, rois, HW, agnostic=a)[1]) for a in (True, False)]
        differ.append(counts[0] != counts[1])
    assert any(differ)


def test_an_roi_with_an_infinite_logit_is_dropped(network: PanopticFPN) -> None:
    logits, deltas, rois = crowd(3, 8)
    logits[:] = -3
    logits[:4, 1] = 5
    logits[0, 2] = np.inf
    logits[1, 0] = np.nan
    found = detect(network, logits, np.zeros_like(deltas), rois + np.arange(8, dtype=np.float32)[:, None], HW)
    assert found.classes[0, : int(found.count[0])].tolist() == [1] * int(found.count[0])
    assert 0 < int(found.count[0]) <= 2


def test_roi_levels_are_mmdetections(network: PanopticFPN) -> None:
    """But for sides within 5e-7 of a boundary, where mmdetection adds 1e-6 and PanRT 1e-8 to the ratio."""
    assert network.instance is not None
    roi = network.instance.config.roi
    generator = np.random.default_rng(6)
    near = [b * (1 + step * 1e-6) for b in (112, 224, 448) for step in (-4, -2, -1, 1, 2, 4)]
    sides = np.array([*generator.uniform(1, 1000, 300), *near, 1.5, 2000])
    rois = np.zeros((len(sides), 4), np.float32)
    rois[:, 2:] = sides[:, None]
    pooled = KERNELS.pyramid_roi_align(
        [torch.full((1, 1, 2048 // s, 2048 // s), float(level)) for level, s in enumerate((4, 8, 16, 32))],
        torch.from_numpy(rois)[None], strides=(4, 8, 16, 32), output_size=1, sampling_ratio=roi.sampling_ratio,
        canonical_size=roi.canonical_size, canonical_level=roi.canonical_level, min_level=2,
    )  # fmt: skip
    assert pooled.flatten().round().tolist() == mmdetection.map_roi_levels(rois.astype(np.float64)).tolist()


# Fusion


def paste(mask: Array, box: Array, hw: tuple[int, int]) -> Array:
    """_do_paste_mask on the whole image, and mask_thr_binary."""
    ys, xs = (np.arange(side) + 0.5 for side in hw)
    gx = (xs - box[0]) / (box[2] - box[0]) * 2 - 1
    gy = (ys - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.from_numpy(np.stack(np.meshgrid(gx, gy), -1).astype(np.float32))[None]
    sampled = functional.grid_sample(torch.from_numpy(mask)[None, None], grid, align_corners=False)
    return np.asarray(sampled[0, 0].numpy() >= 0.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_the_panoptic_map_is_mmdetections(network: PanopticFPN, image: Tensor, seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    low = generator.uniform(0, [HW[1] - 20, HW[0] - 20], (count, 2))
    boxes = np.concatenate([low, np.minimum(low + generator.uniform(8, 50, (count, 2)), HW[::-1])], 1).astype(
        np.float32
    )
    scores = np.sort(generator.uniform(0.61, 1, count))[::-1].astype(np.float32)
    labels = generator.integers(0, THINGS, count)
    coarse = torch.from_numpy(generator.random((max(count, 1), 1, 5, 5)).astype(np.float32))
    masks = functional.interpolate(coarse, size=(28, 28), mode="bilinear", align_corners=False)[:count, 0].numpy()
    quarter = torch.from_numpy(generator.normal(size=(1, STUFF + 1, 4, 6)).astype(np.float32))
    logits = functional.interpolate(quarter, size=(HW[0] // 4, HW[1] // 4), mode="bilinear", align_corners=False)

    full = functional.interpolate(logits, size=HW, mode="bilinear", align_corners=False)[0].numpy()
    pasted = np.array([paste(m, b, HW) for m, b in zip(masks, boxes, strict=True)], bool).reshape(count, *HW)
    expected = mmdetection.fuse(
        pasted, labels, scores, full.argmax(0), things=THINGS, stuff=STUFF, stuff_area_limit=100
    )
    detections = Detections(
        torch.from_numpy(boxes)[None], torch.from_numpy(scores.copy())[None],
        torch.from_numpy(labels.astype(np.int32))[None], torch.tensor([count], dtype=torch.int32),
    )  # fmt: skip
    instances = Instances(None, None, None, detections, torch.from_numpy(masks)[None])  # type: ignore[arg-type]
    found = merge(Branches((), logits[:, [STUFF, *range(STUFF)]], instances), config=network.config.merge, image=image)
    as_labels = np.full(HW, THINGS + STUFF)  # mmdetection's void
    for number, category, is_thing, *_ in found.segments[0, : int(found.segment_count[0])].tolist():
        as_labels[found.panoptic[0].numpy() == number] = category + 1000 * number if is_thing else THINGS + category - 1
    # rounding decides the pixels of nearly equal logits and of masks that are nearly 0.5
    assert (as_labels == expected).mean() >= 0.999
    assert set(np.unique(as_labels)) == set(np.unique(expected))


def test_the_whole_network_runs(network: PanopticFPN, image: Tensor) -> None:
    assert network(image).panoptic.shape == (1, *HW)
