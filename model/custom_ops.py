"""The custom ops on torch tensors.

`CustomOps` has the signatures. `KernelOps` computes on the CPU with `panrt.plugins.native` and as many threads as
torch; the exporter's `SymbolicOps` records graph nodes instead. Nothing here is differentiable; training pools with
`roi_align`.

Shapes: N images, A anchors per cell, R RoIs, K detections, C thing classes, S semantic channels, G mask side; Hl x Wl
a level. Semantics: `plugins/OPS.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from panrt.plugins import contract, legends, native
from panrt.plugins.attributes import complete, takes
from panrt.plugins.schema import BOX_DETECTIONS, PANOPTIC_MERGE, PYRAMID_ROI_ALIGN, RPN_PROPOSALS, Op

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from panrt.plugins import _native

Tensors = Sequence[Tensor | Sequence[Tensor]]  # one entry per input of an op, a list for an input per level


class Proposals(NamedTuple):
    """`panrt.plugins.contract.Proposals` with tensors for arrays."""

    rois: Tensor  # (N, R, 4) float32, best first, zero beyond roi_count
    roi_count: Tensor  # (N,) int32


class Detections(NamedTuple):
    """`panrt.plugins.contract.Detections` with tensors for arrays."""

    boxes: Tensor  # (N, K, 4) float32, zero beyond count
    scores: Tensor  # (N, K) float32, descending
    classes: Tensor  # (N, K) int32, 0..C-1
    count: Tensor  # type: ignore[assignment]  # (N,) int32; the name hides tuple.count


class PanopticSegments(NamedTuple):
    """`panrt.plugins.contract.PanopticSegments` with tensors for arrays."""

    panoptic: Tensor  # (N, H, W) int32, segment id of each pixel, 0 is void
    segments: Tensor  # (N, K + S, 8) int32: id, category, is_thing, area, x0, y0, x1, y1; zero beyond segment_count
    segment_scores: Tensor  # (N, K + S) float32, 0 for stuff
    segment_count: Tensor  # (N,) int32


class CustomOps(ABC):
    """The four ops; a subclass computes or records any of them in `run`."""

    def __init__(self, *, mask_threshold: float = 0.5) -> None:
        self.mask_threshold = mask_threshold  # of panoptic_merge

    @abstractmethod
    def run(self, op: Op, inputs: Tensors, attributes: Mapping[str, Any]) -> Sequence[Tensor]:
        """Return the outputs of an op.

        Args:
            op: its declaration.
            inputs: one entry per input.
            attributes: all of the op's, by name.
        """

    @takes(RPN_PROPOSALS)
    def rpn_proposals(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        **attributes: Unpack[_native.RpnProposalsAttributes],
    ) -> Proposals:
        """Return the R = `post_nms_top_k` best proposals of each level's (N, A, Hl, Wl) and deltas (N, 4A, Hl, Wl)."""
        return Proposals(*self.run(RPN_PROPOSALS, (logits, deltas), complete(RPN_PROPOSALS, attributes)))

    @takes(PYRAMID_ROI_ALIGN)
    def pyramid_roi_align(
        self,
        features: Sequence[Tensor],
        rois: Tensor,
        **attributes: Unpack[_native.PyramidRoiAlignAttributes],
    ) -> Tensor:
        """Pool features P2.. (N, D, Hl, Wl) in rois (N, R, 4) to (N * R, D, S, S), in the features' type."""
        (pooled,) = self.run(PYRAMID_ROI_ALIGN, (features, rois), complete(PYRAMID_ROI_ALIGN, attributes))
        return pooled

    @takes(BOX_DETECTIONS)
    def box_detections(
        self,
        class_logits: Tensor,
        box_deltas: Tensor,
        rois: Tensor,
        roi_count: Tensor,
        **attributes: Unpack[_native.BoxDetectionsAttributes],
    ) -> Detections:
        """Return the K = `max_detections` best detections of class logits (N, R, C + 1) and deltas (N, R, 4C)."""
        return Detections(
            *self.run(BOX_DETECTIONS, (class_logits, box_deltas, rois, roi_count), complete(BOX_DETECTIONS, attributes))
        )

    @takes(PANOPTIC_MERGE)
    def panoptic_merge(
        self,
        semantic_logits: Tensor,
        boxes: Tensor,
        scores: Tensor,
        classes: Tensor,
        count: Tensor,
        mask_probs: Tensor,
        **attributes: Unpack[_native.PanopticMergeAttributes],
    ) -> PanopticSegments:
        """Merge semantic logits (N, S, h, w), K detections and masks (N, K, G, G) to panoptic maps at `output_hw`."""
        inputs = (semantic_logits, boxes, scores, classes, count, mask_probs)
        merged = self.run(
            PANOPTIC_MERGE, inputs, complete(PANOPTIC_MERGE, {"mask_threshold": self.mask_threshold, **attributes})
        )
        return PanopticSegments(*merged)


def output_shapes(op: Op, inputs: Tensors, attributes: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return the shape of each output, perhaps of symbols."""
    letters = contract.sizes_of(op, inputs, attributes).letters
    return [legends.shape(tensor.legend, letters) for tensor in op.outputs]


class KernelOps(CustomOps):
    """The CPU kernels, on tensors of any device."""

    def run(self, op: Op, inputs: Tensors, attributes: Mapping[str, Any]) -> Sequence[Tensor]:
        """Compute an op; outputs are on the first input's device, features in their type."""
        arrays = [
            _array(x, tensor.type) if isinstance(x, Tensor) else [_array(level, tensor.type) for level in x]
            for tensor, x in zip(op.inputs, inputs, strict=True)
        ]
        first = inputs[0] if isinstance(inputs[0], Tensor) else inputs[0][0]
        found = native.run(op, arrays, attributes, threads=torch.get_num_threads())
        return [
            torch.from_numpy(array).to(first if tensor.type == "features" else first.device)
            for tensor, array in zip(op.outputs, found, strict=True)
        ]


KERNELS = KernelOps()


def _array(x: Tensor, kind: str) -> NDArray[Any]:
    """Return a tensor as an array of the type that kernels take."""
    array: NDArray[Any] = x.detach().to("cpu", torch.int32 if kind == "int32" else torch.float32).contiguous().numpy()
    return array
