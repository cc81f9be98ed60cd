"""The kernels as nvcc sees them: no warning, no spill, no local memory, on every architecture that PanRT supports."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CUDA = ROOT / "plugins" / "cuda"
ALL_ARCHITECTURES = [75, 80, 86, 87, 89, 90, 100, 110, 120]
FULL = os.environ.get("PANRT_TEST_PROFILE") == "full"
ARCHITECTURES = ALL_ARCHITECTURES if FULL else [100]  # which takes the most registers
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-Xptxas", "-v", "-Xcompiler", "-Wall", "-Werror", "all-warnings"]
INCLUDE = [f"-I{path}" for path in (CUDA, CUDA / "include", ROOT / "plugins" / "include")]
FUNCTION = re.compile(
    r"Function properties for (\S+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill"
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", sorted(path.name for path in CUDA.glob("*.cu")))
def test_no_kernel_spills_registers_or_keeps_locals_in_memory(source: str, architecture: int, tmp_path: Path) -> None:
    command = [
        "nvcc",
        *FLAGS,
        f"-arch=sm_{architecture}",
        *INCLUDE,
        "-cubin",
        "-o",
        str(tmp_path / "cubin"),
        CUDA / source,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    functions = FUNCTION.findall(done.stdout + done.stderr)
    assert functions, done.stderr
    for name, *sizes in functions:
        assert sizes == ["0", "0", "0"], f"{name} on sm_{architecture}: stack, spill stores and loads of {sizes} bytes"
