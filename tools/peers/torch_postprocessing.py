"""detectron2's panoptic post-processing as a good PyTorch user would write it: no Python loop over pixels or boxes but
the merge itself, which is sequential by definition.

Shapes: S semantic channels, K detections, H x W output.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate


def semantic_argmax(logits: Tensor, input_hw: tuple[int, int], output_hw: tuple[int, int]) -> Tensor:
    """Return (H, W) labels of (1, S, h, w) logits at a quarter: x4, crop, resize, argmax."""
    full = interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    valid = full[..., : input_hw[0], : input_hw[1]]
    return interpolate(valid, size=output_hw, mode="bilinear", align_corners=False)[0].argmax(0)


def paste_masks(probs: Tensor, boxes: Tensor, output_hw: tuple[int, int]) -> Tensor:
    """Paste (K, 28, 28) probabilities into (K, H, W) boolean masks, one crop at a time; boxes are in output pixels.

    Only the box's own region is sampled, as detectron2 does on a CPU: far faster than whole canvases.
    """
    H, W = output_hw
    masks = torch.zeros((len(boxes), H, W), dtype=torch.bool)
    for k, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        left, top = max(int(x0) - 1, 0), max(int(y0) - 1, 0)
        right, bottom = min(int(x1) + 2, W), min(int(y1) + 2, H)
        x = (torch.arange(left, right) + 0.5 - x0) / (x1 - x0) * 2 - 1
        y = (torch.arange(top, bottom) + 0.5 - y0) / (y1 - y0) * 2 - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
        sampled = grid_sample(probs[k][None, None], grid, align_corners=False)[0, 0]
        masks[k, top:bottom, left:right] = sampled >= 0.5
    return masks


def merge(
    logits: Tensor,
    boxes: Tensor,
    scores: Tensor,
    probs: Tensor,
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
    score_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
) -> Tensor:
    """Merge one image to (H, W) int32 panoptic ids. Boxes are in network-input pixels, scores descend."""
    with torch.inference_mode():
        labels = semantic_argmax(logits, input_hw, output_hw)
        scale = torch.tensor([output_hw[1] / input_hw[1], output_hw[0] / input_hw[0]]).repeat(2)
        kept = scores >= score_threshold
        masks = paste_masks(probs[kept], boxes[kept] * scale, output_hw)
        panoptic = torch.zeros(output_hw, dtype=torch.int32)
        segment = 0
        for mask in masks:
            area = int(mask.sum())
            free = mask & (panoptic == 0)
            if area == 0 or (area - int(free.sum())) / area > overlap_threshold:
                continue
            segment += 1
            panoptic[free] = segment
        for label in torch.unique(labels).tolist():
            if label == 0:
                continue
            free = (labels == label) & (panoptic == 0)
            if int(free.sum()) < stuff_area_limit:
                continue
            segment += 1
            panoptic[free] = segment
        return panoptic
