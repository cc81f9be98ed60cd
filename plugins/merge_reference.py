"""The parts of PanopticMerge in NumPy: masks, semantic argmax and painting; OPS.md 5.

Shapes: K detections, S semantic channels (0 is "things"), Gh x Gw a mask, H x W output size, h x w semantic map at a
quarter of the padded network input.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .box_reference import Indices, Mask, clip
from .contract import Float32, Int32

LARGEST_LOGIT = np.float32(1e30)

AreaAndBox = tuple[int, int, int, int, int]  # pixels, then the tight half-open box


def paint_instances(panoptic: Int32, masks: Iterable[Mask], overlap_threshold: np.float32) -> list[AreaAndBox | None]:
    """Paint masks onto an empty (H, W) map, each where it is free; return what each got, None if it was dropped."""
    owned: list[AreaAndBox | None] = []
    accepted = 0
    for mask in masks:
        free = mask & (panoptic == 0)
        area = np.count_nonzero(mask)
        if not free.any() or np.float32((area - np.count_nonzero(free)) / area) > np.float32(overlap_threshold):
            owned.append(None)
            continue
        accepted += 1
        panoptic[free] = accepted
        owned.append(area_and_box(free))
    return owned


def paint_stuff(panoptic: Int32, labels: Indices, area_limits: Int32, first_id: int) -> list[tuple[int, AreaAndBox]]:
    """Paint each channel but 0 on the free pixels that it labels, if they are enough; return those painted."""
    painted: list[tuple[int, AreaAndBox]] = []
    for channel in range(1, len(area_limits)):
        free = (labels == channel) & (panoptic == 0)
        if np.count_nonzero(free) >= max(area_limits[channel], 1):
            panoptic[free] = first_id + len(painted)
            painted.append((channel, area_and_box(free)))
    return painted


def semantic_argmax(logits: Float32, input_hw: tuple[int, int], output_hw: tuple[int, int]) -> NDArray[np.intp]:
    """Return the best channel per output pixel, (H, W): bilinear x4, crop to valid, bilinear to the output, argmax."""
    logits = np.where(np.isnan(logits), -LARGEST_LOGIT, np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT))
    rows, row_weights = resize_taps(input_hw[0], output_hw[0], logits.shape[1])
    columns, column_weights = resize_taps(input_hw[1], output_hw[1], logits.shape[2])
    w0, w1, w2 = row_weights.T[:, :, None]  # each (H, 1)
    by_row = w0 * logits[:, rows[:, 0]] + w1 * logits[:, rows[:, 1]] + w2 * logits[:, rows[:, 2]]  # (S, H, w)
    w0, w1, w2 = column_weights.T  # each (W,)
    full = w0 * by_row[..., columns[:, 0]] + w1 * by_row[..., columns[:, 1]] + w2 * by_row[..., columns[:, 2]]
    labels: Indices = full.argmax(axis=0)
    return labels


def resize_taps(valid: int, output: int, quarter: int) -> tuple[Indices, Float32]:
    """Return two bilinear resizes of one axis as one: for each output pixel 3 quarter-size cells and their weights.

    The first resize takes `quarter` cells to 4 times as many, of which `valid` are kept; the second takes those to
    `output`. Its two neighbours lie a quarter of a cell apart, hence 3 cells. Both clamp at the edges.
    """
    scale = np.float32(valid) / np.float32(output)
    source = np.maximum(
        (np.arange(output, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), np.float32(0)
    )
    first = np.minimum(source.astype(np.int64), valid - 1)
    fraction = np.minimum(source - first.astype(np.float32), np.float32(1))
    cells, weights = np.zeros(output, np.int64), np.zeros((output, 3), np.float32)
    everywhere = np.arange(output)
    for step, share in ((0, np.float32(1) - fraction), (1, fraction)):
        neighbour = np.minimum(first + step, valid - 1).astype(np.float32)
        position = np.maximum((neighbour + np.float32(0.5)) * np.float32(0.25) - np.float32(0.5), np.float32(0))
        cell = position.astype(np.int64)
        part = position - cell.astype(np.float32)
        if step == 0:
            cells = cell
        weights[everywhere, cell - cells] += share * (np.float32(1) - part)
        weights[everywhere, cell - cells + 1] += share * part
    return np.minimum(cells[:, None] + np.arange(3), quarter - 1), weights


def scale_box(box: Float32, input_hw: tuple[int, int], output_hw: tuple[int, int]) -> Float32:
    """Scale a box from network-input to output pixels, clipped to the output."""
    scale_y, scale_x = (np.float32(output_hw[i] / input_hw[i]) for i in (0, 1))
    with np.errstate(over="ignore"):
        return clip(box * np.array([scale_x, scale_y, scale_x, scale_y], np.float32), output_hw)


def paste_mask(probs: Float32, box: Float32, output_hw: tuple[int, int], threshold: float | np.float32) -> Mask:
    """Return the output pixels, (H, W), where (Gh, Gw) probabilities stretched over the box reach the threshold."""
    if not (box[2] - box[0] > 0 and box[3] - box[1] > 0):  # false for NaN
        return np.zeros(output_hw, np.bool_)
    probs = np.pad(np.where(np.isfinite(probs), probs, np.float32(0)), 1)  # a border of zeros stands for "outside"
    rows, fy = paste_taps(box[1], box[3], output_hw[0], probs.shape[0] - 2)
    columns, fx = paste_taps(box[0], box[2], output_hw[1], probs.shape[1] - 2)
    with np.errstate(over="ignore", invalid="ignore"):  # probabilities may be any finite number
        by_row = lerp(probs[rows], probs[rows + 1], fy[:, None])  # (H, Gw + 2)
        mask: Mask = lerp(by_row[:, columns], by_row[:, columns + 1], fx) >= np.float32(threshold)
    return mask


def paste_taps(low: np.float32, high: np.float32, output: int, G: int) -> tuple[Indices, Float32]:
    """Return for each output pixel of an axis the lower of its two padded mask cells, and the upper one's share."""
    with np.errstate(over="ignore"):
        centre = np.arange(output, dtype=np.float32) + np.float32(0.5)
        u = (centre - low) / (high - low) * np.float32(G) - np.float32(0.5)
    u = np.clip(u, np.float32(-1), np.float32(G))
    cell = np.minimum(np.floor(u), np.float32(G - 1))
    return cell.astype(np.intp) + 1, u - cell


def lerp(a: Float32, b: Float32, t: Float32) -> Float32:
    """Interpolate from a to b; exactly a if they are equal, so that a flat mask at the threshold stays whole."""
    return a + (b - a) * t


def area_and_box(mask: Mask) -> AreaAndBox:
    """Return area, x0, y0, x1, y1 of a mask that is not empty; the box is tight and half-open."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return (int(np.count_nonzero(mask)), int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
