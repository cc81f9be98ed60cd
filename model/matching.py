"""Assignment of objects to predictions for training: overlaps, matching, sampling, box deltas.

Shapes: P predictions (anchors or proposals), G objects of one image. Boxes are (x0, y0, x1, y1) in network-input
pixels, width = x1 - x0. Semantics: detectron2 `Matcher`, `subsample_labels` and `Box2BoxTransform`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Matches(NamedTuple):
    objects: Tensor  # (P,) int64, the object each prediction overlaps most; 0 if none
    labels: Tensor  # (P,) int64, POSITIVE, NEGATIVE or IGNORED


class Sample(NamedTuple):
    positive: Tensor  # indices into the predictions, int64
    negative: Tensor


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union (G, P) of boxes (G, 4) and (P, 4); 0 if both are empty."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1)[:, None] + (b[:, 2:] - b[:, :2]).prod(-1)[None] - intersection
    return torch.where(intersection > 0, intersection / union, 0)


def match(iou: Tensor, *, low: float, high: float, keep_best: bool) -> Matches:
    """Label predictions by their best overlap with an object.

    Args:
        iou: (G, P).
        low: below it a prediction is negative.
        high: from it on positive; between the two it is ignored.
        keep_best: the predictions that overlap an object most (all of a tie) are positive however little they do,
            unless nothing overlaps it at all. They still belong to the object that *they* overlap most.
    """
    if iou.shape[0] == 0:
        objects = torch.zeros(iou.shape[1], dtype=torch.long, device=iou.device)
        return Matches(objects, torch.full_like(objects, NEGATIVE))
    best, objects = iou.max(dim=0)
    labels = torch.full_like(objects, IGNORED)
    labels[best < low] = NEGATIVE
    labels[best >= high] = POSITIVE
    if keep_best:
        best_of_object = iou.max(dim=1, keepdim=True).values
        labels[((iou == best_of_object) & (best_of_object > 0)).any(dim=0)] = POSITIVE
    return Matches(objects, labels)


def sample(labels: Tensor, *, number: int, positive_fraction: float, generator: torch.Generator) -> Sample:
    """Draw up to `number` predictions at random, at most `positive_fraction` of them positive.

    Args:
        labels: (P,) of `match`.
        number: how many in all; negatives fill what positives leave free.
        positive_fraction: of `number`.
        generator: on the CPU, so that a draw is the same on every device.
    """
    positive = (labels == POSITIVE).nonzero().flatten()
    negative = (labels == NEGATIVE).nonzero().flatten()
    positives = min(len(positive), int(number * positive_fraction))
    negatives = min(len(negative), number - positives)
    return Sample(_draw(positive, positives, generator), _draw(negative, negatives, generator))


def _draw(indices: Tensor, number: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(indices), generator=generator)[:number]
    return indices[order.to(indices.device)]


def encode_boxes(source: Tensor, target: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the deltas (P, 4) from `source` (P, 4) to `target` (P, 4): offsets in sizes of the source, log scales."""
    source_size, target_size = source[:, 2:] - source[:, :2], target[:, 2:] - target[:, :2]
    offset = (target[:, :2] + 0.5 * target_size - source[:, :2] - 0.5 * source_size) / source_size
    return torch.cat([offset, (target_size / source_size).log()], dim=1) * source.new_tensor(weights)
