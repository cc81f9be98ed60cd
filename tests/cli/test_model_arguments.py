"""Every command that takes a model says in one line what is wrong with what it was given."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from panrt.cli import app
from panrt.engine.bundled import MODELS

EVAL = Path(__file__).parents[1] / "data" / "tabletop" / "eval"
COMMANDS = {
    "run": "run demo://tabletop --model {} --frames 1 --sink null://",
    "bench": "bench {} --frames 1",
    "info": "info {}",
    "demo": "demo --model {}",
    "verify": f"verify {{}} {{}} --frames {EVAL / 'images'}",
    "verify a session": f"verify cpu:{{}} {{}} --frames {EVAL / 'images'}",
    "eval": f"eval --model {{}} --truth {EVAL / 'panoptic.json'} --images {EVAL / 'images'}",
}


def run(command: str, model: Path) -> Result:
    return CliRunner().invoke(app, [word.format(model) for word in shlex.split(COMMANDS[command])])


@pytest.fixture(params=["folder", "pipe", "device", "empty", "zip"])
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """What is no model, and what is said of it."""
    path = tmp_path / "model.onnx"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "empty":
        path.touch()
        return path, "not exported by PanRT, or cut off"
    else:
        path.write_bytes(b"PK\x03\x04" + bytes(100))
        return path, "not an ONNX file, or cut off"
    return path, f"is a {request.param}, expected an .onnx file of panrt export"


@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_that_are_no_models_are_reported_in_one_line(command: str, wrong: tuple[Path, str]) -> None:
    path, said = wrong
    done = run(command, path)
    assert (done.exit_code, isinstance(done.exception, SystemExit)) == (2, True), done.exception
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {path}: ")
    assert said in done.stderr


def test_an_engine_is_looked_up_by_its_sidecar(tmp_path: Path) -> None:
    done = run("info", tmp_path / "street.plan")
    assert done.exit_code == 2
    assert "street.plan.json: no such file; it belongs to street.plan" in done.stderr


def test_commands_to_paste_have_names_that_a_shell_reads_as_one_word(tmp_path: Path) -> None:
    path = tmp_path / "my model; touch PWNED.onnx"
    shutil.copy(MODELS["tabletop"], path)
    done = CliRunner().invoke(app, ["info", str(path)])
    assert done.exit_code == 0, done.output
    commands = [shlex.split(line) for line in done.stdout.splitlines() if "panrt bench" in line]
    assert commands == [["panrt", "bench", str(path)]]
