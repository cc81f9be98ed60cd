"""Bugs that are planted in kernels, through nvcc: each is reported where it is, and the kernels without them pass."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tools import ptxsim
from tools.hostcuda import LaunchError, Out, SimulatedGpu, in_out

SOURCE = Path(__file__).parent / "planted.cu"
ORDERS = [("forward", 0), ("reverse", 0), *(("random", seed) for seed in range(12))]
NUMBERS = np.arange(128, dtype=np.int32) ** 2 % 101


class Bug(IntEnum):
    """planted.cu."""

    NONE = 0
    NO_BARRIER = 1
    NO_SYNCWARP = 2
    PLAIN_STORE = 3
    NO_RELEASE = 4
    NO_ACQUIRE = 5


@pytest.fixture(scope="module")
def library() -> Path:
    """planted.cu, compiled."""
    return ptxsim.build("planted", [SOURCE])


@pytest.fixture(scope="module")
def gpu(library: Path) -> Iterator[SimulatedGpu]:
    """It on the interpreter."""
    gpu = SimulatedGpu(library)
    yield gpu
    gpu.close()


def reverse_block(gpu: SimulatedGpu, bug: Bug, order: tuple[str, int]) -> None:
    (got,) = gpu.call("run_reverse_block", NUMBERS, Out((128,), np.int32), int(bug), order=order)
    assert (got == NUMBERS[::-1]).all()


def swap_neighbours(gpu: SimulatedGpu, bug: Bug, order: tuple[str, int]) -> None:
    (got,) = gpu.call("run_swap_neighbours", NUMBERS[:64], Out((64,), np.int32), int(bug), order=order)
    assert (got == NUMBERS[:64].reshape(-1, 2)[:, ::-1].ravel()).all()


def count_kinds(gpu: SimulatedGpu, bug: Bug, order: tuple[str, int]) -> None:
    kinds = NUMBERS % 5
    (got,) = gpu.call("run_count_kinds", kinds, in_out(np.zeros(5, np.int32)), int(bug), order=order)
    assert (got == np.bincount(kinds, minlength=5)).all()


def hand_over(gpu: SimulatedGpu, bug: Bug, order: tuple[str, int], *, strong: bool = False) -> NDArray[Any]:
    zeros = np.zeros(32, np.int32)
    arguments = (NUMBERS[:32], in_out(zeros), in_out(zeros[:2]), Out((2, 32), np.int32), int(bug), int(strong))
    return gpu.call("run_hand_over", *arguments, order=order)[2]


def hand_over_in_time(gpu: SimulatedGpu, bug: Bug, order: tuple[str, int]) -> None:
    assert (hand_over(gpu, bug, order) == 2 * NUMBERS[:32]).all()


KERNELS = [reverse_block, swap_neighbours, count_kinds, hand_over_in_time]
PLANTED = [
    (reverse_block, Bug.NO_BARRIER, "staged[127 - threadIdx.x]", "staged[threadIdx.x] = in"),
    (swap_neighbours, Bug.NO_SYNCWARP, "staged[threadIdx.x ^ 1]", "staged[threadIdx.x] = in"),
    (count_kinds, Bug.PLAIN_STORE, "*count + 1", "*count + 1"),
    (hand_over_in_time, Bug.NO_RELEASE, "int const received", "between[t] = 2"),
    (hand_over_in_time, Bug.NO_ACQUIRE, "int const received", "between[t] = 2"),
]


def lines_of(text: str) -> set[str]:
    """Where planted.cu has it."""
    return {f"planted.cu:{n}" for n, line in enumerate(SOURCE.read_text().splitlines(), 1) if text in line}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_right_kernels_pass_in_every_order(gpu: SimulatedGpu, kernel: Any, order: tuple[str, int]) -> None:
    kernel(gpu, Bug.NONE, order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("kernel", "bug", "here", "there"), PLANTED)
def test_a_planted_bug_is_reported_in_every_order_with_both_places(
    gpu: SimulatedGpu, kernel: Any, bug: Bug, here: str, there: str, order: tuple[str, int]
) -> None:
    with pytest.raises(LaunchError, match=r"race: it (?:reads|writes)") as fault:
        kernel(gpu, bug, order)
    places = set(re.findall(r"planted\.cu:\d+", fault.value.report))
    allowed = lines_of(here) | lines_of(there)
    assert places <= allowed
    assert places & lines_of(here)
    assert places & lines_of(there)


def test_a_missing_release_or_acquire_shows_in_values_where_nothing_races(gpu: SimulatedGpu) -> None:
    seeds = [("random", seed) for seed in range(40)]
    early = {
        bug: sum(bool((hand_over(gpu, bug, seed, strong=True) != 2 * NUMBERS[:32]).any()) for seed in seeds)
        for bug in (Bug.NONE, Bug.NO_RELEASE, Bug.NO_ACQUIRE)
    }
    assert early[Bug.NONE] == 0
    assert early[Bug.NO_RELEASE] > 5
    assert early[Bug.NO_ACQUIRE] > 5


def test_warp_instructions_are_counted_by_kernel_and_line(library: Path, tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    gpu = SimulatedGpu(library, {"PTXSIM_COUNTS": str(counts)})
    reverse_block(gpu, Bug.NONE, ("forward", 0))
    reverse_block(gpu, Bug.NONE, ("forward", 0))
    gpu.close()
    ((name, kernel),) = json.loads(counts.read_text()).items()
    assert "reverse_block(int const*, int*, int)" in name
    assert kernel["launches"] == 2
    assert kernel["warp_instructions"] == sum(kernel["lines"].values())
    (line,) = lines_of("kNoBarrier) __sync")
    assert kernel["lines"][line] % 8 == 0  # 2 launches of 4 warps
    assert kernel["lines"][line] >= 2 * 8  # whether, and the barrier
