"""The CPU kernels under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer.

A C++ driver (sanitize/driver.cpp) runs every kernel on ordinary and nasty inputs; here it is built, into a directory
that is reused while it is warm, and watched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
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
    build = ROOT / "build" / f"sanitize-{sanitizer}"
    environment = {**os.environ, "PATH": TOOLS}
    options = ["-G", "Ninja", f"-DPANRT_SANITIZE={SANITIZERS[sanitizer]}"]
    for command in (["-S", str(ROOT), "-B", str(build), *options], ["--build", str(build)]):
        done = subprocess.run(["cmake", *command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "panrt_kernel_driver"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        # ThreadSanitizer cannot place its shadow where the kernel randomises addresses by more than it knows.
        setarch = shutil.which("setarch")
        assert setarch is not None, "ThreadSanitizer needs setarch (util-linux) on this kernel:\n" + done.stderr
        done = subprocess.run([setarch, "-R", *command], capture_output=True, text=True, check=False, timeout=300)
    return done


def test_every_kernel_runs_without_a_report(driver: Path) -> None:
    done = run(driver)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(word in done.stderr for word in REPORTS), done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "parallel_for",
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
