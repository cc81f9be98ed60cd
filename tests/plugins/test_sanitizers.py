"""The CPU kernels under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer.

A C++ driver (sanitize/driver.cpp) runs every kernel on ordinary and nasty inputs, and support/fuzz_native.py calls the
Python module with whatever a caller may pass; here both are built, into directories that are reused while they are
warm, and watched. To fuzz for longer: `make fuzz-native SECONDS=600`, which runs this file as a program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# This environment's cmake and ninja first.
TOOLS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])


SANITIZERS = {"address": "address,undefined", "thread": "thread"}
PLANTED = {"address": "heap-buffer-overflow", "thread": "data race"}
REPORTS = ("Sanitizer", "runtime error", "FAILED")


@pytest.fixture(scope="module", params=SANITIZERS)
def sanitizer(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def driver(sanitizer: str) -> Path:
    return built(ROOT / "build" / f"sanitize-{sanitizer}", sanitizer) / "panrt_kernel_driver"


def built(build: Path, sanitizer: str, *options: str) -> Path:
    environment = {**os.environ, "PATH": TOOLS}
    options = ("-G", "Ninja", f"-DPANRT_SANITIZE={SANITIZERS[sanitizer]}", *options)
    for command in (["-S", str(ROOT), "-B", str(build), *options], ["--build", str(build)]):
        done = subprocess.run(["cmake", *command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build


def python_module(sanitizer: str) -> Path:
    """panrt.plugins._native with a sanitizer in it."""
    build = ROOT / "build" / f"sanitize-{sanitizer}-python{sys.version_info[0]}{sys.version_info[1]}"
    built(build, sanitizer, "-DPANRT_PYTHON=ON", f"-DPython_EXECUTABLE={sys.executable}")
    (module,) = build.glob("_native*.so")
    return module


def fuzz(sanitizer: str, *options: str, limit: float = 300) -> subprocess.CompletedProcess[str]:
    """support/fuzz_native.py in a Python that has the sanitizer's library from its start, as a module needs it."""
    library = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer]
    compiler = os.environ.get("CXX", "c++")
    libraries = [  # C++'s too, whose exceptions the sanitizer looks for when it starts
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in (library, "libstdc++.so.6")
    ]
    environment = {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # Python leaves much to the end of the process
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "report_signal_unsafe=0",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONMALLOC": "malloc",
    }
    script = ROOT / "tests" / "support" / "fuzz_native.py"
    module = python_module(sanitizer)
    return run(sys.executable, script, "--module", module, *options, limit=limit, environment=environment)


def run(
    *command: str | Path, limit: float = 300, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit, env=env)
    if "unexpected memory mapping" in done.stderr:
        # ThreadSanitizer cannot place its shadow where the kernel randomises addresses by more than it knows.
        setarch = shutil.which("setarch")
        assert setarch is not None, "ThreadSanitizer needs setarch (util-linux) on this kernel:\n" + done.stderr
        command = (setarch, "-R", *command)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit, env=env)
    return done


def test_every_kernel_runs_without_a_report(driver: Path) -> None:
    done = run(driver)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(word in done.stderr for word in REPORTS), done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "parallel_for",
        "pool",
        "rpn_proposals",
        "pyramid_roi_align",
        "box_detections",
        "panoptic_merge",
        "overlay",
        "conv3x3",
        "look_up",
    ]


def test_a_planted_fault_is_reported(driver: Path, sanitizer: str) -> None:
    done = run(driver, "planted")
    assert done.returncode != 0
    assert PLANTED[sanitizer] in done.stderr


def test_the_python_module_takes_whatever_it_is_given_without_a_report(sanitizer: str, tmp_path: Path) -> None:
    assert f"__{sanitizer[0]}san".encode() in python_module(sanitizer).read_bytes()  # it is watched
    calls = {"address": "4000", "thread": "600"}[sanitizer]
    done = fuzz(sanitizer, "--seed", "1", "--calls", calls, "--last", str(tmp_path / "last"))
    assert done.returncode == 0, (tmp_path / "last").read_text() + done.stdout + done.stderr
    assert not any(word in done.stderr for word in REPORTS), done.stderr
    assert " ok " in done.stdout


if __name__ == "__main__":
    seconds = float(sys.argv[1])
    finished = fuzz("address", "--seconds", str(seconds), "--seed", sys.argv[2], limit=2 * seconds + 300)
    print(finished.stdout, finished.stderr, sep="\n")
    sys.exit(finished.returncode)
