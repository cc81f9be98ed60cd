"""Placement of network inputs and outputs in device or mapped memory."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt.engine import wanted_tensors
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.backends.tensorrt.session import TensorRTSession
from panrt.engine.frame import Frame
from panrt.engine.session import GpuMemory
from panrt.errors import CudaError, EngineError, KernelError, SessionError
from panrt.formats.thresholds import NAMES
from panrt.plugins.cuda_api import NarrowMapArgs
from tools.simcuda.sessions import HW, MODEL, check, open_session, picture

COLORS = {1: (250, 10, 20), 2: (30, 240, 50), 3: (60, 70, 230)}
NETWORK_BYTES = sum(tensor.bytes for tensor in wanted_tensors(MODEL) if tensor.name not in NAMES)
PAGE = 4096
LARGE = 160, 200  # of frames: each is more than twice what the network reads and writes


def frame(kind: str, seed: int) -> Frame:
    height, width = LARGE
    shape: tuple[int, ...] = (height * 3 // 2, width) if kind == "nv12" else (height, width, 3)
    image: NDArray[np.uint8] = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Frame(image, pixel_format=kind)  # type: ignore[arg-type]


# The choice


@pytest.mark.parametrize(
    ("facts", "bytes_per_second", "chosen"),
    [
        ("orin_jetpack6", 204.8e9, "mapped"),  # as fast as the device's memory: a copy only costs
        ("orin_jetpack6", 1e9, "device"),  # not cached: the copies cost less
        ("rtx4090", 1e15, "device"),  # across a bus, whatever is measured
        ("h200", 1e15, "device"),
    ],
)
def test_the_faster_memory_is_kept(
    tmp_path: Path, gpu: ModuleType, caplog: pytest.LogCaptureFixture, facts: str, bytes_per_second: float, chosen: str
) -> None:
    caplog.set_level(logging.INFO, "panrt")
    gpu.use_facts(facts)
    gpu.set_fact("bytes_per_second.mapped", bytes_per_second)
    with open_session(tmp_path) as session:
        assert (session.gpu_memory, session.graph_error) == (chosen, None)
        calls = copies(gpu, session)
        assert calls == (0 if chosen == "mapped" else 2)
    is_measured = facts == "orin_jetpack6"
    assert ("the faster is kept" in caplog.text) == is_measured


def copies(gpu: ModuleType, session: TensorRTSession) -> int:
    """Of a run without its graph."""
    slot = session._slots[0]
    gpu.take_log()
    with session._context:
        slot.enqueue()
        session.stream.synchronize()
    return sum(name.startswith("cuMemcpy") for name in gpu.take_log())


def test_the_choice_is_the_same_in_every_run(tmp_path: Path, gpu: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "panrt")
    gpu.use_facts("orin_jetpack6")
    said = set()
    for _ in range(3):
        caplog.clear()
        with open_session(tmp_path):
            said.add(caplog.text.partition("pattern.plan")[2])
    assert len(said) == 1


@pytest.mark.parametrize("facts", ["orin_jetpack6", "rtx4090"])
@pytest.mark.parametrize("wanted", ["mapped", "device"])
def test_a_choice_of_the_user_is_not_measured(
    tmp_path: Path, gpu: ModuleType, caplog: pytest.LogCaptureFixture, facts: str, wanted: GpuMemory
) -> None:
    caplog.set_level(logging.INFO, "panrt")
    gpu.use_facts(facts)
    with open_session(tmp_path, gpu_memory=wanted) as session:
        assert (session.gpu_memory, session.graph_error) == (wanted, None)
        for seed in range(4):
            check(session(picture(seed)), picture(seed))
    assert not caplog.text


def test_a_device_that_maps_no_memory_says_so_where_it_is_to(tmp_path: Path, gpu: ModuleType) -> None:
    gpu.use_facts("orin_jetpack6")
    gpu.set_fact("attributes.CAN_MAP_HOST_MEMORY", 0)
    before = gpu.alive()
    with pytest.raises(SessionError, match=r"got 'mapped', and Orin cannot map the host's memory; leave it at 'auto'"):
        open_session(tmp_path, gpu_memory="mapped")
    assert gpu.alive() == before
    with open_session(tmp_path) as session:
        assert session.gpu_memory == "device"
        check(session(picture(0)), picture(0))


def test_measuring_leaves_nothing_behind_wherever_memory_runs_out(tmp_path: Path, gpu: ModuleType) -> None:
    sites = 0
    before = gpu.alive()
    for call in ("cuMemAlloc", "cuMemHostAlloc"):
        for nth in range(1, 30):
            gpu.reset()
            gpu.use_facts("orin_jetpack6")
            gpu.fail(call, gpu.OUT_OF_MEMORY, nth=nth)
            try:
                open_session(tmp_path).close()
            except (CudaError, EngineError):
                assert gpu.failed()
                sites += 1
            assert gpu.alive() == before
            if not gpu.failed():
                break
    # execution, buffers of the host and perhaps of the device, those of thresholds, what a first run allocates
    in_mapped, in_device = 5, 6
    assert sites == 2 + in_mapped + in_device + 2 * in_mapped  # weights, scratch, two trials, two slots


def test_an_engine_that_cannot_be_captured_is_measured_all_the_same(
    tmp_path: Path, gpu: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.use_facts("orin_jetpack6")
    with open_session(tmp_path, uncapturable=True) as session:
        assert session.gpu_memory == "mapped"
        check(session(picture(0)), picture(0))
    assert caplog.text.count("runs without CUDA graphs") == 1


# What is not mapped


@pytest.mark.parametrize("kind", ["bgr8", "nv12"])
def test_of_mapped_memory_a_frame_costs_what_the_network_reads_and_writes_once(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, kind: str
) -> None:
    gpu.use_facts("orin_jetpack6")
    gpu.watch_mapped()
    with open_session(tmp_path, kernels=kernels, preprocess="gpu", gpu_memory="mapped") as session:
        for seed in range(4):
            session(frame(kind, seed))
        before = gpu.mapped_accesses()
        session(frame(kind, 9))
        pages = math.prod(HW) * 3 // PAGE + 2  # of the network's input, which the kernel writes
        assert NETWORK_BYTES < gpu.mapped_accesses() - before <= NETWORK_BYTES + pages * PAGE


@pytest.mark.parametrize("kind", ["bgr8", "nv12", "of the network's size"])
def test_drawing_works_in_no_mapped_memory(tmp_path: Path, gpu: ModuleType, kernels: Kernels, kind: str) -> None:
    gpu.use_facts("orin_jetpack6")
    gpu.watch_mapped()
    with open_session(tmp_path, kernels=kernels, preprocess="gpu", gpu_memory="mapped") as session:
        for seed in range(4):
            result = session(Frame(picture(seed)) if kind == "of the network's size" else frame(kind, seed))
            before = gpu.mapped_accesses()
            drawing = result.start_overlay()
            assert drawing is not None
            assert len(np.unique(drawing.overlay())) > 16
            assert gpu.mapped_accesses() == before


def test_in_device_memory_nothing_is_worked_on_in_the_hosts(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    gpu.use_facts("orin_jetpack6")
    gpu.watch_mapped()
    with open_session(tmp_path, kernels=kernels, preprocess="gpu", gpu_memory="device") as session:
        for seed in range(4):
            assert session(frame("nv12", seed)).start_overlay() is not None
    assert gpu.mapped_accesses() == 0


def test_missing_images_of_a_batch_do_not_come_from_uninitialised_memory(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels
) -> None:
    gpu.use_facts("orin_jetpack6")
    inputs = []
    for seed in (1, 1000):
        gpu.seed(seed)
        model = dataclasses.replace(MODEL, batch=2)
        with open_session(tmp_path, model, kernels=kernels, gpu_memory="mapped", slots=1) as session:
            session.submit([frame("nv12", 0)])
            session.collect()
            inputs.append(session._slots[0].images.copy())
    np.testing.assert_array_equal(*inputs)


# Kernels that are loaded lazily


@pytest.mark.parametrize("facts", ["rtx4090", "orin_jetpack6"])
@pytest.mark.parametrize("mode", ["LAZY", "EAGER"])
def test_no_kernel_is_launched_for_the_first_time_in_a_capture(
    tmp_path: Path,
    gpu: ModuleType,
    unloaded_kernels: Kernels,
    caplog: pytest.LogCaptureFixture,
    facts: str,
    mode: str,
) -> None:
    gpu.use_facts(facts)
    gpu.set_fact("module_loading", mode)
    with open_session(tmp_path, kernels=unloaded_kernels, preprocess="gpu") as session:
        assert session.graph_error is None
        for kind in ("bgr8", "nv12"):
            for seed in range(4):
                assert session(frame(kind, seed)).start_overlay() is not None
    assert not caplog.text  # of work that is no graph


def narrow_map(session: TensorRTSession) -> NarrowMapArgs:
    """Arguments of a small kernel, in memory of the session."""
    ids, narrow = (session._slots[0].addresses[name] for name in ("panoptic", "segments"))
    return NarrowMapArgs(ids=ids, narrow=narrow, count=1, bytes_per_id=1)


@pytest.mark.usefixtures("own_context")
def test_a_capture_refuses_to_load_a_kernel_and_takes_one_that_has_run(
    tmp_path: Path, gpu: ModuleType, unloaded_kernels: Kernels
) -> None:
    with open_session(tmp_path) as session:
        args = narrow_map(session)

        def narrow() -> None:
            unloaded_kernels.narrow_map(args, session.stream.address)

        with pytest.raises(KernelError, match="CUDA error 900"):
            session.stream.capture(narrow)
        narrow()
        session.stream.synchronize()
        session.stream.capture(narrow).close()


@pytest.mark.usefixtures("own_context")
def test_where_a_capture_may_load_kernels_it_does(tmp_path: Path, gpu: ModuleType, unloaded_kernels: Kernels) -> None:
    gpu.set_fact("capture.first_launch", "allowed")
    with open_session(tmp_path) as session:
        args = narrow_map(session)
        session.stream.capture(lambda: unloaded_kernels.narrow_map(args, session.stream.address)).close()
