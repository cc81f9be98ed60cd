"""Non-maximum suppression over all classes, with an op that suppresses within a class.

mmdetection's Panoptic FPN suppresses a box if a better one of any class overlaps it. `BoxDetections` compares boxes of
one class. So it gets one class: each RoI's best class, with the RoI's probability of it. Of what it keeps, the class is
found again by box and score, which belong to one RoI. This is exact if an RoI has at most one class above the score
threshold, i.e. for thresholds from 0.5 on: probabilities of an RoI sum to 1.

Shapes: N images, R RoIs, C thing classes, K detections. Boxes are (x0, y0, x1, y1) in pixels of the network input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from panrt.model.custom_ops import Detections

LARGEST_DELTA = math.log(1000 / 16)  # of a side, as BoxDetections limits it
_FAR = 1e6  # pixels; farther than any two boxes of an image are apart


class Choice(NamedTuple):
    """The best class of each RoI, as the only class beside the background."""

    logits: Tensor  # (N, R, 2) float32, background last; their softmax is the probability of the class
    deltas: Tensor  # (N, R, 4) float32
    classes: Tensor  # (N, R) int32


def choose_classes(logits: Tensor, deltas: Tensor) -> Choice:
    """Class logits (N, R, C + 1), background last, and deltas (N, R, 4C) -> the best class of each RoI."""
    best, classes = logits[..., :-1].max(-1, keepdim=True)
    channels = torch.arange(logits.shape[-1], device=logits.device)
    others = torch.where(channels == classes, -torch.inf, logits).logsumexp(-1, keepdim=True)
    by_class = deltas.reshape(*deltas.shape[:2], -1, 4)
    chosen = by_class.gather(2, classes.unsqueeze(-1).expand(-1, -1, -1, 4)).squeeze(2)
    return Choice(torch.cat((best, others), -1), chosen, classes.squeeze(-1).to(torch.int32))


def decode(deltas: Tensor, rois: Tensor, *, box_weights: Sequence[float], input_hw: tuple[int, int]) -> Tensor:
    """Deltas (N, R, 4) of RoIs (N, R, 4) -> clipped boxes (N, R, 4), as `plugins/OPS.md` 1.1 and 1.2 decode them."""
    low, high = rois[..., :2], rois[..., 2:]
    size = high - low
    centre = low + 0.5 * size
    shift, scale = deltas[..., :2], deltas[..., 2:]
    weights = deltas.new_tensor(box_weights)
    centre = shift / weights[:2] * size + centre
    size = (scale / weights[2:]).clamp(max=LARGEST_DELTA).exp() * size
    boxes = torch.cat((centre - 0.5 * size, centre + 0.5 * size), -1)
    return boxes.clamp(min=0).minimum(boxes.new_tensor([*input_hw[::-1], *input_hw[::-1]]))


def classes_of(detections: Detections, boxes: Tensor, choice: Choice) -> Tensor:
    """Return the class (N, K) int32 of each detection, 0 beyond the count.

    Args:
        detections: of one class, made of `choice`.
        boxes: (N, R, 4), what the RoIs decode to.
        choice: the class of each RoI.
    """
    apart = (detections.boxes.unsqueeze(2) - boxes.unsqueeze(1)).abs().sum(-1)  # (N, K, R)
    scores = (choice.logits[..., 0] - choice.logits[..., 1]).sigmoid()
    apart = apart + (detections.scores.unsqueeze(2) - scores.unsqueeze(1)).abs()
    apart = torch.where(apart <= _FAR, apart, _FAR)  # a NaN is of an RoI that the op drops
    found = choice.classes.gather(1, apart.argmin(-1))
    rows = torch.arange(found.shape[1], device=found.device)
    return found * (rows < detections.count.unsqueeze(1))


def lowest_deltas(boxes: int, min_scale: float, weights: Sequence[float]) -> Tensor:
    """Return the smallest deltas (4 * boxes,) for which no side shrinks to less than `min_scale` of what it was.

    Args:
        boxes: anchors of a cell, or classes.
        min_scale: in (0, 1]; 0 sets no limit.
        weights: of the deltas of width and height.

    Returns:
        Float32; a delta without a limit has float16's lowest number.
    """
    none = torch.finfo(torch.float16).min
    limits = [none, none, *(math.log(min_scale) * weight if min_scale else none for weight in weights)]
    return torch.tensor(limits).repeat(boxes)
