"""`panrt predict` prints a line for each image and writes what it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import panrt
from panrt.cli.commands import app
from panrt.cli.exit_codes import USER_ERROR
from tools.null_session import NullSession
from tools.streams import IMAGES


@pytest.fixture(autouse=True)
def null_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("panrt.engine.predict.load", lambda *_, **__: NullSession())
    monkeypatch.chdir(tmp_path)


def test_images_are_reported_and_written_and_kept(tmp_path: Path) -> None:
    command = ["predict", str(IMAGES / "000001.jpg"), "-m", "m", "--save", "json,coco,masks"]
    first, second = (CliRunner().invoke(app, command) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "000001.jpg: 1 bright, dark" in first.output
    written = {str(path.relative_to(tmp_path / "predictions")) for path in tmp_path.rglob("*") if path.is_file()}
    assert written >= {"000001.jpg", "000001-2.jpg", "masks/000001.png", "masks/000001-2.png", "results.jsonl"}
    assert written >= {"results-2.jsonl", "coco/panoptic.json", "coco-2/panoptic.json"}


def test_overwrite_replaces_and_none_writes_no_images(tmp_path: Path) -> None:
    image = str(IMAGES / "000001.jpg")
    for _ in range(2):
        CliRunner().invoke(app, ["predict", image, "-m", "m", "--overwrite", "-o", "out"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000001.jpg"]
    found = CliRunner().invoke(app, ["predict", image, "-m", "m", "--format", "none", "-o", "none", "--json"])
    assert (json.loads(found.output)["results"][0]["file_name"], (tmp_path / "none").exists()) == ("000001.jpg", False)


def test_a_missing_image_and_an_unknown_format_are_errors(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"none")
    both = CliRunner().invoke(app, ["predict", "bad.png", str(IMAGES / "000001.jpg"), "-m", "m"])
    assert both.exit_code == USER_ERROR
    assert "000001.jpg: 1 bright, dark" in both.output
    wrong = CliRunner().invoke(app, ["predict", "bad.png", "-m", "m", "--save", "xml"])
    assert wrong.exit_code == USER_ERROR
    assert "--save: got 'xml', expected some of json, coco, masks" in wrong.output
    assert issubclass(panrt.SourceUndecodableError, panrt.SourceError)
