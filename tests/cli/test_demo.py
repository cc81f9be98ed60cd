"""`panrt demo`: a video, figures and next steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest
from typer.testing import CliRunner, Result

from panrt.cli import app
from panrt.cli import demo as command
from support.networks import FRAMES, exported


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("demo") / "model.onnx")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["demo", *(str(argument) for argument in arguments)])


def test_the_demo_leaves_a_video_and_figures_and_says_what_to_try(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[command.__module__], "MEASURED", 3)
    out = tmp_path / "new" / "out"
    done = run("--model", model, "--source", f"{FRAMES}/00000*.jpg", "--out", out, "--threads", 1)
    assert done.exit_code == 0, (done.output, done.exception)
    with av.open(str(out / "demo.mp4")) as video:
        pictures = [picture.to_ndarray(format="bgr24") for picture in video.decode(video=0)]
    assert [picture.shape for picture in pictures] == [(512, 640, 3)] * 9
    facts = json.loads((out / "demo.json").read_text())
    assert facts["found"]["frames"] == 9
    assert 0 < facts["found"]["named_pixels"] <= 1
    assert facts["benchmark"]["backend"] == "cpu"
    for said in ("9 frames", "throughput run", "p50", "p99", "PanopticMerge", f"panrt run camera://0 --model {model}"):
        assert said in done.stdout
    before = (out / "demo.mp4").read_bytes(), (out / "demo.json").read_bytes()
    again = run("--model", model, "--source", f"{FRAMES}/00000*.jpg", "--out", out, "--threads", 1)
    assert f"{out / 'demo-2.mp4'}, {out / 'demo-2.json'}" in again.stdout
    assert ((out / "demo.mp4").read_bytes(), (out / "demo.json").read_bytes()) == before
    assert json.loads((out / "demo-2.json").read_text())["video"] == str(out / "demo-2.mp4")


def test_a_source_without_frames_is_an_error_and_so_is_a_model_that_is_not_there(model: Path, tmp_path: Path) -> None:
    empty = run("--model", model, "--source", f"{tmp_path}/*.jpg", "--out", tmp_path)
    assert (empty.exit_code, empty.stdout.count("wrote")) == (2, 0)
    missing = run("--model", tmp_path / "none.onnx", "--out", tmp_path)
    assert (missing.exit_code, "none.onnx: no such file" in missing.stderr) == (2, True)


def test_the_demo_does_without_torch(model: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['safetensors'] = None  # importing either fails\n"
        "import panrt.cli.demo\n"
        "sys.modules['panrt.cli.demo'].MEASURED = 2\n"
        "from panrt.cli import main\n"
        f"sys.argv = ['panrt', 'demo', '--model', {str(model)!r}, '--out', {str(tmp_path)!r}, '--threads', '1',\n"
        f"            '--source', {str(FRAMES / '00000[12].jpg')!r}]\n"
        "main()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert (tmp_path / "demo.mp4").stat().st_size > 1000
