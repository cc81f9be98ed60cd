"""The four irregular ops on torch tensors, computed on the CPU by `panrt.plugins.native` with as many threads as torch.

The network calls nothing irregular but these four, through an `IrregularOps`. This module is one; an exporter brings
another of the same names, which writes graph nodes instead. Nothing here is differentiable; training pools with
`roi_align`.

Shapes: N images, A anchors a cell, R RoIs, K detections, C thing classes, S semantic channels, G mask side; Hl, Wl the
size of a level. Semantics: `plugins/OPS.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panrt.plugins import native as kernels


class Proposals(NamedTuple):
    rois: Tensor  # (N, R, 4) float32, best first, zero beyond roi_count
    roi_count: Tensor  # (N,) int32


class Detections(NamedTuple):
    boxes: Tensor  # (N, K, 4) float32, zero beyond count
    scores: Tensor  # (N, K) float32, descending
    classes: Tensor  # (N, K) int32, 0..C-1
    count: Tensor  # type: ignore[assignment]  # (N,) int32; the name hides tuple.count


class PanopticSegments(NamedTuple):
    """`panrt.plugins.contract.PanopticSegments` with tensors for arrays."""

    panoptic: Tensor  # (N, H, W) int32, segment id of each pixel, 0 is void
    segments: Tensor  # (N, K + S, 8) int32: id, category, is_thing, area, x0, y0, x1, y1; zero beyond segment_count
    segment_scores: Tensor  # (N, K + S) float32, 0 for stuff
    segment_count: Tensor  # (N,) int32


class IrregularOps(Protocol):
    """What the network needs from whoever computes (or records) the irregular parts."""

    def rpn_proposals(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        *,
        strides: Sequence[int],
        anchor_sizes: Sequence[float],
        aspect_ratios: Sequence[float],
        pre_nms_top_k: int,
        post_nms_top_k: int,
        nms_threshold: float,
        input_hw: tuple[int, int],
    ) -> Proposals: ...

    def pyramid_roi_align(
        self,
        features: Sequence[Tensor],
        rois: Tensor,
        *,
        strides: Sequence[int],
        output_size: int,
        sampling_ratio: int,
        canonical_size: float,
        canonical_level: int,
        min_level: int,
    ) -> Tensor: ...

    def box_detections(
        self,
        class_logits: Tensor,
        box_deltas: Tensor,
        rois: Tensor,
        roi_count: Tensor,
        *,
        box_weights: Sequence[float],
        score_threshold: float,
        nms_threshold: float,
        max_detections: int,
        input_hw: tuple[int, int],
    ) -> Detections: ...

    def panoptic_merge(
        self,
        semantic_logits: Tensor,
        boxes: Tensor,
        scores: Tensor,
        classes: Tensor,
        count: Tensor,
        mask_probs: Tensor,
        *,
        input_hw: tuple[int, int],
        output_hw: tuple[int, int],
        score_threshold: float,
        overlap_threshold: float,
        stuff_area_limit: int,
    ) -> PanopticSegments: ...


def rpn_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    *,
    strides: Sequence[int],
    anchor_sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_threshold: float,
    input_hw: tuple[int, int],
) -> Proposals:
    """Per level logits (N, A, Hl, Wl) and deltas (N, 4A, Hl, Wl) -> the R = `post_nms_top_k` best proposals."""
    found = kernels.rpn_proposals(
        [_float32(x) for x in logits],
        [_float32(x) for x in deltas],
        strides=strides,
        anchor_sizes=anchor_sizes,
        aspect_ratios=aspect_ratios,
        pre_nms_top_k=pre_nms_top_k,
        post_nms_top_k=post_nms_top_k,
        nms_threshold=nms_threshold,
        input_hw=input_hw,
        threads=torch.get_num_threads(),
    )
    return Proposals(*_tensors(found, logits[0].device))


def pyramid_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    canonical_size: float,
    canonical_level: int,
    min_level: int,
) -> Tensor:
    """Features P2.. (N, D, Hl, Wl), rois (N, R, 4) -> pooled (N * R, D, S, S) in the features' type."""
    pooled = kernels.pyramid_roi_align(
        [_float32(x) for x in features],
        _float32(rois),
        strides=strides,
        output_size=output_size,
        sampling_ratio=sampling_ratio,
        canonical_size=canonical_size,
        canonical_level=canonical_level,
        min_level=min_level,
        threads=torch.get_num_threads(),
    )
    return torch.from_numpy(pooled).to(features[0])


def box_detections(
    class_logits: Tensor,
    box_deltas: Tensor,
    rois: Tensor,
    roi_count: Tensor,
    *,
    box_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    input_hw: tuple[int, int],
) -> Detections:
    """Class logits (N, R, C + 1), deltas (N, R, 4C) -> the K = `max_detections` best detections."""
    found = kernels.box_detections(
        _float32(class_logits),
        _float32(box_deltas),
        _float32(rois),
        _int32(roi_count),
        box_weights=box_weights,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=max_detections,
        input_hw=input_hw,
        threads=torch.get_num_threads(),
    )
    return Detections(*_tensors(found, class_logits.device))


def panoptic_merge(
    semantic_logits: Tensor,
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    count: Tensor,
    mask_probs: Tensor,
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
    score_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
) -> PanopticSegments:
    """Semantic logits (N, S, h, w), K detections and masks (N, K, G, G) -> panoptic maps at `output_hw`."""
    merged = kernels.panoptic_merge(
        _float32(semantic_logits),
        _float32(boxes),
        _float32(scores),
        _int32(classes),
        _int32(count),
        _float32(mask_probs),
        input_hw=input_hw,
        output_hw=output_hw,
        score_threshold=score_threshold,
        overlap_threshold=overlap_threshold,
        stuff_area_limit=stuff_area_limit,
        threads=torch.get_num_threads(),
    )
    return PanopticSegments(*_tensors(merged, semantic_logits.device))


def _float32(x: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = x.detach().to("cpu", torch.float32).contiguous().numpy()
    return array


def _int32(x: Tensor) -> NDArray[np.int32]:
    array: NDArray[np.int32] = x.detach().to("cpu", torch.int32).contiguous().numpy()
    return array


def _tensors(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(array).to(device) for array in arrays]
