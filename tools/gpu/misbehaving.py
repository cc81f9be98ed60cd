"""A phase that misbehaves, for the tests of the harness; the machine's `expected` says how."""

from __future__ import annotations

import os
import signal
import threading

from tools.gpu.checks import Checks
from tools.gpu.machine import Machine


def run(checks: Checks, machine: Machine) -> None:
    """Pass one check, then do what is asked for."""
    with checks.check("first"):
        pass
    match machine.expected:
        case "hang":
            with checks.check("hangs"):
                threading.Event().wait()
        case "crash":
            with checks.check("crashes"):
                os.kill(os.getpid(), signal.SIGSEGV)
        case "raise":
            raise RuntimeError("outside any check")
        case "fail":
            with checks.check("fails"):
                raise ValueError("one | two\nthree")
        case "lose":
            checks.lost = lambda: "CUDA_ERROR_ILLEGAL_ADDRESS"
            with checks.check("fails"):
                raise ValueError("a wrong result")
    with checks.check("last"):
        pass
