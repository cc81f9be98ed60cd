"""The joint loss of the paper, with detectron2's targets, sampling and normalisers.

Shapes: N images, G objects of an image, A anchors of all levels of an image, R sampled RoIs, F of them foreground, C
thing classes, S semantic channels, M side of a mask. Boxes are (x0, y0, x1, y1) in network-input pixels.

    total = rpn_cls + rpn_loc + instance_weight * (cls + box_reg + mask) + semantic_weight * semantic

The class and box losses are normalised by the number of sampled RoIs, the mask loss by that of foreground RoIs, the
semantic loss by that of labelled pixels. The paper does not mention the RPN's losses; detectron2 adds them unweighted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from panrt.model.config import RpnConfig
from panrt.model.data.classes import VOID
from panrt.model.fpn import ROI_LEVELS, STRIDES
from panrt.model.heads import BoxOutput, RpnOutput
from panrt.model.matching import box_iou, encode_boxes, match, sample
from panrt.model.panoptic_fpn import MIN_LEVEL, InstanceBranch, PanopticFPN
from panrt.model.roi_align import pyramid_roi_align, roi_align
from panrt.plugins.box_reference import grid_anchors


class Targets(NamedTuple):
    """Training targets of one image; boxes and masks at the scale of the network input."""

    size: tuple[int, int]  # valid height and width
    boxes: Tensor  # (G, 4) float32
    classes: Tensor  # (G,) int64, 0..C-1
    masks: Tensor  # (G, height, width) bool
    semantic: Tensor  # (Hp, Wp) uint8, 0..S-1 or 255 for ignored, padding among them


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The options of the losses; defaults are detectron2's for COCO."""

    instance_weight: float = 1.0
    semantic_weight: float = 0.5
    rpn_samples: int = 256  # an image
    rpn_positive_fraction: float = 0.5
    rpn_iou: tuple[float, float] = (0.3, 0.7)  # negative below, positive from
    pre_nms_top_k: int = 2000  # proposals while training
    post_nms_top_k: int = 1000
    roi_samples: int = 512  # an image
    roi_positive_fraction: float = 0.25
    roi_iou: float = 0.5


class Losses(NamedTuple):
    """The losses, scalars; None if the network (or the step, when losses alternate) has no such branch."""

    rpn_cls: Tensor | None = None
    rpn_loc: Tensor | None = None
    cls: Tensor | None = None
    box_reg: Tensor | None = None
    mask: Tensor | None = None
    semantic: Tensor | None = None

    def total(self, config: LossConfig) -> Tensor:
        """Return the weighted sum of the losses that are not None.

        Raises:
            ValueError: there are none.
        """
        instance = config.instance_weight
        weights = (1.0, 1.0, instance, instance, instance, config.semantic_weight)
        terms = [weight * loss for weight, loss in zip(weights, self, strict=True) if loss is not None]
        if not terms:
            raise ValueError("losses: none to add; the network has no branch that takes part in this step.")
        return torch.stack(terms).sum()


def joint_losses(
    model: PanopticFPN,
    pyramid: Sequence[Tensor],
    targets: Sequence[Targets],
    config: LossConfig,
    *,
    generator: torch.Generator,
    instances: bool = True,
    semantic: bool = True,
) -> Losses:
    """Compute all losses of a batch.

    Args:
        model: the network; of its branches those take part that it has.
        pyramid: the output of `model.backbone` for the batch.
        targets: one per image.
        config: sampling and weights.
        generator: draws the samples; on the CPU.
        instances: whether the instance branch takes part; alternating training switches it.
        semantic: likewise for the semantic branch.
    """
    losses = Losses()
    if instances and model.instance is not None:
        losses = instance_losses(model.instance, pyramid, targets, config, generator)
    logits = model.semantic_logits(pyramid) if semantic else None
    if logits is not None:
        losses = losses._replace(semantic=semantic_loss(logits, torch.stack([t.semantic for t in targets])))
    return losses


def instance_losses(
    branch: InstanceBranch,
    pyramid: Sequence[Tensor],
    targets: Sequence[Targets],
    config: LossConfig,
    generator: torch.Generator,
) -> Losses:
    """Compute the five losses of Mask R-CNN."""
    rpn: RpnOutput = branch.rpn_head(pyramid)
    rpn_cls, rpn_loc = rpn_losses(rpn, targets, branch.config.rpn, config, generator)

    background = branch.mask_head.thing_classes
    sampled = [
        sample_rois(proposals, target, background, config, generator)
        for proposals, target in zip(_propose(branch, rpn, targets, config), targets, strict=True)
    ]
    box: BoxOutput = branch.box_head(_pool(branch, pyramid, [s.rois for s in sampled], branch.config.box.pooled_size))
    cls, box_reg = box_losses(box, sampled, background, branch.config.box.box_weights)

    foreground = [s.select(s.classes < background) for s in sampled]
    side = branch.config.mask.pooled_size
    logits: Tensor = branch.mask_head(
        _pool(branch, pyramid, [s.rois for s in foreground], side), torch.cat([s.classes for s in foreground])
    )
    masks = [crop_masks(t.masks, s.rois, s.objects, 2 * side) for t, s in zip(targets, foreground, strict=True)]
    return Losses(rpn_cls, rpn_loc, cls, box_reg, mask_loss(logits, torch.cat(masks)))


def _propose(branch: InstanceBranch, rpn: RpnOutput, targets: Sequence[Targets], config: LossConfig) -> list[Tensor]:
    """Return the proposals of each image (R_n, 4), one image at a time, as their valid sizes differ."""
    limits = dataclasses.replace(
        branch.config.rpn, pre_nms_top_k=config.pre_nms_top_k, post_nms_top_k=config.post_nms_top_k
    )
    found = []
    for n, target in enumerate(targets):
        image = RpnOutput(tuple(x[n : n + 1] for x in rpn.logits), tuple(x[n : n + 1] for x in rpn.deltas))
        proposals = branch.propose(image, input_hw=target.size, limits=limits)
        found.append(proposals.rois[0, : int(proposals.roi_count[0])])
    return found


def _pool(branch: InstanceBranch, pyramid: Sequence[Tensor], rois: Sequence[Tensor], size: int) -> Tensor:
    config = branch.config.roi
    return pyramid_roi_align(
        pyramid[:ROI_LEVELS],
        rois,
        strides=STRIDES[:ROI_LEVELS],
        output_size=size,
        sampling_ratio=config.sampling_ratio,
        canonical_size=config.canonical_size,
        canonical_level=config.canonical_level,
        min_level=MIN_LEVEL,
    )


# RPN ------------------------------------------------------------------------------------------------------------------


def anchors(pyramid_sizes: Sequence[tuple[int, int]], config: RpnConfig) -> list[Tensor]:
    """Return the anchors of each level (Hl * Wl * A, 4), in the order of flattened (y, x, anchor)."""
    return [
        torch.from_numpy(grid_anchors(size, stride, side, config.aspect_ratios)).view(-1, 4)
        for size, stride, side in zip(pyramid_sizes, STRIDES, config.anchor_sizes, strict=True)
    ]


def rpn_losses(
    rpn: RpnOutput, targets: Sequence[Targets], rpn_config: RpnConfig, config: LossConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the losses of objectness (binary cross-entropy) and box deltas (L1): sums / (samples per image x N)."""
    sizes = [(int(x.shape[2]), int(x.shape[3])) for x in rpn.logits]
    all_anchors = torch.cat(anchors(sizes, rpn_config)).to(rpn.logits[0].device)
    logits = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in rpn.logits], dim=1).float()  # (N, A)
    deltas = torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, 4) for x in rpn.deltas], dim=1).float()  # (N, A, 4)
    low, high = config.rpn_iou
    cls, loc = logits.sum() * 0, deltas.sum() * 0
    for n, target in enumerate(targets):
        matches = match(box_iou(target.boxes, all_anchors), low=low, high=high, keep_best=True)
        positive, negative = sample(
            matches.labels,
            number=config.rpn_samples,
            positive_fraction=config.rpn_positive_fraction,
            generator=generator,
        )
        cls = cls + functional.softplus(-logits[n, positive]).sum() + functional.softplus(logits[n, negative]).sum()
        if len(positive) > 0:
            wanted = encode_boxes(all_anchors[positive], target.boxes[matches.objects[positive]], (1, 1, 1, 1))
            loc = loc + (deltas[n, positive] - wanted).abs().sum()
    normaliser = config.rpn_samples * len(targets)
    return cls / normaliser, loc / normaliser


# Boxes ----------------------------------------------------------------------------------------------------------------


class RoiSample(NamedTuple):
    """The RoIs of one image that the heads learn from, with their targets."""

    rois: Tensor  # (R, 4)
    objects: Tensor  # (R,) int64, the object each overlaps most
    classes: Tensor  # (R,) int64, the object's class, or C for background
    boxes: Tensor  # (R, 4), the object's box; of no meaning for background

    def select(self, chosen: Tensor) -> RoiSample:
        """Return the RoIs for which `chosen` (R,) is true."""
        return RoiSample(*(field[chosen] for field in self))


def sample_rois(
    proposals: Tensor, target: Targets, background: int, config: LossConfig, generator: torch.Generator
) -> RoiSample:
    """Draw RoIs from the proposals (R, 4) and the objects themselves, which are always good proposals."""
    rois = torch.cat([proposals, target.boxes])
    matches = match(box_iou(target.boxes, rois), low=config.roi_iou, high=config.roi_iou, keep_best=False)
    drawn = sample(
        matches.labels, number=config.roi_samples, positive_fraction=config.roi_positive_fraction, generator=generator
    )
    chosen, positives = torch.cat(drawn), len(drawn.positive)
    objects = matches.objects[chosen]
    classes = torch.full_like(objects, background)
    classes[:positives] = target.classes[objects[:positives]]
    boxes = rois[chosen].clone()
    boxes[:positives] = target.boxes[objects[:positives]]
    return RoiSample(rois[chosen], objects, classes, boxes)


def box_losses(
    output: BoxOutput, sampled: Sequence[RoiSample], background: int, box_weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return the losses of classes (cross-entropy, mean over RoIs) and of the true class's deltas (L1, over all RoIs).

    Dividing by all RoIs and not by the foreground gives every foreground RoI of every image the same weight.
    """
    rois, _, classes, boxes = (torch.cat(field) for field in zip(*sampled, strict=True))
    normaliser = max(len(rois), 1)
    cls = functional.cross_entropy(output.logits.float(), classes, reduction="sum") / normaliser
    foreground = (classes < background).nonzero().flatten()
    deltas = output.deltas.float().view(len(rois), background, 4)[foreground, classes[foreground]]
    wanted = encode_boxes(rois[foreground], boxes[foreground], box_weights)
    return cls, (deltas - wanted).abs().sum() / normaliser


# Masks and semantics --------------------------------------------------------------------------------------------------


def crop_masks(masks: Tensor, rois: Tensor, objects: Tensor, side: int) -> Tensor:
    """Return the objects' masks (G, H, W) within the RoIs (F, 4), as (F, side, side) bool: RoIAlign, at least 0.5."""
    if len(rois) == 0:
        return masks.new_zeros((0, side, side), dtype=torch.bool)
    image = masks.unsqueeze(1).float()
    crops = roi_align(image, rois, objects, stride=1, output_size=side, sampling_ratio=0)
    return crops.squeeze(1) >= 0.5


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the binary cross-entropy, mean over all pixels of all foreground RoIs, of (F, M, M) logits and masks."""
    if len(logits) == 0:
        return logits.sum() * 0
    return functional.binary_cross_entropy_with_logits(logits.float(), masks.float())


def semantic_loss(logits: Tensor, semantic: Tensor) -> Tensor:
    """Return the cross-entropy at full resolution, mean over labelled pixels, of (N, S, h, w) and (N, 4h, 4w)."""
    upsampled = functional.interpolate(logits.float(), scale_factor=4, mode="bilinear", align_corners=False)
    labelled = (semantic != VOID).sum().clamp(min=1)
    total = functional.cross_entropy(upsampled, semantic.long(), ignore_index=VOID, reduction="sum")
    return total / labelled
