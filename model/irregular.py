"""The former name of `panrt.model.custom_ops`."""

from __future__ import annotations

import warnings

from panrt.model.custom_ops import KERNELS, CustomOps, Detections, PanopticSegments, Proposals

__all__ = [
    "Detections",
    "IrregularOps",
    "PanopticSegments",
    "Proposals",
    "box_detections",
    "panoptic_merge",
    "pyramid_roi_align",
    "rpn_proposals",
]

warnings.warn(
    "`panrt.model.irregular` is deprecated; use `panrt.model.custom_ops`, and the methods of its `KERNELS`.",
    DeprecationWarning,
    stacklevel=2,
)

IrregularOps = CustomOps
rpn_proposals, pyramid_roi_align = KERNELS.rpn_proposals, KERNELS.pyramid_roi_align
box_detections, panoptic_merge = KERNELS.box_detections, KERNELS.panoptic_merge
