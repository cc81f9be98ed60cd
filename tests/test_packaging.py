"""The sdist and the wheel that users install: their contents, and that the wheel works without the source tree."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np

import panrt

ROOT = Path(__file__).parents[1]

USE = """
import sys
installed, site_packages = sys.argv[1:]
sys.path[:0] = [installed]
sys.path.append(site_packages)
import numpy as np
import panrt
from panrt.plugins import native
assert panrt.__file__.startswith(installed) and native._native.__file__.startswith(installed), panrt.__file__
ramp = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
rois = np.array([[[1, 1, 3, 3]]], np.float32)
pooled = native.pyramid_roi_align([ramp], rois, strides=[1], output_size=1, sampling_ratio=0)
print(panrt.__version__, pooled.item())
"""


def test_oldest_versions_are_the_floors_of_pyproject() -> None:
    """`make test-oldest` then tries what the project says it works with."""
    pinned = dict(re.findall(r"(?m)^([\w-]+)==([\d.]+)$", (ROOT / "tests/oldest.txt").read_text()))
    floors: dict[str, set[tuple[int, ...]]] = {}
    for name, floor in re.findall(r'"([\w-]+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text()):
        floors.setdefault(name, set()).add(version(floor))
    # PyTorch is the oracle of the tests and pinned to one version; the others are not needed to run them.
    others = {"torch", "tensorrt", "tensorrt-rtx-cu13", "jetson-stats", "nvidia-ml-py", "pycuda", "supervision"}
    others |= {name for name in floors if name.startswith("nvidia-cuda-")}
    assert pinned.keys() == floors.keys() - others
    for name, found in pinned.items():
        highest = max(floors[name])  # of several extras the most demanding counts
        assert version(found)[: len(highest)] == highest, name


def version(text: str) -> tuple[int, ...]:
    """(1, 24) of 1.24.0: zeros at the end say nothing."""
    return tuple(int(part) for part in re.sub(r"(\.0)+$", "", text).split("."))


def build_distributions(folder: Path) -> tuple[Path, Path]:
    """The sdist of the tracked files alone, in a folder of their own, and the wheel that is built from that sdist."""
    source, out = folder / "source", folder / "distributions"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.rstrip("\0").split("\0"):
        if not (ROOT / name).exists():  # deleted, not committed yet
            continue
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            copy.symlink_to((ROOT / name).readlink())
        else:
            copy.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def assert_small_with_weights_once(distribution: Path, largest: float, sizes: dict[str, int]) -> None:
    """The bundled model is there as ONNX alone, and the whole is at most `largest` bytes."""
    assert [Path(name).name for name, size in sizes.items() if size > 1e6] == ["tabletop.onnx"]
    assert distribution.stat().st_size <= largest


def assert_only_the_package(wheel: Path) -> None:
    """The wheel has every part of the package, its licence, and nothing for developers alone."""
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "panrt/__init__.py",
        "panrt/py.typed",
        "panrt/errors.py",
        "panrt/cli/__init__.py",
        "panrt/model/__init__.py",
        "panrt/export/__init__.py",
        "panrt/engine/__init__.py",
        "panrt/data/tabletop/clip.mp4",
        "panrt/plugins/__init__.py",
        "panrt/plugins/contract.py",
        "panrt/plugins/reference.py",
        "panrt/plugins/native.py",
        "panrt/plugins/_native.pyi",
        "panrt/plugins/CMakeLists.txt",
        "panrt/plugins/defaults.cmake",
        "panrt/plugins/cuda/panoptic_merge.cu",
        "panrt/plugins/include/panrt/boxes.h",
        "panrt/plugins/tensorrt/library.cpp",
    ):
        assert wanted in names
    assert len([name for name in names if name.startswith("panrt/plugins/_native.") and name.endswith(".so")]) == 1
    info = [name for name in names if ".dist-info/" in name]
    assert {Path(name).name for name in info} >= {"METADATA", "WHEEL", "RECORD", "LICENSE", "NOTICE"}
    assert {name.split("/")[0] for name in names if name not in info} == {"panrt"}
    kinds = {Path(name).suffix for name in names if name not in info}
    sources = {".cmake", ".cpp", ".cu", ".h", ".map", ".txt"}
    assert kinds <= {".html", ".mp4", ".onnx", ".py", ".pyi", ".so", ".typed", *sources}, kinds
    assert not [name for name in names if name.startswith("panrt/plugins/cpu/")]
    assert not [name for name in names if "test" in name or "benchmarks" in name or "examples" in name]


def test_wheel_of_the_sdist_is_the_package_alone_and_runs_away_from_the_source_tree(tmp_path: Path) -> None:
    sdist, wheel = build_distributions(tmp_path)  # once: pytest-xdist would build them again for a second test
    with tarfile.open(sdist) as archive:
        assert_small_with_weights_once(sdist, 12e6, {member.name: member.size for member in archive})
    with zipfile.ZipFile(wheel) as packed:
        assert_small_with_weights_once(wheel, 10e6, {entry.filename: entry.file_size for entry in packed.infolist()})
    assert_only_the_package(wheel)
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    # Without site (-S), or the editable install of the tree would hook itself in; NumPy is then found by its folder.
    use = [sys.executable, "-I", "-S", "-c", USE, str(target), str(Path(np.__file__).parents[1])]
    done = subprocess.run(use, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [panrt.__version__, "9.0"]
