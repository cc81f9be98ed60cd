"""The tests on the simulated driver pass and together cover the GPU runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from panrt.export import to_onnx
from panrt.model import load
from tools import hostcuda
from tools.simcuda import build

INSIDE = Path(__file__).parent / "inside"
OF_THE_SIMULATION = ["test_cuda_core.py", "test_driver.py", "test_facts.py"]
WITH_PYCUDA = "test_pycuda.py"  # run by tests/simcuda/test_pycuda.py
JETSON = "test_jetson.py"  # run by the one of this name out here
ELSEWHERE = {*OF_THE_SIMULATION, WITH_PYCUDA, JETSON}
OF_THE_RUNTIME = sorted({path.name for path in INSIDE.glob("test_*.py")} - ELSEWHERE)
GPU_RUNTIME = [
    *("canvas", "driver", "engine", "inputs", "kernels", "opening", "plans", "profile", "recorded", "runtime_cache"),
    *("session", "slot"),
]
LEAST_BRANCH_COVERAGE = 95.0  # percent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in float32, exported out here: what exports loads PyTorch, which may look for a GPU."""
    path = tmp_path_factory.mktemp("model") / "tabletop.onnx"
    to_onnx(load("tabletop"), path, input_hw=(256, 320))
    return path


@pytest.mark.parametrize("module", OF_THE_SIMULATION)
def test_the_simulation_does_what_it_promises(module: str) -> None:
    passes(["-m", "pytest", str(INSIDE / module)])


def test_the_gpu_runtime_works_on_the_simulated_device_and_all_of_it_was_executed(model: Path, tmp_path: Path) -> None:
    data, report = tmp_path / "coverage", tmp_path / "coverage.json"
    included = ",".join(f"*/engine/backends/tensorrt/{name}.py" for name in GPU_RUNTIME)
    coverage = ["-m", "coverage", "run", "--branch", f"--data-file={data}", f"--include={included}"]
    passes(
        [*coverage, "-m", "pytest", *(str(INSIDE / module) for module in OF_THE_RUNTIME)],
        PANRT_TEST_MODEL=str(model),
        PANRT_TEST_KERNELS=str(hostcuda.kernels("plain")),
    )
    passes(["-m", "coverage", "json", "--quiet", f"--data-file={data}", "-o", str(report)])
    measured = json.loads(report.read_text())
    assert {Path(name).stem for name in measured["files"]} == set(GPU_RUNTIME)
    totals = measured["totals"]
    percent = 100 * totals["covered_branches"] / totals["num_branches"]
    missing = {name: file["missing_lines"] for name, file in measured["files"].items() if file["missing_lines"]}
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    print(f"coverage of the GPU runtime: {percent:.1f} % of branches, {lines:.1f} % of lines; not run: {missing}")
    assert percent >= LEAST_BRANCH_COVERAGE, missing


def passes(arguments: list[str], **environment: str) -> None:
    """A process on the simulated driver ends well."""
    options = ["-q", "-p", "no:cacheprovider"] if "pytest" in arguments else []
    result = build.run([*arguments, *options], **environment)
    assert result.returncode == 0, f"{result.stdout[-8000:]}\n{result.stderr[-2000:]}"
