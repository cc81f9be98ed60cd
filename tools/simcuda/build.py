"""Build the simulated driver, and start processes that load it in place of NVIDIA's.

Only a process that this module started sees the simulation: tests that need it live in `inside/`, and `test_inside.py`
runs them from without. By hand, with pytest's arguments:  python -m tools.simcuda.build -x inside/test_driver.py
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.simcuda.exports import exports

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PARTS = ("simcuda", "driver", "work", "contexts", "streams", "graphs", "memory", "copies", "launches")  # of the driver
SOURCES = (
    *(f"{part}.cpp" for part in PARTS),
    "driver.h",
    "entry_points.h",
    "simcuda.h",
    "facts.h",
    "kernels.cpp",
    "exports.py",
)
USUAL_FACTS = HERE / "facts" / "rtx4090.json"  # where SIMCUDA_FACTS names no other file
COMPILER = os.environ.get("CXX", "g++")


def cuda_headers() -> Path:
    """The folder of cuda.h: of a toolkit, or of the nvidia-cuda-runtime wheel."""
    roots = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    candidates = [Path(root) / "include" for root in (*roots, "/usr/local/cuda")]
    wheels = importlib.util.find_spec("nvidia")
    for folder in wheels.submodule_search_locations or () if wheels else ():
        candidates += sorted(Path(folder).glob("*/include"))
    for candidate in candidates:
        if (candidate / "cuda.h").is_file():
            return candidate
    raise FileNotFoundError(f"cuda.h: not in {', '.join(map(str, candidates))}; set CUDA_HOME.")


def build() -> Path:
    """The folder with libcuda.so.1 and libkernels.so, built where their sources changed."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()[:16]
    folder = ROOT / "build" / "simcuda" / digest
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            headers = cuda_headers()
            symbols = folder / "symbols.cpp"
            symbols.write_text(exports(headers))
            usual = f'-DSIMCUDA_USUAL_FACTS="{USUAL_FACTS}"'
            sources = [*(HERE / f"{part}.cpp" for part in PARTS), symbols]
            _compile(sources, folder / "libcuda.so.1", "-isystem", str(headers), usual)
            _compile([HERE / "kernels.cpp"], folder / "libkernels.so")
            (folder / "done").touch()
    return folder


def _compile(sources: Sequence[Path], library: Path, *options: str) -> None:
    flags = ["-std=c++17", "-O2", "-g1", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"]
    command = [COMPILER, *flags, *options, f"-Wl,-soname,{library.name}", *map(str, sources)]
    subprocess.run([*command, "-o", str(library), "-ldl"], check=True)


def run(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python arguments` in the root of the repository, with the simulation as its driver."""
    folder = build()
    env = os.environ | environment
    env |= {
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(folder), env.get("LD_LIBRARY_PATH")))),
        "SIMCUDA_KERNELS": str(folder / "libkernels.so"),
        "PANRT_SIMCUDA": str(folder / "libcuda.so.1"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=env, check=False, text=True, capture_output=True, timeout=900
    )


if __name__ == "__main__":
    result = run(["-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *sys.argv[1:]])
    print(result.stdout, result.stderr, sep="\n")
    raise SystemExit(result.returncode)
