"""The four ops on the CPU: C++ kernels behind the contract of `OPS.md`, with the signatures of `reference`.

Each function checks its arguments, allocates the result and calls the kernel, which runs on `threads` threads with the
GIL released; None takes every core that this process may use. Results do not depend on the number of threads.

Shapes: N images, L pyramid levels (Hl, Wl cells), A anchors per cell, R RoIs, C channels or thing classes,
K detections, S bins a side; in the merge Gh x Gw a mask, S semantic channels (0 is "things"), H x W output, h x w
semantic map. Boxes are (x0, y0, x1, y1) in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import _native, contract
from .contract import Detections, Float32, Floating, Int32, Layout, PanopticSegments, Proposals


def skip_destructors() -> None:
    """End this process, when its time comes, before the destructors of libraries run that were loaded until now."""
    _native.skip_destructors()


def default_threads() -> int:
    """What threads=None takes: every core that this process may use."""
    return contract.check_threads(None)


def rpn_proposals(
    logits: Sequence[Float32],
    deltas: Sequence[Float32],
    *,
    strides: Sequence[int],
    anchor_sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_threshold: float,
    input_hw: tuple[int, int],
    threads: int | None = None,
) -> Proposals:
    """Best anchors of each level, decoded, clipped, thinned by NMS; see `reference.rpn_proposals`.

    Args:
        logits: per level (N, A, Hl, Wl) float32 objectness.
        deltas: per level (N, 4A, Hl, Wl) float32; channel 4a + j is (dx, dy, dw, dh)[j] of anchor a.
        strides: per level, pixels of the network input per cell.
        anchor_sizes: per level, side of the square anchor in pixels.
        aspect_ratios: height over width, one an anchor (A of them).
        pre_nms_top_k: anchors of a level that enter NMS, at most.
        post_nms_top_k: R, proposals that leave.
        nms_threshold: a box goes when its IoU with a better one of its level is greater.
        input_hw: valid height and width of the network input, padding excluded.
        threads: how many to use; None takes `default_threads`.

    Returns:
        rois (N, R, 4) float32, best first, and roi_count (N,) int32.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.
    """
    N, _, _ = contract.check_rpn_proposals(
        logits,
        deltas,
        strides=strides,
        anchor_sizes=anchor_sizes,
        aspect_ratios=aspect_ratios,
        pre_nms_top_k=pre_nms_top_k,
        post_nms_top_k=post_nms_top_k,
        nms_threshold=nms_threshold,
        input_hw=input_hw,
    )
    threads = contract.check_threads(threads)
    proposals = Proposals(np.empty((N, post_nms_top_k, 4), np.float32), np.empty(N, np.int32))
    _native.rpn_proposals(
        logits,
        deltas,
        *proposals,
        strides=strides,
        anchor_sizes=anchor_sizes,
        aspect_ratios=aspect_ratios,
        pre_nms_top_k=pre_nms_top_k,
        nms_threshold=nms_threshold,
        input_height=input_hw[0],
        input_width=input_hw[1],
        threads=threads,
    )
    return proposals


def pyramid_roi_align(
    features: Sequence[Floating],
    rois: Float32,
    *,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
    min_level: int = 2,
    layout: Layout = "NCHW",
    threads: int | None = None,
) -> Floating:
    """Pool each RoI from the level that fits its size; see `reference.pyramid_roi_align`.

    Args:
        features: per level (N, C, Hl, Wl), or (N, Hl, Wl, C) where layout is "NHWC"; float32 or float16. The kernel
            works on float32 NHWC: anything else is converted first, where RoIs touch it.
        rois: (N, R, 4) float32.
        strides: per level, pixels of the network input per cell.
        output_size: S, bins a side.
        sampling_ratio: samples per bin and axis; 0 takes ceil(RoI size / S), as detectron2's models do.
        canonical_size: a RoI of this side, in pixels, belongs to canonical_level.
        canonical_level: see canonical_size.
        min_level: the level of features[0].
        layout: "NCHW" or "NHWC", of the features and of the result.
        threads: how many to use; None takes `default_threads`.

    Returns:
        (N*R, C, S, S), or (N*R, S, S, C), in the features' type.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.
    """
    N, C, R, _ = contract.check_pyramid_roi_align(
        features,
        rois,
        strides=strides,
        output_size=output_size,
        sampling_ratio=sampling_ratio,
        canonical_size=canonical_size,
        canonical_level=canonical_level,
        min_level=min_level,
        layout=layout,
    )
    threads = contract.check_threads(threads)
    S = output_size
    pooled: Floating = np.empty((N * R, S, S, C) if layout == "NHWC" else (N * R, C, S, S), features[0].dtype)
    _native.pyramid_roi_align(
        features,
        rois,
        pooled,
        strides=strides,
        output_size=S,
        sampling_ratio=sampling_ratio,
        canonical_size=canonical_size,
        canonical_level=canonical_level,
        min_level=min_level,
        nhwc=layout == "NHWC",
        threads=threads,
    )
    return pooled


def box_detections(
    class_logits: Float32,
    box_deltas: Float32,
    rois: Float32,
    roi_count: Int32,
    *,
    box_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    input_hw: tuple[int, int],
    threads: int | None = None,
) -> Detections:
    """Softmax, decode, clip, threshold, NMS within each class, keep the best K; see `reference.box_detections`.

    Args:
        class_logits: (N, R, C + 1) float32, background last.
        box_deltas: (N, R, 4C) float32, class-major.
        rois: (N, R, 4) float32.
        roi_count: (N,) int32, RoIs that are real.
        box_weights: (wx, wy, ww, wh), by which the deltas are divided.
        score_threshold: a detection scores more than this.
        nms_threshold: a box goes when its IoU with a better one of its class is greater.
        max_detections: K.
        input_hw: valid height and width of the network input, padding excluded.
        threads: how many to use; None takes `default_threads`.

    Returns:
        boxes (N, K, 4), scores (N, K), classes (N, K) int32, count (N,) int32; best first.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.
    """
    N, _, _ = contract.check_box_detections(
        class_logits,
        box_deltas,
        rois,
        roi_count,
        box_weights=box_weights,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_detections=max_detections,
        input_hw=input_hw,
    )
    threads = contract.check_threads(threads)
    K = max_detections
    detections = Detections(
        np.empty((N, K, 4), np.float32), np.empty((N, K), np.float32), np.empty((N, K), np.int32), np.empty(N, np.int32)
    )
    _native.box_detections(
        class_logits,
        box_deltas,
        rois,
        roi_count,
        *detections,
        box_weights=box_weights,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        input_height=input_hw[0],
        input_width=input_hw[1],
        threads=threads,
    )
    return detections


def panoptic_merge(
    semantic_logits: Float32,
    boxes: Float32,
    scores: Float32,
    classes: Int32,
    count: Int32,
    mask_probs: Float32,
    *,
    input_hw: tuple[int, int],
    output_hw: tuple[int, int],
    score_threshold: float,
    overlap_threshold: float,
    stuff_area_limit: int,
    mask_threshold: float = 0.5,
    threads: int | None = None,
) -> PanopticSegments:
    """Paint instances by descending score, then stuff on what is left; see `reference.panoptic_merge`.

    Args:
        semantic_logits: (N, S, h, w) float32 at a quarter of the padded network input; channel 0 is "things".
        boxes: (N, K, 4) float32, in network-input pixels.
        scores: (N, K) float32.
        classes: (N, K) int32.
        count: (N,) int32, detections that are real.
        mask_probs: (N, K, Gh, Gw) float32, over the box.
        input_hw: valid height and width of the network input, padding excluded.
        output_hw: H, W of the panoptic map.
        score_threshold: an instance scores at least this.
        overlap_threshold: an instance goes when a greater share of its mask is already painted.
        stuff_area_limit: a stuff region has at least this many pixels.
        mask_threshold: a pixel is in a mask where the sampled probability is at least this.
        threads: how many to use; None takes `default_threads`.

    Returns:
        panoptic (N, H, W) int32, segments (N, K + S, 8) int32, segment_scores (N, K + S) float32, segment_count (N,);
        equal to the reference in every bit.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.
    """
    N, K, S, *_ = contract.check_panoptic_merge(
        semantic_logits,
        boxes,
        scores,
        classes,
        count,
        mask_probs,
        input_hw=input_hw,
        output_hw=output_hw,
        score_threshold=score_threshold,
        overlap_threshold=overlap_threshold,
        stuff_area_limit=stuff_area_limit,
        mask_threshold=mask_threshold,
    )
    threads = contract.check_threads(threads)
    result = PanopticSegments(
        np.empty((N, *output_hw), np.int32),
        np.empty((N, K + S, 8), np.int32),
        np.empty((N, K + S), np.float32),
        np.empty(N, np.int32),
    )
    _native.panoptic_merge(
        semantic_logits,
        boxes,
        scores,
        classes,
        count,
        mask_probs,
        *result,
        input_height=input_hw[0],
        input_width=input_hw[1],
        score_threshold=score_threshold,
        overlap_threshold=overlap_threshold,
        stuff_area_limit=stuff_area_limit,
        mask_threshold=mask_threshold,
        threads=threads,
    )
    return result


# Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, equation 15.
_WINOGRAD_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)


def conv3x3_instructions() -> list[str]:
    """The vector instructions that `Conv3x3` is compiled for and this processor has, the fastest first."""
    return _native.conv3x3_variants()


class Conv3x3:
    """A convolution with 3 x 3 kernels, stride 1 and padding 1; not an op, but what networks spend most time in.

    It keeps the memory that it works in for the next call, and takes more where several threads call it at once.
    """

    def __init__(
        self,
        weight: Float32,
        bias: Float32,
        *,
        bounds: tuple[float, float] = (-np.inf, np.inf),
        threads: int | None = None,
        instructions: str | None = None,
    ) -> None:
        """Transform weights.

        Args:
            weight: (O, C, 3, 3) float32, O and C multiples of 16.
            bias: (O,) float32.
            bounds: to which results are clipped, as by an activation.
            threads: how many to use; None takes `default_threads`.
            instructions: one of `conv3x3_instructions`; None takes the fastest.

        Raises:
            ValueError: an argument does not fit.
        """
        O, C, *kernel = weight.shape  # noqa: E741
        if kernel != [3, 3] or O % 16 or C % 16 or bias.shape != (O,):
            raise ValueError(
                f"weight, bias: got {weight.shape}, {bias.shape}; expected (O, C, 3, 3) and (O,), with O and C "
                "multiples of 16."
            )
        variants = conv3x3_instructions()
        if instructions not in (None, *variants):
            raise ValueError(f"instructions: got {instructions!r}, this processor has {', '.join(variants)}.")
        self._variant = 0 if instructions is None else variants.index(instructions)
        points = np.einsum("ik,ockl,jl->ijoc", _WINOGRAD_G, weight.astype(np.float64), _WINOGRAD_G)
        blocks = points.reshape(36, O // 16, 16, C).transpose(0, 1, 3, 2)
        self._weights = np.ascontiguousarray(blocks, np.float32)  # (36, O / 16, C, 16)
        self._bias = np.ascontiguousarray(bias, np.float32)
        self._lower, self._upper = bounds
        self._threads = contract.check_threads(threads)
        self._workspace_shape = self._threads, _native.conv3x3_workspace(C, O)
        self._workspaces = [np.zeros(self._workspace_shape, np.float32)]  # that no call is working in

    def __call__(self, x: Float32, out: Float32) -> Float32:
        """The convolution of a picture.

        Args:
            x: (N, H, W, C) float32.
            out: (N, H, W, O) float32, written to.

        Returns:
            `out`. A few roundings of float32 from a direct convolution, more where large inputs cancel out.

        Raises:
            ValueError, TypeError: an argument does not fit; the message names it.
        """
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = np.zeros(self._workspace_shape, np.float32)
        _native.conv3x3(
            x,
            self._weights,
            self._bias,
            out,
            workspace,
            lower=self._lower,
            upper=self._upper,
            variant=self._variant,
            threads=self._threads,
        )
        self._workspaces.append(workspace)
        return out


def look_up(image: NDArray[np.uint8], table: Float32, *, out: Float32, threads: int | None = None) -> Float32:
    """What a network begins with: for each byte of each channel a number, channel by channel.

    Args:
        image: (N, H, W, 3) uint8.
        table: (3, 256) float32.
        out: (N, 3, H, W) float32, written to.
        threads: how many to use; None takes `default_threads`.

    Returns:
        `out`.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.
    """
    _native.look_up(image, table, out, threads=contract.check_threads(threads))
    return out


def overlay(
    frame: NDArray[np.uint8],
    panoptic: Int32,
    colors: NDArray[np.uint8],
    *,
    opacity: float,
    border: int,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """The colours of a panoptic map over a frame; not an op, but for people to look at. See `reference.overlay`.

    Args:
        frame: (H, W, 3) uint8.
        panoptic: (h, w) int32 ids of any size; the frame's pixels show the cells that their centres lie in.
        colors: (n, 3) uint8, the colour of each id; id 0 and ids from n on leave the frame as it is.
        opacity: of the colours, 0 to 1, taken in steps of 1/256.
        border: width of the lines between segments in pixels; 0 draws none, more than 64 are 64.
        threads: how many to use; None takes `default_threads`.

    Returns:
        (H, W, 3) uint8, equal to the reference in every bit.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it.
    """
    contract.check_overlay(frame, panoptic, colors, opacity=opacity, border=border)
    threads = contract.check_threads(threads)
    result = np.empty_like(frame)
    _native.overlay(frame, panoptic, colors, result, opacity=round(256 * opacity), border=border, threads=threads)
    return result
