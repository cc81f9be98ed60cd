"""`panrt info` of an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from panrt.cli import app
from support.networks import exported


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("info")
    return exported(folder / "model.onnx", valid_hw=(256, 300), provenance="seed 0, not trained")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_onnx_file_tells_what_it_is_and_how_the_cpu_runs_it(model: Path) -> None:
    done = run("info", model)
    assert done.exit_code == 0, done.output
    for said in (
        "panoptic_fpn_lite, fp32, opset 21, target portable",
        "1 image of 256x320 (height x width), BGR, uint8",
        "in the upper left 256x300 of it",
        "8: mug, bottle, can, bowl, book, box, ball, rover",
        "4: floor, wall, table, rug",
        "seed 0, not trained",
        "op           PanopticMerge",
    ):
        assert said in done.stdout


def test_the_same_facts_come_as_json(model: Path) -> None:
    facts = json.loads(run("info", model, "--json").stdout)
    assert facts["bytes"] == model.stat().st_size
    assert facts["model"]["valid_hw"] == [256, 300]
    assert [c["name"] for c in facts["model"]["stuff"]] == ["floor", "wall", "table", "rug"]
    assert facts["model"]["thresholds"]["max_detections"] == 32
    assert [step.split()[1] for step in facts["steps"] if step.startswith("op")] == [
        "RpnProposals", "PyramidRoiAlign", "BoxDetections", "PyramidRoiAlign", "PanopticMerge",
    ]  # fmt: skip


def test_files_that_are_no_models_are_reported_as_such(model: Path, tmp_path: Path) -> None:
    missing = run("info", tmp_path / "none.onnx")
    assert (missing.exit_code, "none.onnx: no such file" in missing.stderr) == (2, True)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes()[:5000])
    said = run("info", broken)
    assert said.exit_code == 2
    assert "not an ONNX file, or cut off" in said.stderr
