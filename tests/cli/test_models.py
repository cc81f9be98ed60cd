"""Models by name on the command line: listed, pulled, run, exported and removed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from panrt.cli import app
from panrt.cli.build import _located
from panrt.cli.support import Report
from panrt.cli.train import _start
from panrt.hub import exports, weights
from support.hub_server import Hub
from support.named_models import ALIAS, NAME, Small


@pytest.fixture
def hub(small_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    return small_hub


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def ok(*arguments: str) -> Result:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done


def listed(name: str) -> dict[str, object]:
    (found,) = [each for each in json.loads(ok("models", "--json").stdout)["models"] if each["name"] == name]
    return dict(found)


def test_list_says_what_is_here_and_what_it_costs(hub: Hub) -> None:
    text = ok("models").stdout
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["tabletop"][1] == "bundled"
    assert rows["panoptic_fpn_R_50_3x"][1:6] == ["coco", "no", "184.3", "MB", "41.5"]
    assert rows["panoptic_fpn_R_101_3x"][1] == "coco-large"
    assert "panrt pull coco" in text
    facts = listed("panoptic_fpn_R_50_3x")
    assert (facts["here"], facts["sha256"], facts["sha256_published"]) == (False, None, False)
    assert (facts["licence"], facts["pq"], facts["reference_latency"]) == ("CC BY-SA 3.0", 41.5, 0.053)
    assert hub.requests == []


def test_model_is_pulled_run_exported_and_removed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled = json.loads(ok("pull", ALIAS, "--json").stdout)
    assert Path(pulled["file"]).stat().st_size == pulled["bytes"]
    assert listed(NAME)["exports"] == {"fp32": pulled["file"]}
    assert listed(NAME)["sha256"] is not None
    monkeypatch.setenv("PANRT_OFFLINE", "1")

    done = ok("run", "photo.png", "--model", ALIAS, "--threads", "1", "--sink", "out.jsonl")
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith(
        f"  size        {NAME} at 384x512 (height x width, the default for a CPU); a frame is expected"
    )
    assert "an estimate from 2 GMAC" in first
    assert first.endswith("other sizes: --height H --width W")
    assert second == f"  model       {ALIAS}: panoptic_fpn_lite, fp32, backend cpu"
    assert len(Path("out.jsonl").read_text().splitlines()) == 1

    size = ("--height", "64", "--width", "96")
    assert (
        f"{NAME} at 64x96 (height x width); a frame" in ok("bench", ALIAS, *size, "--frames", "1", "--rate", "0").stdout
    )
    ok("export", ALIAS, "-o", "direct.onnx", *size)
    ok("verify", ALIAS, f"cpu:{ALIAS}", "--frames", "photo.png", *size)
    assert "panoptic_fpn_lite: EfficientNet-Lite0" in ok("info", ALIAS).stdout

    removed = json.loads(ok("models", "rm", ALIAS, "--forget-hash", "--json").stdout)
    assert removed["hash_forgotten"]
    assert (listed(NAME)["here"], listed(NAME)["weights"], listed(NAME)["sha256"]) == (False, None, None)
    assert list(exports.kept()) == []
    assert len(hub.requests) == 1


def test_architecture_is_shown_without_a_download(hub: Hub) -> None:
    text = ok("info", "coco").stdout
    assert "panoptic_fpn_r50: ResNet-50" in text
    assert "not downloaded, 184.3 MB: panrt pull coco" in text
    assert hub.requests == []


@pytest.mark.parametrize("command", ["pull cocoo", "models rm cocoo", "run photo.png -m cocoo", "bench cocoo"])
def test_unknown_name_is_one_line_with_the_nearest(hub: Hub, command: str) -> None:
    done = run(*command.split())
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "did you mean coco" in done.stderr


def test_failed_download_is_one_line_with_a_cure(hub: Hub) -> None:
    hub.plays = [lambda request: request.answer(404)]
    done = run("run", "photo.png", "--model", ALIAS)
    assert done.exit_code == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {hub.address}/")
    assert "the server has no such file (404); set PANRT_HUB to the address of a mirror" in last


def test_missing_pytorch_is_one_error_before_the_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_NEEDED", ("no_such_package",))
    for command in (["run", "photo.png", "--model", ALIAS], ["pull", ALIAS], ["build", ALIAS, "-o", "m.plan"]):
        done = run(*command)
        assert done.exit_code == 2
        assert "needs no_such_package; nothing was downloaded." in done.stderr
        assert "pip install 'panrt[export]'" in done.stderr
    assert hub.requests == []


def test_precision_is_chosen_for_models_by_name_alone(hub: Hub) -> None:
    done = run("build", "street.onnx", "-o", "m.plan", "--precision", "fp16")
    assert (done.exit_code, "--precision is for a model by name" in done.stderr) == (2, True)


def test_engine_of_a_model_by_name_gets_the_size_of_a_gpu(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panrt.hub.models.onnx_file", lambda model, precision: Path(f"{model}-{precision}.onnx"))
    assert _located(Report(as_json=True), Path(ALIAS), None, None) == (Path("small-fp32.onnx"), (800, 1088))
    assert _located(Report(as_json=True), Path(ALIAS), "fp16", (64, 96)) == (Path("small-fp16.onnx"), (64, 96))


def test_model_by_name_can_be_trained_further(small: Small, hub: Hub) -> None:
    start, config = _start(ALIAS, val=None, val_images=None, trunk=None)
    assert (start, config) == (weights.path_of(small.entry), small.model.config)
    with pytest.raises(ValueError, match=r"--trunk: small has a trunk already"):
        _start(ALIAS, val=None, val_images=None, trunk="imagenet")


def test_cache_of_another_machine_serves_as_the_hub(
    small: Small, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok("pull", ALIAS)
    copied = weights.root() / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("PANRT_HUB", str(copied))
    monkeypatch.setenv("PANRT_OFFLINE", "1")
    ok("pull", ALIAS)
    assert len(hub.requests) == 1
