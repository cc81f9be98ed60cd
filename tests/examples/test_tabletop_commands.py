"""`python -m examples.tabletop`: its commands, and its errors where nothing can be drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from examples.tabletop.__main__ import EVALUATION, app
from examples.tabletop.errors import RenderingError
from panrt.errors import PanrtError
from panrt.model.data.coco_panoptic import load_sample, read_coco_panoptic
from support.rendering import cannot_draw

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_help_in_a_clone_lists_the_commands_without_a_framework() -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['tabletop', '--help']\n"
        "try:\n    runpy.run_module('examples.tabletop', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print('loaded', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    shown, loaded = done.stdout.split("loaded ")
    assert shown.startswith("Usage: python -m examples.tabletop [OPTIONS] COMMAND")
    assert all(command in shown for command in ("render", "clip", "train"))
    assert {name.split(".")[0] for name in loaded.split()}.isdisjoint({"torch", "cv2", "mujoco", "av"})


def test_evaluation_split_is_where_the_commands_look_for_it() -> None:
    assert (ROOT / EVALUATION / "panoptic.json").is_file()


def test_rendering_error_is_of_panrt_and_an_import_error() -> None:
    assert issubclass(RenderingError, PanrtError)
    assert issubclass(RenderingError, ImportError)


@pytest.mark.skipif(bool(cannot_draw()), reason=str(cannot_draw()))
def test_render_draws_a_data_set_once_and_clip_a_clip(tmp_path: Path) -> None:
    out = tmp_path / "tabletop"
    facts = json.loads(succeed("render", out, "--count", 1, "--split", "eval", "--json"))
    assert facts == {
        "path": str(out / "panoptic.json"), "split": "eval", "count": 1, "seed": 0, "height": 256, "width": 320
    }  # fmt: skip
    dataset = read_coco_panoptic(out / "panoptic.json", images=out / "images")
    (sample,) = map(load_sample, dataset.records)
    assert sample.image.shape == (256, 320, 3)
    assert len(sample.segments) > 3
    again = run("render", out, "--count", 1)
    assert again.exit_code == 2
    assert "panoptic.json: exists; choose another folder" in again.stderr
    assert "1 frames of 64x64" in succeed("clip", tmp_path, "--frames", 1, "--height", 64, "--width", 64)
    assert (tmp_path / "clip.mp4").stat().st_size > 0
