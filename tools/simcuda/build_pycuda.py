"""Build PyCUDA for the tests on the simulated driver: from PyPI, once, in three to five minutes.

It gets an environment of its own under build/, with CUDA's headers and cuRAND from NVIDIA's wheels, and is linked with
the simulated libcuda. By hand:  make test-pycuda
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

from tools.simcuda import build

PYCUDA = "pycuda==2026.1"
HEADERS = (
    "nvidia-cuda-cccl==13.*",
    "nvidia-cuda-crt==13.*",
    "nvidia-cuda-profiler-api==13.*",
    "nvidia-cuda-runtime==13.*",
    "nvidia-curand==10.*",
)
FOLDER = build.ROOT / "build" / "pycuda" / f"{PYCUDA}-python{sys.version_info.major}.{sys.version_info.minor}"
SITE = FOLDER / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
CUDA = SITE / "nvidia" / "cu13"
DONE = FOLDER / "done"


def environment() -> dict[str, str] | None:
    """Variables with which a process of the tests finds PyCUDA; None if it is neither installed nor built."""
    if importlib.util.find_spec("pycuda") is not None:
        return {}
    if not DONE.exists():
        return None
    return {"PYTHONPATH": _first(SITE, "PYTHONPATH"), "LD_LIBRARY_PATH": _first(CUDA / "lib", "LD_LIBRARY_PATH")}


def make() -> None:
    """Build PyCUDA, unless it was built before."""
    if DONE.exists():
        return
    venv.create(FOLDER, with_pip=True, clear=True)
    _pip(*HEADERS)
    linked = FOLDER / "linked"
    linked.mkdir()
    (linked / "libcuda.so").symlink_to(build.build() / "libcuda.so.1")
    (linked / "libcurand.so").symlink_to(next((CUDA / "lib").glob("libcurand.so.*")))
    _pip(
        "--no-cache-dir",  # a wheel there may be linked with something else
        PYCUDA,
        CUDA_ROOT=str(CUDA),
        CPATH=os.pathsep.join((str(CUDA / "include" / "cccl"), _first(CUDA / "include", "CPATH"))),
        LIBRARY_PATH=_first(linked, "LIBRARY_PATH"),
    )
    DONE.touch()


def _pip(*arguments: str, **variables: str) -> None:
    command = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--quiet", *arguments]
    subprocess.run(command, check=True, env=os.environ | variables)


def _first(folder: Path, variable: str) -> str:
    return os.pathsep.join(filter(None, (str(folder), os.environ.get(variable))))


if __name__ == "__main__":
    make()
    print(f"PyCUDA: {SITE}")
