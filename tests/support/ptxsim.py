"""CUDA kernels as nvcc compiles them, on the interpreter of tests/ptxsim, behind the same `SimulatedGpu`.

`kernels` compiles the unmodified plugins/cuda for the interpreter: host code by nvcc, device code as PTX that stays in
the library, the CUDA runtime replaced. `interpreter` is the machine alone, for PTX that a test has written.

    gpu = SimulatedGpu(kernels(), {"PTXSIM_COUNTS": "counts.json"})
    gpu.launch("panrt_cuda_overlay", Struct(OverlayArgs, ...), ("random", 7))
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PTXSIM = ROOT / "tests" / "ptxsim"
CUDA = ROOT / "plugins" / "cuda"
FOLDER = ROOT / "build" / "ptxsim"
KERNEL_INCLUDE = [CUDA, CUDA / "include", ROOT / "plugins" / "include"]
# As the plugin library has them; the PTX is for what both Jetson Orin and later GPUs take.
NVCC_FLAGS = [
    *("-std=c++17", "-O3", "--fmad=false", "-lineinfo"),
    *("-gencode", "arch=compute_87,code=compute_87", "--no-compress", "-cudart", "none", "-Xcompiler", "-fPIC"),
]
# Arithmetic is the GPU's: one rounding an operation.
CXX_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-Wall", "-Wextra"]


def has_nvcc() -> bool:
    """Whether kernels can be compiled here."""
    return shutil.which("nvcc") is not None


def interpreter() -> Path:
    """The machine and its interface as a shared library; it needs no CUDA toolkit."""
    sources = [path for path in sorted(PTXSIM.glob("*.cpp")) if path.name != "runtime.cpp"]
    return _linked("machine", [_machine_object(source) for source in sources])


def kernels() -> Path:
    """The library of all kernels in plugins/cuda, with their C interface."""
    return build("kernels", [*sorted(CUDA.glob("*.cu")), CUDA / "c_api.cpp"])


def build(name: str, sources: Sequence[Path], definitions: Sequence[str] = ()) -> Path:
    """A shared library of sources that nvcc compiles and the machine; what has been compiled already is reused."""
    flags = [*NVCC_FLAGS, *(f"-I{path}" for path in KERNEL_INCLUDE), *(f"-D{name}" for name in definitions)]
    objects = [_object(source, ["nvcc", *flags], KERNEL_INCLUDE) for source in sources]
    machine = [_machine_object(source) for source in sorted(PTXSIM.glob("*.cpp"))]
    return _linked(name, [*objects, *machine])


def _machine_object(source: Path) -> Path:
    if source.name == "runtime.cpp":  # nvcc knows where CUDA's headers are
        return _object(source, ["nvcc", "-std=c++17", "-O2", "-Xcompiler", "-fPIC,-Wall,-Wextra"], [PTXSIM])
    return _object(source, [_cxx(), *CXX_FLAGS], [PTXSIM])


def _linked(name: str, objects: Sequence[Path]) -> Path:
    digest = hashlib.sha256("".join(path.name for path in objects).encode()).hexdigest()[:16]
    return _once(FOLDER / f"{name}-ptxsim-{digest}.so", [_cxx(), "-shared", *map(str, objects)])


def _object(source: Path, command: list[str], include: Sequence[Path]) -> Path:
    digest = hashlib.sha256(repr(command).encode() + _headers(tuple(include)) + source.read_bytes()).hexdigest()[:16]
    return _once(FOLDER / f"{source.stem}-{digest}.o", [*command, "-c", str(source)])


@cache
def _headers(folders: tuple[Path, ...]) -> bytes:
    paths = [path for folder in folders for path in sorted(folder.rglob("*.h"))]
    return b"".join(path.name.encode() + path.read_bytes() for path in paths)


def _cxx() -> str:
    return os.environ.get("CXX", "g++")


def _once(target: Path, command: list[str]) -> Path:
    """Make what is not there yet."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / target.name
            done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, " ".join(command) + "\n" + done.stderr
            assert not done.stderr, done.stderr  # a warning
            made.replace(target)  # at once: another process may be waiting for the same name
    return target
