"""Tests that need nvcc."""

from __future__ import annotations

import pytest

from tools import ptxsim

collect_ignore = [] if ptxsim.has_nvcc() else ["test_planted.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is seen, what did not run."""
    for name in collect_ignore:
        terminalreporter.write_line(f"LEFT OUT tests/ptxsim/{name}: there is no nvcc on PATH", yellow=True)
