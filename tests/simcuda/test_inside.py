"""What runs on the simulated driver runs, each module in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from simcuda import build
from support import hostcuda
from support.networks import exported

MODULES = sorted(path.name for path in (build.HERE / "inside").glob("test_*.py"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported out here: what exports loads PyTorch, which may look for a GPU."""
    return exported(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.mark.parametrize("module", MODULES)
def test_everything_inside_passes(module: str, model: Path) -> None:
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/simcuda/inside/{module}"]
    result = build.run(arguments, PANRT_TEST_MODEL=str(model), PANRT_TEST_KERNELS=str(hostcuda.kernels("plain")))
    assert result.returncode == 0, f"{result.stdout[-8000:]}\n{result.stderr[-2000:]}"
