"""Frames that the GPU prepares and compact maps: the unmodified PanRT kernels behind the session."""

from __future__ import annotations

import dataclasses
import os
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
from cuda.bindings import driver as cu
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.inputs import LAYOUTS
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.frame import Frame
from panrt.engine.preprocess import place
from panrt.errors import CudaError, EngineError, FrameError, KernelError
from panrt.plugins import frame_reference
from panrt.plugins.cuda_api import NarrowMapArgs
from tools.simcuda import fake_tensorrt
from tools.simcuda.control import SCHEDULES, Schedule
from tools.simcuda.sessions import HW, MODEL, check, open_session, picture

FREE = (104, 116, 123)  # of MODEL's mean
Kind = Literal["rgb8", "nv12", "yuyv"]


def shape_of(kind: str, height: int, width: int) -> tuple[int, ...]:
    return {"nv12": (height * 3 // 2, width), "yuyv": (height, width, 2)}.get(kind, (height, width, 3))


def raw(kind: Kind, hw: tuple[int, int], seed: int) -> Frame:
    data = np.random.default_rng(seed).integers(0, 256, shape_of(kind, *hw), np.uint8)
    return Frame(data, seed, pixel_format=kind, yuv_standard="bt709" if seed % 2 else "bt601")


def expected(image: NDArray[np.uint8] | Frame, hw: tuple[int, int]) -> NDArray[np.int32]:
    """The map of a frame, by the kernels' references."""
    frame = image if isinstance(image, Frame) else Frame(image)
    placement = place(hw, HW, MODEL.sizes.output_hw)
    input_image = frame_reference.preprocess(
        frame.image,
        frame_reference.Letterbox(placement.content_hw, HW, border=FREE),
        pixel_format=frame.pixel_format.upper(),
        standard=frame.yuv_standard.upper(),
    )
    height, width = placement.map_hw
    return fake_tensorrt.pattern(input_image[None]).panoptic[0, :height, :width]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("kind", ["rgb8", "nv12", "yuyv"])
def test_frames_of_a_camera_are_converted_and_resized_on_the_gpu(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, kind: Kind, integrated: bool, schedule: Schedule
) -> None:
    gpu.schedule(schedule, 5)
    gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
    hw = (50, 64)
    with open_session(tmp_path, kernels=kernels) as session:
        waiting: list[Frame] = []
        for seed in range(6):
            if len(waiting) == session.capacity:
                np.testing.assert_array_equal(session.collect()[0].panoptic, expected(waiting.pop(0), hw))
            waiting.append(raw(kind, hw, seed % 2))
            session.submit([waiting[-1]])
        for image in waiting:
            np.testing.assert_array_equal(session.collect()[0].panoptic, expected(image, hw))


def test_bgr_frames_are_resized_by_whom_the_user_says(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    image = picture(0, (90, 70))
    with open_session(tmp_path, kernels=kernels, preprocess="gpu") as session:
        for _ in range(4):
            np.testing.assert_array_equal(session(image).panoptic, expected(image, (90, 70)))
        check(session(picture(1)), picture(1))  # nothing to resize: it goes the short way
    with open_session(tmp_path, kernels=kernels) as session:
        gpu.take_log()
        by_host = session(image)
        assert "cuMemHostAlloc" not in gpu.take_log()
    assert (by_host.panoptic != expected(image, (90, 70))).any()  # OpenCV's way to resize is another


def test_the_third_frame_of_a_size_costs_what_any_other_does(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    with open_session(tmp_path, kernels=kernels, preprocess="gpu") as session:
        for seed in range(4):  # two for each slot
            session(picture(seed, (64, 64)))
        gpu.take_log()
        for seed in range(10):
            session(picture(seed, (64, 64)))
        calls = gpu.take_log()
    assert len(calls) == 90
    assert not set(calls) & gpu.ALLOCATIONS
    assert "cuGraphLaunch" in calls


def test_a_camera_frame_reaches_an_integrated_gpu_with_one_copy(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels
) -> None:
    """The host allocates no memory in which another copy would fit, and the driver is asked for none."""
    gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, 1)
    frame = raw("nv12", (240, 320), 1)
    with open_session(tmp_path, kernels=kernels) as session:
        for _ in range(4):  # two for each slot
            session(frame)
        gpu.take_log()
        tracemalloc.start()
        result = session(frame)
        allocated = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        calls = gpu.take_log()
    np.testing.assert_array_equal(result.panoptic, expected(frame, (240, 320)))
    assert allocated < frame.image.nbytes // 2
    assert not [call for call in calls if "Memcpy" in call]


def test_only_the_most_recent_sizes_are_kept(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    sizes = [(40 + 2 * n, 64) for n in range(LAYOUTS + 2)]
    with open_session(tmp_path, kernels=kernels, preprocess="gpu") as session:
        before = gpu.alive()["host memory"]
        for _ in range(3):
            for index, hw in enumerate(sizes):
                image = picture(index, hw)
                session.submit([Frame(image)])
                session.submit([Frame(image)])
                for _ in range(2):
                    np.testing.assert_array_equal(session.collect()[0].panoptic, expected(image, hw))
        assert gpu.alive()["host memory"] - before == LAYOUTS * session.capacity


def test_a_batch_of_equal_frames_is_prepared_at_once(tmp_path: Path, kernels: Kernels) -> None:
    hw = (48, 64)
    with open_session(tmp_path, dataclasses.replace(MODEL, batch=2), kernels=kernels) as session:
        for seed in range(0, 6, 2):
            images = [raw("nv12", hw, seed), raw("nv12", hw, seed + 2)]
            session.submit(images)
            for result, image in zip(session.collect(), images, strict=True):
                np.testing.assert_array_equal(result.panoptic, expected(image, hw))
        with pytest.raises(FrameError, match="must be alike in size and format"):
            session.submit([raw("nv12", hw, 0), raw("nv12", (32, 64), 0)])


def test_the_map_comes_down_in_bytes_where_ids_fit(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    with open_session(tmp_path, kernels=kernels) as session:
        result = session(picture(0))
        check(result, picture(0))
        assert result.panoptic.dtype == np.int32
    many = dataclasses.replace(MODEL, thresholds=MODEL.thresholds._replace(max_detections=400))
    with open_session(tmp_path, many, kernels=kernels) as session:
        check(session(picture(0)), picture(0))


@pytest.mark.parametrize("nth", range(1, 4))
@pytest.mark.parametrize("call", ["cuMemHostAlloc", "cuMemAlloc", "cuStreamBeginCapture", "kernel launch"])
def test_any_failure_for_a_new_size_leaves_nothing_behind(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, call: str, nth: int
) -> None:
    image = raw("yuyv", HW, 0)
    with open_session(tmp_path, kernels=kernels) as session:
        before = gpu.alive()
        gpu.fail(call, gpu.OUT_OF_MEMORY, nth=nth)
        try:
            for _ in range(4):
                session(image)
        except (CudaError, EngineError) as error:
            assert re.search(r"OUT_OF_MEMORY|error 2\b", str(error))  # noqa: PT017
            if "Alloc" in call:
                assert gpu.alive() == before
        gpu.reset()
        if call != "kernel launch":  # the fake kernels cannot say that they were not launched
            for _ in range(3):
                np.testing.assert_array_equal(session(image).panoptic, expected(image, HW))


def test_without_graphs_frames_are_prepared_all_the_same(tmp_path: Path, kernels: Kernels) -> None:
    image = raw("rgb8", (40, 40), 0)
    with open_session(tmp_path, kernels=kernels, uncapturable=True) as session:
        for _ in range(4):
            np.testing.assert_array_equal(session(image).panoptic, expected(image, (40, 40)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Frame(np.zeros((48, 64), np.uint8), pixel_format="nv21"), "got pixel_format 'nv21'"),  # type: ignore[arg-type]
        (Frame(np.zeros((47, 64), np.uint8), pixel_format="nv12"), r"got \(47, 64\) uint8 as nv12"),
        (Frame(np.zeros((48, 63, 2), np.uint8), pixel_format="yuyv"), r"got \(48, 63, 2\)"),
    ],
)
def test_a_frame_that_is_not_of_its_format_is_refused(
    tmp_path: Path, kernels: Kernels, image: Frame, message: str
) -> None:
    with open_session(tmp_path, kernels=kernels) as session:
        with pytest.raises(FrameError, match=message):
            session(image)
        check(session(picture(0)), picture(0))


def test_without_the_library_frames_in_other_formats_are_refused(tmp_path: Path) -> None:
    with (
        open_session(tmp_path) as session,
        pytest.raises(FrameError, match="without PanRT's plugin library the GPU cannot prepare frames"),
    ):
        session(raw("rgb8", HW, 0))


def test_a_library_without_the_kernels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"no\.so: not PanRT's plugin library"):
        Kernels(tmp_path / "no.so")
    with pytest.raises(KernelError, match="panrt_cuda_preprocess"):
        Kernels(Path(os.environ["PANRT_SIMCUDA"]))


def test_a_kernel_that_refuses_its_arguments_says_why(kernels: Kernels) -> None:
    with pytest.raises(KernelError, match="kernel narrow_map: "):
        kernels.narrow_map(NarrowMapArgs(bytes_per_id=3), 0)


def stray(gpu: ModuleType, kernels: Kernels) -> list[str]:
    """Let a kernel write to memory that was freed; what the simulation found."""
    context = driver.Context()
    with context:
        stream = driver.Stream()
        gone = driver.DeviceMemory(4096)
        gone.close()
        args = NarrowMapArgs(ids=gone.address, narrow=gone.address, count=64, bytes_per_id=1)
        kernels.narrow_map(args, stream.address)
        with pytest.raises(CudaError, match="ILLEGAL_ADDRESS"):
            stream.synchronize()
        findings: list[str] = gpu.findings()
        gpu.reset()
        stream.close()
    context.close()
    return findings


def test_memory_of_a_kernel_is_checked(gpu: ModuleType, kernels: Kernels) -> None:
    assert stray(gpu, kernels) == ["kernel: touches memory that is not its own"]


def test_another_thread_launches_kernels_after_one_that_strayed(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels
) -> None:
    stray(gpu, kernels)
    image = picture(1)
    with open_session(tmp_path, kernels=kernels, preprocess="gpu") as session, ThreadPoolExecutor(1) as other:
        check(other.submit(session, image).result(), image)
