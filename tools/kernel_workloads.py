"""Workloads of the kernel report: inputs as a network produces them, and the memory traffic that they need at least.

Shapes: as in OPS.md. Everything is drawn from one seed, so that a kernel's memory requests are the same every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.plugins.frame_reference import Letterbox

Array = NDArray[Any]

REPORT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "kernels.json"  # what was found on them
SECTOR = 32  # bytes, what memory moves at a time


class Call(NamedTuple):
    """Kernels at work: a call of a function of tools/cuda_ops.py."""

    function: str
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    ideal_bytes: int  # of large inputs and outputs, each once
    ideal_touched: bool = False  # and each sector of the inputs once for every block that touches it


@dataclass(frozen=True)
class Workload:
    """A network on a frame."""

    name: str
    hw: tuple[int, int]  # of the network input, and of the map
    things: int  # C
    channels: int  # S
    candidates: int  # before NMS, a level
    proposals: int  # after NMS
    detections: int  # K
    instances: int  # of them those that score enough to be painted
    features: int  # channels of the pyramid
    camera_hw: tuple[int, int]  # of frames that the GPU prepares and draws on


# The demo model, with as many instances as its clip shows, and a COCO network on the frame that its published
# figures are for.
WORKLOADS = {
    "tabletop": Workload("tabletop", (256, 320), 8, 5, 300, 150, 32, 12, 80, (480, 640)),
    "coco": Workload("coco", (800, 1344), 80, 54, 1000, 1000, 100, 20, 256, (1080, 1920)),
}


def rpn_proposals(load: Workload) -> Call:
    """Five levels with three anchors per cell; a few objects stand out, and around each many anchors."""
    rng = np.random.default_rng(1)
    logits, deltas = [], []
    strides = [4, 8, 16, 32, 64]
    for stride in strides:
        h, w = (-(-side // stride) for side in load.hw)
        y, x = np.mgrid[:h, :w]
        heat = np.full((h, w), -6.0)
        for _ in range(20):
            cy, cx = rng.uniform(0, h), rng.uniform(0, w)
            heat = np.maximum(heat, 3 - 2 * np.hypot(y - cy, x - cx))
        logits.append((heat + rng.normal(0, 1, (1, 3, h, w))).astype(np.float32))
        deltas.append(rng.normal(0, 0.2, (1, 12, h, w)).astype(np.float32))
    # Every logit, four deltas of each candidate, the proposals.
    candidates = sum(min(load.candidates, x.size) for x in logits)
    ideal = sum(x.nbytes for x in logits) + 16 * candidates + 16 * load.proposals
    options = {
        "strides": strides,
        "anchor_sizes": [8.0 * stride for stride in strides],
        "aspect_ratios": [0.5, 1.0, 2.0],
        "pre_nms_top_k": load.candidates,
        "post_nms_top_k": load.proposals,
        "nms_threshold": 0.7,
        "input_hw": load.hw,
    }
    return Call("rpn_proposals", (logits, deltas), options, ideal)


def box_detections(load: Workload) -> Call:
    """A tenth of the RoIs lies on an object, the others are background."""
    rng = np.random.default_rng(2)
    R, C = load.proposals, load.things
    logits = rng.normal(-4, 1, (1, R, C + 1)).astype(np.float32)
    logits[..., C] = 4
    objects = rng.choice(R, R // 10, replace=False)
    logits[0, objects, rng.integers(0, C, len(objects))] = rng.normal(4, 1, len(objects))
    deltas = rng.normal(0, 0.5, (1, R, 4 * C)).astype(np.float32)
    inputs = logits, deltas, _boxes(rng, load, R), np.full(1, R, np.int32)
    ideal = logits.nbytes + 16 * C * len(objects) + 24 * load.detections  # deltas of RoIs on objects
    options = {
        "box_weights": (10.0, 10.0, 5.0, 5.0),
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "max_detections": load.detections,
        "input_hw": load.hw,
    }
    return Call("box_detections", inputs, options, ideal)


def panoptic_merge(load: Workload) -> Call:
    """Stuff in patches of 128 pixels, and objects of up to a quarter of the frame's height."""
    rng = np.random.default_rng(3)
    h, w = load.hw[0] // 4, load.hw[1] // 4
    patches = rng.integers(0, load.channels, (-(-h // 32), -(-w // 32)))
    winner = np.kron(patches, np.ones((32, 32), np.int64))[:h, :w]
    logits = rng.normal(-6, 1, (1, load.channels, h, w))
    y, x = np.mgrid[:h, :w]
    logits[0, winner, y, x] += 10
    K = load.detections
    scores = np.concatenate([np.linspace(1, 0.5, load.instances), np.linspace(0.49, 0.06, K - load.instances)])
    down, across = (np.mgrid[:28, :28] - 13.5) / 14
    mask = 1 / (1 + np.exp(8 * (np.hypot(down, across) - 0.9)))
    inputs = (
        logits.astype(np.float32),
        _boxes(rng, load, K),
        scores.astype(np.float32)[None],
        rng.integers(0, load.things, (1, K)).astype(np.int32),
        np.full(1, K, np.int32),
        np.broadcast_to(mask, (1, K, 28, 28)).astype(np.float32),
    )
    # The logits, the masks of painted instances, the map.
    ideal = 4 * (logits.size + load.instances * mask.size + load.hw[0] * load.hw[1])
    options = {
        "input_hw": load.hw,
        "output_hw": load.hw,
        "score_threshold": 0.5,
        "overlap_threshold": 0.5,
        "stuff_area_limit": 4096 if load.hw[0] > 400 else 256,
        "mask_threshold": 0.5,
    }
    return Call("panoptic_merge", inputs, options, ideal)


def roi_align(
    load: Workload, *, rois: int, output_size: int, layout: Literal["NCHW", "NHWC"], dtype: type[np.floating[Any]]
) -> Call:
    """RoIs of objects on four levels; beside the result, ideal is each sector of features once for each RoI."""
    strides = [4, 8, 16, 32]
    sides = [(-(-load.hw[0] // stride), -(-load.hw[1] // stride)) for stride in strides]
    C = load.features
    features = [np.zeros((1, *side, C) if layout == "NHWC" else (1, C, *side), dtype) for side in sides]
    boxes = _boxes(np.random.default_rng(4), load, rois)
    options = {
        "strides": strides,
        "output_size": output_size,
        "sampling_ratio": 0,
        "canonical_size": 224.0 if load.hw[0] > 400 else 112.0,
        "layout": layout,
    }
    result = rois * C * output_size**2 * np.dtype(dtype).itemsize
    return Call("pyramid_roi_align", (features, boxes), options, result, ideal_touched=True)


def preprocess(load: Workload, *, pixel_format: Literal["BGR8", "YUYV", "NV12"]) -> Call:
    """A camera's frame to the network's size: each byte of both once."""
    height, width = load.camera_hw
    shape = {"BGR8": (height, width, 3), "YUYV": (height, width, 2), "NV12": (height * 3 // 2, width)}[pixel_format]
    frame = np.random.default_rng(5).integers(0, 256, (1, *shape), np.uint8)
    inputs, options = (frame, Letterbox(load.hw, load.hw)), {"pixel_format": pixel_format}
    return Call("preprocess", inputs, options, frame.nbytes + 3 * load.hw[0] * load.hw[1])


def overlay(load: Workload) -> Call:
    """Segments in patches over a camera's frame: frame and map are read once, and the overlay is written."""
    height, width = load.camera_hw
    rng = np.random.default_rng(6)
    frame = rng.integers(0, 256, (1, height, width, 3), np.uint8)
    patches = rng.integers(0, 20, (-(-load.hw[0] // 64), -(-load.hw[1] // 64)))
    panoptic = np.kron(patches, np.ones((64, 64), np.int32))[None, : load.hw[0], : load.hw[1]].astype(np.int32)
    colors = rng.integers(0, 256, (20, 3), np.uint8)
    options = {"opacity": 0.5, "border": 2}
    return Call("overlay", (frame, panoptic, colors), options, 2 * frame.nbytes + panoptic.nbytes)


def _boxes(rng: np.random.Generator, load: Workload, count: int) -> Array:
    height, width = load.hw
    sides = rng.uniform(0.05, 0.3, (count, 2)) * height
    centres = rng.uniform(0, 1, (count, 2)) * (width, height)
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    clipped: Array = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)[None]
    return clipped


def _pooling(rois: Callable[[Workload], int], output_size: int, layout: Any, dtype: Any) -> Callable[[Workload], Call]:
    return lambda load: roi_align(load, rois=rois(load), output_size=output_size, layout=layout, dtype=dtype)


def _of_boxes(load: Workload) -> int:
    return load.proposals


def _of_masks(load: Workload) -> int:
    return load.detections


OPS: dict[str, Callable[[Workload], Call]] = {
    "rpn_proposals": rpn_proposals,
    "roi_align 7x7, HWC fp32": _pooling(_of_boxes, 7, "NHWC", np.float32),
    "roi_align 7x7, HWC fp16": _pooling(_of_boxes, 7, "NHWC", np.float16),
    "roi_align 7x7, linear fp32": _pooling(_of_boxes, 7, "NCHW", np.float32),
    "box_detections": box_detections,
    "roi_align 14x14, HWC fp32": _pooling(_of_masks, 14, "NHWC", np.float32),
    "roi_align 14x14, HWC fp16": _pooling(_of_masks, 14, "NHWC", np.float16),
    "roi_align 14x14, linear fp32": _pooling(_of_masks, 14, "NCHW", np.float32),
    "panoptic_merge": panoptic_merge,
    "preprocess BGR8": lambda load: preprocess(load, pixel_format="BGR8"),
    "preprocess YUYV": lambda load: preprocess(load, pixel_format="YUYV"),
    "preprocess NV12": lambda load: preprocess(load, pixel_format="NV12"),
    "overlay": overlay,
}
# What one frame of a network runs: launches and bytes per frame are their sums.
FRAME = ("rpn_proposals", "roi_align 7x7, HWC fp16", "box_detections", "roi_align 14x14, HWC fp16", "panoptic_merge")
