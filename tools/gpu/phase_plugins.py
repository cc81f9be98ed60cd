"""Phase 3: TensorRT's plugin classes on device pointers, in all formats; and first launches inside a capture.

TensorRT captures while it times tactics, and CUDA loads kernels when they are first launched, which a capture forbids:
a plugin must have loaded its kernels by then, whether CUDA_MODULE_LOADING is LAZY, the default, or EAGER.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tools.gpu import plugin_runs
from tools.gpu.checks import Checks, MissingError
from tools.gpu.device import open_context, sticky_error
from tools.gpu.machine import Machine
from tools.gpu.plugin_cases import cases

CAPTURE_SECONDS = 60.0  # at most, of a process


def run(checks: Checks, machine: Machine) -> None:
    """Write one record per case, and one per way of loading."""
    with checks.check("the plugin classes can be called"):
        if not (machine.plugin_calls and machine.plugins):
            raise MissingError("they could not be built, as reported at the start; they need TensorRT's headers")
    if not (machine.plugin_calls and machine.plugins):
        return
    open_context()
    checks.lost = sticky_error
    for case in cases():
        with checks.check(f"{case.name} as the reference"):
            plugin_runs.run_plainly(machine, case)
    for loading in ("LAZY", "EAGER"):
        with checks.check(f"first launches inside a capture, CUDA_MODULE_LOADING={loading}"):
            done = subprocess.run(
                [sys.executable, "-m", "tools.gpu.plugin_runs", machine.out],
                env={**os.environ, "CUDA_MODULE_LOADING": loading},
                check=False,
                text=True,
                capture_output=True,
                timeout=min(CAPTURE_SECONDS, max(checks.seconds_left, 1.0)),
            )
            if done.returncode != 0:
                raise AssertionError(" | ".join((done.stdout + done.stderr).strip().splitlines()[-6:]))
