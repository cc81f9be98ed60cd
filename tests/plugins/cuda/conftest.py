"""Simulated GPUs with the kernels of plugins/cuda, one process for each flavour; and what runs only where nvcc is.

Every test that asks for `gpus` runs twice: on tools/hostcuda, which compiles the kernels with g++ in the flavour asked
for, and where nvcc is on tools/ptxsim, which executes nvcc's own PTX and has one flavour that finds what the others do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tools import ptxsim
from tools.hostcuda import Flavour, SimulatedGpu, kernels

LEFT_OUT = [] if ptxsim.has_nvcc() else ["test_nvcc.py", "on tools/ptxsim"]
collect_ignore = [name for name in LEFT_OUT if name.endswith(".py")]

# What takes seconds on the interpreter has only the full profile; tools/hostcuda has all of it in both.
LONG_ON_PTXSIM = (
    *(f"test_golden_merges_are_the_cpu_kernels[ptxsim-merge_{number}]" for number in ("04", "06", "07", "09")),
    *(f"test_merging_any_number_of_channels[ptxsim-{channels}]" for channels in (256, 300, 1100)),
    "test_merging_any_number_of_detections[ptxsim-1100]",
    "test_more_rois_than_a_grid_has_blocks[ptxsim]",
    "test_candidates_too_many_for_shared_memory_are_sorted_and_kept_as_well[ptxsim]",
)

Gpus = Callable[[Flavour], SimulatedGpu]


@pytest.fixture(scope="session", params=["hostcuda", *(["ptxsim"] if ptxsim.has_nvcc() else [])])
def gpus(request: pytest.FixtureRequest) -> Iterator[Gpus]:
    """A simulated GPU of a flavour, started when it is first asked for."""
    started: dict[str, SimulatedGpu] = {}

    def get(flavour: Flavour) -> SimulatedGpu:
        name = flavour if request.param == "hostcuda" else "ptxsim"
        if name not in started:
            started[name] = SimulatedGpu(ptxsim.kernels() if name == "ptxsim" else kernels(flavour))
        return started[name]

    yield get
    for gpu in started.values():
        gpu.close()


@pytest.fixture(scope="session")
def tracing_gpu() -> Iterator[SimulatedGpu]:
    """tools/hostcuda as it counts memory requests."""
    gpu = SimulatedGpu(kernels("trace"))
    yield gpu
    gpu.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is for the full profile."""
    if os.environ.get("PANRT_TEST_PROFILE") == "full":
        return
    long = [item for item in items if item.name in LONG_ON_PTXSIM]
    items[:] = [item for item in items if item.name not in LONG_ON_PTXSIM]
    config.hook.pytest_deselected(items=long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is seen, what did not run."""
    for name in LEFT_OUT:
        terminalreporter.write_line(f"LEFT OUT tests/plugins/cuda {name}: there is no nvcc on PATH", yellow=True)
