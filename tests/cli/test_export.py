"""panrt export, from its options to its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from typer.testing import CliRunner, Result

from panrt.cli import app
from panrt.export.onnx import fit_camera
from panrt.model import build, save

FRAMES = Path(__file__).parents[1] / "data" / "tabletop" / "eval" / "images"
INT8 = ("--precision", "int8", "--samples", FRAMES)


def run(*arguments: object) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fail(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "lite.safetensors"
    save(build("panoptic_fpn_lite"), path, provenance="seed 0, not trained")
    return path


def test_a_model_file_becomes_an_onnx_file_for_a_camera(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "lite.onnx"
    options = ("--camera", "640x480", "--height", 96, "--output-size", "64x48")
    thresholds = ("--max-detections", 7, "--detection-nms", 0.4, "--mask-threshold", 0.6)
    result = run("export", weights, "-o", path, *options, *thresholds, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    facts = json.loads(result.stdout)
    assert (facts["height"], facts["width"], facts["valid_hw"], facts["output_hw"]) == (96, 128, [96, 128], [48, 64])
    given = facts["thresholds"]
    assert (given["max_detections"], given["detection_nms"], given["mask"]) == (7, 0.4, 0.6)
    assert facts["provenance"] == "seed 0, not trained"
    graph = onnx.load(path).graph
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [1, 96, 128, 3]
    assert len(graph.node) == facts["nodes"]


def test_a_dynamic_file_gets_its_size_where_it_is_used(weights: Path, tmp_path: Path) -> None:
    path, size = tmp_path / "lite.onnx", ("--height", 96, "--width", 128)
    exported = run("export", weights, "-o", path, "--dynamic")
    assert exported.exit_code == 0, (exported.output, exported.exception)
    assert "traced      panoptic_fpn_lite of dynamic height and width, 201 nodes" in exported.stdout
    assert "outputs     panoptic maps of the input's size, 8 things, 4 stuff" in exported.stdout
    assert f"panrt build {path} -o {path.with_suffix('.plan')} --height H --width W" in exported.stdout
    told = run("info", path)
    assert "1 image of dynamic height and width, multiples of 32, BGR, uint8" in told.stdout
    assert "steps       depend on the size; --height and --width show them" in told.stdout
    assert "op           PanopticMerge" in run("info", path, *size).stdout
    assert json.loads(run("info", path, "--json").stdout)["model"]["input_hw"] == [0, 0]

    commands = (
        ("run", FRAMES, "--model", path, "--frames", 2, "--threads", 1),
        ("bench", path, "--frames", 2, "--warm-up", 0, "--rate", 0, "--threads", 1),
        ("verify", weights, path, "--frames", FRAMES, "--max-frames", 1),
        ("verify", path, f"cpu:{path}", "--frames", FRAMES, "--max-frames", 1),
    )
    for command in commands:
        done = run(*command, *size, "--json")
        assert done.exit_code == 0, (command, done.output, done.exception)
        assert "lite.onnx: leaves the size of its input open; choose one" in fail(*command)
        assert "give both of --height and --width" in fail(*command, "--height", 96)


def test_a_camera_keeps_its_aspect_and_only_the_width_is_padded() -> None:
    assert fit_camera((1080, 1920), height=512) == ((512, 928), (512, 910))
    assert fit_camera((480, 640), height=480) == ((480, 640), (480, 640))


def test_what_cannot_be_exported_is_said_and_nothing_is_written(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    assert "height: got 100, expected a multiple of 32" in fail("export", weights, "-o", path, "--height", 100)
    assert "expected width x height, such as 1920x1080" in fail("export", weights, "-o", path, "--camera", "wide")
    for option, value in (("--height", 64), ("--width", 64), ("--camera", "8x8"), ("--output-size", "8x8")):
        said = fail("export", weights, "-o", path, "--dynamic", option, value)
        assert f"--dynamic leaves the input size open, so {option} has no meaning" in said
    assert "int8 is calibrated at one input size" in fail("export", weights, "-o", path, "--dynamic", *INT8)
    assert "one of --camera and --width" in fail("export", weights, "-o", path, "--camera", "8x8", "--width", 64)
    assert "portable or tensorrt-10.3" in fail("export", weights, "-o", path, "--target", "tensorrt-8")
    assert "add --untrained" in fail("export", "panoptic_fpn_lite", "-o", path)
    assert "did you mean panoptic_fpn_lite" in fail("export", "panoptic_fpn_lit", "--untrained", "-o", path)
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(weights.read_bytes()[:-1000])
    assert "it is damaged or cut short" in fail("export", truncated, "-o", path)
    assert not path.exists()
    assert not list(tmp_path.glob("*.part"))
