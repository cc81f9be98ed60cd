"""The kernels as nvcc sees them: no warning, no spill, no local memory, on every architecture that PanRT supports.

And what it makes of them in PTX: which kernels there are, and how blocks hand over.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tools.hostcuda import Out, SimulatedGpu, kernels

ROOT = Path(__file__).resolve().parents[3]
CUDA = ROOT / "plugins" / "cuda"
ALL_ARCHITECTURES = [75, 80, 86, 87, 89, 90, 100, 110, 120]
FULL = os.environ.get("PANRT_TEST_PROFILE") == "full"
ARCHITECTURES = ALL_ARCHITECTURES if FULL else [100]  # which takes the most registers
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-Xptxas", "-v", "-Xcompiler", "-Wall", "-Werror", "all-warnings"]
INCLUDE = [f"-I{path}" for path in (CUDA, CUDA / "include", ROOT / "plugins" / "include")]
SOURCES = sorted(path.name for path in CUDA.glob("*.cu"))
FUNCTION = re.compile(
    r"Function properties for (\S+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill"
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES)
def test_no_kernel_spills_registers_or_keeps_locals_in_memory(source: str, architecture: int, tmp_path: Path) -> None:
    command: list[str | Path] = [
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
    assert functions or "__global__" not in (CUDA / source).read_text(), done.stderr
    for name, *sizes in functions:
        assert sizes == ["0", "0", "0"], f"{name} on sm_{architecture}: stack, spill stores and loads of {sizes} bytes"


@pytest.fixture(scope="module")
def ptx(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PTX of each file, for the oldest architecture."""
    folder = tmp_path_factory.mktemp("ptx")
    for source in SOURCES:
        flags = ["-std=c++17", "--fmad=false", "-arch=compute_75", *INCLUDE, "-ptx"]
        subprocess.run(["nvcc", *flags, "-o", str(folder / source), str(CUDA / source)], check=True)
    return {source: (folder / source).read_text() for source in SOURCES}


def test_preparing_loads_every_kernel_there_is(ptx: dict[str, str]) -> None:
    gpu = SimulatedGpu(kernels("plain"))
    gpu.prepare()
    loaded, _ = gpu.call("hc_loaded", Out((1,), np.int32), Out((1,), np.int32))
    gpu.close()
    assert loaded[0] == sum(text.count(".entry ") for text in ptx.values())


def test_blocks_hand_over_by_release_and_acquire_alone(ptx: dict[str, str]) -> None:
    for source, text in ptx.items():
        assert not re.search(r"\b(membar|fence|ld\.volatile|st\.volatile)\b", text), source
        words = {word for word in (".release.", ".acquire.", "nanosleep") if word in text}
        assert len(words) == (3 if source == "merge_resolve.cu" else 0), source
    assert len(re.findall(r"atom\.add\.release\.gpu|red\.release\.gpu", ptx["merge_resolve.cu"])) == 4  # per variant
    assert "ld.acquire.gpu" in ptx["merge_resolve.cu"]
