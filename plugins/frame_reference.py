"""Preprocessing, compact maps and overlays in NumPy: the specification of `cuda/preprocess.cu`, `cuda/narrow_map.cu`
and the overlay kernels, which agree with it to the bit if no multiplication is fused with an addition.

Shapes: H x W a frame, h x w its resized size, OH x OW the network's input. Images are uint8 BGR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import contract
from .contract import Float32, Int32

UInt8 = NDArray[np.uint8]

# Limited range; coefficients of Y, V in R, U in G, V in G, U in B, times 2^20. Those of BT.601 are OpenCV's.
YUV_MATRICES = {
    "BT601": (1220542, 1673527, -409993, -852492, 2116026),
    "BT709": (1220542, 1880097, -223347, -558891, 2214593),
}


class Letterbox(NamedTuple):
    """The place of a resized frame in the network's input."""

    resized_hw: tuple[int, int]  # (h, w) that the frame is resized to, antialiased
    output_hw: tuple[int, int]  # (OH, OW) of the input
    top_left: tuple[int, int] = (0, 0)  # of the resized frame in it, in pixels
    border: Sequence[int] = (0, 0, 0)  # BGR of the pixels around it


def preprocess(frame: UInt8, letterbox: Letterbox, *, pixel_format: str, standard: str = "BT601") -> UInt8:
    """Convert a camera frame to the network's input.

    Args:
        frame: BGR8 and RGB8 (H, W, 3), NV12 (H * 3 / 2, W), YUYV (H, W, 2); uint8.
        letterbox: how it lies in the result.
        pixel_format: "BGR8", "RGB8", "NV12" or "YUYV".
        standard: "BT601" or "BT709", of YUV formats, limited range.

    Returns:
        (OH, OW, 3) uint8 BGR.
    """
    output = np.empty((*letterbox.output_hw, 3), np.uint8)
    output[:] = letterbox.border
    (top, left), (h, w) = letterbox.top_left, letterbox.resized_hw
    output[top : top + h, left : left + w] = resize_antialiased(to_bgr(frame, pixel_format, standard), (h, w))
    return output


def to_bgr(frame: UInt8, pixel_format: str, standard: str = "BT601") -> UInt8:
    """Return a frame as (H, W, 3) BGR; each chroma sample serves the pixels that it covers."""
    match pixel_format:
        case "BGR8":
            return frame
        case "RGB8":
            return frame[..., ::-1]
        case "NV12":
            height, width = frame.shape[0] * 2 // 3, frame.shape[1]
            chroma = frame[height:].reshape(height // 2, width // 2, 2).repeat(2, axis=0).repeat(2, axis=1)
            return yuv_to_bgr(frame[:height], chroma[..., 0], chroma[..., 1], standard)
        case "YUYV":
            pairs = frame.reshape(frame.shape[0], -1, 4)
            return yuv_to_bgr(frame[..., 0], pairs[..., 1].repeat(2, axis=1), pairs[..., 3].repeat(2, axis=1), standard)
    raise ValueError(f"pixel_format: expected BGR8, RGB8, NV12 or YUYV, got {pixel_format!r}")


def yuv_to_bgr(y: UInt8, u: UInt8, v: UInt8, standard: str) -> UInt8:
    """Convert planes (H, W) of 8 bits to (H, W, 3)."""
    scale, r_v, g_u, g_v, b_u = YUV_MATRICES[standard]
    luma = np.maximum(y.astype(np.int32) - 16, 0) * scale + (1 << 19)
    cb, cr = u.astype(np.int32) - 128, v.astype(np.int32) - 128
    channels = luma + b_u * cb, luma + g_u * cb + g_v * cr, luma + r_v * cr
    return np.stack([np.clip(channel >> 20, 0, 255) for channel in channels], axis=-1).astype(np.uint8)


def resize_antialiased(image: UInt8, hw: tuple[int, int]) -> UInt8:
    """Resize (H, W, 3) to (h, w, 3): bilinear, half-pixel centres, a triangle filter that widens when shrinking."""
    rows = weighted_sums(image.astype(np.float32), hw[0])
    columns = weighted_sums(rows.transpose(1, 0, 2), hw[1]).transpose(1, 0, 2)
    resized: UInt8 = np.minimum((columns + np.float32(0.5)).astype(np.int32), 255).astype(np.uint8)
    return resized


def weighted_sums(lines: Float32, output: int) -> Float32:
    """Resize the first axis: sums in ascending order, divided by the sum of weights; float32, nothing fused."""
    source = lines.shape[0]
    result = np.empty((output, *lines.shape[1:]), np.float32)
    for pixel in range(output):
        first, weights = antialias_weights(pixel, source, output)
        total, acc = np.float32(0), np.zeros(lines.shape[1:], np.float32)
        for i, weight in enumerate(weights):
            acc += weight * lines[first + i]
            total += weight
        result[pixel] = acc / total
    return result


def antialias_weights(pixel: int, source: int, output: int) -> tuple[int, Float32]:
    """Return the first source pixel of an output pixel along an axis, and the weights from it on, not normalised."""
    half, one = np.float32(0.5), np.float32(1)
    scale = np.float32(source) / np.float32(output)
    width = max(scale, one)
    centre = (np.float32(pixel) + half) * scale
    first, end = max(int(centre - width + half), 0), min(int(centre + width + half), source)
    distance = (np.arange(first, end, dtype=np.float32) + half - centre) / width
    weights: Float32 = np.maximum(one - np.abs(distance), np.float32(0))
    return first, weights


def narrow_map(ids: Int32, dtype: DTypeLike) -> NDArray[Any]:
    """Return ids as uint8 or uint16; those that do not fit become the nearest one that fits."""
    return np.clip(ids, 0, np.iinfo(np.dtype(dtype)).max).astype(dtype)


def overlay(
    frame: NDArray[np.uint8], panoptic: Int32, colors: NDArray[np.uint8], *, opacity: float, border: int
) -> NDArray[np.uint8]:
    """Blend the colours of a panoptic map with a frame.

    Args:
        frame: (H, W, 3) uint8.
        panoptic: (h, w) int32 ids.
        colors: (n, 3) uint8, the colour of each id; pixels of id 0 and of ids from n on keep the frame's colour.
        opacity: of the colours, 0 to 1, rounded to 1/256.
        border: a pixel whose id differs from the one this many pixels to its right or below (the last pixel stands for
            those beyond) gets its colour half way to white, opaque. 0: none does; at most 64.

    Returns:
        (H, W, 3) uint8.
    """
    contract.check_overlay(frame, panoptic, colors, opacity=opacity, border=border)
    (height, width), (h, w) = frame.shape[:2], panoptic.shape
    step = min(border, 64)
    below = (2 * np.arange(height) + 1) * h // (2 * height)  # the cell that a pixel's centre lies in
    beside = (2 * np.arange(width) + 1) * w // (2 * width)
    ids = panoptic[below][:, beside]
    right = ids[:, np.minimum(np.arange(width) + step, width - 1)]
    down = ids[np.minimum(np.arange(height) + step, height - 1)]
    edge = (right != ids) | (down != ids)
    colored = (ids > 0) & (ids < len(colors))
    color = colors[np.where(colored, ids, 0)].astype(np.int64) if len(colors) else np.zeros_like(frame, np.int64)
    alpha = np.where(edge, 256, round(256 * opacity))[..., None]
    light = np.where(edge[..., None], (color + 256) // 2, color)
    blended = (frame * (256 - alpha) + light * alpha + 128) // 256
    return np.where(colored[..., None], blended, frame).astype(np.uint8)
