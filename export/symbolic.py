"""The four ops as nodes of an ONNX graph: what the exporter gives the network in place of `panrt.model.irregular`.

The dynamo exporter copies each call below into the graph as one node, with all the attributes of `plugins/OPS.md`. What
the call returns has the right shapes and no values.

Shapes: N images, A anchors a cell, R RoIs, K detections, C thing classes, S semantic channels, D the pyramid's width, G
mask side; Hl, Wl the size of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from panrt.model.irregular import Detections, PanopticSegments, Proposals
from panrt.plugins.onnx_functions import ATTRIBUTES, DOMAIN, PLUGIN, VERSION

Shape = Sequence[int | torch.SymInt]


class _Output(NamedTuple):
    shape: Shape
    dtype: torch.dtype


class SymbolicOps:
    """An `IrregularOps` that records instead of computing."""

    def __init__(self, *, mask_threshold: float = 0.5) -> None:
        self.mask_threshold = mask_threshold

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
    ) -> Proposals:
        N, R = logits[0].shape[0], post_nms_top_k
        rois, roi_count = _node(
            "RpnProposals",
            (*logits, *deltas),
            (_Output((N, R, 4), torch.float32), _Output((N,), torch.int32)),
            strides=strides,
            anchor_sizes=anchor_sizes,
            aspect_ratios=aspect_ratios,
            pre_nms_top_k=pre_nms_top_k,
            post_nms_top_k=post_nms_top_k,
            nms_threshold=nms_threshold,
            input_hw=input_hw,
        )
        return Proposals(rois, roi_count)

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
    ) -> Tensor:
        N, R, S = rois.shape[0], rois.shape[1], output_size
        (pooled,) = _node(
            "PyramidRoiAlign",
            (*features, rois),
            (_Output((N * R, features[0].shape[1], S, S), features[0].dtype),),
            strides=strides,
            output_size=output_size,
            sampling_ratio=sampling_ratio,
            canonical_size=canonical_size,
            canonical_level=canonical_level,
            min_level=min_level,
        )
        return pooled

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
    ) -> Detections:
        N, K = class_logits.shape[0], max_detections
        boxes, scores, classes, count = _node(
            "BoxDetections",
            (class_logits, box_deltas, rois, roi_count),
            (
                _Output((N, K, 4), torch.float32),
                _Output((N, K), torch.float32),
                _Output((N, K), torch.int32),
                _Output((N,), torch.int32),
            ),
            box_weights=box_weights,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
            input_hw=input_hw,
        )
        return Detections(boxes, scores, classes, count)

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
    ) -> PanopticSegments:
        N, rows = semantic_logits.shape[0], scores.shape[1] + semantic_logits.shape[1]
        panoptic, segments, segment_scores, segment_count = _node(
            "PanopticMerge",
            (semantic_logits, boxes, scores, classes, count, mask_probs),
            (
                _Output((N, *output_hw), torch.int32),
                _Output((N, rows, 8), torch.int32),
                _Output((N, rows), torch.float32),
                _Output((N,), torch.int32),
            ),
            input_hw=input_hw,
            output_hw=output_hw,
            score_threshold=score_threshold,
            overlap_threshold=overlap_threshold,
            stuff_area_limit=stuff_area_limit,
            mask_threshold=self.mask_threshold,
        )
        return PanopticSegments(panoptic, segments, segment_scores, segment_count)


def _node(
    op_type: str, inputs: Sequence[Tensor], outputs: Sequence[_Output], **attributes: float | Sequence[float]
) -> Sequence[Tensor]:
    """One node of the domain, its attributes in the order and the types that the ONNX functions declare."""
    typed: dict[str, Any] = {name: _typed(attributes[name]) for name in ATTRIBUTES[op_type]}
    results: Sequence[Tensor] = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{op_type}",
        inputs,
        {**typed, **PLUGIN},
        dtypes=[output.dtype for output in outputs],
        shapes=[output.shape for output in outputs],
        version=VERSION,
    )
    return results


def _typed(value: float | Sequence[float]) -> Any:
    return list(value) if isinstance(value, Sequence) else value
