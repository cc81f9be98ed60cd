"""Pack what a machine with a GPU and no network needs to run tools/gpu into one folder.

    python -m benchmarks.gpu_bundle OUT        then, on that machine:  OUT/run.sh

The machine needs Python 3.10 or newer with NumPy and cuda-bindings; PyTorch, CuPy, TensorRT, OpenCV, compute-sanitizer
and ncu are used if they are found. The folder holds the plugin library for the GPUs of ARCHITECTURES, the tests and
all that they import, the model, and what the network gives for the evaluation frames on this machine's CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import stat
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from panrt.plugins import library
from tools.gpu import expected, plugin_calls

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = ("80", "86", "87", "89", "90")
MAX_BYTES = 60_000_000
FRAMES = 64
TREE = (
    "benchmarks", "docs", "engine", "export", "model", "plugins", "python", "tests", "tools", "CMakeLists.txt",
    "LICENSE", "Makefile", "NOTICE", "README.md", "pyproject.toml",
)  # fmt: skip
# Data of other tests, the evaluation set, which `expected.npz` holds, and the exported model.
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "*.pyc", "*.so", "*.webp", "fuzz", "sanitize", "clip.mp4", "clip_ids.npz", "eval", "r50_*.npz",
    "r101_*.npz", "tabletop.onnx",
)  # fmt: skip
# For the kernel tests, where the machine lacks them: hypothesis is compiled, so they serve the Python that packs alone.
PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "Pygments", "hypothesis", "sortedcontainers")
PACKAGES_OF_OLD_PYTHON = ("exceptiongroup", "tomli", "typing_extensions")

RUN = """#!/bin/sh
# Runs PanRT's suite for the first hour on a GPU; arguments go to it, such as --seconds 600 or --phases 0,1.
# Send out/ back: summary.md, checks.jsonl, facts.json, measured.json and the logs.
cd "$(dirname "$0")" || exit 2
export PANRT_PLUGINS="$PWD/lib/libpanrt_plugins.so"
export PYTHONPATH="$PWD/python:$PWD:$PYTHONPATH"
export PYTHONDONTWRITEBYTECODE=1
python="${PYTHON:-python3}"
# Packages that this Python has come first; those of the bundle stand in for what it lacks.
for package in pytest hypothesis; do
  "$python" -c "import $package" 2>/dev/null || { export PYTHONPATH="$PYTHONPATH:$PWD/packages"; break; }
done
exec "$python" -m tools.gpu.first_day --expected "$PWD/expected.npz" --out "$PWD/out" "$@"
"""


class BundleError(RuntimeError):
    """A bundle cannot be packed."""


def pack(out: Path, *, plugins: Path, frames: int = FRAMES) -> int:
    """Fill a new folder; return its size in bytes.

    Args:
        out: the folder.
        plugins: the plugin library to take along.
        frames: of the evaluation set, to expect maps of.

    Raises:
        BundleError: the folder exists, or what it would hold is too large.
    """
    if out.exists():
        raise BundleError(f"{out}: exists; choose another folder, or remove it.")
    out.mkdir(parents=True)
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, out / name, symlinks=True, ignore=LEFT_OUT)
        else:
            shutil.copy2(source, out / name)
    (out / "lib").mkdir()
    shutil.copy2(plugins, out / "lib" / library.NAME)
    calls = plugin_calls.build()
    (out / "build" / "gpu").mkdir(parents=True)
    for path in (calls, calls.with_suffix(".sha256")):
        shutil.copy2(path, out / "build" / "gpu" / path.name)
    _copy_native(out / "plugins")
    for package in PACKAGES:
        _copy_package(package, out / "packages")
    for package in PACKAGES_OF_OLD_PYTHON:
        _copy_package(package, out / "packages", required=False)
    expected.write(out / "expected.npz", frames)
    (out / "run.sh").write_text(RUN)
    (out / "run.sh").chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file() and not path.is_symlink())
    if size > MAX_BYTES:
        raise BundleError(f"{out}: takes {size / 1e6:.1f} MB, allowed {MAX_BYTES / 1e6:.0f} MB; what is new in it?")
    return size


def _copy_native(folder: Path) -> None:
    """The CPU kernels, for a machine with the same Python; another one takes the reference."""
    spec = importlib.util.find_spec("panrt.plugins._native")
    assert spec is not None
    assert spec.origin is not None
    compiled = Path(spec.origin)
    shutil.copy2(compiled, folder / compiled.name)


def _copy_package(name: str, folder: Path, *, required: bool = True) -> None:
    """Copy an installed package.

    Raises:
        BundleError: it is not installed.
    """
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        if required:
            raise BundleError(f"{name}: not installed here; pip install {name}.") from None
        return
    for file in files:
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(str(file.locate())), target)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the library and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--plugins", type=Path, help="plugin library to take; default: one is built, in minutes")
    chosen = parser.parse_args(arguments)
    plugins = (
        chosen.plugins
        or library.build(
            output=ROOT / "build" / "gpu_bundle" / library.NAME,
            kernels="on",
            architectures=ARCHITECTURES,
            fetch_headers=True,
        ).path
    )
    try:
        size = pack(chosen.out, plugins=plugins)
    except BundleError as error:
        parser.error(str(error))
    print(f"packed {chosen.out}, {size / 1e6:.1f} MB; on the machine with the GPU:  {chosen.out.name}/run.sh")


if __name__ == "__main__":
    main()
