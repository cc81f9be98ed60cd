"""The CUDA kernels as one more form of the ops: the module that the tests of all forms take.

Threads run in random order, the same one every time.
"""

from __future__ import annotations

import atexit
from functools import cache
from typing import Any

from panrt.plugins.contract import Detections, PanopticSegments, Proposals
from panrt.plugins.schema import BOX_DETECTIONS_2, PANOPTIC_MERGE_2
from tools import cuda_ops
from tools.hostcuda import SimulatedGpu, kernels

ORDER = ("random", 1)


@cache
def _gpu() -> SimulatedGpu:
    gpu = SimulatedGpu(kernels("plain"))
    atexit.register(gpu.close)
    return gpu


def rpn_proposals(*inputs: Any, **options: Any) -> Proposals:
    """As `reference.rpn_proposals`."""
    return cuda_ops.rpn_proposals(*inputs, **options, gpu=_gpu(), order=ORDER)


def pyramid_roi_align(*inputs: Any, **options: Any) -> cuda_ops.Array:
    """As `reference.pyramid_roi_align`."""
    return cuda_ops.pyramid_roi_align(*inputs, **options, gpu=_gpu(), order=ORDER)


def box_detections(*inputs: Any, **options: Any) -> Detections:
    """As `reference.box_detections`."""
    return cuda_ops.box_detections(*inputs, **options, gpu=_gpu(), order=ORDER)


def panoptic_merge(*inputs: Any, **options: Any) -> PanopticSegments:
    """As `reference.panoptic_merge`."""
    return cuda_ops.panoptic_merge(*inputs, **options, gpu=_gpu(), order=ORDER)


def box_detections_2(*inputs: Any, **options: Any) -> Detections:
    """As `reference.box_detections_2`."""
    return Detections(*cuda_ops.run(BOX_DETECTIONS_2, inputs, options, gpu=_gpu(), order=ORDER))


def panoptic_merge_2(*inputs: Any, **options: Any) -> PanopticSegments:
    """As `reference.panoptic_merge_2`."""
    return PanopticSegments(*cuda_ops.run(PANOPTIC_MERGE_2, inputs, options, gpu=_gpu(), order=ORDER))
