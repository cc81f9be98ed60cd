"""Phase 1: the tests of tests/plugins/cuda on the library under test; `kernel_plugin` says how."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

from tools.gpu.checks import Checks, MissingError
from tools.gpu.machine import ROOT, Machine

RESERVE = 0.15  # of the time, for what is running when it is up
SMALL = (  # of the tests, enough to touch each kernel
    "test_an_overlay_may_be_drawn_in_place or no_two_threads_race or narrow or test_proposals_take_five_launches or "
    "test_detections_take_two_launches or test_merging_takes_five_launches or merging_any_number_of_detections or "
    "test_pooling_races_nowhere or _refuse"
)


def run(checks: Checks, machine: Machine) -> None:
    """Write one record per test, and one for pytest itself."""
    with checks.check("pytest runs the kernel tests"):
        for name in ("pytest", "hypothesis"):
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise MissingError(f"{name} does not import ({error}); pip install {name}") from error
        command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider"]
        command += ["-p", "tools.gpu.kernel_plugin", "tests/plugins/cuda", "--ignore=tests/plugins/cuda/test_nvcc.py"]
        if machine.profile == "small":
            command += ["-k", SMALL]
        environment = {
            **os.environ,
            "PANRT_TEST_PROFILE": "gpu",
            "PANRT_GPU_MACHINE": machine.out,
            "PANRT_GPU_SECONDS": str((1 - RESERVE) * checks.seconds_left),
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False, text=True, capture_output=True)
        print(done.stdout, done.stderr, sep="\n")
        if done.returncode not in (0, 1):  # 1: tests failed, which have their own records
            last = (done.stdout + done.stderr).strip().splitlines()[-3:]
            raise RuntimeError(f"pytest ended with status {done.returncode}: {' | '.join(last)}")
