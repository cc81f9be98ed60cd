"""`panrt build` and `panrt cache`: reports, next steps, exit codes."""

from __future__ import annotations

import importlib
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from panrt.cli import app
from panrt.cli.build import _report
from panrt.export.build import Built, build_engine
from panrt.export.lint import Finding
from panrt.formats import plan_file as plans
from support.engines import panrt, tiny_model
from support.plans import ENGINE, plan_file


def test_a_build_says_what_it_built_and_what_to_do_next(tmp_path: Path) -> None:
    path, plan = tmp_path / "tiny.onnx", tmp_path / "tiny.plan"
    path.write_bytes(tiny_model().SerializeToString())
    for how in ("in ", "taken from the cache"):
        ended = panrt("build", path, "-o", plan, "--flavour", "rtx", cache=tmp_path)
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


def test_the_former_options_for_rtx_still_work_and_name_the_new_ones(tmp_path: Path) -> None:
    path, plan = tmp_path / "tiny.onnx", tmp_path / "tiny.plan"
    path.write_bytes(tiny_model().SerializeToString())
    ended = panrt("build", path, "-o", plan, "--rtx", "--compute-capability", "1.0", cache=tmp_path)
    assert ended.stderr.startswith("warning: --rtx is deprecated; use --flavour rtx\n")
    assert "compute capability '1.0': TensorRT-RTX" in ended.stderr
    with (
        pytest.warns(DeprecationWarning, match="rtx=True is deprecated; use flavour='rtx'"),
        pytest.raises(FileNotFoundError),
    ):
        build_engine(path, tmp_path / "missing" / "tiny.plan", rtx=True)
    with pytest.raises(ValueError, match="flavour: got 'RTX', expected tensorrt or rtx"):
        build_engine(path, plan, flavour="RTX")  # type: ignore[arg-type]


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
    assert listed["kernels"]["engines"] == 0
    assert run(app, ["cache", "prune", "--unused-days", "50"]).stdout.startswith("  removed     0 engines, 0.0 MB\n")
    assert plan.exists()
    assert run(app, ["cache", "prune"]).stdout.startswith("  removed     1 engines, 0.0 MB\n")
    assert not plan.parent.exists()
    assert json.loads(run(app, ["cache", "ls", "--json"]).stdout)["engines"] == []


def test_compiled_kernels_are_listed_and_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "panrt" / "kernels"
    folder.mkdir(parents=True)
    old, new = folder / "0123.kernels", folder / "4567.kernels"
    for path, days in ((old, 40), (new, 5)):
        path.write_bytes(b"k" * 1_500_000)
        os.utime(path, (time.time() - days * 86400,) * 2)
    run = CliRunner().invoke
    assert f"  kernels     3.0 MB compiled for 2 engines, {folder}\n" in run(app, ["cache", "ls"]).stdout
    assert "  removed     compiled kernels of 1 engines, 1.5 MB\n" in run(app, ["cache", "prune"]).stdout
    assert [path.name for path in folder.iterdir()] == [new.name]
    pruned = json.loads(run(app, ["cache", "prune", "--unused-days", "0", "--json"]).stdout)
    assert pruned["kernels"] == {"removed": 1, "bytes": 1_500_000}
    assert not list(folder.iterdir())


def test_an_engine_is_shown_as_its_sidecar_has_it(tmp_path: Path) -> None:
    plan = tmp_path / "street.plan"
    plan.write_bytes(ENGINE)
    options = plans.BuildOptions(tf32=True, aux_streams=1, version_compatible=True, dla_core=0)
    plans.sidecar(plan).write_text(plans.dumps(plan_file(options=options)))
    run = CliRunner().invoke
    shown = run(app, ["info", str(plan)])
    assert shown.exit_code == 0, shown.output
    for line in (
        "network     panoptic_fpn_lite, fp16, of street.onnx",
        "built with  TensorRT 10.3.0, PanRT 0.1.0, a driver for CUDA 12.6",
        "built for   'Orin (nvgpu)' (compute capability 8.7)",
        "layers      10 fp32, 90 fp16, 5 plugin, 20 that only move or convert",
        "float32     products may be rounded to TF32, 10 bits of mantissa (--tf32)",
        "options     optimization level 3, workspace 1.1 GB, auxiliary streams 1, version compatible, DLA core 0",
        "input       1 image of 256x320 (height x width), BGR, uint8",
    ):
        assert f"  {line}\n" in shown.stdout
    told = json.loads(run(app, ["info", str(plan), "--json"]).stdout)
    assert (told["options"]["tf32"], told["workspace_bytes"], told["model"]["name"]) == (
        True,
        2**30,
        "panoptic_fpn_lite",
    )
    assert "leave --height and --width out" in run(app, ["info", str(plan), "--height", "64", "--width", "64"]).stderr


@pytest.mark.parametrize(
    ("tf32", "name"), [(False, "{} in PanRT (tensorrt)"), (True, "{} with TF32 in PanRT (tensorrt)")]
)
def test_a_comparison_says_that_an_engine_rounds_to_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tf32: bool, name: str
) -> None:
    file = plan_file(options=plans.BuildOptions(tf32=tf32))
    plan = tmp_path / "street.plan"
    plans.sidecar(plan).write_text(plans.dumps(file))
    verify = importlib.import_module("panrt.cli.verify")
    monkeypatch.setattr(verify, "_open", lambda *_: SimpleNamespace(backend="tensorrt", model=file.model))
    assert verify._runner(str(plan), file.model, None).name == name.format(plan)
