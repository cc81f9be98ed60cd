"""Differentiable RoIAlign in plain torch, with the same values as the op PyramidRoiAlign.

Shapes: N images, R RoIs, D channels, S = `output_size`, Hl, Wl the size of level l. Boxes are (x0, y0, x1, y1) in image
pixels.

Sampling on a grid is separable. For one RoI the pooled map is `rows @ crop @ columns.T` with two small matrices that
hold how much each cell of the crop weighs in each bin. The backward pass is the same product transposed, added to the
gradient in place: left to autograd, each of some hundred slices would allocate a gradient as large as the feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from panrt.model.custom_ops import KERNELS

MAX_ROI_COORDINATE = 65536.0


class AxisWeights(NamedTuple):
    """The weight of each cell along one axis in each bin, for R RoIs."""

    weights: Tensor  # (R, S, cells)
    first: list[int]  # first cell with weight, by RoI
    end: list[int]  # one past the last; equal to `first` if there is none


def pyramid_roi_align(
    features: Sequence[Tensor],
    rois: Sequence[Tensor],
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    canonical_size: float,
    canonical_level: int,
    min_level: int,
) -> Tensor:
    """Pool each RoI from the level that fits it.

    Args:
        features: per level (N, D, Hl, Wl), floating.
        rois: per image (R_n, 4); numbers of RoIs may differ.
        strides: image pixels per cell, by level.
        output_size: S.
        sampling_ratio: samples a bin and axis; 0 is adaptive.
        canonical_size: side of a RoI that belongs to `canonical_level`.
        canonical_level: see above.
        min_level: level of `features[0]`.

    Returns:
        (sum of R_n, D, S, S) in the features' type, images in order; differentiable with respect to the features.
    """
    boxes = torch.cat(list(rois))
    images = torch.cat([torch.full((len(r),), n, dtype=torch.long) for n, r in enumerate(rois)])
    level = roi_level(boxes, canonical_size=canonical_size, canonical_level=canonical_level) - min_level
    level = level.clamp(0, len(features) - 1)
    pooled = features[0].new_zeros((len(boxes), features[0].shape[1], output_size, output_size))
    for index, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        here = (level == index).nonzero().flatten()
        if here.numel() > 0:
            part = roi_align(
                feature,
                boxes[here],
                images[here.cpu()],
                stride=stride,
                output_size=output_size,
                sampling_ratio=sampling_ratio,
            )
            pooled = pooled.index_copy(0, here, part)
    return pooled


def roi_level(boxes: Tensor, *, canonical_size: float, canonical_level: int) -> Tensor:
    """Return the pyramid level (R,) of RoIs (R, 4) before clamping; int64."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).float().clamp(min=0).unbind(1)
    level = canonical_level + torch.log2((width * height).sqrt() / canonical_size + 1e-8)
    return level.floor().long()


def roi_align(
    feature: Tensor, rois: Tensor, images: Tensor, *, stride: int, output_size: int, sampling_ratio: int
) -> Tensor:
    """Pool RoIs from one level: feature (N, D, H, W), rois (R, 4), the image of each (R,) -> (R, D, S, S)."""
    height, width = feature.shape[-2:]
    # geometry is float32 at least: half precision cannot tell pixels apart beyond 2048
    x0, y0, x1, y1 = rois.detach().to(torch.promote_types(feature.dtype, torch.float32)).unbind(1)
    usable = (x1 > x0) & (y1 > y0) & (rois.abs() <= MAX_ROI_COORDINATE).all(1)
    kernel = None
    if feature.device.type == "cpu" and feature.dtype != torch.float64:
        kernel = _Kernel(rois.detach(), images, stride, output_size, sampling_ratio)
        if not (torch.is_grad_enabled() and feature.requires_grad):
            return kernel(feature).to(feature.dtype)
    rows = _axis_weights(y0, y1, usable, height, stride, output_size, sampling_ratio)
    columns = _axis_weights(x0, x1, usable, width, stride, output_size, sampling_ratio)
    with torch.autocast(feature.device.type, enabled=False):
        pooled: Tensor = _SeparablePool.apply(  # type: ignore[no-untyped-call]
            feature, rows, columns, images.tolist(), kernel
        )
    return pooled.to(feature.dtype)


class _Kernel(NamedTuple):
    """The op's CPU kernel, in float32 and without a gradient."""

    rois: Tensor  # (R, 4)
    images: Tensor  # (R,)
    stride: int
    output_size: int
    sampling_ratio: int

    def __call__(self, feature: Tensor) -> Tensor:
        """Return the pooled RoIs (R, D, S, S). The op needs equally many RoIs per image: empty ones fill up."""
        counts = torch.bincount(self.images, minlength=feature.shape[0])
        order = self.images.argsort(stable=True)
        image = self.images[order]
        place = torch.arange(len(order)) - (counts.cumsum(0) - counts)[image]
        padded = self.rois.new_zeros((feature.shape[0], int(counts.max()), 4))
        padded[image, place] = self.rois[order]
        pooled = KERNELS.pyramid_roi_align(
            [feature.float()],
            padded,
            strides=[self.stride],
            output_size=self.output_size,
            sampling_ratio=self.sampling_ratio,
            canonical_size=1.0,  # there is but one level to choose
            canonical_level=0,
            min_level=0,
        )
        return torch.empty_like(pooled[: len(order)]).index_copy_(0, order, pooled[image * padded.shape[1] + place])


class _SeparablePool(torch.autograd.Function):
    """pooled[r] = rows[r] @ feature[image of r] @ columns[r].T, on the cells that have weight."""

    @staticmethod
    def forward(
        ctx: Any,
        feature: Tensor,
        rows: AxisWeights,
        columns: AxisWeights,
        images: list[int],
        kernel: _Kernel | None,
    ) -> Tensor:
        ctx.shape, ctx.dtype, ctx.images, ctx.rows, ctx.columns = feature.shape, feature.dtype, images, rows, columns
        if kernel is not None:
            return kernel(feature.detach())
        S = rows.weights.shape[1]
        pooled = rows.weights.new_zeros((len(images), feature.shape[1], S, S))
        for r, image in enumerate(images):
            y, x = slice(rows.first[r], rows.end[r]), slice(columns.first[r], columns.end[r])
            if y.start < y.stop and x.start < x.stop:
                halfway = feature[image, :, y, x].to(pooled.dtype) @ columns.weights[r, :, x].T  # (D, h, S)
                torch.matmul(rows.weights[r, :, y], halfway, out=pooled[r])
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = gradients
        rows, columns = ctx.rows, ctx.columns
        into = gradient.new_zeros(ctx.shape)
        for r, image in enumerate(ctx.images):
            y, x = slice(rows.first[r], rows.end[r]), slice(columns.first[r], columns.end[r])
            if y.start < y.stop and x.start < x.stop:
                halfway = rows.weights[r, :, y].T @ gradient[r]  # (D, h, S)
                into[image, :, y, x] += halfway @ columns.weights[r, :, x]
        return into.to(ctx.dtype), None, None, None, None


def _axis_weights(
    low: Tensor, high: Tensor, usable: Tensor, cells: int, stride: int, S: int, sampling_ratio: int
) -> AxisWeights:
    """Return the bin weights along one axis: each bin is the mean of its bilinear samples."""
    start = low / stride - 0.5
    size = torch.where(usable, high / stride - 0.5 - start, 0)
    bin_size = size / S
    samples = (bin_size.ceil() if sampling_ratio == 0 else torch.full_like(bin_size, sampling_ratio)).clamp(min=1)
    usable = usable & (size > 0)
    most = int(samples.max())
    sample = torch.arange(most, device=low.device)  # (G,)
    position = (
        start[:, None, None]
        + torch.arange(S, device=low.device)[:, None] * bin_size[:, None, None]
        + (sample + 0.5) * (bin_size / samples)[:, None, None]
    )  # (R, S, G)
    inside = (sample < samples[:, None, None]) & (position >= -1) & (position <= cells) & usable[:, None, None]
    position = torch.where(inside, position, 0).clamp(min=0)
    lower = position.long().clamp(max=cells - 1)
    upper = (lower + 1).clamp(max=cells - 1)
    fraction = torch.where(lower < cells - 1, position - lower, 0)
    share = inside / samples[:, None, None]
    weights = torch.zeros((len(low), S, cells), dtype=low.dtype, device=low.device)
    weights.scatter_add_(2, lower, (1 - fraction) * share)
    weights.scatter_add_(2, upper, fraction * share)
    any_weight = inside.flatten(1).any(1)
    first = torch.where(inside, lower, cells).amin((1, 2))
    end = torch.where(inside, upper, -1).amax((1, 2)) + 1
    first, end = torch.where(any_weight, first, 0), torch.where(any_weight, end, 0)
    return AxisWeights(weights, first.tolist(), end.tolist())
