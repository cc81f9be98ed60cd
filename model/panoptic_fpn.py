"""Panoptic FPN (Kirillov et al., CVPR 2019): Mask R-CNN and a semantic branch on one feature pyramid.

Shapes: N images, H x W pixels of an image, Hp x Wp the same padded to multiples of 32, R RoIs, K detections, C thing
classes, S semantic channels (0 = "things"), G mask side, P2..P6 the pyramid (N, D, Hp/s, Wp/s) with strides s = 4..64.

The subgraphs without custom ops are modules: `backbone`, `instance.rpn_head`, `instance.box_head`,
`instance.mask_head`, `semantic`. Between them are the four ops of a `CustomOps`, and nothing else that depends on the
data: with other ops an exporter traces the same `infer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from panrt.formats.metadata import SIZE_DIVISOR
from panrt.model.backbones import build_trunk
from panrt.model.config import InstanceConfig, MergeConfig, PanopticFPNConfig, ResNetConfig, RpnConfig, make_config
from panrt.model.custom_ops import KERNELS, CustomOps, Detections, PanopticSegments, Proposals
from panrt.model.fpn import ROI_LEVELS, STRIDES, Fpn
from panrt.model.heads import BoxHead, BoxOutput, DilatedSemanticHead, MaskHead, RpnHead, RpnOutput, SemanticHead
from panrt.model.suppression import choose_classes, classes_of, decode, lowest_deltas

MIN_LEVEL = 2  # P2 is the finest level


class Instances(NamedTuple):
    """The result of the instance branch, and its intermediate steps."""

    rpn: RpnOutput
    proposals: Proposals
    box: BoxOutput
    detections: Detections
    mask_probs: Tensor  # (N, K, G, G) of each detection's class


class Branches(NamedTuple):
    """The results of all stages before the merge, so that a difference can be attributed to a stage."""

    pyramid: tuple[Tensor, ...]  # P2..P6, or C5 alone without an FPN
    semantic_logits: Tensor | None  # (N, S, Hp/4, Wp/4)
    instances: Instances | None


class Backbone(nn.Module):
    """Trunk and FPN: normalised image (N, 3, Hp, Wp) -> P2..P6, or C5 alone without an FPN."""

    def __init__(self, config: PanopticFPNConfig) -> None:
        super().__init__()
        self.trunk = build_trunk(config.trunk)
        self.fpn = None if config.fpn is None else Fpn(self.trunk.channels, config.fpn)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.pyramid(self.trunk(image))

    def pyramid(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the pyramid from the trunk's C2..C5, computed now or cached."""
        if self.fpn is None:
            return (maps[-1],)
        levels: tuple[Tensor, ...] = self.fpn(maps)
        return levels


class InstanceBranch(nn.Module):
    """RPN, box head and mask head: P2..P6 -> instances."""

    rpn_floor: Tensor  # (4A, 1, 1), the lowest deltas
    box_floor: Tensor  # (4C,)

    def __init__(self, width: int, thing_classes: int, config: PanopticFPNConfig, instance: InstanceConfig) -> None:
        super().__init__()
        self.config = instance
        rpn_floor = lowest_deltas(len(instance.rpn.aspect_ratios), instance.rpn.min_scale, (1.0, 1.0))
        box_floor = lowest_deltas(thing_classes, instance.box.min_scale, instance.box.box_weights[2:])
        self.register_buffer("rpn_floor", rpn_floor.view(-1, 1, 1), persistent=False)
        self.register_buffer("box_floor", box_floor, persistent=False)
        self.rpn_head = RpnHead(width, instance.rpn, config.activation)
        self.box_head = BoxHead(width, thing_classes, instance.box, config.activation)
        self.mask_head = MaskHead(width, thing_classes, instance.mask, config.activation)

    def forward(self, pyramid: Sequence[Tensor], *, input_hw: tuple[int, int], ops: CustomOps = KERNELS) -> Instances:
        """Find instances; `input_hw` is the valid size of the image, without its padding."""
        box_config = self.config.box
        images = pyramid[0].shape[0]
        rpn: RpnOutput = self.rpn_head(pyramid)
        proposals = self.propose(rpn, input_hw=input_hw, ops=ops)
        box: BoxOutput = self.box_head(self._pool(pyramid, proposals.rois, box_config.pooled_size, ops))
        detections = self._detect(
            box.logits.reshape(images, -1, box.logits.shape[-1]).float(),
            box.deltas.reshape(images, -1, box.deltas.shape[-1]).float(),
            proposals,
            input_hw,
            ops,
        )
        pooled = self._pool(pyramid, detections.boxes, self.config.mask.pooled_size, ops)
        mask_logits: Tensor = self.mask_head(pooled, detections.classes)
        mask_probs = mask_logits.float().sigmoid().reshape(images, -1, *mask_logits.shape[-2:])
        return Instances(rpn, proposals, box, detections, mask_probs)

    def propose(
        self,
        rpn: RpnOutput,
        *,
        input_hw: tuple[int, int],
        ops: CustomOps = KERNELS,
        limits: RpnConfig | None = None,
    ) -> Proposals:
        """Return the best proposals; training sets other `limits` than the configured ones."""
        config = limits or self.config.rpn
        deltas = [x.float() for x in rpn.deltas]
        if config.min_scale:
            deltas = [torch.maximum(x, self.rpn_floor) for x in deltas]
        return ops.rpn_proposals(
            [x.float() for x in rpn.logits],
            deltas,
            strides=STRIDES,
            anchor_sizes=config.anchor_sizes,
            aspect_ratios=config.aspect_ratios,
            pre_nms_top_k=config.pre_nms_top_k,
            post_nms_top_k=config.post_nms_top_k,
            nms_threshold=config.nms_threshold,
            input_hw=input_hw,
        )

    def _detect(
        self, logits: Tensor, deltas: Tensor, proposals: Proposals, input_hw: tuple[int, int], ops: CustomOps
    ) -> Detections:
        """Class logits (N, R, C + 1) and deltas (N, R, 4C) -> detections."""
        config = self.config.box
        if config.min_scale:
            deltas = torch.maximum(deltas, self.box_floor)
        choice = None
        if config.suppression == "all_classes":
            choice = choose_classes(logits, deltas)
            logits, deltas = choice.logits, choice.deltas
        detections = ops.box_detections(
            logits,
            deltas,
            proposals.rois,
            proposals.roi_count,
            box_weights=config.box_weights,
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            max_detections=config.max_detections,
            input_hw=input_hw,
        )
        if choice is None:
            return detections
        boxes = decode(choice.deltas, proposals.rois, box_weights=config.box_weights, input_hw=input_hw)
        return detections._replace(classes=classes_of(detections, boxes, choice))

    def _pool(self, pyramid: Sequence[Tensor], rois: Tensor, size: int, ops: CustomOps) -> Tensor:
        return ops.pyramid_roi_align(
            pyramid[:ROI_LEVELS],
            rois,
            strides=STRIDES[:ROI_LEVELS],
            output_size=size,
            sampling_ratio=self.config.roi.sampling_ratio,
            canonical_size=self.config.roi.canonical_size,
            canonical_level=self.config.roi.canonical_level,
            min_level=MIN_LEVEL,
        )


class PanopticFPN(nn.Module):
    """The whole network: uint8 BGR pixels in, panoptic IDs out.

    Called on a batch (N, H, W, 3), it returns the outputs of PanopticMerge. Without a semantic branch all stuff is
    void, without an instance branch there are no things.
    """

    pixel_mean: Tensor  # (3, 1, 1), BGR
    pixel_std: Tensor

    def __init__(self, config: PanopticFPNConfig) -> None:
        super().__init__()
        self.config = config
        classes, semantic = config.classes, config.semantic
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)
        self.backbone = Backbone(config)
        self.instance: InstanceBranch | None = None
        self.semantic: SemanticHead | DilatedSemanticHead | None = None
        if config.fpn is not None:
            width = config.fpn.width
            if config.instance is not None:
                self.instance = InstanceBranch(width, len(classes.things), config, config.instance)
            if semantic is not None:
                self.semantic = SemanticHead(width, classes.semantic_channels, semantic, config.activation)
        elif semantic is not None and isinstance(config.trunk, ResNetConfig):
            self.semantic = DilatedSemanticHead(
                self.backbone.trunk.channels[-1],
                classes.semantic_channels,
                config.trunk.output_stride,
                semantic,
                config.activation,
            )

    @torch.no_grad()
    def forward(
        self, image: Tensor, *, valid_hw: tuple[int, int] | None = None, output_hw: tuple[int, int] | None = None
    ) -> PanopticSegments:
        """Segment a batch.

        Args:
            image: (N, H, W, 3) uint8, BGR; padding to multiples of 32 happens inside.
            valid_hw: the part of it, from the upper left, that holds the frame; the rest is ignored. By default all
                of it.
            output_hw: size of the panoptic map; by default that of the valid part.

        Raises:
            ValueError: the image has another shape or type, or is smaller than its valid part.
        """
        return self.infer(image, valid_hw=valid_hw, output_hw=output_hw)

    def infer(
        self,
        image: Tensor,
        *,
        valid_hw: tuple[int, int] | None = None,
        output_hw: tuple[int, int] | None = None,
        ops: CustomOps = KERNELS,
    ) -> PanopticSegments:
        """Segment a batch as `forward` does, with the custom ops of `ops`."""
        branches = self.branches(image, valid_hw=valid_hw, ops=ops)
        config = self.config.merge
        return merge(branches, config=config, image=image, valid_hw=valid_hw, output_hw=output_hw, ops=ops)

    def branches(self, image: Tensor, *, valid_hw: tuple[int, int] | None = None, ops: CustomOps = KERNELS) -> Branches:
        """Compute everything before the merge; arguments and errors as in `forward`."""
        if image.dtype != torch.uint8 or image.dim() != 4 or image.shape[-1] != 3:
            raise ValueError(
                f"image: got {tuple(image.shape)} {image.dtype}, expected (N, H, W, 3) torch.uint8 in BGR order; "
                "stack frames of one size and do not normalise them."
            )
        size = _size(image)
        if valid_hw is not None and not all(0 < valid <= side for valid, side in zip(valid_hw, size, strict=True)):
            raise ValueError(f"valid_hw: got {valid_hw}, expected at least (1, 1) and at most the image's {size}.")
        pyramid: tuple[Tensor, ...] = self.backbone(self.prepare(image, valid_hw=valid_hw))
        instances = None if self.instance is None else self.instance(pyramid, input_hw=valid_hw or size, ops=ops)
        return Branches(pyramid, self.semantic_logits(pyramid), instances)

    def prepare(self, image: Tensor, *, valid_hw: tuple[int, int] | None = None) -> Tensor:
        """Normalise images, (N, H, W, 3) uint8 -> (N, 3, Hp, Wp), with zeros right of and below the valid part."""
        size = _size(image)
        height, width = valid_hw or size
        pixels = image.to(self.pixel_mean.dtype).permute(0, 3, 1, 2)  # TensorRT moves no axes of bytes, so cast first
        normalised = (pixels[:, :, :height, :width] - self.pixel_mean) / self.pixel_std
        below, right = (side + -side % SIZE_DIVISOR - valid for side, valid in zip(size, (height, width), strict=True))
        return functional.pad(normalised, (0, right, 0, below))

    def semantic_logits(self, pyramid: Sequence[Tensor]) -> Tensor | None:
        """Return the semantic logits (N, S, Hp/4, Wp/4), or None without a semantic branch."""
        if self.semantic is None:
            return None
        logits: Tensor = self.semantic(pyramid[:ROI_LEVELS] if self.config.fpn is not None else pyramid[0])
        return logits


class SeparateNetworks(nn.Module):
    """The paper's "two separate networks", one for things and one for stuff, merged at the end."""

    def __init__(self, instance: PanopticFPN, semantic: PanopticFPN) -> None:
        super().__init__()
        if instance.instance is None or semantic.semantic is None:
            raise ValueError(
                f"got {instance.config.name} for the things and {semantic.config.name} for the stuff; "
                "the first needs an instance branch, the second a semantic branch."
            )
        self.instance = instance
        self.semantic = semantic

    @torch.no_grad()
    def forward(self, image: Tensor, *, output_hw: tuple[int, int] | None = None) -> PanopticSegments:
        """Segment a batch as `PanopticFPN.forward` does; the merge follows the instance network's configuration."""
        instances = self.instance.branches(image)
        both = instances._replace(semantic_logits=self.semantic.branches(image).semantic_logits)
        return merge(both, config=self.instance.config.merge, image=image, output_hw=output_hw)


def merge(
    branches: Branches,
    *,
    config: MergeConfig,
    image: Tensor,
    valid_hw: tuple[int, int] | None = None,
    output_hw: tuple[int, int] | None = None,
    ops: CustomOps = KERNELS,
) -> PanopticSegments:
    """Merge the branches by PanopticMerge; a missing branch has found nothing. Sizes as in `PanopticFPN.forward`.

    Raises:
        ValueError: both branches are missing.
    """
    input_hw = valid_hw or _size(image)
    semantic_logits, instances = branches.semantic_logits, branches.instances
    if instances is not None:
        boxes, scores, classes, count = instances.detections
        mask_probs = instances.mask_probs
        if semantic_logits is None:  # "things" everywhere: no stuff
            height, width = branches.pyramid[0].shape[-2:]
            semantic_logits = boxes.new_zeros((boxes.shape[0], 1, height, width))
    elif semantic_logits is not None:
        mask_probs = semantic_logits.new_zeros((semantic_logits.shape[0], 0, 28, 28), dtype=torch.float32)
        scores = mask_probs[:, :, 0, 0]
        boxes, classes = scores.unsqueeze(-1).expand(-1, -1, 4), scores.int()
        count = torch.zeros(len(scores), dtype=torch.int32, device=scores.device)
    else:
        raise ValueError("merge: neither semantic logits nor instances; at least one is needed.")
    return ops.panoptic_merge(
        semantic_logits.float(),
        boxes,
        scores,
        classes,
        count,
        mask_probs.float(),
        input_hw=input_hw,
        output_hw=output_hw or input_hw,
        score_threshold=config.score_threshold,
        overlap_threshold=config.overlap_threshold,
        stuff_area_limit=config.stuff_area_limit,
    )


def _size(image: Tensor) -> tuple[int, int]:
    return int(image.shape[1]), int(image.shape[2])


def build(name: str, **overrides: Any) -> PanopticFPN:
    """Return a newly initialised network of a named configuration, with some fields replaced; see `config.make_config`.

    Raises:
        ValueError, TypeError: no such configuration, or an override does not fit.
    """
    return PanopticFPN(make_config(name, **overrides))
