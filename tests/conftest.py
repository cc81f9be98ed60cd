"""How long property tests search, and which tests a machine cannot run.

PANRT_TEST_PROFILE is "short" (the default, the same examples every time) or "full". Tests that draw need OpenGL, a
system library; a machine without it leaves them out and says so, CI never does.
"""

from __future__ import annotations

import ctypes.util
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

# A case is built from a drawn seed, so one example may take long and most of its size is not drawn: neither is a fault.
_slow_is_fine = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "short", max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=_slow_is_fine
)
settings.register_profile(
    "full", max_examples=2500, deadline=None, print_blob=True, suppress_health_check=_slow_is_fine
)
settings.load_profile(os.environ.get("PANRT_TEST_PROFILE", "short"))


def _cannot_draw() -> str | None:
    if sys.version_info < (3, 11):
        return "MuJoCo 4 needs Python 3.11 or newer"
    if sys.platform == "linux" and ctypes.util.find_library("EGL") is None:
        return "libEGL is missing; on Debian and Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"
    return None


_DRAWING = "model/data/test_tabletop.py"
_LEFT_OUT = None if os.environ.get("CI") else _cannot_draw()
collect_ignore = [_DRAWING] if _LEFT_OUT else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is seen, what did not run."""
    if _LEFT_OUT:
        terminalreporter.write_line(f"LEFT OUT tests/{_DRAWING}: {_LEFT_OUT}", yellow=True)
