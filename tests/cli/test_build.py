"""panrt build and panrt cache as people see them: reports, what to do next, exit codes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from panrt import plan_file as plans
from panrt.cli import app
from panrt.cli.build import _report
from panrt.export.build import Built
from panrt.export.lint import Finding
from support.engines import panrt, tiny_model
from support.plans import ENGINE, plan_file


def test_a_build_says_what_it_built_and_what_to_do_next(tmp_path: Path) -> None:
    path, plan = tmp_path / "tiny.onnx", tmp_path / "tiny.plan"
    path.write_bytes(tiny_model().SerializeToString())
    for how in ("in ", "taken from the cache"):
        ended = panrt("build", path, "-o", plan, "--rtx", cache=tmp_path)
        assert ended.code == 0, ended
        lines = [line.strip() for line in ended.stdout.splitlines()]
        assert lines[0].startswith("built       TensorRT-RTX 1.")
        assert lines[0].endswith("for compute capability 8.0 and newer")
        assert lines[1].startswith(how)
        assert lines[2].startswith("layers")
        assert lines[-2].startswith(f"wrote       {plan}")
        assert lines[-1] == f"next        panrt run demo://tabletop --model {plan}"
    listed = panrt("cache", "ls", cache=tmp_path)
    assert "tiny.onnx  panoptic_fpn_lite fp32  TensorRT-RTX" in listed.stdout
    assert "in 1 engines" in listed.stdout


def test_layers_that_fell_to_float32_are_listed_by_node(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = (Finding("warning", "box/Gemm", "computes in fp32"), Finding("warning", "a/Conv", "is odd"))
    _report(Built(plan_file(), warnings, (), False), Path("street.plan"), as_json=False)
    said = capsys.readouterr().out
    assert "  built       TensorRT 10.3.0, for Orin (nvgpu) (compute capability 8.7)\n" in said
    assert "  layers      10 fp32, 90 fp16, 5 plugin, 20 that only move or convert\n" in said
    assert "  fp32        box/Gemm, though the file says fp16\n" in said
    assert "  float32     products in float32, not in TF32\n" in said
    assert "  options     optimization level 3, workspace 1.1 GB, auxiliary streams 0\n" in said
    assert "  note        a/Conv: is odd\n" in said


def test_the_cache_is_listed_and_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan = tmp_path / "panrt" / "engines" / "0123456789abcdef" / "engine.plan"
    plan.parent.mkdir(parents=True)
    plan.write_bytes(ENGINE)
    plans.sidecar(plan).write_text(plans.dumps(plan_file()))
    os.utime(plan, (time.time() - 40 * 86400,) * 2)
    run = CliRunner().invoke
    listed = json.loads(run(app, ["cache", "ls", "--json"]).stdout)
    assert [(engine["name"], engine["bytes"], engine["gpu"]) for engine in listed["engines"]] == [
        ("0123456789ab", len(ENGINE), "Orin (nvgpu)")
    ]
    assert run(app, ["cache", "prune", "--unused-days", "50"]).stdout == "  removed     0 engines, 0.0 MB\n"
    assert plan.exists()
    assert run(app, ["cache", "prune"]).stdout == "  removed     1 engines, 0.0 MB\n"
    assert not plan.parent.exists()
    assert json.loads(run(app, ["cache", "ls", "--json"]).stdout)["engines"] == []
