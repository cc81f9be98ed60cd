"""What the ops must compute, written again from detectron2's description and from PyTorch, apart from `reference.py`.

Nothing here is shared with the code under test: boxes decode in torch's float32, NMS runs over a Python list, RoIAlign
takes one sample at a time in float64, masks are pasted by `grid_sample` and logits resized by `interpolate`. Results
therefore agree but for rounding, and the cases compared are friendly: no value that is not finite, no tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

Array = NDArray[Any]

torch.set_num_threads(1)  # the tests themselves run a process a core


def proposals(
    logits: Sequence[Array], deltas: Sequence[Array], *, strides: Sequence[int], anchor_sizes: Sequence[float],
    aspect_ratios: Sequence[float], pre_nms_top_k: int, post_nms_top_k: int, nms_threshold: float,
    input_hw: tuple[int, int],
) -> list[Array]:  # fmt: skip
    """RoIs of each image, best first."""
    results = []
    for n in range(len(logits[0])):
        found: list[tuple[float, Tensor]] = []
        for level, (level_logits, level_deltas) in enumerate(zip(logits, deltas, strict=True)):
            A, H, W = level_logits.shape[1:]
            candidates = []
            for a in range(A):
                width = math.sqrt(anchor_sizes[level] ** 2 / aspect_ratios[a])
                height = aspect_ratios[a] * width
                for y in range(H):
                    for x in range(W):
                        cx, cy = x * strides[level], y * strides[level]
                        anchor = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
                        delta = level_deltas[n, 4 * a : 4 * a + 4, y, x]
                        candidates.append((float(level_logits[n, a, y, x]), anchor, delta))
            candidates.sort(key=lambda candidate: -candidate[0])
            candidates = candidates[:pre_nms_top_k]
            boxes = apply_deltas(
                torch.tensor([c[1] for c in candidates]), torch.tensor(np.array([c[2] for c in candidates])), [1.0] * 4
            )
            boxes = clip_boxes(boxes, input_hw)
            alive = [i for i, b in enumerate(boxes) if b[2] > b[0] and b[3] > b[1]]
            found += [(candidates[i][0], boxes[i]) for i in suppress(boxes, alive, nms_threshold)]
        found.sort(key=lambda candidate: -candidate[0])
        results.append(np.array([box.numpy() for _, box in found[:post_nms_top_k]]).reshape(-1, 4))
    return results


def detections(
    class_logits: Array, box_deltas: Array, rois: Array, roi_count: Array, *, box_weights: Sequence[float],
    score_threshold: float, nms_threshold: float, max_detections: int, input_hw: tuple[int, int],
) -> list[list[tuple[float, int, Array]]]:  # fmt: skip
    """(score, class, box) of each image's detections, best first."""
    results = []
    for n, count in enumerate(roi_count):
        probabilities = torch.softmax(torch.tensor(class_logits[n, :count]), dim=1)
        found = []
        for c in range(probabilities.shape[1] - 1):
            boxes = apply_deltas(
                torch.tensor(rois[n, :count]), torch.tensor(box_deltas[n, :count, 4 * c : 4 * c + 4]), box_weights
            )
            boxes = clip_boxes(boxes, input_hw)
            scores = probabilities[:, c]
            order = [i for i in scores.argsort(descending=True).tolist() if scores[i] > score_threshold]
            found += [(float(scores[i]), c, boxes[i].numpy()) for i in suppress(boxes, order, nms_threshold)]
        found.sort(key=lambda detection: -detection[0])
        results.append(found[:max_detections])
    return results


def apply_deltas(boxes: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes (M, 4) moved by deltas (M, 4)."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + 0.5 * size
    deltas = deltas / torch.tensor(weights)
    new_centre = deltas[:, :2] * size + centre
    new_size = torch.exp(deltas[:, 2:].clamp(max=math.log(1000 / 16))) * size
    return torch.cat([new_centre - 0.5 * new_size, new_centre + 0.5 * new_size], dim=1)


def clip_boxes(boxes: Tensor, hw: tuple[int, int]) -> Tensor:
    """Boxes cut to the image."""
    x, y = boxes[:, 0::2].clamp(0, hw[1]), boxes[:, 1::2].clamp(0, hw[0])
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def suppress(boxes: Tensor, order: Sequence[int], threshold: float) -> list[int]:
    """Indices that survive, in the given order."""
    kept: list[int] = []
    for i in order:
        if all(_iou(boxes[i].tolist(), boxes[k].tolist()) <= threshold for k in kept):
            kept.append(i)
    return kept


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def roi_align(feature: Array, roi: Sequence[float], *, stride: int, output_size: int, sampling_ratio: int) -> Array:
    """One RoI of one level in float64: feature (C, H, W), result (C, S, S)."""
    H, W = feature.shape[1:]
    x0, y0, x1, y1 = (float(v) / stride - 0.5 for v in roi)
    bin_w, bin_h = (x1 - x0) / output_size, (y1 - y0) / output_size
    grid_w, grid_h = sampling_ratio or math.ceil(bin_w), sampling_ratio or math.ceil(bin_h)
    pooled = np.zeros((len(feature), output_size, output_size))
    for p in range(output_size):
        for q in range(output_size):
            for i in range(grid_h):
                for j in range(grid_w):
                    y, x = y0 + (p + (i + 0.5) / grid_h) * bin_h, x0 + (q + (j + 0.5) / grid_w) * bin_w
                    if -1 <= y <= H and -1 <= x <= W:
                        y, x = min(max(y, 0.0), H - 1.0), min(max(x, 0.0), W - 1.0)
                        for cell_y in {math.floor(y), math.ceil(y)}:
                            for cell_x in {math.floor(x), math.ceil(x)}:
                                weight = (1 - abs(y - cell_y)) * (1 - abs(x - cell_x))
                                pooled[:, p, q] += weight * feature[:, cell_y, cell_x].astype(np.float64)
    return pooled / (grid_h * grid_w)


class Canvas:
    """detectron2's merge of one image in torch, and the pixels of it that rounding may decide."""

    def __init__(
        self, semantic_logits: Array, boxes: Array, scores: Array, classes: Array, mask_probs: Array, *,
        input_hw: tuple[int, int], output_hw: tuple[int, int], score_threshold: float, overlap_threshold: float,
        stuff_area_limit: int, mask_threshold: float = 0.5,
    ) -> None:  # fmt: skip
        logits = interpolate(torch.tensor(semantic_logits)[None], scale_factor=4, mode="bilinear")
        logits = interpolate(logits[..., : input_hw[0], : input_hw[1]], output_hw, mode="bilinear")[0]
        labels = logits.argmax(dim=0)
        best = logits.topk(min(2, len(logits)), dim=0).values
        self.undecided = (best[0] - best[-1] < 1e-5) if len(logits) > 1 else torch.zeros(output_hw, dtype=torch.bool)

        self.panoptic = torch.zeros(output_hw, dtype=torch.int32)
        self.segments: list[tuple[int, int, int]] = []  # id, category, is_thing
        scale = torch.tensor([output_hw[1] / input_hw[1], output_hw[0] / input_hw[0]] * 2)
        scaled = clip_boxes(torch.tensor(boxes) * scale, output_hw)
        for k in np.argsort(-scores, kind="stable"):
            if scores[k] < score_threshold or (scaled[k, 2:] <= scaled[k, :2]).any():
                continue
            values = paste(torch.tensor(mask_probs[k]), scaled[k], output_hw)
            self.undecided |= (values - mask_threshold).abs() < 1e-5
            mask = values >= mask_threshold
            area, taken = int(mask.sum()), int((mask & (self.panoptic > 0)).sum())
            if area == 0 or taken / area > overlap_threshold or taken == area:
                continue
            self._add(mask, int(classes[k]), is_thing=True)
        for label in range(1, len(logits)):
            mask = (labels == label) & (self.panoptic == 0)
            if mask.sum() >= max(stuff_area_limit, 1):
                self._add(mask, label, is_thing=False)

    def _add(self, mask: Tensor, category: int, *, is_thing: bool) -> None:
        self.segments.append((len(self.segments) + 1, category, int(is_thing)))
        self.panoptic[mask & (self.panoptic == 0)] = len(self.segments)


def paste(probs: Tensor, box: Tensor, output_hw: tuple[int, int]) -> Tensor:
    """Probabilities (G, G) over a box, sampled at each pixel of the output; 0 outside."""
    H, W = output_hw
    x = (torch.arange(W) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(H) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack([x.expand(H, W), y[:, None].expand(H, W)], dim=-1)[None]
    return grid_sample(probs[None, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0, 0]
