"""A bundle contains what the GPU suite needs and is independent of the checkout that it was packed from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_bundle
from tools.gpu import expected
from tools.plugin_library import plugin_library

# Imports what the phases do; without site, or an editable install would give the checkout's modules.
USE = """
import importlib, pathlib, sys
here = pathlib.Path.cwd()
sys.path[:0] = [str(here / "python"), str(here)]
from tools.gpu import absent
from tools.gpu.phases import PHASES
for name in ("av", "cv2", "onnx", "onnxruntime", "safetensors", "torch", "typer"):
    sys.modules[name] = None  # does not import
print(*absent.stand_in())
for phase in PHASES:
    importlib.import_module(phase.module)
for name in ("panrt.plugins.reference", "tools.gpu.phases", "tools.kernel_workloads", "tools.cuda_ops"):
    assert pathlib.Path(importlib.import_module(name).__file__).is_relative_to(here), name
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a plugin library without kernels, whose place in the folder is the same."""
    out = tmp_path_factory.mktemp("bundle") / "gpu"
    size = gpu_bundle.pack(out, plugins=plugin_library("off").path, frames=1)
    assert size < gpu_bundle.MAX_BYTES - 25_000_000  # room for the kernels and the other 63 frames
    return out


def test_a_bundle_runs_without_its_checkout(bundle: Path) -> None:
    """With NumPy and cuda-bindings alone: their folders are all that it is given."""
    site = str(Path(np.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({site!r})\n{USE}"],
        cwd=bundle,
        check=False,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cv2"]  # the CPU kernels of this Python came along


def test_a_bundle_expects_what_the_network_gives_here(bundle: Path) -> None:
    found = expected.read(str(bundle / "expected.npz"))
    assert found.images.shape == (1, 256, 320, 3)
    assert found.panoptic.shape == found.truth.shape == (1, 256, 320)
    ids = {row[0] for row in found.segments[0]}
    assert ids == set(np.unique(found.panoptic).tolist()) - {0}
    assert {row[0] for row in found.truth_segments[0]} <= set(np.unique(found.truth).tolist())


def test_run_sh_says_what_is_wrong_with_the_machine(bundle: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([bundle / "run.sh"], env=environment, check=False, text=True, capture_output=True)
    assert done.returncode == 2
    assert "lib/libpanrt_plugins.so: has no CUDA kernels" in done.stderr


def test_a_bundle_brings_the_packages_that_the_kernel_tests_need(bundle: Path) -> None:
    tried = "import pytest, hypothesis; print(pytest.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append('packages'); {tried}"],
        cwd=bundle,
        check=False,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert "packages" in done.stdout


def test_a_bundle_overwrites_nothing(bundle: Path) -> None:
    with pytest.raises(gpu_bundle.BundleError, match="exists"):
        gpu_bundle.pack(bundle, plugins=Path("unused"))


def test_a_bundle_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_bundle, "MAX_BYTES", 1_000_000)
    with pytest.raises(gpu_bundle.BundleError, match="allowed 1 MB"):
        gpu_bundle.pack(tmp_path / "gpu", plugins=plugin_library("off").path, frames=1)
