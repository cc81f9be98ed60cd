"""`panrt eval` on a file of the runtime agrees with the network that it was exported from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from panrt.cli import app
from panrt.model import build, save
from support.networks import dynamic

SPLIT = Path(__file__).parent.parent / "data" / "tabletop" / "eval"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights as network.safetensors and network.onnx, and the first three pictures of the split as JSON."""
    path = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(3)
    save(build("panoptic_fpn_lite"), path / "network.safetensors")
    said = CliRunner().invoke(app, ["export", str(path / "network.safetensors"), "-o", str(path / "network.onnx")])
    assert said.exit_code == 0, said.output
    split = json.loads((SPLIT / "panoptic.json").read_text())
    for name in ("images", "annotations"):
        split[name] = split[name][:3]
    (path / "truth.json").write_text(json.dumps(split))
    return path


def evaluated(folder: Path, model: str, *options: str) -> list[str]:
    truth = ["--truth", str(folder / "truth.json"), "--images", str(SPLIT / "images")]
    return ["eval", "--model", str(folder / model), *truth, "--labels", str(SPLIT / "panoptic"), *options]


def test_a_file_of_the_runtime_is_as_good_as_its_network(folder: Path) -> None:
    said = [
        CliRunner().invoke(app, evaluated(folder, model, "--metrics", "pq,miou", "--json"))
        for model in ("network.safetensors", "network.onnx")
    ]
    of_network, of_file = (json.loads(found.output) for found in said)
    assert of_file == of_network
    assert of_network["miou"]["pixel_accuracy"] > 0


def test_the_size_of_an_open_file_is_chosen_and_that_of_a_network_is_not(folder: Path) -> None:
    size, run = ("--height", "64", "--width", "96"), CliRunner().invoke
    shutil.copy(dynamic(), folder / "dynamic.onnx")
    found = run(app, evaluated(folder, "dynamic.onnx", *size, "--json"))
    assert (found.exit_code, "pq" in json.loads(found.stdout)) == (0, True)
    assert "leaves the size of its input open" in run(app, evaluated(folder, "dynamic.onnx")).output
    refused = run(app, evaluated(folder, "network.safetensors", *size))
    assert (refused.exit_code, "are for an .onnx file whose input size is open" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metrics", "ap"], "evaluate the .safetensors"),
        (["--short-side", "64"], "leave --short-side and --device out"),
    ],
)
def test_what_a_file_cannot_be_asked_is_refused(folder: Path, options: list[str], said: str) -> None:
    found = CliRunner().invoke(app, evaluated(folder, "network.onnx", *options))
    assert found.exit_code == 2
    assert said in found.output
