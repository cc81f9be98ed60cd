"""`panrt bench` on a network with random weights: what it prints, writes and compares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from panrt.cli import app

CLIP = Path(__file__).parent.parent / "data" / "tabletop" / "clip.mp4"


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "lite.onnx"
    size = ["--height", "64", "--width", "96"]
    assert (
        CliRunner().invoke(app, ["export", "panoptic_fpn_lite", "--untrained", "-o", str(path), *size]).exit_code == 0
    )
    return path


def test_a_measurement_is_printed_written_three_ways_and_compares_with_itself(onnx_file: Path, tmp_path: Path) -> None:
    name = tmp_path / "new" / "b"
    options = ["--frames", "4", "--warm-up", "1", "--rate", "50", "--threads", "1", "--backend", "cpu"]
    said = CliRunner().invoke(app, ["bench", str(onnx_file), "--source", str(CLIP), "-o", str(name), *options])
    assert said.exit_code == 0, said.output
    assert "fixed-rate run: age of the result" in said.output
    facts = json.loads(name.with_suffix(".json").read_text())
    assert len(facts["throughput"]["latencies"]) == 4
    assert facts["frame_hw"] == [256, 320]
    assert {"dense", "PanopticMerge"} <= facts["throughput"]["stages"].keys()
    assert name.with_suffix(".md").read_text().startswith("# Latency of lite.onnx")
    assert "<svg" in name.with_suffix(".html").read_text()
    compared = CliRunner().invoke(app, ["bench", "compare", f"{name}.json", f"{name}.json", "--json"])
    rows = json.loads(compared.output)["rows"]
    assert {row[3] for row in rows} <= {"1.00", "-"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.onnx"], "missing.onnx: no such file"),
        (["compare", "a.json", "b.json"], "a.json: no such file or directory"),
        (["{file}", "--source", "rtps://camera"], "no source has the scheme 'rtps'; did you mean rtsp"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(onnx_file: Path, arguments: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["bench", *(part.format(file=onnx_file) for part in arguments)])
    assert found.exit_code == 2
    assert said in found.output
