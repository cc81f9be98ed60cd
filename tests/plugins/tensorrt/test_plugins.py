"""The TensorRT plugin classes, asked by a stand-in for TensorRT in C++ (driver.cpp); and the library as a file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools import plugin_library
from tools.plugin_library import Kernels

TESTS = re.findall(r"^    TEST\((\w+)\),$", Path(__file__).with_name("driver.cpp").read_text(), re.MULTILINE)


@pytest.fixture(scope="module", params=["auto", "off"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """The library as a GPU runs it, and as a machine without nvcc builds it."""
    value: Kernels = request.param
    return value


@pytest.fixture(scope="module")
def driver(kernels: Kernels) -> Path:
    return plugin_library.driver(kernels)


def test_the_driver_has_the_tests_that_are_run(driver: Path) -> None:
    done = subprocess.run([driver, "-", "--list"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == TESTS
    assert len(TESTS) >= 18


@pytest.mark.parametrize("name", TESTS)
def test_plugins_behave_as_tensorrt_expects(driver: Path, kernels: Kernels, name: str) -> None:
    library = plugin_library.plugin_library(kernels).path
    done = subprocess.run([driver, library, name], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{name}:\n{done.stdout}{done.stderr}"
    assert done.stderr == ""


def test_no_sanitizer_finds_anything() -> None:
    library, driver = plugin_library.sanitized()
    for name in TESTS:
        done = subprocess.run([driver, library, name], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), f"{name}:\n{done.stdout}{done.stderr}"


def test_the_library_links_no_tensorrt_and_exports_its_entry_points_alone(kernels: Kernels) -> None:
    library = plugin_library.plugin_library(kernels)
    needed = re.findall(r"NEEDED.*\[(.*)\]", _read("readelf", "-d", library.path))
    assert needed
    assert not [name for name in needed if "nvinfer" in name or "tensorrt" in name or "cuda" in name]
    exported = {line.split()[-1] for line in _read("nm", "-D", "--defined-only", library.path).splitlines()}
    assert exported >= {"getCreators", "setLoggerFinder"}
    others = exported - {"getCreators", "setLoggerFinder"}
    assert not [name for name in others if not name.startswith("panrt_")], exported
    undefined = {line.split()[-1] for line in _read("nm", "-D", "--undefined-only", library.path).splitlines()}
    assert not [name for name in undefined if "nvinfer" in name or "getPluginRegistry" in name or "getLogger" in name]


def test_the_library_takes_a_megabyte_an_architecture_at_most() -> None:
    """It may have 20 for all nine and PTX, which the full profile builds. nvcc compresses kernels from CUDA 13 on."""
    library = plugin_library.plugin_library("auto")
    assert library.path.stat().st_size <= 1_000_000 * max(1, len(library.cuda_architectures))


def test_kernels_round_after_every_operation() -> None:
    library = plugin_library.plugin_library("auto")
    database = library.path.parent / "libpanrt_plugins-build" / "compile_commands.json"
    kernels = [entry for entry in json.loads(database.read_text()) if entry["file"].endswith(".cu")]
    assert bool(kernels) == bool(library.cuda_architectures)
    assert all("--fmad=false" in entry["command"].split() for entry in kernels)
    assert not [entry for entry in kernels if "fast" in entry["command"]]


def _read(*command: str | Path) -> str:
    assert shutil.which(str(command[0])) is not None, f"{command[0]} is part of binutils, which the compiler needs too"
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
