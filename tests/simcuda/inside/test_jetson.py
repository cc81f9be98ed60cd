"""A Jetson with JetPack 6, rehearsed: its user's commands on a simulated Orin, from `panrt doctor` to camera frames.

Real are PanRT, its kernels (on the host), the parsing and the network (on the CPU). Simulated are the driver, with the
Orin's attributes and CUDA 12.6, and TensorRT, which has 10.3's Python interface and no later member. Python, NumPy and
cuda-bindings are those of the environment; `make test-jetpack6` makes one with JetPack 6's. `differences` says what is
not the board's, and the test prints it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import panrt
from panrt.cli import app
from panrt.engine import bundled, doctor
from panrt.formats import plan_file
from panrt.gpu import device as machine
from panrt.plugins import library
from panrt.plugins.library import PluginLibrary
from tools.simcuda import fake_builder, fake_tensorrt

KERNELS = Path(os.environ["PANRT_TEST_KERNELS"])
PLUGINS = PluginLibrary(KERNELS, "1" * 64, "2" * 64, "10.3.0", ("87",))
SOURCE = os.environ.get("PANRT_TEST_SOURCE", "demo://tabletop")
FRAMES = 3
GIB = 1 << 30
MEMORY = f"MemTotal: 7772616 kB\nMemFree: 262144 kB\nMemAvailable: {5 * GIB // 1024} kB\nCached: 5242880 kB\n"
BOARD = {"Python": "3.10", "NumPy": "1.26", "cuda-bindings": "12"}


def differences() -> list[str]:
    """What this rehearsal has that the board has not."""
    found = {"Python": platform.python_version(), "NumPy": np.__version__, "cuda-bindings": version("cuda-bindings")}
    said = [
        f"{name} {found[name]} in place of {wanted}"
        for name, wanted in BOARD.items()
        if not found[name].startswith(f"{wanted}.")
    ]
    return said if SOURCE == "csi://0" else [*said, f"{SOURCE} in place of csi://0"]


@pytest.fixture
def jetson(gpu: ModuleType, kernels: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make this process one on a Jetson Orin Nano with JetPack 6.2."""
    gpu.use_facts("orin_jetpack6")
    gpu.set_memory(8 * GIB)
    files = {
        "release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n",
        "memory": MEMORY,
        "board": "Orin\0",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(machine, "JETSON_RELEASE", tmp_path / "release")
    monkeypatch.setattr(machine, "MEMORY", tmp_path / "memory")
    monkeypatch.setattr(doctor, "_BOARD", tmp_path / "board")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fake_builder, "built", [])
    monkeypatch.setattr(fake_tensorrt.registry, "loaded", [])
    monkeypatch.setitem(sys.modules, "tensorrt", fake_builder.tensorrt(tmp_path))
    monkeypatch.setattr(library, "find", lambda: PLUGINS)
    monkeypatch.setattr(library, "refusals", lambda _: nullcontext([]))  # the kernels have no plugins around them
    monkeypatch.setattr(library, "_loaded", [])


def exported(path: Path) -> Path:
    """The demo model as `panrt export tabletop --precision fp16 --target tensorrt-10.3` writes it, without PyTorch.

    None of its operators changed from opset 20 to 21.
    """
    model = onnx.load(bundled.locate("tabletop"))
    del model.functions[:]
    next(entry for entry in model.opset_import if entry.domain == "").version = 20
    (metadata,) = model.metadata_props
    metadata.value = json.dumps({**json.loads(metadata.value), "opset": 20, "target": "tensorrt-10.3"})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def run() -> Callable[..., dict[str, Any]]:
    """Run a command of panrt, and give what it says as JSON."""

    def command(*arguments: object) -> dict[str, Any]:
        ended = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        said: dict[str, Any] = json.loads(ended.stdout)
        return said

    return command


@pytest.mark.usefixtures("jetson")
def test_jetpack_6_from_the_doctor_to_frames_of_its_camera(
    run: Callable[..., dict[str, Any]], gpu: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    print("differs from the board:", "; ".join(differences()) or "nothing")
    caplog.set_level(logging.INFO, logger="panrt")

    found = {finding["part"]: finding for finding in run("doctor")["findings"]}
    assert "JetPack 6 (Jetson Linux 36.4.3)" in found["Jetson"]["found"]
    assert found["GPU"]["found"] == "Orin (sm_87, shares the host's memory); driver for CUDA 12.6"
    assert (found["TensorRT"]["state"], found["TensorRT"]["found"]) == ("ok", "10.3.0")
    assert found["plugin library"]["state"] == "ok"
    if version("cuda-bindings").startswith("12."):
        assert found["cuda-python"]["state"] == "ok"
    else:
        assert "for a newer driver than this one for CUDA 12.6" in found["cuda-python"]["found"]
        assert found["cuda-python"]["advice"] == "pip install 'panrt[jetpack6]'"

    onnx_file, plan = exported(tmp_path / "tabletop.onnx"), tmp_path / "tabletop.plan"
    built = run("build", onnx_file, "-o", plan)
    assert (built["tensorrt"], built["gpu"], built["precisions"]["plugins"]) == ("10.3.0", "Orin", 5)
    (config,) = fake_builder.built
    assert config.flags == set()  # TF32 is on unless it is turned off
    assert config.max_aux_streams == 0
    assert built["workspace_bytes"] == config.pools[fake_builder.MemoryPoolType.WORKSPACE]
    assert 3 * GIB < built["workspace_bytes"] <= 4 * GIB  # of the 5 GiB that Linux has; it leaves 256 MiB idle
    sidecar = plan_file.read(plan)
    assert (sidecar.compute_capability, sidecar.driver) == ("8.7", "12.6")

    gpu.take_log()
    results = tmp_path / "results.jsonl"
    said = run("run", SOURCE, "--model", plan, "--pixel-format", "nv12", "--frames", FRAMES, "--sink", results)
    assert said["results"] == FRAMES
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(lines) == FRAMES
    assert not [message for message in caplog.messages if "without CUDA graphs" in message]
    assert gpu.count_calls()["cuGraphLaunch"] >= FRAMES


@pytest.mark.usefixtures("jetson")
def test_what_the_engine_finds_is_what_the_cpu_finds(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    onnx_file, plan = exported(tmp_path / "tabletop.onnx"), tmp_path / "tabletop.plan"
    run("build", onnx_file, "-o", plan)
    image = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    with panrt.load(plan) as engine, panrt.load(onnx_file, backend="cpu", threads=1) as cpu:
        assert engine.backend == "tensorrt"
        np.testing.assert_array_equal(engine(image).panoptic, cpu(image).panoptic)


@pytest.mark.usefixtures("jetson")
def test_an_engine_built_while_memory_was_short_is_built_again(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    onnx_file, plan = exported(tmp_path / "tabletop.onnx"), tmp_path / "tabletop.plan"

    def build_with(available: int) -> tuple[bool, int]:
        """Whether the cache had it, and its workspace, with so many bytes available."""
        machine.MEMORY.write_text(f"MemAvailable: {available // 1024} kB\n")
        built = run("build", onnx_file, "-o", plan)
        assert plan_file.read(plan).workspace_bytes == built["workspace_bytes"]
        return built["from_cache"], built["workspace_bytes"]

    assert build_with(2 * GIB) == (False, 6 * GIB // 4)
    assert build_with(GIB) == (True, 6 * GIB // 4)
    from_cache, workspace = build_with(7 * GIB)
    assert (from_cache, workspace > 3 * GIB) == (False, True)
    assert build_with(6 * GIB) == (True, workspace)
