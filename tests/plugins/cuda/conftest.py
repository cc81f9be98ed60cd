"""Simulated GPUs with the kernels of plugins/cuda, one process for each flavour."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.hostcuda import Flavour, SimulatedGpu, kernels

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
