"""Frames for the kernel report: what the kernels of RpnProposals, BoxDetections and PanopticMerge meet in a network.

Shapes: as in OPS.md. Everything is drawn from one seed, so that a kernel's memory requests are the same every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Call = tuple[tuple[Any, ...], dict[str, Any]]


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


# The demo model as it is, with as many instances as its clip shows, and a COCO network on the frame that its published
# figures are for.
WORKLOADS = {
    "tabletop": Workload("tabletop", (256, 320), 8, 5, 300, 150, 32, 12),
    "coco": Workload("coco", (800, 1344), 80, 54, 1000, 1000, 100, 20),
}


def rpn_proposals(load: Workload) -> Call:
    """Five levels with three anchors a cell; a few objects stand out, and around each many anchors."""
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
    return (logits, deltas), {
        "strides": strides,
        "anchor_sizes": [8.0 * stride for stride in strides],
        "aspect_ratios": [0.5, 1.0, 2.0],
        "pre_nms_top_k": load.candidates,
        "post_nms_top_k": load.proposals,
        "nms_threshold": 0.7,
        "input_hw": load.hw,
    }


def box_detections(load: Workload) -> Call:
    """A tenth of the RoIs lies on an object, the others are background."""
    rng = np.random.default_rng(2)
    R, C = load.proposals, load.things
    logits = rng.normal(-4, 1, (1, R, C + 1)).astype(np.float32)
    logits[..., C] = 4
    objects = rng.choice(R, R // 10, replace=False)
    logits[0, objects, rng.integers(0, C, len(objects))] = rng.normal(4, 1, len(objects))
    return (
        logits,
        rng.normal(0, 0.5, (1, R, 4 * C)).astype(np.float32),
        _boxes(rng, load, R),
        np.full(1, R, np.int32),
    ), {
        "box_weights": (10.0, 10.0, 5.0, 5.0),
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "max_detections": load.detections,
        "input_hw": load.hw,
    }


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
    return (
        logits.astype(np.float32),
        _boxes(rng, load, K),
        scores.astype(np.float32)[None],
        rng.integers(0, load.things, (1, K)).astype(np.int32),
        np.full(1, K, np.int32),
        np.broadcast_to(mask, (1, K, 28, 28)).astype(np.float32),
    ), {
        "input_hw": load.hw,
        "output_hw": load.hw,
        "score_threshold": 0.5,
        "overlap_threshold": 0.5,
        "stuff_area_limit": 4096 if load.hw[0] > 400 else 256,
        "mask_threshold": 0.5,
    }


def _boxes(rng: np.random.Generator, load: Workload, count: int) -> Array:
    height, width = load.hw
    sides = rng.uniform(0.05, 0.3, (count, 2)) * height
    centres = rng.uniform(0, 1, (count, 2)) * (width, height)
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    clipped: Array = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)[None]
    return clipped


OPS: dict[str, Callable[[Workload], Call]] = {
    "rpn_proposals": rpn_proposals,
    "box_detections": box_detections,
    "panoptic_merge": panoptic_merge,
}

# The kernels of an op in the order of their launches.
LAUNCHES = {
    "rpn_proposals": ("select_in_chunks", "sort_level", "decode_candidates", "find_overlaps", "keep_best"),
    "box_detections": ("score_rois", "keep_detections"),
    "panoptic_merge": ("order_instances", "resolve_instances", "label_pixels", "number_segments", "write_map"),
}


def ideal_bytes(op: str, load: Workload) -> int:
    """Bytes of an op's large inputs and outputs, each once: what no implementation can do without.

    RpnProposals reads every logit, and four deltas of each candidate; BoxDetections the class logits, and the deltas
    of RoIs on objects; PanopticMerge the logits, the masks of painted instances, and it writes the map.
    """
    inputs, _ = OPS[op](load)
    match op:
        case "rpn_proposals":
            candidates = sum(min(load.candidates, x.size) for x in inputs[0])
            return sum(int(x.nbytes) for x in inputs[0]) + 16 * int(candidates) + 16 * load.proposals
        case "box_detections":
            objects = load.proposals // 10
            return int(inputs[0].nbytes) + 16 * load.things * objects + 24 * load.detections
        case _:
            masks = int(inputs[5].nbytes) // load.detections * load.instances
            return int(inputs[0].nbytes) + masks + 4 * load.hw[0] * load.hw[1]
