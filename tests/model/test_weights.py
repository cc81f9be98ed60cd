"""The demo model that comes with PanRT, on the evaluation split that it never saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import panrt
from panrt.model import load
from panrt.model.checkpoints import BUNDLED
from panrt.model.data.coco_panoptic import read_coco_panoptic
from panrt.model.evaluate import evaluate, labelled_images

SPLIT = Path(__file__).parent.parent / "data" / "tabletop" / "eval"
WEIGHTS = BUNDLED["tabletop"]


def test_the_demo_model_reaches_its_quality_on_the_held_out_frames() -> None:
    dataset = read_coco_panoptic(SPLIT / "panoptic.json", images=SPLIT / "images", labels=SPLIT / "panoptic")
    quality = evaluate(load("tabletop"), labelled_images(dataset))
    assert quality.all.pq > 0.80
    assert quality.things.pq > 0.75
    stated = json.loads(WEIGHTS.with_suffix(".quality.json").read_text())
    assert quality.all.pq == pytest.approx(stated["all"]["pq"], abs=0.005)


def test_the_weights_are_float16_and_small() -> None:
    assert WEIGHTS.stat().st_size < 10e6
    assert WEIGHTS.stat().st_mode & 0o444 == 0o444
    assert load("tabletop").backbone.fpn.lateral[0].weight.dtype == torch.float32  # type: ignore[union-attr]


def test_the_onnx_file_that_comes_along_is_of_these_weights() -> None:
    dataset = read_coco_panoptic(SPLIT / "panoptic.json", images=SPLIT / "images", labels=SPLIT / "panoptic")
    model = load("tabletop")
    with panrt.load("tabletop", backend="cpu") as session:
        for image, _ in list(labelled_images(dataset))[:4]:
            expected = model(torch.from_numpy(image)[None]).panoptic[0].numpy()
            assert (session(image).panoptic == expected).mean() > 0.998
