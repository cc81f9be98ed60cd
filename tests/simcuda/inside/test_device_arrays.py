"""Frames in the GPU memory of other libraries go in, and maps in PanRT's come out, without a copy."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu
from cuda.core import Device, LegacyPinnedMemoryResource
from cuda.core.utils import StridedMemoryView
from numpy.typing import NDArray

import panrt
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.frame import Frame, PixelFormat
from panrt.engine.results.device_map import DeviceMap
from panrt.engine.results.tracking import Tracker
from panrt.errors import CudaStreamError, DeviceMapError, FrameError, SessionClosedError
from tools.simcuda.control import SCHEDULES, Schedule
from tools.simcuda.device_arrays import CudaArray, DlpackArray, OnDevice
from tools.simcuda.sessions import MODEL, check, open_session, picture

pytestmark = pytest.mark.usefixtures("own_context")
KINDS = (CudaArray, DlpackArray)


def frame(image: object, **options: Any) -> Frame:
    return Frame(image, **options)  # type: ignore[arg-type]  # what another library's array is in place of NumPy's


# Frames


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_read_where_it_is_and_after_the_work_that_fills_it(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, kind: type[OnDevice], integrated: bool, schedule: Schedule
) -> None:
    gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
    with open_session(tmp_path, kernels=kernels) as session:
        check(session(picture(0)), picture(0))
        gpu.schedule(schedule, 3)
        for seed in range(1, 5):
            array = kind(picture(seed))
            gpu.take_log()
            session.submit([frame(array, index=seed)])
            calls = gpu.count_calls()
            assert not set(calls) & (gpu.SYNCHRONISATIONS - {"cuEventCreate"})
            check(session.collect()[0], picture(seed))
            array.close()
            check(session(picture(seed + 50)), picture(seed + 50))


def test_neither_frame_nor_map_is_copied(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    """Beside the captured graph, whose one copy brings `result.panoptic` to the host, nothing copies."""
    with open_session(tmp_path, kernels=kernels) as session:
        array = CudaArray(picture(0, (50, 40)))
        gpu.take_log()
        result = session(array)
        assert result.panoptic_device.shape == (16, 13)
        StridedMemoryView.from_any_interface(result.panoptic_device, stream_ptr=-1)
        calls = gpu.take_log()
        assert [call for call in calls if "Memcpy" in call] == []
        assert calls.count("kernel launch") == 1  # which reads the frame and writes the network's input
        assert calls.count("cuGraphLaunch") == 1
        assert not set(calls) & {"cuMemAlloc", "cuMemHostAlloc"}
        array.close()


LAYOUTS: dict[PixelFormat, tuple[int, ...]] = {
    "bgr8": (50, 40, 3), "rgb8": (50, 40, 3), "nv12": (75, 40), "yuyv": (50, 40, 2)
}  # fmt: skip


@pytest.mark.parametrize("gap", [0, 24])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixel_format", LAYOUTS)
def test_a_frame_may_have_any_size_format_and_distance_of_rows(
    tmp_path: Path, kernels: Kernels, pixel_format: PixelFormat, kind: type[OnDevice], gap: int
) -> None:
    image = np.random.default_rng(1).integers(0, 256, LAYOUTS[pixel_format], np.uint8)
    pitch = image[0].size + gap
    with open_session(tmp_path, kernels=kernels, preprocess="gpu") as session:
        wanted = session(Frame(image, pixel_format=pixel_format))
        array = kind(image, pitch=pitch)
        found = session(frame(array, pixel_format=pixel_format))
        np.testing.assert_array_equal(found.panoptic, wanted.panoptic)
        assert found.segments == wanted.segments
        array.close()


def test_an_array_lives_until_it_has_been_read(tmp_path: Path, kernels: Kernels) -> None:
    with open_session(tmp_path, kernels=kernels) as session:
        session.submit([frame(Fleeting(picture(0)))])
        check(session.collect()[0], picture(0))


class Fleeting(CudaArray):
    """It goes with its last user."""

    def __del__(self) -> None:
        self.close()


def test_a_batch_fills_its_images(tmp_path: Path, kernels: Kernels) -> None:
    with open_session(tmp_path, dataclasses.replace(MODEL, batch=3), kernels=kernels) as session:
        arrays = [CudaArray(picture(0)), DlpackArray(picture(1)), CudaArray(picture(2))]
        session.submit([frame(array) for array in arrays])
        for seed, result in enumerate(session.collect()):
            check(result, picture(seed))
            np.testing.assert_array_equal(read(result.panoptic_device), result.panoptic)
        with pytest.raises(FrameError, match="got ndarray in host memory beside a frame on the GPU"):
            session.submit([frame(arrays[0]), Frame(picture(1))])
        for array in arrays:
            array.close()


class Odd(CudaArray):
    """An interface with a field of choice."""

    changes: dict[str, Any] = {}  # noqa: RUF012  (a class for each)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return super().__cuda_array_interface__ | self.changes


@pytest.mark.parametrize(
    ("changes", "pixel_format", "message"),
    [
        ({"typestr": "|i1"}, "bgr8", r"got Odd \(32, 64, 3\) int8, .* expected \(H, W, 3\) uint8 BGR"),
        ({"shape": (32, 64), "strides": None}, "bgr8", r"got \(32, 64\) as bgr8, expected \(H, W, 3\) uint8"),
        ({"shape": (3, 32, 64), "strides": (2048, 64, 1)}, "bgr8", r"got \(3, 32, 64\) as bgr8"),
        ({"shape": (32, 64), "strides": None}, "nv12", r"got \(32, 64\) as nv12, expected \(H \* 3 / 2, W\)"),
        ({"shape": (0, 64, 3)}, "bgr8", r"got Odd \(0, 64, 3\)"),
        ({"shape": (96,), "strides": None}, "bgr8", r"got Odd \(96,\)"),
        ({"strides": (192, 6, 1)}, "bgr8", r"strides \(192, 6, 1\), .* each without gaps; make a contiguous copy"),
        ({"strides": (-192, 3, 1)}, "bgr8", r"rows from top to bottom"),
        ({"strides": (0, 3, 1)}, "bgr8", r"rows from top to bottom"),
        ({"shape": (32, 64, 2), "strides": (130, 2, 1)}, "yuyv", r"rows 130 bytes apart, expected multiples of 4"),
        ({"stream": 0}, "bgr8", "Odd does not share its memory"),
        ({"version": 2}, "bgr8", "Odd does not share its memory"),
        ({"mask": object()}, "bgr8", "Odd does not share its memory"),
        ({"data": (4096, False)}, "bgr8", "Odd does not share its memory"),
    ],
)  # fmt: skip
def test_an_array_that_does_not_fit_is_refused_by_what_it_is(
    tmp_path: Path, kernels: Kernels, changes: dict[str, Any], pixel_format: PixelFormat, message: str
) -> None:
    with open_session(tmp_path, kernels=kernels) as session:
        array = Odd(picture(0))
        array.changes = changes
        with pytest.raises(FrameError, match=f"frame on the GPU: .*{message}"):
            session(frame(array, pixel_format=pixel_format))
        array.changes = {}
        check(session(array), picture(0))
        array.close()


@pytest.mark.parametrize(
    "changes", [{"stream": 1}, {"stream": 2}, {"strides": None}, {"descr": [("", "|u1")]}, {"mask": None}]
)
@pytest.mark.parametrize("read_only", [False, True])
def test_an_interface_may_say_all_that_its_standard_allows(
    tmp_path: Path, kernels: Kernels, changes: dict[str, Any], read_only: bool
) -> None:
    with open_session(tmp_path, kernels=kernels) as session:
        array = Odd(picture(0))
        cu.cuStreamSynchronize(array.stream)
        array.changes = changes | {"data": (array.memory, read_only)}
        check(session(array), picture(0))
        array.close()


def test_an_array_whose_library_raises_is_refused_with_its_reason(tmp_path: Path, kernels: Kernels) -> None:
    class Grad(DlpackArray):
        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    with open_session(tmp_path, kernels=kernels) as session:
        array = Grad(picture(0))
        with pytest.raises(FrameError, match=r"Grad does not share its memory \(Can't export .* tensor.detach\(\)\)"):
            session(array)
        with pytest.raises(FrameError, match="expected an array"):
            session([1, 2, 3])
        check(session(picture(0)), picture(0))
        array.close()


def test_without_the_plugin_library_frames_come_from_the_host(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        array = CudaArray(picture(0))
        with pytest.raises(FrameError, match="without PanRT's plugin library"):
            session(array)
        array.close()


# Streams


class WithStream:
    """As CuPy's, PyTorch's and cuda.core's streams are."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


@pytest.mark.parametrize("form", [int, np.int64, WithStream])
def test_a_stream_that_an_array_does_not_name_can_be_waited_for(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, form: Callable[[int], object]
) -> None:
    """As of PyCUDA's arrays, whose interface says that there is nothing to wait for."""
    with open_session(tmp_path, kernels=kernels) as session:
        gpu.schedule("lazy")
        array = CudaArray(picture(0))
        array.names_stream = False
        assert not np.array_equal(session(array).panoptic, session(picture(0)).panoptic)  # nothing has filled it yet
        gpu.take_log()
        session.wait_for(form(int(array.stream)))
        assert not gpu.SYNCHRONISATIONS & set(gpu.take_log())
        check(session(array), picture(0))
        array.close()


@pytest.mark.parametrize("stream", [0, 1, 2, cu.CUstream(1)])
def test_default_streams_can_be_waited_for(tmp_path: Path, stream: object) -> None:
    with open_session(tmp_path) as session:
        session.wait_for(stream)
        check(session(picture(0)), picture(0))
    with pytest.raises(SessionClosedError):
        session.wait_for(stream)


@pytest.fixture(scope="module")
def device() -> Device:
    """cuda.core keeps the context for the rest of the process, so it is there before anything is counted."""
    device = Device(0)
    device.set_current()
    return device


def test_arrays_and_streams_of_cuda_core_go_in_and_maps_come_out(
    device: Device, tmp_path: Path, gpu: ModuleType, kernels: Kernels
) -> None:
    gpu.schedule("lazy")
    with open_session(tmp_path, kernels=kernels) as session:
        stream = device.create_stream()
        image = picture(0)
        pinned = LegacyPinnedMemoryResource().allocate(image.nbytes, stream=stream)
        ctypes.memmove(int(pinned.handle), image.tobytes(), image.nbytes)  # by DLPack it is read-only in NumPy 1
        memory = device.allocate(image.nbytes, stream=stream)
        memory.copy_from(pinned, stream=stream)
        session.wait_for(stream)
        result = session(StridedMemoryView.from_buffer(memory, image.shape, dtype=np.dtype(np.uint8)))
        check(result, image)
        pinned.close()
        memory.close(stream)
        stream.sync()
        stream.close()


def test_values_that_are_no_streams_are_refused(tmp_path: Path) -> None:
    class Wrong:
        def __cuda_stream__(self) -> int:
            return 0

    with open_session(tmp_path) as session:
        for wrong, name in ((None, "NoneType"), ("0", "str"), (1.5, "float"), (Wrong(), "Wrong")):
            with pytest.raises(CudaStreamError, match=f"stream: got {name}, expected an object with __cuda_s"):
                session.wait_for(wrong)


# Maps


def read(shown: DeviceMap) -> NDArray[np.int32]:
    """What a map holds, fetched by a copy from where its interface says it is."""
    interface = shown.__cuda_array_interface__
    (height, width), (pitch, _) = interface["shape"], interface["strides"]
    rows = np.empty((height, pitch // 4), np.int32)
    size = pitch * (height - 1) + 4 * width
    assert cu.cuMemcpyDtoH(rows.ctypes.data, interface["data"][0], size)[0] == cu.CUresult.CUDA_SUCCESS
    return rows[:, :width]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("hw", [(32, 64), (50, 40)])
def test_a_map_on_the_device_is_that_of_the_host(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, hw: tuple[int, int], integrated: bool, schedule: Schedule
) -> None:
    gpu.schedule(schedule, 1)
    gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
    with open_session(tmp_path, kernels=kernels) as session:
        for seed in range(4):
            result = session(picture(seed, hw))
            shown = result.panoptic_device
            assert (shown.shape, shown.dtype) == (result.panoptic.shape, result.panoptic.dtype)
            np.testing.assert_array_equal(read(shown), result.panoptic)
            for view in (
                StridedMemoryView.from_dlpack(shown, stream_ptr=1),
                StridedMemoryView.from_cuda_array_interface(shown, stream_ptr=1),
            ):
                assert (view.ptr, view.shape, view.dtype) == (shown.address, shown.shape, np.int32)
                assert tuple(view.strides or ()) in ((shown.strides[0] // 4, 1), ())
                assert view.device_id == 0
                assert not view.readonly
    assert shown.__dlpack_device__() == (2, 0)


def test_the_interface_keeps_to_version_3(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        interface = session(picture(0)).panoptic_device.__cuda_array_interface__
    assert set(interface) == {"shape", "strides", "typestr", "data", "stream", "version"}
    assert (interface["version"], interface["typestr"], interface["stream"]) == (3, "<i4", None)
    address, is_read_only = interface["data"]
    assert type(address) is int
    assert is_read_only is False


def test_a_capsule_keeps_to_dlpack(tmp_path: Path) -> None:
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    with open_session(tmp_path) as session:
        shown = session(picture(0)).panoptic_device
        for stream in (None, -1, 1, 2, session.stream.address):
            assert name_of(shown.__dlpack__(stream=stream)) == b"dltensor"
        assert name_of(shown.__dlpack__(stream=1, max_version=(1, 0))) == b"dltensor_versioned"
        assert name_of(shown.__dlpack__(dl_device=(2, 0), copy=False)) == b"dltensor"
        for wish in ({"dl_device": (1, 0)}, {"copy": True}):
            with pytest.raises(BufferError):
                shown.__dlpack__(**wish)


def test_a_map_is_valid_until_its_memory_is_used_again(tmp_path: Path) -> None:
    def uses(shown: DeviceMap) -> list[Callable[[], object]]:
        return [lambda: shown.address, lambda: shown.__cuda_array_interface__, shown.__dlpack__]

    with open_session(tmp_path, slots=1) as session:
        first = session(picture(0)).panoptic_device
        session.submit([Frame(picture(1))])
        for use in uses(first):
            with pytest.raises(
                DeviceMapError, match=r"this map is no longer valid: the session has used its memory for another"
            ):
                use()
        second = session.collect()[0].panoptic_device
        session.profile(runs=1)
        for use in uses(second):
            with pytest.raises(DeviceMapError, match="used its memory for another frame; copy it before the next"):
                use()
        third = session(picture(2)).panoptic_device
    for use in uses(third):
        with pytest.raises(DeviceMapError, match="this map is no longer valid: its session is closed"):
            use()


def test_the_maps_of_all_that_was_collected_are_valid_until_the_next_submit(tmp_path: Path) -> None:
    with open_session(tmp_path, slots=3) as session:
        for seed in range(3):
            session.submit([Frame(picture(seed))])
        results = [session.collect()[0] for _ in range(3)]
        for result in results:
            np.testing.assert_array_equal(read(result.panoptic_device), result.panoptic)


@pytest.mark.parametrize("integrated", [False, True])
def test_the_next_frame_comes_after_a_stream_that_still_reads_the_map(
    tmp_path: Path, gpu: ModuleType, integrated: bool
) -> None:
    gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
    gpu.schedule("lazy")
    with open_session(tmp_path, slots=1) as session:
        stream = cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING)[1]
        first = session(picture(0))
        size = first.panoptic.nbytes
        pinned = int(cu.cuMemHostAlloc(size, 0)[1])
        cu.cuMemcpyDtoHAsync(pinned, first.panoptic_device.address, size, stream)
        session.wait_for(int(stream))
        session(picture(1))
        cu.cuStreamSynchronize(stream)
        copied = np.ctypeslib.as_array((ctypes.c_int32 * first.panoptic.size).from_address(pinned))
        np.testing.assert_array_equal(copied.reshape(first.panoptic.shape), first.panoptic)
        cu.cuStreamDestroy(stream)
        cu.cuMemFreeHost(pinned)


def test_a_result_that_is_copied_or_tracked_has_its_map_on_the_host(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        result = session(picture(0))
        assert "0x" not in repr(result)
        tracked = Tracker((*MODEL.things, *MODEL.stuff)).update(result)
        for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), tracked):
            assert other.panoptic.shape == result.panoptic.shape
            with pytest.raises(DeviceMapError, match=r"in host memory alone: .* use result\.panoptic\."):
                other.panoptic_device  # noqa: B018
        assert dataclasses.replace(result, source="x").panoptic_device is result.panoptic_device


def test_a_stream_hands_out_maps_that_are_valid_where_one_frame_is_in_flight(tmp_path: Path) -> None:
    images = [picture(seed) for seed in range(5)]
    with open_session(tmp_path) as session:
        for result in panrt.stream(iter(images), session, in_flight=1, tracker=None):
            np.testing.assert_array_equal(read(result.panoptic_device), result.panoptic)
