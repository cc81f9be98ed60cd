"""The demo model that comes with PanRT, on the evaluation split that it never saw."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

import panrt
from panrt.export import to_onnx
from panrt.model import header, load
from panrt.model.checkpoints import BUNDLED, locate, read_header
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


@pytest.fixture
def as_in_a_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the .safetensors file."""
    monkeypatch.setattr(header, "BUNDLED", {"tabletop": Path("nothing.safetensors")})


@pytest.mark.usefixtures("as_in_a_wheel")
def test_wheel_reads_the_network_from_its_onnx_file_and_exports_the_same_weights(tmp_path: Path) -> None:
    stated = read_header(WEIGHTS)
    assert locate("tabletop") == header.EXPORTED["tabletop"]
    found = read_header(locate("tabletop"))
    assert (found.config, found.provenance) == (stated.config, stated.provenance)
    exported = tmp_path / "again.onnx"
    to_onnx(load("tabletop"), exported, input_hw=(256, 320), precision="fp16", provenance=found.provenance)
    again, bundled = (weights_of(path) for path in (exported, header.EXPORTED["tabletop"]))
    assert again.keys() == bundled.keys()
    assert all(again[name] == bundled[name] for name in bundled)


def weights_of(path: Path) -> dict[str, bytes]:
    graph = onnx.load(path).graph
    inputs = {value.name for value in graph.input}  # an initializer of an input is the default of a threshold
    weights = [weight for weight in graph.initializer if weight.name not in inputs]
    return {weight.name: onnx.numpy_helper.to_array(weight).tobytes() for weight in weights}


@pytest.mark.usefixtures("as_in_a_wheel")
def test_network_of_a_wheel_differs_from_the_original_by_roundings_of_float16_alone() -> None:
    dataset = read_coco_panoptic(SPLIT / "panoptic.json", images=SPLIT / "images", labels=SPLIT / "panoptic")
    ours, original = load("tabletop"), load(WEIGHTS)
    for image, _ in list(labelled_images(dataset))[:4]:
        found, expected = (network(torch.from_numpy(image)[None]).panoptic for network in (ours, original))
        assert (found == expected).float().mean() > 0.998
