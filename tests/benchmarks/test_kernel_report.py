"""The committed kernel report holds for the kernels as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from benchmarks.kernel_report import ARCHITECTURES, RESULTS, trace
from benchmarks.kernel_workloads import OPS, WORKLOADS

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


def test_all_four_ops_take_at_most_16_launches() -> None:
    launches = {op: facts["launches"] for op, facts in REPORT["traffic"]["coco"].items()}
    poolings = 2  # one launch each: for the box head and for the mask head
    assert sum(launches.values()) + poolings <= 16


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_merge_moves_little_more_than_its_input_and_output(workload: str) -> None:
    assert REPORT["traffic"][workload]["panoptic_merge"]["ratio"] <= 1.3


def test_no_kernel_spills_on_any_reported_architecture() -> None:
    assert list(REPORT["static"]) == [str(architecture) for architecture in ARCHITECTURES]
    for of_kernels in REPORT["static"].values():
        assert {(facts["spill_bytes"], facts["stack_bytes"]) for facts in of_kernels.values()} == {(0, 0)}
