"""Model metadata for tests, without an export."""

from __future__ import annotations

import dataclasses
from typing import Any

from panrt.formats.metadata import Category, FileThresholds, ModelFile

_USUAL = ModelFile(
    name="panoptic_fpn_lite",
    things=(Category(1, "mug", True, (255, 0, 0)), Category(2, "bottle", True, (0, 255, 0))),
    stuff=(Category(9, "floor", False, (0, 0, 255)),),
    batch=1,
    input_hw=(256, 320),
    valid_hw=(240, 320),
    output_hw=(480, 640),
    pixel_mean=(103.5, 116.25, 123.0),
    pixel_std=(1.0, 1.0, 1.0),
    thresholds=FileThresholds(0.05, 0.5, 100, 0.5, 0.5, 4096, 0.5),
    precision="fp16",
    opset=21,
    provenance="random weights",
)


def make(**overrides: Any) -> ModelFile:
    """Return the description of a model with two things and one kind of stuff, at fixed sizes that all differ."""
    return dataclasses.replace(_USUAL, **overrides)
