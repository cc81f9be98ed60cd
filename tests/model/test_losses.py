"""Each loss against hand-computed values, and all of them against the network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from panrt.model import PanopticFPN, build
from panrt.model.config import RpnConfig
from panrt.model.heads import BoxOutput, RpnOutput
from panrt.model.losses import (
    LossConfig,
    Losses,
    RoiSample,
    Targets,
    anchors,
    box_losses,
    crop_masks,
    joint_losses,
    mask_loss,
    rpn_losses,
    sample_rois,
    semantic_loss,
)
from panrt.model.matching import encode_boxes

SIZES = ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))  # a 64 x 64 image


def target(*boxes: tuple[float, float, float, float], classes: tuple[int, ...] = ()) -> Targets:
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return Targets(
        (64, 64),
        torch.tensor(boxes).view(-1, 4),
        torch.tensor(classes or (0,) * len(boxes), dtype=torch.long).view(-1),
        masks,
        torch.full((64, 64), 255, dtype=torch.uint8),
    )


def rpn_output(value: float) -> RpnOutput:
    return RpnOutput(
        tuple(torch.full((1, 3, h, w), value, requires_grad=True) for h, w in SIZES),
        tuple(torch.zeros(1, 12, h, w, requires_grad=True) for h, w in SIZES),
    )


def test_anchors_are_centred_on_the_corners_of_cells() -> None:
    first, *_ = anchors(SIZES, RpnConfig())
    assert first.shape == (16 * 16 * 3, 4)
    torch.testing.assert_close(first[1], torch.tensor([-16.0, -16, 16, 16]))
    torch.testing.assert_close(first[3 * 16 + 4], torch.tensor([4.0 - 16, 4 - 16, 4 + 16, 4 + 16]))


def test_an_undecided_rpn_loses_ln_2() -> None:
    cls, loc = rpn_losses(
        rpn_output(0.0), [target((8, 8, 40, 40))], RpnConfig(), LossConfig(), torch.Generator().manual_seed(0)
    )
    assert cls.item() == pytest.approx(math.log(2), rel=1e-5)  # 256 samples, divided by 256
    assert loc.item() > 0


def test_the_rpn_learns_from_the_channels_that_proposals_read() -> None:
    """Deltas written into an anchor's own channels take away its part of the loss."""
    wanted = target((10.0, 6, 44, 40))
    output = rpn_output(0.0)
    all_anchors = anchors(SIZES, RpnConfig())
    for level, (height, width) in enumerate(SIZES):
        encoded = encode_boxes(all_anchors[level], wanted.boxes.expand(len(all_anchors[level]), 4), (1, 1, 1, 1))
        by_channel = encoded.view(height, width, 3 * 4).permute(2, 0, 1)
        output.deltas[level].data.copy_(by_channel.unsqueeze(0))
    _, loc = rpn_losses(output, [wanted], RpnConfig(), LossConfig(), torch.Generator().manual_seed(0))
    assert loc.item() == pytest.approx(0, abs=1e-6)


def test_without_objects_the_rpn_learns_background_alone() -> None:
    output = rpn_output(-20.0)
    cls, loc = rpn_losses(output, [target()], RpnConfig(), LossConfig(), torch.Generator().manual_seed(0))
    assert cls.item() == pytest.approx(0, abs=1e-6)
    assert loc.item() == 0
    cls, _ = rpn_losses(rpn_output(3.0), [target()], RpnConfig(), LossConfig(), torch.Generator().manual_seed(0))
    assert cls.item() == pytest.approx(math.log1p(math.exp(3)), rel=1e-5)


def test_objects_are_their_own_proposals() -> None:
    wanted = target((8, 8, 24, 24), (30, 30, 60, 60), classes=(3, 5))
    generator = torch.Generator().manual_seed(0)
    proposals = torch.tensor([[0.0, 40, 12, 52]])
    sampled = sample_rois(proposals, wanted, 8, LossConfig(roi_samples=8), generator)
    assert sorted(sampled.classes.tolist()) == [3, 5, 8]
    for roi, cls, box in zip(sampled.rois, sampled.classes, sampled.boxes, strict=True):
        if cls < 8:
            assert torch.equal(roi, box)


def test_foreground_is_at_most_a_quarter_of_the_rois() -> None:
    wanted = target((8, 8, 24, 24))
    proposals = torch.cat([wanted.boxes.expand(30, 4), torch.tensor([[40.0, 40, 50, 50]]).expand(30, 4)])
    sampled = sample_rois(proposals, wanted, 8, LossConfig(roi_samples=16), torch.Generator().manual_seed(0))
    assert sampled.classes.tolist() == [0] * 4 + [8] * 12


def test_box_losses_by_hand() -> None:
    sampled = RoiSample(
        rois=torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]),
        objects=torch.tensor([0, 0]),
        classes=torch.tensor([1, 2]),
        boxes=torch.tensor([[1.0, 0, 11, 10], [0, 0, 1, 1]]),
    )
    deltas = torch.full((2, 8), 99.0)
    deltas[0, 4:8] = torch.tensor([0.5, 0.0, 0.0, 0.0])  # of class 1; the others must not count
    cls, box_reg = box_losses(BoxOutput(torch.zeros(2, 3), deltas), [sampled], 2, (10, 10, 5, 5))
    assert cls.item() == pytest.approx(math.log(3))
    # wanted dx = 10 * 1 / 10 = 1, given 0.5; divided by both RoIs, not by the one in the foreground
    assert box_reg.item() == pytest.approx(0.5 / 2)


def test_masks_are_cropped_to_their_rois() -> None:
    wanted = target((10, 10, 30, 50), (0, 0, 64, 64))
    rois = torch.tensor([[10.0, 10, 30, 50], [0, 10, 40, 50], [40, 40, 60, 60]])
    crops = crop_masks(wanted.masks, rois, torch.tensor([0, 0, 0]), 28)
    assert crops.shape == (3, 28, 28)
    assert crops[0].all()
    assert crops[1, :, 7:21].all()  # the mask covers the middle half of the RoI
    assert not crops[1, :, :7].any()
    assert not crops[1, :, 21:].any()
    assert not crops[2].any()
    assert crop_masks(wanted.masks, rois[:0], torch.zeros(0, dtype=torch.long), 28).shape == (0, 28, 28)


def test_mask_and_semantic_losses_by_hand() -> None:
    assert mask_loss(torch.zeros(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)).item() == pytest.approx(math.log(2))
    logits = torch.zeros(1, 5, 2, 2)
    semantic = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    assert semantic_loss(logits, semantic).item() == 0
    semantic[0, 3, 3] = 4
    assert semantic_loss(logits, semantic).item() == pytest.approx(math.log(5))
    logits[0, 4] = math.log(4)  # probability 4 / 8 everywhere
    assert semantic_loss(logits, semantic).item() == pytest.approx(math.log(2), rel=1e-5)


def test_the_total_weighs_as_configured() -> None:
    losses = Losses(*(torch.tensor(10.0**i) for i in range(6)))
    config = LossConfig(instance_weight=2, semantic_weight=3)
    assert losses.total(config).item() == 1 + 10 + 2 * 11100 + 3 * 100000
    assert Losses(semantic=torch.tensor(4.0)).total(LossConfig()).item() == 2
    with pytest.raises(ValueError, match="none to add"):
        Losses().total(LossConfig())


@pytest.fixture(scope="module")
def lite() -> PanopticFPN:
    torch.manual_seed(0)
    return build("panoptic_fpn_lite")


def features(model: PanopticFPN) -> tuple[Tensor, ...]:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pyramid: tuple[Tensor, ...] = model.backbone(images)
    return pyramid


def batch() -> list[Targets]:
    first = target((8, 8, 40, 40), (30, 4, 60, 60), classes=(2, 7))
    first.semantic[:32] = 1
    second = target()
    second.semantic[:] = 0
    return [first, second._replace(size=(50, 60))]


def test_every_parameter_learns(lite: PanopticFPN) -> None:
    losses = joint_losses(lite, features(lite), batch(), LossConfig(), generator=torch.Generator().manual_seed(1))
    assert all(loss is not None and loss.isfinite() for loss in losses)
    losses.total(LossConfig()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in lite.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    lite.zero_grad()


def test_images_without_any_object_have_finite_gradients(lite: PanopticFPN) -> None:
    empty = [target(), target()]
    losses = joint_losses(lite, features(lite), empty, LossConfig(), generator=torch.Generator().manual_seed(1))
    losses.total(LossConfig()).backward()  # type: ignore[no-untyped-call]
    assert losses.mask is not None
    assert losses.mask.item() == 0
    assert losses.semantic is not None
    assert losses.semantic.item() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in lite.parameters())
    lite.zero_grad()


def test_branches_can_take_part_in_turn(lite: PanopticFPN) -> None:
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(1)}
    only_things = joint_losses(lite, features(lite), batch(), LossConfig(), semantic=False, **options)
    assert only_things.semantic is None
    assert only_things.cls is not None
    only_stuff = joint_losses(lite, features(lite), batch(), LossConfig(), instances=False, **options)
    assert only_stuff[:5] == (None,) * 5
    assert only_stuff.semantic is not None
