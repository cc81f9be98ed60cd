"""ONNX files become engines: real builds by TensorRT for RTX, with our plugins, on the CPU.

Nothing runs an engine here. `data/engine_layers.json` is what TensorRT made of the demo network: rewrite it with
PANRT_REWRITE_GOLDEN=1 when the network or its export changes, and look at the difference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from panrt.export import to_onnx
from panrt.export.build import workspace_bytes
from panrt.export.tensorrt import WEIGHTED
from panrt.formats import plan_file
from panrt.formats.metadata import PRECISIONS, Precision
from panrt.formats.plan_file import BuildOptions, Process
from panrt.gpu.device import Gpu
from panrt.model import build
from panrt.plugins.schema import PLUGIN_VERSION
from support.engines import PLAIN, demo, layers, ours, panrt, tiny_model
from support.networks import HEIGHT, WIDTH, dynamic
from tools.plugin_library import plugin_library

RTX = ("--flavour", "rtx")
GOLDEN = Path(__file__).parents[1] / "data" / "engine_layers.json"
FULL = os.environ.get("PANRT_TEST_PROFILE") == "full"

_STOPPED = """
import os, signal, sys
from panrt.export import build_engine
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background hands down that it is ignored
phases = []
def show(phase, done, of):
    if not phases:
        os.kill(os.getpid(), signal.SIGINT)
    phases.append(phase)
try:
    build_engine(sys.argv[1], sys.argv[2], flavour="rtx", progress=show)
except KeyboardInterrupt:
    print("stopped in", phases[-1])
"""


def facts(path: Path, plan: Path, *options: object, cache: Path) -> dict[str, Any]:
    ended = panrt("build", path, "-o", plan, *RTX, "--json", *options, cache=cache)
    assert ended.code == 0, ended
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def fail(*arguments: object, cache: Path, **environment: str) -> str:
    ended = panrt("build", *arguments, cache=cache, **environment)
    assert ended.code == 2, ended
    assert ended.stdout == ""
    assert not list(cache.rglob("*.plan*")), "something was left behind"
    return ended.stderr


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "tiny.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_demo_network_builds_and_its_sidecar_fits_the_engine(precision: Precision, tmp_path: Path) -> None:
    plan = tmp_path / "lite.plan"
    found = facts(demo(precision), plan, "--no-cache", cache=tmp_path / "cache")
    file = plan_file.read(plan)
    assert file.model.precision == precision
    assert found["plan_sha256"] == file.plan_sha256 == plan_file.sha256_of(plan)
    assert file.precisions.plugins == 5  # proposals, two poolings, detections, merge
    assert getattr(file.precisions, precision) > 60
    library = plugin_library("auto")
    here = Process(
        "rtx", file.tensorrt, "NVIDIA RTX 4090", "8.9", PLUGIN_VERSION, library.sha256, library.sources_sha256
    )
    plan_file.check(plan, file, here)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lite.plan", "lite.plan.json"]


def test_the_demo_network_has_the_layers_that_it_always_had(tmp_path: Path) -> None:
    found = {}
    for precision in PRECISIONS:
        parsed = layers(demo(precision), cache=tmp_path)
        counts = Counter(f"{kind} {computes}" for _, kind, computes in parsed)
        decisive = [f"{node}  {computes}" for node, kind, computes in parsed if kind in (*WEIGHTED, "PLUGIN_V3")]
        found[precision] = {"counts": dict(sorted(counts.items())), "weights and plugins": decisive}
    if os.environ.get("PANRT_REWRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_a_second_build_gives_the_same_bytes_and_the_cache_gives_them_at_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    apart = facts(demo("fp32"), tmp_path / "a.plan", "--no-cache", cache=cache)
    assert not (cache / "panrt" / "engines").exists()
    kept = facts(demo("fp32"), tmp_path / "b.plan", cache=cache)
    again = facts(demo("fp32"), tmp_path / "c.plan", cache=cache)
    assert [found["from_cache"] for found in (apart, kept, again)] == [False, False, True]
    assert (
        apart["plan_sha256"] == kept["plan_sha256"] == again["plan_sha256"] == plan_file.sha256_of(tmp_path / "c.plan")
    )
    other = facts(demo("fp32"), tmp_path / "d.plan", "--compute-capability", "8.6", cache=cache)
    assert not other["from_cache"]
    assert plan_file.read(tmp_path / "d.plan").options.compute_capabilities == ("8.6",)


def test_without_the_plugin_library_nothing_is_built(tmp_path: Path) -> None:
    said = fail(saved(tiny_model(), tmp_path), "-o", tmp_path / "m.plan", *RTX, cache=tmp_path, PANRT_PLUGINS="")
    assert "the TensorRT plugins of this PanRT are not built; run  panrt plugins build" in said


def test_a_stopped_build_leaves_nothing_behind(tmp_path: Path) -> None:
    plan = tmp_path / "m.plan"
    command: list[str | Path] = [sys.executable, "-c", _STOPPED, demo("fp32"), plan]
    done = subprocess.run(command, env=ours(tmp_path), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done
    assert done.stdout.startswith("stopped in "), done
    assert "Building engine from subgraph" not in done.stdout  # the last phase, where nearly all of the time goes
    assert not list(tmp_path.rglob("*.plan*"))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """Files of at most a kilobyte stand for a disk without room."""
    path = saved(tiny_model(), tmp_path)
    limited: list[str | Path] = [
        "sh",
        "-c",
        'ulimit -f 2; exec "$@"',
        "sh",
        *PLAIN,
        "build",
        path,
        "-o",
        tmp_path / "m.plan",
        "--flavour",
        "rtx",
    ]
    done = subprocess.run(limited, env=ours(tmp_path), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done
    assert "ile too large" in done.stderr
    assert not list(tmp_path.rglob("*.plan*"))


def test_a_cache_that_cannot_be_written_to_costs_no_engine(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    ended = panrt("build", saved(tiny_model(), tmp_path), "-o", tmp_path / "m.plan", *RTX, cache=tmp_path / "cache")
    assert ended.code == 0, ended
    assert plan_file.read(tmp_path / "m.plan").flavour == "rtx"
    assert "Set XDG_CACHE_HOME to a folder that can be written to." in ended.stderr


def test_a_file_that_leaves_its_batch_open_is_refused(tmp_path: Path) -> None:
    path = saved(tiny_model(batch="n"), tmp_path)
    said = fail(path, "-o", tmp_path / "m.plan", *RTX, cache=tmp_path)
    assert "tiny.onnx: leaves its batch open (-1), and engines have one; export the model again, with --batch N" in said


def test_the_sidecar_says_how_float32_is_multiplied_and_on_how_many_streams(tmp_path: Path) -> None:
    """Real builds: TensorRT for RTX takes both settings."""
    path, plan = saved(tiny_model(), tmp_path), tmp_path / "m.plan"
    found = facts(path, plan, cache=tmp_path)
    assert (found["tf32"], found["aux_streams"], found["workspace_bytes"]) == (False, 0, 0)
    found = facts(path, plan, "--tf32", "--aux-streams", 2, cache=tmp_path)
    assert (found["tf32"], found["aux_streams"], found["from_cache"]) == (True, 2, False)
    options = plan_file.read(plan).options
    assert (options.tf32, options.aux_streams) == (True, 2)


GIB = 2**30


@pytest.mark.parametrize(
    ("total", "free", "asked", "workspace"),
    [
        (8 * GIB, 7 * GIB, 0, 4 * GIB),
        (8 * GIB, 5.1 * GIB, 0, 4 * GIB),  # more or less of it in use makes no other engine
        (8 * GIB, 2 * GIB, 0, 1.5 * GIB),  # 80 %, in steps
        (8 * GIB, 0.1 * GIB, 0, 0.25 * GIB),
        (8 * GIB, 0.1 * GIB, 3 * GIB, 3 * GIB),
    ],
)
def test_the_workspace_follows_from_the_gpu_unless_memory_is_short(
    total: int, free: float, asked: int, workspace: float
) -> None:
    gpu = Gpu("Orin (nvgpu)", "8.7", "12.6", True, total, int(free))
    assert workspace_bytes(BuildOptions(workspace_bytes=asked), gpu) == workspace
    assert workspace_bytes(BuildOptions(workspace_bytes=asked), None) == asked


def test_an_engine_of_an_open_file_is_that_of_the_static_export(tmp_path: Path) -> None:
    """The same layers, and so much the same that the cache has the engine of the one for the other."""
    static, cache = demo("fp32"), tmp_path / "cache"
    assert layers(dynamic(), HEIGHT, WIDTH, cache=cache) == layers(static, cache=cache)
    built = facts(dynamic(), tmp_path / "a.plan", "--height", HEIGHT, "--width", WIDTH, cache=cache)
    again = facts(static, tmp_path / "b.plan", cache=cache)
    assert [found["from_cache"] for found in (built, again)] == [False, True]
    assert built["plan_sha256"] == again["plan_sha256"]
    ours, theirs = (plan_file.read(tmp_path / name) for name in ("a.plan", "b.plan"))
    assert ours.model == theirs.model
    assert ours.model.input_hw == (HEIGHT, WIDTH)
    assert (ours.options.input_hw, theirs.options.input_hw) == ((HEIGHT, WIDTH), None)


def test_an_engine_has_one_size(tmp_path: Path) -> None:
    plan, given = tmp_path / "m.plan", (*RTX, "--height", 96, "--width")
    assert "leaves the size of its input open; choose" in fail(dynamic(), "-o", plan, *RTX, cache=tmp_path)
    assert "width: got 100, expected a multiple of 32" in fail(dynamic(), "-o", plan, *given, 100, cache=tmp_path)
    static = fail(demo("fp32"), "-o", plan, *given, 128, cache=tmp_path)
    assert "its input is 256x320 (height x width) and cannot be 96x128" in static
    assert "give both of --height and --width" in fail(dynamic(), "-o", plan, *given[:-1], cache=tmp_path)


def test_what_does_not_do_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    path = saved(tiny_model(), tmp_path)
    plan = tmp_path / "m.plan"
    assert "suffix '.engine', expected '.plan'" in fail(path, "-o", tmp_path / "m.engine", cache=tmp_path)
    assert "no such file" in fail(tmp_path / "no.onnx", "-o", plan, *RTX, cache=tmp_path)
    assert "version_compatible: TensorRT-RTX" in fail(path, "-o", plan, *RTX, "--version-compatible", cache=tmp_path)
    said = fail(path, "-o", plan, *RTX, "--compute-capability", "8.7", cache=tmp_path)
    assert "compute capability '8.7': TensorRT-RTX" in said
    assert "builds for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1" in said
    assert "No module named 'tensorrt'" in fail(path, "-o", plan, cache=tmp_path)
    assert "says fp16, but TensorRT finds no layer" in fail(
        saved(tiny_model(precision="fp16"), tmp_path), "-o", plan, *RTX, cache=tmp_path
    )
    path.write_bytes(path.read_bytes()[:-10])
    assert "cut off" in fail(path, "-o", plan, *RTX, cache=tmp_path)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_paper_s_network_builds_in_all_precisions(precision: Precision, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "r50.onnx"
    samples = [] if precision == "fp32" else [torch.randint(0, 256, (512, 1024, 3), dtype=torch.uint8).numpy()]
    to_onnx(build("panoptic_fpn_r50"), path, input_hw=(512, 1024), precision=precision, samples=samples)
    found = facts(path, tmp_path / "r50.plan", "--no-cache", cache=tmp_path / "cache")
    assert found["precisions"]["plugins"] == 5
    assert found["precisions"][precision] > 60
