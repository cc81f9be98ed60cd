"""The simulated device does what its file of facts says, and a device is measured into such a file."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu
from numpy.typing import NDArray

from tools.simcuda import facts

FILES = sorted(path.stem for path in facts.FOLDER.glob("*.json"))
MAPPED = cu.CU_MEMHOSTALLOC_DEVICEMAP
N = 5000  # bytes


def ok(result: tuple[Any, ...]) -> Any:
    error, *values = result
    assert error == cu.CUresult.CUDA_SUCCESS
    return values[0] if len(values) == 1 else values


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated clock is as exact on less memory."""
    monkeypatch.setattr(facts, "BYTES", facts.MEBIBYTE)


@pytest.fixture
def context(gpu: ModuleType) -> Iterator[None]:
    ok(cu.cuInit(0))
    ok(cu.cuCtxSetCurrent(ok(cu.cuDevicePrimaryCtxRetain(0))))
    yield
    cu.cuCtxSetCurrent(None)
    ok(cu.cuDevicePrimaryCtxRelease(0))


@pytest.mark.parametrize("name", FILES)
def test_a_measured_device_is_the_one_that_its_file_describes(gpu: ModuleType, name: str) -> None:
    gpu.use_facts(name)
    gpu.watch_mapped()  # what kernels read there is counted, and so takes its time
    before = gpu.alive()
    known, measured = facts.read(name), facts.measure_facts()
    assert gpu.alive() == before
    assert int(ok(cu.cuCtxGetCurrent())) == 0
    known["attributes"]["MEMORY_POOLS_SUPPORTED"] = 0  # which simcuda has not
    for what in ("seconds_per_work", "bytes_per_second"):  # float32, and pages
        assert measured.pop(what) == pytest.approx(known.pop(what), rel=1e-2)
    assert known.pop("source").keys() == {"documented", "reported", "assumed"}
    assert measured.pop("source") == "measured"
    assert measured == known


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fresh_memory.device", "zeros"),
        ("fresh_memory.pinned", "zeros"),
        ("fresh_memory.mapped", "zeros"),
        ("module_loading", "EAGER"),
        ("capture.allocation", "allowed"),
        ("capture.module_load", "allowed"),
        ("capture.first_launch", "allowed"),
        ("alignment.device", 1024),
        ("alignment.pinned", 64),
        ("alignment.pitch", 128),
    ],
)
def test_a_device_that_differs_in_one_thing_is_measured_so(gpu: ModuleType, name: str, value: object) -> None:
    gpu.set_fact(name, value)
    part, _, key = name.partition(".")
    measured = facts.measure_facts()[part]
    assert (measured[key] if key else measured) == value


def test_a_written_file_can_be_obeyed(gpu: ModuleType, tmp_path: Any) -> None:
    file = tmp_path / "mine.json"
    facts.write(facts.read("h200") | {"name": "Mine"}, file)
    gpu.use_facts(str(file))
    assert facts.measure_facts()["name"] == "Mine"
    assert gpu.fact("memory_bytes") == str(facts.read("h200")["memory_bytes"])


def blocks() -> dict[str, NDArray[np.uint8]]:
    """What is found in fresh memory of each kind, two of each."""
    found = {}
    for number in range(2):
        for kind, flags in (("pinned", 0), ("mapped", MAPPED)):
            memory = ok(cu.cuMemHostAlloc(N, flags))
            found[f"{kind} {number}"] = np.frombuffer(ctypes.string_at(int(memory), N), np.uint8)
            ok(cu.cuMemFreeHost(memory))
        device, held = ok(cu.cuMemAlloc(N)), np.zeros(N, np.uint8)
        ok(cu.cuMemcpyDtoH(held.ctypes.data, device, N))
        ok(cu.cuMemFree(device))
        found[f"device {number}"] = held
    return found


def test_undefined_memory_differs_from_block_to_block_and_by_the_seed_alone(gpu: ModuleType, context: None) -> None:
    gpu.seed(1)
    first = blocks()
    for one in first:
        assert len(np.unique(first[one])) > 250  # of 256 values of a byte
        for other in set(first) - {one}:
            assert np.count_nonzero(first[one] == first[other]) < N / 50  # by chance one of 256 is
    gpu.seed(1)
    np.testing.assert_equal(blocks(), first)
    gpu.seed(1000)
    assert all((held != first[name]).any() for name, held in blocks().items())


@pytest.mark.parametrize("kind", ["device", "pinned", "mapped"])
def test_a_kind_of_memory_may_be_zeros_when_fresh(gpu: ModuleType, context: None, kind: str) -> None:
    gpu.set_fact(f"fresh_memory.{kind}", "zeros")
    for name, held in blocks().items():
        assert held.any() != name.startswith(kind), name


@pytest.mark.parametrize("alignment", [1, 16, 256, 512, 8192])
def test_memory_is_aligned_as_the_facts_have_it_and_no_better(gpu: ModuleType, context: None, alignment: int) -> None:
    gpu.set_fact("alignment.device", alignment)
    for size in (1, 15, 256, 4096, 5000, 1 << 20):
        memory = ok(cu.cuMemAlloc(size))
        assert int(memory) % (2 * alignment) == alignment
        ok(cu.cuMemsetD8(memory, 7, size))
        ok(cu.cuMemFree(memory))


def test_what_takes_time_is_work_and_its_bytes(gpu: ModuleType, context: None) -> None:
    for name, value in (("seconds_per_work", 1e-3), ("bytes_per_second.copy", N * 100)):
        gpu.set_fact(name, value)
    stream = ok(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
    device, pinned = ok(cu.cuMemAlloc(N)), ok(cu.cuMemHostAlloc(N, 0))
    events = [ok(cu.cuEventCreate(0)) for _ in range(2)]
    for copies in (0, 1, 3):
        ok(cu.cuEventRecord(events[0], stream))
        for _ in range(copies):
            ok(cu.cuMemcpyHtoDAsync(device, pinned, N, stream))
        ok(cu.cuEventRecord(events[1], stream))
        ok(cu.cuStreamSynchronize(stream))
        assert ok(cu.cuEventElapsedTime(*events)) == pytest.approx(11.0 * copies)  # ms
    for event in events:
        ok(cu.cuEventDestroy(event))
    ok(cu.cuStreamDestroy(stream))
    ok(cu.cuMemFree(device))
    ok(cu.cuMemFreeHost(pinned))
