"""Cases for each TensorRT plugin class: inputs, what the reference gives, and how near a GPU has to come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.plugins import reference
from tools.gpu.plugin_calls import HWC, HWC8, LINEAR

Array = NDArray[Any]
INPUT_HW = (128, 96)
NAMES = {LINEAR: "LINEAR", HWC: "HWC", HWC8: "HWC8"}


@dataclass(frozen=True)
class PluginCase:
    """A node of a network."""

    op: str
    layout: int  # of tensors with four axes
    attributes: dict[str, Any]
    inputs: list[Array]  # (N, C, H, W) in every layout
    outputs: list[Array]  # of the reference
    tolerance: float  # of the largest value; 0: to the bit

    @property
    def name(self) -> str:
        """The name of the case, for reports."""
        return f"{self.op} {self.inputs[0].dtype} {NAMES[self.layout]}"

    def layout_of(self, tensor: Array) -> int:
        """Return a tensor's format."""
        return self.layout if tensor.ndim == 4 else LINEAR


def cases() -> list[PluginCase]:
    """All of them, in the formats that the plugins offer."""
    half, single = np.float16, np.float32
    found = [_rpn(), _boxes(), _merge(single), _merge(half)]
    found += [_roi_align(dtype, layout) for dtype, layout in ((single, LINEAR), (single, HWC), (half, LINEAR))]
    return [*found, _roi_align(half, HWC8)]


def _case(
    op: str, attributes: dict[str, Any], inputs: list[Array], *, layout: int = LINEAR, tolerance: float = 0.0
) -> PluginCase:
    functions: dict[str, Callable[..., Any]] = {
        "RpnProposals": lambda *x, **o: reference.rpn_proposals(x[:2], x[2:], **o),
        "PyramidRoiAlign": lambda *x, **o: [reference.pyramid_roi_align(x[:-1], x[-1], **o)],
        "BoxDetections": reference.box_detections,
        "PanopticMerge": lambda x, boxes, scores, classes, count, masks, **o: reference.panoptic_merge(
            x.astype(np.float32), boxes, scores, classes, count, masks.astype(np.float32), **o
        ),
    }
    return PluginCase(op, layout, attributes, inputs, list(functions[op](*inputs, **attributes)), tolerance)


def _rpn() -> PluginCase:
    rng = np.random.default_rng(0)
    attributes = {
        "strides": (8, 16),
        "anchor_sizes": (32.0, 64.0),
        "aspect_ratios": (0.5, 1.0, 2.0),
        "pre_nms_top_k": 60,
        "post_nms_top_k": 30,
        "nms_threshold": 0.7,
        "input_hw": INPUT_HW,
    }
    shapes = [(2, 3, 16, 12), (2, 3, 8, 6), (2, 12, 16, 12), (2, 12, 8, 6)]
    # Decoding takes exp, which a GPU rounds in its own way.
    return _case("RpnProposals", attributes, [_normal(rng, shape) for shape in shapes], tolerance=1e-5)


def _roi_align(dtype: type[np.floating[Any]], layout: int) -> PluginCase:
    rng = np.random.default_rng(1)
    attributes = {
        "strides": (4, 8),
        "output_size": 7,
        "sampling_ratio": 0,
        "canonical_size": 112.0,
        "canonical_level": 4,
        "min_level": 3,
    }
    features = [_normal(rng, (2, 16, 32, 24), dtype), _normal(rng, (2, 16, 16, 12), dtype)]
    tolerance = 1e-5 if dtype is np.float32 else 2e-3  # the order of a bin's sum is open; two half ulps of float16
    return _case(
        "PyramidRoiAlign", attributes, [*features, _some_boxes(rng, (2, 9))], layout=layout, tolerance=tolerance
    )


def _boxes() -> PluginCase:
    rng = np.random.default_rng(2)
    attributes = {
        "box_weights": (10.0, 10.0, 5.0, 5.0),
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "max_detections": 12,
        "input_hw": INPUT_HW,
    }
    inputs = [_normal(rng, (2, 20, 6)), _normal(rng, (2, 20, 20)), _some_boxes(rng, (2, 20))]
    return _case("BoxDetections", attributes, [*inputs, np.array([20, 7], np.int32)], tolerance=1e-5)


def _merge(dtype: type[np.floating[Any]]) -> PluginCase:
    rng = np.random.default_rng(3)
    attributes = {
        "input_hw": (60, 48),
        "output_hw": (75, 60),
        "score_threshold": 0.3,
        "overlap_threshold": 0.5,
        "stuff_area_limit": 16,
        "mask_threshold": 0.5,
    }
    inputs = [
        _normal(rng, (2, 5, 16, 12), dtype),
        _some_boxes(rng, (2, 6)) * np.float32(0.4),
        -np.sort(-rng.uniform(0, 1, (2, 6)).astype(np.float32), axis=1),
        rng.integers(0, 4, (2, 6)).astype(np.int32),
        np.array([6, 4], np.int32),
        rng.uniform(0, 1, (2, 6, 28, 28)).astype(dtype),
    ]
    return _case("PanopticMerge", attributes, inputs)


def _some_boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    low = rng.uniform(0, 80, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(5, 60, (*shape, 2))], -1).astype(np.float32)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    return rng.normal(size=shape).astype(dtype)
