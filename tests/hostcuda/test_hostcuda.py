"""The simulation itself: right results in every order, and every planted bug found by the intended check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tools.hostcuda import CrashError, Flavour, LaunchError, Out, SimulatedGpu, build, in_out

ORDERS = [("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)]
INT_OUT = {n: Out((n,), np.int32) for n in (2, 3, 32, 64, 256)}
Gpus = Callable[..., SimulatedGpu]


@pytest.fixture(scope="module")
def gpus() -> Iterator[Gpus]:
    """A process for each flavour and environment asked for."""
    started: dict[tuple[object, ...], SimulatedGpu] = {}

    def get(flavour: Flavour, **environment: str) -> SimulatedGpu:
        key = (flavour, *sorted(environment.items()))
        if key not in started:
            library = build("planted", [Path(__file__).parent / "planted.cu"], flavour)
            started[key] = SimulatedGpu(library, environment)
        return started[key]

    yield get
    for gpu in started.values():
        gpu.close()


@pytest.fixture(params=["plain", "asan", "tsan", "trace"])
def gpu(request: pytest.FixtureRequest, gpus: Gpus) -> SimulatedGpu:
    """Every flavour."""
    return gpus(request.param)


# --- Right kernels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_right_kernels_give_the_same_in_every_order_and_flavour(gpu: SimulatedGpu, order: tuple[str, int]) -> None:
    numbers = np.arange(5 * 64, dtype=np.int32) ** 2 % 101
    (copied,) = gpu.call("run_copy", numbers, Out((320,), np.int32), 320, 2, order=order)
    assert (copied == numbers).all()
    (sums,) = gpu.call("run_block_sum", numbers, Out((5,), np.int32), 5, order=order)
    assert (sums == numbers.reshape(5, 64).sum(1)).all()
    (sums,) = gpu.call("run_warp_sum", numbers, Out((10,), np.int32), 5, order=order)
    assert (sums == numbers.reshape(10, 32).sum(1)).all()
    (counts,) = gpu.call("run_count_all", in_out(np.zeros(3, np.int32)), 4, order=order)
    assert counts.tolist() == [280, 140, 69]
    (exchanged,) = gpu.call("run_warp_exchange", INT_OUT[32], order=order)
    assert (exchanged == np.arange(31, -1, -1)).all()


def test_warp_operations_do_what_the_programming_guide_says(gpus: Gpus) -> None:
    (words,) = gpus("plain").call("run_warp_words", INT_OUT[256])
    lanes = np.arange(32)
    ballot, up, xor, segments, largest, any_all, match = words[:224].view(np.uint32).reshape(7, 32)
    assert (ballot == sum(1 << lane for lane in range(0, 32, 3))).all()
    assert (up == np.maximum(lanes - 1, 0)).all()
    assert (xor == (lanes ^ 5)).all()
    assert (segments == lanes // 8 * 8 + 3).all()
    assert (largest == 31).all()
    assert (any_all == 1).all()
    assert (match == np.where(lanes < 16, 0x0000FFFF, 0xFFFF0000)).all()
    assert words[224:232].tolist() == [4, 5, 6, 7, 4, 5, 6, 7]


def test_unwritten_memory_is_garbage(gpus: Gpus) -> None:
    (shared,) = gpus("plain").call("run_unwritten_shared", Out((32,), np.uint32))
    assert (shared == 0xCBCBCBCB).all()
    (device,) = gpus("plain").call("run_copy", np.zeros(1, np.int32), Out((4,), np.uint32), 1, 1)
    assert device.tolist() == [0, 0xCDCDCDCD, 0xCDCDCDCD, 0xCDCDCDCD]


def test_a_hooked_stream_runs_nothing_until_it_is_told_to(gpus: Gpus) -> None:
    numbers = np.arange(5, dtype=np.int32) + 7
    copied, early = gpus("asan").call("run_held_back", numbers, Out((5,), np.int32), Out((1,), np.uint32), 5)
    assert (copied == numbers).all()
    assert early == 0xCDCDCDCD


def test_blocks_follow_the_order_too(gpus: Gpus) -> None:
    # The last block to write wins.
    forward, reverse = (
        gpus("plain").call("run_blocks_meet", INT_OUT[32], 3, order=order)[0] for order in (ORDERS[0], ORDERS[1])
    )
    assert (forward == 2).all()
    assert (reverse == 0).all()


# --- Bugs that every flavour finds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "outputs", "report"),
    [
        (
            "run_divergent_barrier",
            64,
            r"divergent barrier: .*\(0,0,0\) waits .*planted.cu:\d+, .*\(7,0,0\) has left",
        ),
        ("run_two_barriers", 64, r"divergent barrier: .*\(0,0,0\) .*, but .*\(32,0,0\) waits at a barrier"),
        ("run_deadlocked_warp", 32, r"deadlock: .*\(0,0,0\) waits at a warp operation .*\(5,0,0\) waits at a barrier"),
        ("run_mask_of_the_absent", 32, r"bad mask \d+ of a warp operation: lane 16 has left the kernel"),
        ("run_mask_without_itself", 32, r"bad mask 65534 of a warp operation: it lacks lane 0"),
        ("run_shuffle_from_outside", 32, r"bad shuffle: lane 9 is read but is not in the mask"),
    ],
)
@pytest.mark.parametrize("flavour", ["plain", "asan"])
def test_what_no_gpu_survives_is_reported_with_its_place(
    gpus: Gpus, flavour: Flavour, function: str, outputs: int, report: str
) -> None:
    with pytest.raises(LaunchError, match=report):
        gpus(flavour).call(function, INT_OUT[outputs])
    (exchanged,) = gpus(flavour).call("run_warp_exchange", INT_OUT[32])  # the next launch is well
    assert (exchanged == np.arange(31, -1, -1)).all()


def test_a_block_that_waits_for_a_later_one_is_reported(gpus: Gpus) -> None:
    buffers = (INT_OUT[32], INT_OUT[32], in_out(np.zeros(1, np.uint32)))
    with pytest.raises(LaunchError, match=r"endless wait: block \(1,0,0\) thread .* at planted.cu:\d+ sleeps"):
        gpus("plain").call("run_give_and_take", *buffers, order=("reverse", 0))


@pytest.mark.parametrize(
    ("grid", "block", "shared"), [(0, 32, 0), (1, 0, 0), (1, 1025, 0), (-1, 32, 0), (1, 32, 48 * 1024 + 1)]
)
def test_a_launch_that_no_gpu_takes_is_refused(gpus: Gpus, grid: int, block: int, shared: int) -> None:
    with pytest.raises(LaunchError, match=r"bad launch: grid \(\d+,1,1\), block \(\d+,1,1\), \d+ bytes"):
        gpus("plain").call("run_copy_of", np.zeros(1, np.int32), Out((1,), np.int32), grid, block, shared)


def test_a_missing_barrier_changes_the_result_in_some_order(gpus: Gpus) -> None:
    numbers = np.arange(64, dtype=np.int32)
    results = {
        int(gpus("plain").call("run_block_sum_racy", numbers, Out((1,), np.int32), 1, order=order)[0][0])
        for order in ORDERS
    }
    assert results != {int(numbers.sum())}


# --- Bugs that sanitizers find ----------------------------------------------------------------------------------------


def test_address_sanitizer_finds_accesses_beyond_device_and_shared_memory(gpus: Gpus) -> None:
    gpu, numbers = gpus("asan"), np.arange(32, dtype=np.int32)
    with pytest.raises(CrashError, match=r"heap-buffer-overflow[\s\S]*past_the_end[\s\S]*planted\.cu:\d+"):
        gpu.call("run_past_the_end", numbers, INT_OUT[32], 32)
    with pytest.raises(
        CrashError,
        match=r"(buffer-overflow|insufficient space for an object)[\s\S]*past_static_shared[\s\S]*planted\.cu:\d+",
    ):
        gpu.call("run_past_static_shared", INT_OUT[64], 1)
    with pytest.raises(CrashError, match=r"heap-buffer-overflow[\s\S]*past_dynamic_shared[\s\S]*planted\.cu:\d+"):
        gpu.call("run_past_dynamic_shared", INT_OUT[64], 1)
    assert (gpu.call("run_past_dynamic_shared", INT_OUT[64], 0)[0] == 1).all()


def test_the_race_check_finds_a_missing_barrier_and_a_missing_syncwarp(gpus: Gpus) -> None:
    gpu, numbers = gpus("tsan"), np.arange(64, dtype=np.int32)
    with pytest.raises(CrashError, match=r"data race[\s\S]*block_sum<false>[\s\S]*planted\.cu:\d+"):
        gpu.call("run_block_sum_racy", numbers, Out((1,), np.int32), 1)
    with pytest.raises(CrashError, match=r"data race[\s\S]*warp_exchange<false>"):
        gpu.call("run_warp_exchange_racy", INT_OUT[32])


def test_the_race_check_of_a_grid_finds_blocks_that_write_one_place(gpus: Gpus) -> None:
    gpu = gpus("tsan", HC_RACE="grid")
    with pytest.raises(CrashError, match=r"data race[\s\S]*blocks_meet"):
        gpu.call("run_blocks_meet", INT_OUT[32], 2)
    numbers = np.arange(320, dtype=np.int32)
    assert (gpu.call("run_copy", numbers, Out((320,), np.int32), 320, 2)[0] == numbers).all()


def test_the_race_check_of_a_grid_finds_what_is_handed_over_without_release_or_acquire(gpus: Gpus) -> None:
    gpu, buffers = gpus("tsan", HC_RACE="grid"), (INT_OUT[32], INT_OUT[32], in_out(np.zeros(1, np.uint32)))
    assert (gpu.call("run_give_and_take", *buffers)[0] == 7).all()
    for function in ("run_give_unreleased", "run_take_unacquired"):
        with pytest.raises(CrashError, match=r"data race[\s\S]*give_and_take"):
            gpu.call(function, *buffers)


# --- Counts -----------------------------------------------------------------------------------------------------------


def test_sectors_are_those_that_a_warp_touches(gpus: Gpus) -> None:
    gpu, numbers = gpus("trace"), np.zeros(32 * 9, np.int32)
    for stride, sectors in ((1, 4), (2, 8), (4, 16), (8, 32), (9, 32)):
        gpu.call("run_copy_strided", numbers, INT_OUT[32], stride)
        assert gpu.trace is not None
        read, write = gpu.trace.reads[0], gpu.trace.writes[1]
        assert (read.requests, read.bytes, read.sectors, read.ideal_sectors) == (1, 128, sectors, 4)
        assert (write.requests, write.sectors, write.ideal_sectors) == (1, 4, 4)


@pytest.mark.parametrize(
    ("step", "stride", "last", "uncoalesced"),
    [
        (1, 1, -1, 0),
        (1, 1, 31, 0),  # in reverse order
        (1, 1, 36, 0),  # not from the beginning of a sector
        (9, 1, -1, 0),  # most lanes take no part
        (1, 2, -1, 1),
        (8, 2, -1, 1),
        (1, 8, -1, 1),
    ],
)
def test_lanes_that_write_apart_are_not_coalesced(
    gpus: Gpus, step: int, stride: int, last: int, uncoalesced: int
) -> None:
    gpu = gpus("trace")
    gpu.call("run_scatter", INT_OUT[256], step, stride, last)
    assert gpu.trace is not None
    assert gpu.trace.writes[0].uncoalesced == uncoalesced


def test_a_launch_has_the_name_of_its_kernel(gpus: Gpus) -> None:
    gpu = gpus("trace")
    gpu.call("run_block_sum", np.zeros(320, np.int32), Out((5,), np.int32), 5)
    assert gpu.trace is not None
    assert [launch.kernel for launch in gpu.trace.launches] == [
        "void (anonymous namespace)::block_sum<true>(int const*, int*)"
    ]


def test_a_vector_is_one_request(gpus: Gpus) -> None:
    gpu = gpus("trace")
    gpu.call("run_copy_vectors", np.zeros((64, 4), np.float32), Out((64, 4), np.float32), 64)
    assert gpu.trace is not None
    read = gpu.trace.reads[0]
    assert (read.requests, read.bytes, read.sectors, read.ideal_sectors) == (2, 1024, 32, 32)
    assert (read.block_sectors, read.launch_sectors) == (32, 32)


def test_sectors_that_blocks_share_count_once_in_the_launch(gpus: Gpus) -> None:
    gpu = gpus("trace")
    gpu.call("run_blocks_meet", INT_OUT[32], 3)
    assert gpu.trace is not None
    write = gpu.trace.writes[0]
    assert (write.sectors, write.block_sectors, write.launch_sectors) == (12, 12, 4)


@pytest.mark.parametrize(("pitch", "passes"), [(1, 1), (2, 2), (32, 32), (33, 1)])
def test_bank_conflicts_are_words_that_meet_in_a_bank(gpus: Gpus, pitch: int, passes: int) -> None:
    gpu = gpus("trace")
    gpu.call("run_column_of_tile", INT_OUT[32], pitch)
    assert gpu.trace is not None
    assert (gpu.trace.shared_requests, gpu.trace.shared_ideal_passes, gpu.trace.shared_passes) == (2, 2, 2 * passes)
