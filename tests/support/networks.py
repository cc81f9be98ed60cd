"""Small networks and their exports, for tests of what runs them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from panrt.export import to_onnx
from panrt.formats.metadata import FileThresholds
from panrt.model import PanopticFPN, build

FRAMES = Path(__file__).parents[1] / "data" / "tabletop" / "eval" / "images"
HEIGHT, WIDTH = 256, 320
# The lively network is sure of what it finds: only so high a score leaves some of its detections out of the merge.
THRESHOLDS = FileThresholds(
    detection_score=0.05,
    detection_nms=0.5,
    max_detections=32,
    instance_score=0.9995,
    instance_overlap=0.5,
    stuff_area=200,
    mask=0.5,
)


def frames(count: int) -> NDArray[np.uint8]:
    """(count, 256, 320, 3) BGR."""
    images = [cv2.imread(str(path)) for path in sorted(FRAMES.iterdir())[:count]]
    return np.stack([image for image in images if image is not None])


def lively(name: str = "panoptic_fpn_lite") -> PanopticFPN:
    """An untrained network whose heads are far from undecided: it finds things and several kinds of stuff."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = build(name).eval()
    assert network.instance is not None
    with torch.no_grad():
        for head in (network.instance.box_head.cls_score, network.instance.mask_head.predictor):
            head.weight.mul_(60)
        network.instance.box_head.bbox_pred.weight.mul_(20)
        network.instance.rpn_head.objectness_logits.weight.mul_(20)
        network.instance.rpn_head.anchor_deltas.weight.mul_(5)
    return network


def exported(path: Path, **options: Any) -> Path:
    """An export of the lively network at (256, 320)."""
    to_onnx(lively(), path, **{"input_hw": (HEIGHT, WIDTH), "thresholds": THRESHOLDS, **options})
    return path


@lru_cache
def dynamic() -> Path:
    """An export of the lively network whose input size is open; exported once a process, as it takes two traces."""
    folder = Path(tempfile.mkdtemp(prefix="panrt-"))
    atexit.register(shutil.rmtree, folder)
    return exported(folder / "dynamic.onnx", input_hw=None)
