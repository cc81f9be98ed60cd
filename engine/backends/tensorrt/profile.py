"""The parts of a frame's time on the GPU, measured on a session's slot."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import NamedTuple

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.engine import Execution
from panrt.engine.backends.tensorrt.recorded import opened
from panrt.engine.backends.tensorrt.slot import GpuSlot


class GpuProfile(NamedTuple):
    """The parts of a frame's time on the GPU: seconds on its own clock, medians over some runs."""

    upload: float
    network: float  # without a graph
    download: float  # with the conversion to a compact map, if there is one
    whole: float  # all three as the session runs them: one graph, unless capture failed
    throughput_run: float  # the network alone, one directly after the other, as trtexec measures
    layers: dict[str, float]  # by TensorRT's profiler, one run


def measure(slot: GpuSlot, watched: Execution, *, runs: int) -> GpuProfile:
    """Profile the work of a settled slot on the frame that it holds.

    Args:
        slot: whose work is measured.
        watched: another execution of its engine, for TensorRT's profiler.
        runs: of each part.
    """
    stream = slot.stream
    with ExitStack() as resources:
        marks = [opened(resources, driver.Event()) for _ in range(4)]

        def seconds(*steps: Callable[[], None]) -> list[float]:
            """Return the median of each step over the runs."""
            spent = []
            for _ in range(runs):
                marks[0].record(stream)
                for step, mark in zip(steps, marks[1:], strict=False):
                    step()
                    mark.record(stream)
                stream.synchronize()
                spent.append([after.seconds_since(before) for before, after in pairwise(marks[: len(steps) + 1])])
            return [statistics.median(step) for step in zip(*spent, strict=True)]

        def network() -> None:
            slot.execution.enqueue(stream.address)

        def networks() -> None:
            for _ in range(runs):
                network()

        upload, alone, download = seconds(slot.upload, network, slot.download)
        (whole,) = seconds(slot.run)
        (many,) = seconds(networks)
        watched.bind(slot.addresses)

        def run_watched() -> None:
            watched.enqueue(stream.address)
            stream.synchronize()

        run_watched()  # the first one is not representative
        return GpuProfile(upload, alone, download, whole, many / runs, watched.layer_seconds(run_watched))
