"""The committed kernel report holds for the kernels as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from benchmarks.kernel_report import ARCHITECTURES, RESULTS, trace
from benchmarks.kernel_workloads import FRAME, OPS, WORKLOADS

from support.hostcuda import SimulatedGpu, kernels

REPORT = json.loads(RESULTS.read_text())


@pytest.fixture(scope="module")
def gpu() -> Iterator[SimulatedGpu]:
    opened = SimulatedGpu(kernels("trace"))
    yield opened
    opened.close()


@pytest.mark.parametrize("op", OPS)
def test_no_op_asks_for_a_twentieth_more_sectors_than_reported(op: str, gpu: SimulatedGpu) -> None:
    reported = REPORT["traffic"]["tabletop"][op]
    found = trace(op, WORKLOADS["tabletop"], gpu)
    assert found["sectors"] <= 1.05 * reported["sectors"]
    assert found["launches"] == reported["launches"]
    assert {kernel: facts["stores_apart"] for kernel, facts in found["kernels"].items() if facts["stores_apart"]} == {}


def test_all_four_ops_take_at_most_16_launches() -> None:
    for ops in REPORT["traffic"].values():
        assert sum(ops[op]["launches"] for op in FRAME) <= 16


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_merge_moves_little_more_than_its_input_and_output(workload: str) -> None:
    assert REPORT["traffic"][workload]["panoptic_merge"]["ratio"] <= 1.3


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_kernel_stores_apart(workload: str) -> None:
    of_ops = REPORT["traffic"][workload].values()
    assert sum(kernel["stores_apart"] for facts in of_ops for kernel in facts["kernels"].values()) == 0


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("op", [op for op in OPS if "HWC" in op])
def test_pooling_from_channels_last_asks_for_little_more_than_it_touches(op: str, workload: str) -> None:
    assert REPORT["traffic"][workload][op]["ratio"] <= 1.5


def test_no_kernel_spills_on_any_reported_architecture() -> None:
    assert list(REPORT["static"]) == [str(architecture) for architecture in ARCHITECTURES]
    for of_kernels in REPORT["static"].values():
        assert {(facts["spill_bytes"], facts["stack_bytes"]) for facts in of_kernels.values()} == {(0, 0)}
