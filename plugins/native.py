"""The custom ops on the CPU: C++ kernels behind the contract of `OPS.md`, with the signatures of `reference`.

`run` checks the arguments of any op, allocates its outputs and calls its kernel, which runs on `threads` threads with
the GIL released; None uses every core that this process may use. Results do not depend on the number of threads.

Shapes: N images, L pyramid levels (Hl, Wl cells), A anchors per cell, R RoIs, C channels or thing classes,
K detections, S bins per side; in the merge Gh x Gw a mask, S semantic channels (0 is "things"), H x W output, h x w
semantic map. Boxes are (x0, y0, x1, y1) in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _native, contract
from .attributes import NHWC, complete, kernel_options, takes
from .contract import Array, Detections, Float32, Floating, Int32, Layout, PanopticSegments, Proposals
from .schema import (
    BOX_DETECTIONS,
    BOX_DETECTIONS_2,
    PANOPTIC_MERGE,
    PANOPTIC_MERGE_2,
    PYRAMID_ROI_ALIGN,
    RPN_PROPOSALS,
    Op,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


def skip_destructors() -> None:
    """End this process, when its time comes, before the destructors of libraries run that were loaded until now."""
    _native.skip_destructors()


def default_threads() -> int:
    """Return the meaning of threads=None: every core that this process may use."""
    return contract.check_threads(None)


def run(
    op: Op,
    tensors: Sequence[Any],
    attributes: Mapping[str, Any],
    *,
    layout: Layout = "NCHW",
    threads: int | None = None,
) -> list[Array]:
    """Run an op and return its outputs.

    Args:
        op: its declaration in `schema`.
        tensors: one entry per input; a list with an array per level if the input is one per level.
        attributes: of the op, by name; those that have a default may be omitted.
        layout: of its features, if it has any.
        threads: number of threads; None uses `default_threads`.

    Raises:
        ValueError, TypeError: an argument is invalid; the message names it.
    """
    attributes = complete(op, attributes)
    sizes = contract.check(op, tensors, attributes, layout=layout)
    threads = contract.check_threads(threads)
    options = kernel_options(op, attributes)
    features: DTypeLike = np.float32
    if op.has_features:
        features = next(x[0].dtype for tensor, x in zip(op.inputs, tensors, strict=True) if tensor.type == "features")
        options[NHWC] = layout == "NHWC"
    outputs = contract.outputs(op, sizes, features, layout=layout)
    getattr(_native, op.function)(*tensors, *outputs, **options, threads=threads)
    return outputs


@takes(RPN_PROPOSALS)
def rpn_proposals(
    logits: Sequence[Float32],
    deltas: Sequence[Float32],
    *,
    threads: int | None = None,
    **attributes: Unpack[_native.RpnProposalsAttributes],
) -> Proposals:
    """Return the best anchors, decoded, clipped and thinned by NMS; see `reference.rpn_proposals`, and `run`."""
    return Proposals(*run(RPN_PROPOSALS, (logits, deltas), attributes, threads=threads))


@takes(PYRAMID_ROI_ALIGN)
def pyramid_roi_align(
    features: Sequence[Floating],
    rois: Float32,
    *,
    layout: Layout = "NCHW",
    threads: int | None = None,
    **attributes: Unpack[_native.PyramidRoiAlignAttributes],
) -> Floating:
    """Pool each RoI from the level that fits its size; see `reference.pyramid_roi_align`, and `run`.

    The kernel computes on float32 NHWC: features of another type or layout are converted first, where RoIs touch them.
    """
    (pooled,) = run(PYRAMID_ROI_ALIGN, (features, rois), attributes, layout=layout, threads=threads)
    return pooled


@takes(BOX_DETECTIONS)
def box_detections(
    class_logits: Float32,
    box_deltas: Float32,
    rois: Float32,
    roi_count: Int32,
    *,
    threads: int | None = None,
    **attributes: Unpack[_native.BoxDetectionsAttributes],
) -> Detections:
    """Return the best detections after class-wise NMS; see `reference.box_detections`, and `run`."""
    return Detections(*run(BOX_DETECTIONS, (class_logits, box_deltas, rois, roi_count), attributes, threads=threads))


@takes(PANOPTIC_MERGE)
def panoptic_merge(
    semantic_logits: Float32,
    boxes: Float32,
    scores: Float32,
    classes: Int32,
    count: Int32,
    mask_probs: Float32,
    *,
    threads: int | None = None,
    **attributes: Unpack[_native.PanopticMergeAttributes],
) -> PanopticSegments:
    """Paint instances by descending score, then stuff on what is left; see `reference.panoptic_merge`, and `run`."""
    tensors = (semantic_logits, boxes, scores, classes, count, mask_probs)
    return PanopticSegments(*run(PANOPTIC_MERGE, tensors, attributes, threads=threads))


@takes(BOX_DETECTIONS_2)
def box_detections_2(
    class_logits: Float32,
    box_deltas: Float32,
    rois: Float32,
    roi_count: Int32,
    thresholds: Float32,
    *,
    threads: int | None = None,
    **attributes: Unpack[_native.BoxDetections2Attributes],
) -> Detections:
    """Return the best detections, with thresholds from an input; see `reference.box_detections_2`, and `run`."""
    tensors = (class_logits, box_deltas, rois, roi_count, thresholds)
    return Detections(*run(BOX_DETECTIONS_2, tensors, attributes, threads=threads))


@takes(PANOPTIC_MERGE_2)
def panoptic_merge_2(
    semantic_logits: Float32,
    boxes: Float32,
    scores: Float32,
    classes: Int32,
    count: Int32,
    mask_probs: Float32,
    thresholds: Float32,
    stuff_area_limits: Int32,
    *,
    threads: int | None = None,
    **attributes: Unpack[_native.PanopticMerge2Attributes],
) -> PanopticSegments:
    """Paint instances, then stuff, with thresholds from inputs; see `reference.panoptic_merge_2`, and `run`."""
    tensors = (semantic_logits, boxes, scores, classes, count, mask_probs, thresholds, stuff_area_limits)
    return PanopticSegments(*run(PANOPTIC_MERGE_2, tensors, attributes, threads=threads))


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
    """Return the vector instructions that `Conv3x3` is compiled for and this processor has, the fastest first."""
    return _native.conv3x3_variants()


class Conv3x3:
    """A convolution with 3 x 3 kernels, stride 1 and padding 1. Not an op; networks spend most of their time in it.

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
        """Compute the convolution of an image.

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
    """Normalise an image: look up a number for each byte, by channel.

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
    """Blend the colours of a panoptic map with a frame, for display. Not an op; see `frame_reference.overlay`.

    Args:
        frame: (H, W, 3) uint8.
        panoptic: (h, w) int32 ids of any size; the frame's pixels show the cells that their centres lie in.
        colors: (n, 3) uint8, the colour of each id; pixels of id 0 and of ids from n on keep the frame's colour.
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
