"""`panrt convert` needs no option for what describes itself, and names what it does not support."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.golden import recipe
from panrt.model import load
from panrt.model.checkpoints import read_header
from support.command_line import fail, succeed

EVAL = Path(__file__).parents[1] / "data" / "tabletop" / "eval"


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden weights as detectron2's model zoo would ship them."""
    path = tmp_path_factory.mktemp("zoo") / "model_final.pkl"
    content = {"model": recipe.state_dict(50) | {"pixel_mean": np.zeros((3, 1, 1), np.float32)}}
    path.write_bytes(pickle.dumps(content | {"__author__": "Detectron2 Model Zoo"}, protocol=4))
    return path


def test_convert_takes_every_tensor_of_detectron2(zoo_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    shown = succeed("convert", zoo_file, "-o", output, "--config", "panoptic_fpn_r50", "--half", "--json")
    facts = json.loads(shown)
    found = load(output).state_dict()
    assert facts["kind"] == "detectron2 pickle by Detectron2 Model Zoo"
    assert facts["ignored"] == ["pixel_mean"]
    assert facts["tensors"] == len(found) == facts["renamed"]
    weight = recipe.state_dict(50)["sem_seg_head.predictor.weight"]
    assert torch.equal(found["semantic.predictor.weight"], torch.from_numpy(weight).half().float())
    assert (
        read_header(output).provenance == "converted from model_final.pkl, a detectron2 pickle by Detectron2 Model Zoo"
    )


def test_convert_names_what_does_not_fit_and_writes_nothing(zoo_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    said = fail("convert", zoo_file, "-o", output, "--config", "panoptic_fpn_r50", "--classes", EVAL / "panoptic.json")
    assert said.rstrip().endswith("panoptic.json: 8 things and 4 stuff, but the network has 80 things and 53 stuff.")
    assert "suffix '.txt'" in fail("convert", EVAL / "notes.txt", "-o", output, "--config", "panoptic_fpn_r50")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_convert_needs_no_option_for_the_zoo(zoo_file: Path, tmp_path: Path) -> None:
    facts = json.loads(succeed("convert", zoo_file, "-o", tmp_path / "model.safetensors", "--half", "--json"))
    assert (facts["config"], facts["framework"], facts["assumed"]) == ("panoptic_fpn_r50", "detectron2", [])
    assert (facts["things"], facts["stuff"]) == (80, 53)


@pytest.mark.slow
def test_convert_reads_a_fine_tuned_network_from_its_yaml(tmp_path: Path) -> None:
    """Depth 101, other classes, heads with group norm and other thresholds."""
    rows = {"cls_score": 4, "bbox_pred": 12, "mask_head.predictor": 3, "sem_seg_head.predictor": 6}
    tensors: dict[str, Any] = {}
    for name, array in recipe.state_dict(101).items():
        count = next((rows[layer] for layer in rows if f"{layer}." in name), None)
        if "mask_fcn" in name and name.endswith("bias"):
            tensors |= {name.replace("bias", f"norm.{part}"): array for part in ("weight", "bias")}
        else:
            tensors[name] = array[:count]
    source = tmp_path / "model_final.pth"
    torch.save({"model": {name: torch.from_numpy(array) for name, array in tensors.items()}, "iteration": 5}, source)
    config = tmp_path / "config.yaml"
    config.write_text(
        "_BASE_: Base-Panoptic-FPN.yaml\n"
        "MODEL:\n  RESNETS: {DEPTH: 101}\n"
        "  ROI_HEADS: {NUM_CLASSES: 3, SCORE_THRESH_TEST: 0.2}\n"
        "  ROI_MASK_HEAD: {NORM: GN}\n"
        "  SEM_SEG_HEAD: {NUM_CLASSES: 6}\n"
        "  PANOPTIC_FPN: {COMBINE: {INSTANCES_CONFIDENCE_THRESH: 0.7}}\n"
    )
    (tmp_path / "names.txt").write_text("cup\nplate\nfork\nfloor\nwall\nsky\ntable\nrug\n")
    output = tmp_path / "mine.safetensors"
    shown = succeed("convert", source, "-o", output, "--config", config, "--names", tmp_path / "names.txt")
    assert "network     of detectron2, described by config.yaml" in shown
    assert "classes     3 things, 5 stuff" in shown
    found = read_header(output).config
    assert [category.name for category in found.classes.stuff] == ["floor", "wall", "sky", "table", "rug"]
    assert found.instance is not None
    assert (found.instance.mask.norm, found.instance.box.score_threshold) == ("group", 0.2)
    assert found.merge.score_threshold == 0.7
    weight = load(output).state_dict()["instance.mask_head.fcn.0.norm.weight"]
    assert torch.equal(weight, torch.from_numpy(tensors["roi_heads.mask_head.mask_fcn1.norm.weight"]))


def test_convert_names_a_key_that_it_does_not_support_and_writes_nothing(zoo_file: Path, tmp_path: Path) -> None:
    config, output = tmp_path / "config.yaml", tmp_path / "model.safetensors"
    config.write_text("_BASE_: Base-Panoptic-FPN.yaml\nMODEL: {ROI_HEADS: {NAME: CascadeROIHeads}}\n")
    said = fail("convert", zoo_file, "-o", output, "--config", config)
    assert "config.yaml: MODEL.ROI_HEADS.NAME: got 'CascadeROIHeads', expected 'StandardROIHeads'" in said
    assert not output.exists()
    assert "missing.yaml: no such file" in fail("convert", zoo_file, "-o", output, "--config", "missing.yaml")


class Payload:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.victim),)


def test_convert_refuses_a_malicious_pickle_and_writes_nothing(tmp_path: Path) -> None:
    source, victim, output = tmp_path / "evil.pkl", tmp_path / "victim", tmp_path / "model.safetensors"
    source.write_bytes(pickle.dumps({"model": {"weight": Payload(victim)}}))
    said = fail("convert", source, "-o", output, "--config", "panoptic_fpn_r50")
    assert "not unpickled: it asks for posix.mkdir" in said
    assert list(tmp_path.iterdir()) == [source]
