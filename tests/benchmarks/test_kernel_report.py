"""The committed kernel report holds for the kernels as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kernel_report import (
    ARCHITECTURES,
    MeasuredError,
    bounds_table,
    read_measured,
    trace,
)
from panrt.plugins import library
from tools.hostcuda import SimulatedGpu, kernels
from tools.kernel_workloads import FRAME, OPS, REPORT, WORKLOADS

REPORTED = json.loads(REPORT.read_text())


@pytest.fixture(scope="module")
def gpu() -> Iterator[SimulatedGpu]:
    opened = SimulatedGpu(kernels("trace"))
    yield opened
    opened.close()


@pytest.mark.parametrize("op", OPS)
def test_no_op_asks_for_a_twentieth_more_sectors_than_reported(op: str, gpu: SimulatedGpu) -> None:
    reported = REPORTED["traffic"]["tabletop"][op]
    found = trace(op, WORKLOADS["tabletop"], gpu)
    assert found["sectors"] <= 1.05 * reported["sectors"]
    assert found["launches"] == reported["launches"]
    assert {kernel: facts["stores_apart"] for kernel, facts in found["kernels"].items() if facts["stores_apart"]} == {}


def test_all_four_ops_take_at_most_16_launches() -> None:
    for ops in REPORTED["traffic"].values():
        assert sum(ops[op]["launches"] for op in FRAME) <= 16


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_merge_moves_little_more_than_its_input_and_output(workload: str) -> None:
    assert REPORTED["traffic"][workload]["panoptic_merge"]["ratio"] <= 1.3


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_kernel_stores_apart(workload: str) -> None:
    of_ops = REPORTED["traffic"][workload].values()
    assert sum(kernel["stores_apart"] for facts in of_ops for kernel in facts["kernels"].values()) == 0


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("op", [op for op in OPS if "HWC" in op])
def test_pooling_from_channels_last_asks_for_little_more_than_it_touches(op: str, workload: str) -> None:
    assert REPORTED["traffic"][workload][op]["ratio"] <= 1.5


def test_no_kernel_spills_on_any_reported_architecture() -> None:
    assert list(REPORTED["static"]) == [str(architecture) for architecture in ARCHITECTURES]
    for of_kernels in REPORTED["static"].values():
        assert {(facts["spill_bytes"], facts["stack_bytes"]) for facts in of_kernels.values()} == {(0, 0)}


# --- What a GPU took --------------------------------------------------------------------------------------------------

MEASURED: dict[str, Any] = {
    "device": "NVIDIA Invented",
    "simulated": False,
    "sources_sha256": library.sources_sha256(),
    "bandwidth_gb_s": 100.0,
    "workloads": {"coco": {"panoptic_merge": {"us": 12.34, "launches": 5, "share": 0.25}}},
    "peers": {"coco": {"PyTorch, merge as detectron2": 5000.0}},
}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({name: value for name, value in (MEASURED | changes).items() if value is not None}))
    return path


def table(path: Path) -> list[list[str]]:
    """Cells of the table for the COCO workload, with what was read from a file."""
    measured = read_measured(path)
    report = {"traffic": REPORTED["traffic"], "measured": {measured["device"]: measured}}
    return [line.strip("| ").split(" | ") for line in bounds_table(report, "coco") if line.startswith("|")]


def test_measured_times_are_a_column_beside_the_bounds(tmp_path: Path) -> None:
    title, _, *rows = table(write(tmp_path / "measured.json"))
    assert title[-1] == "NVIDIA Invented, *measured*"
    cells = {name: row[-1] for name, *row in rows}
    assert cells["panoptic_merge"] == "**12.3** (25%)"
    assert cells["PyTorch, merge as detectron2"] == "**5000.0**"
    without = bounds_table({"traffic": REPORTED["traffic"]}, "coco")
    assert len(without) == 2 + len(OPS)
    assert "measured" not in " ".join(without)


def test_times_of_other_kernels_are_marked(tmp_path: Path) -> None:
    title, *_ = table(write(tmp_path / "measured.json", sources_sha256="0" * 64))
    assert title[-1] == "NVIDIA Invented, *measured*, kernels of another version"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"simulated": True}, "a run on stand-ins"),
        ({"workloads": None}, "'workloads'"),
        ({"workloads": []}, "got something else"),
        ({"workloads": {"coco": {"panoptic_merge": {"us": "fast"}}}}, "fast"),
    ],
)
def test_what_no_gpu_measured_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MeasuredError, match=message):
        read_measured(write(tmp_path / "measured.json", **changes))
