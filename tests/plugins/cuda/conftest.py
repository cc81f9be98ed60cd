"""Simulated GPUs with the kernels of plugins/cuda, one process for each flavour; and what runs only where nvcc is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from support.hostcuda import Flavour, SimulatedGpu, kernels

collect_ignore = [] if shutil.which("nvcc") else ["test_nvcc.py"]

Gpus = Callable[[Flavour], SimulatedGpu]


@pytest.fixture(scope="session")
def gpus() -> Iterator[Gpus]:
    """A simulated GPU of a flavour, started when it is first asked for."""
    started: dict[str, SimulatedGpu] = {}

    def get(flavour: Flavour) -> SimulatedGpu:
        if flavour not in started:
            started[flavour] = SimulatedGpu(kernels(flavour))
        return started[flavour]

    yield get
    for gpu in started.values():
        gpu.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is seen, what did not run."""
    if collect_ignore:
        terminalreporter.write_line("LEFT OUT tests/plugins/cuda/test_nvcc.py: there is no nvcc on PATH", yellow=True)
