"""Preprocessing, overlay and the narrow map: the NumPy reference by hand and against OpenCV and PyTorch, and the CUDA
kernels in the simulation against the reference, to the byte.

Kernels run under AddressSanitizer and UndefinedBehaviorSanitizer but where a test says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from panrt.plugins import frame_reference, reference
from panrt.plugins.cuda_api import NarrowMapArgs, OverlayArgs, PreprocessArgs
from panrt.plugins.frame_reference import Letterbox
from tools import cuda_ops
from tools.hostcuda import Flavour, LaunchError, Out, SimulatedGpu, Struct, in_out

Gpus = Callable[[Flavour], SimulatedGpu]
Array = NDArray[Any]

FORMATS = ["BGR8", "RGB8", "NV12", "YUYV"]
ORDERS = [("forward", 0), ("reverse", 0), ("random", 0), ("random", 1)]


def frame_shape(pixel_format: str, height: int, width: int) -> tuple[int, ...]:
    """Of a frame as `frame_reference` takes it."""
    return {"NV12": (height * 3 // 2, width), "YUYV": (height, width, 2)}.get(pixel_format, (height, width, 3))


# --- The reference ----------------------------------------------------------------------------------------------------


def test_video_colours_are_those_of_opencv_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    nv12 = rng.integers(0, 256, (240 * 3 // 2, 320), np.uint8)
    yuyv = rng.integers(0, 256, (240, 320, 2), np.uint8)
    assert np.array_equal(frame_reference.to_bgr(nv12, "NV12"), cv2.cvtColor(nv12, cv2.COLOR_YUV2BGR_NV12))
    assert np.array_equal(frame_reference.to_bgr(yuyv, "YUYV"), cv2.cvtColor(yuyv, cv2.COLOR_YUV2BGR_YUYV))


@pytest.mark.parametrize("standard", ["BT601", "BT709"])
def test_black_white_and_primaries_survive_video(standard: str) -> None:
    # Primaries to limited range by the standard's luma shares, back by the reference.
    share = {"BT601": (0.299, 0.587, 0.114), "BT709": (0.2126, 0.7152, 0.0722)}[standard]
    for rgb in ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)):
        r, g, b = (channel / 255 for channel in rgb)
        y = share[0] * r + share[1] * g + share[2] * b
        u, v = (b - y) / (2 * (1 - share[2])), (r - y) / (2 * (1 - share[0]))
        values = (16 + 219 * y, 128 + 224 * u, 128 + 224 * v)
        luma, blue, red = (np.array([[round(value)]], np.uint8) for value in values)
        bgr = frame_reference.yuv_to_bgr(luma, blue, red, standard)[0, 0].astype(int)
        assert np.abs(bgr - np.array(rgb[::-1])).max() <= 3


@pytest.mark.parametrize("hw", [(50, 70), (13, 9), (31, 90), (100, 33), (1, 1), (120, 160)])
def test_the_resize_is_the_antialiased_one_of_pytorch(hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (67, 89, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    wanted = torch.nn.functional.interpolate(pixels, hw, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    got = frame_reference.resize_antialiased(image, hw).astype(float)
    assert np.abs(got - wanted).max() <= 0.501  # rounding to a byte, and of float32


def test_the_same_size_is_the_same_frame() -> None:
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    assert np.array_equal(frame_reference.resize_antialiased(image, (17, 23)), image)


def test_the_letterbox_is_border_around_the_resized_frame() -> None:
    frame = np.full((4, 6, 3), 200, np.uint8)
    output = frame_reference.preprocess(
        frame, Letterbox((2, 3), (5, 7), top_left=(1, 2), border=(1, 2, 3)), pixel_format="BGR8"
    )
    inside = np.zeros((5, 7), bool)
    inside[1:3, 2:5] = True
    assert (output[inside] == 200).all()
    assert (output[~inside] == (1, 2, 3)).all()


# --- Preprocessing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameCase:
    """Frames of a format and where they go."""

    N: int
    pixel_format: str
    half_hw: tuple[int, int]  # sizes are even
    resized_hw: tuple[int, int]
    margins: tuple[int, int, int, int]  # top, left, bottom, right
    standard: str
    padding: int
    seed: int

    def frames(self) -> Array:
        """(N, ...)."""
        shape = frame_shape(self.pixel_format, 2 * self.half_hw[0], 2 * self.half_hw[1])
        return np.random.default_rng(self.seed).integers(0, 256, (self.N, *shape), np.uint8)

    def options(self) -> dict[str, Any]:
        """Of both forms."""
        top, left, bottom, right = self.margins
        return {
            "letterbox": Letterbox(
                self.resized_hw,
                (top + self.resized_hw[0] + bottom, left + self.resized_hw[1] + right),
                top_left=(top, left),
                border=(10, 20, 30),
            ),
            "pixel_format": self.pixel_format,
            "standard": self.standard,
        }


def assert_prepared(case: FrameCase, gpu: SimulatedGpu, order: tuple[str, int] = ("forward", 0)) -> None:
    """As the reference, to the byte."""
    frames = case.frames()
    got = cuda_ops.preprocess(frames, padding=case.padding, gpu=gpu, order=order, **case.options())
    for i, frame in enumerate(frames):
        assert np.array_equal(got[i], frame_reference.preprocess(frame, **case.options()))
    assert gpu.launches == 1


_small = st.integers(0, 3)
frame_cases = st.builds(
    FrameCase,
    N=st.integers(1, 2),
    pixel_format=st.sampled_from(FORMATS),
    half_hw=st.tuples(st.integers(1, 30), st.integers(1, 40)),
    resized_hw=st.tuples(st.sampled_from([1, 2, 7, 20, 31, 50]), st.sampled_from([1, 3, 16, 31, 33, 70])),
    margins=st.tuples(_small, _small, _small, _small),
    standard=st.sampled_from(["BT601", "BT709"]),
    padding=st.sampled_from([0, 4, 64]),
    seed=st.integers(0, 2**16),
)


@given(case=frame_cases, order=st.sampled_from(ORDERS))
def test_frames_are_prepared_as_the_reference_does(gpus: Gpus, case: FrameCase, order: tuple[str, int]) -> None:
    assert_prepared(case, gpus("asan"), order)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize(("width", "resized"), [(2, 1025), (2050, 31), (2050, 1), (600, 257), (1500, 255)])
def test_rows_wider_and_narrower_than_a_block(gpus: Gpus, pixel_format: str, width: int, resized: int) -> None:
    # 2050 to 1 is more than shared memory has room for at the widest tile; 32 pixels are enough for any.
    case = FrameCase(1, pixel_format, (2, width // 2), (3, resized), (0, 1, 0, 2), "BT709", 0, resized)
    assert_prepared(case, gpus("asan"), ("random", 0))


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_no_two_threads_race_for_a_frame(gpus: Gpus, pixel_format: str) -> None:
    assert_prepared(FrameCase(1, pixel_format, (3, 20), (2, 31), (1, 1, 0, 1), "BT601", 0, 0), gpus("tsan"))


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_frame_is_read_by_the_row_and_written_in_whole_sectors(tracing_gpu: SimulatedGpu, pixel_format: str) -> None:
    # Each source row weighs in the two output rows that it lies between and is read for both; beyond that a sector is
    # asked for twice only where stretches of 256 output pixels meet.
    case = FrameCase(1, pixel_format, (24, 480), (32, 640), (0, 0, 0, 0), "BT601", 0, 0)
    assert_prepared(case, tracing_gpu)
    assert tracing_gpu.trace is not None
    planes = 2 if pixel_format == "NV12" else 1
    sectors = sum(tracing_gpu.trace.reads[i].sectors for i in range(planes))
    different = sum(tracing_gpu.trace.reads[i].launch_sectors for i in range(planes))
    # A row of NV12's chroma is read for both of its rows of luma.
    assert sectors <= (3.2 if pixel_format == "NV12" else 2.2) * different
    written = tracing_gpu.trace.writes[planes]
    assert written.sectors == written.ideal_sectors == 32 * 640 * 3 // 32


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"images": 0}, 1, "images: expected 1 to 65535, got 0"),
        ({"height": 0}, 1, "height: expected 1 to 32768, got 0"),
        ({"output_width": 40000}, 1, "output_width: expected 1 to 32768, got 40000"),
        ({"left": 3}, 1, "left: expected 0 to 0, got 3"),
        ({"top": -1}, 1, "top: expected 0 to 0, got -1"),
        ({"frame": None}, 1, "frame or output is null"),
        ({"pitch": 11}, 1, "pitch: expected 12 to 1048576, got 11"),
        ({"format": 2}, 1, "NV12 needs the plane of chroma"),
        ({"format": 2, "chroma": 16, "height": 3}, 1, "height and width of an NV12 frame must be even"),
        ({"format": 2, "chroma": 17}, 1, "aligned to 2 bytes"),
        ({"format": 3, "width": 3}, 1, "the width of a YUYV frame must be even"),
        ({"format": 3, "pitch": 14}, 1, "aligned to 4 bytes"),
        ({"format": 4}, 2, "format must be BGR8, RGB8, NV12 or YUYV"),
        ({"standard": 2}, 2, "standard must be BT.601 or BT.709"),
        ({"width": 32000, "pitch": 96000}, 2, "shrinks by more than"),
    ],
)
def test_frames_outside_the_contract_are_refused(gpus: Gpus, changes: dict[str, Any], code: int, message: str) -> None:
    given: dict[str, Any] = {
        "frame": np.zeros((4, 4, 3), np.uint8), "output": Out((4, 2, 3), np.uint8), "pitch": 12, "frame_bytes": 48,
        "images": 1, "format": 0, "standard": 0, "height": 4, "width": 4, "resized_height": 4, "resized_width": 2,
        "output_height": 4, "output_width": 2,
    }  # fmt: skip
    with pytest.raises(LaunchError, match=re.escape(message)) as refused:
        gpus("asan").launch("panrt_cuda_preprocess", Struct(PreprocessArgs, **(given | changes)))
    assert refused.value.code == code


# --- Overlay ----------------------------------------------------------------------------------------------------------

frame_shapes = st.tuples(st.integers(1, 2), st.integers(1, 40), st.sampled_from([1, 2, 31, 33, 64, 100]))


def draw_map(shape: tuple[int, int, int], map_hw: tuple[int, int], ids: int, seed: int) -> tuple[Array, Array, Array]:
    """Frames, maps of blocks of ids (some without a colour), and colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-1, ids + 1, (shape[0], (map_hw[0] + 3) // 4, (map_hw[1] + 3) // 4), np.int32)
    panoptic = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, : map_hw[0], : map_hw[1]]
    frames = rng.integers(0, 256, (*shape, 3), np.uint8)
    return frames, np.ascontiguousarray(panoptic), rng.integers(0, 256, (ids, 3), np.uint8)


@given(
    shape=frame_shapes,
    map_hw=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
    ids=st.integers(0, 9),
    opacity=st.floats(0, 1),
    border=st.sampled_from([0, 1, 2, 5, 64, 1000]),
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**16),
)
def test_segments_are_drawn_as_the_reference_does(
    gpus: Gpus,
    shape: tuple[int, int, int],
    map_hw: tuple[int, int] | None,
    ids: int,
    opacity: float,
    border: int,
    order: tuple[str, int],
    seed: int,
) -> None:
    frames, panoptic, colors = draw_map(shape, map_hw or shape[1:], ids, seed)
    options: dict[str, Any] = {"opacity": opacity, "border": border}
    got = cuda_ops.overlay(frames, panoptic, colors, gpu=gpus("asan"), order=order, **options)
    for i, frame in enumerate(frames):
        assert np.array_equal(got[i], reference.overlay(frame, panoptic[i], colors, **options))
    assert gpus("asan").launches == 1


def test_an_overlay_may_be_drawn_in_place(gpus: Gpus) -> None:
    frames, panoptic, colors = draw_map((1, 9, 33), (9, 33), 5, 0)
    struct = Struct(
        OverlayArgs, frame=in_out(frames), panoptic=panoptic, colors=colors, output="frame", images=1, height=9,
        width=33, map_height=9, map_width=33, color_count=5, opacity=100, border=1,
    )  # fmt: skip
    (got,) = gpus("asan").launch("panrt_cuda_overlay", struct)
    assert np.array_equal(got[0], reference.overlay(frames[0], panoptic[0], colors, opacity=100 / 256, border=1))


def test_the_largest_sides_have_cells_too(gpus: Gpus) -> None:
    frames, panoptic, colors = draw_map((1, 1, 32768), (1, 32767), 9, 0)
    got = cuda_ops.overlay(frames, panoptic, colors, opacity=0.5, border=3, gpu=gpus("asan"))
    assert np.array_equal(got[0], reference.overlay(frames[0], panoptic[0], colors, opacity=0.5, border=3))


def test_no_two_threads_race_for_an_overlay(gpus: Gpus) -> None:
    frames, panoptic, colors = draw_map((1, 9, 65), (9, 65), 5, 0)
    got = cuda_ops.overlay(frames, panoptic, colors, opacity=0.5, border=1, gpu=gpus("tsan"))
    assert np.array_equal(got[0], reference.overlay(frames[0], panoptic[0], colors, opacity=0.5, border=1))


def test_an_overlay_moves_whole_sectors(tracing_gpu: SimulatedGpu) -> None:
    frames, panoptic, colors = draw_map((1, 64, 128), (64, 128), 5, 0)
    cuda_ops.overlay(frames, panoptic, colors, opacity=0.5, border=1, gpu=tracing_gpu)
    assert tracing_gpu.trace is not None
    frame, ids, output = tracing_gpu.trace.reads[0], tracing_gpu.trace.reads[1], tracing_gpu.trace.writes[3]
    assert frame.sectors == frame.launch_sectors == output.sectors == output.ideal_sectors == 64 * 128 * 3 // 32
    assert ids.sectors <= 3.3 * ids.launch_sectors  # a pixel's own, the one to the right, the one below


def test_maps_outside_the_contract_are_refused(gpus: Gpus) -> None:
    gpu, memory = gpus("asan"), np.zeros(64, np.uint8)
    given: dict[str, Any] = {"frame": memory, "panoptic": memory, "output": memory, "images": 1}
    given |= {"height": 1, "width": 1, "map_height": 1, "map_width": 1}
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"images": 0}, "images: expected 1 to 65535, got 0"),
        ({"width": 32769}, "width: expected 1 to 32768, got 32769"),
        ({"map_height": 0}, "map_height: expected 1 to 32768, got 0"),
        ({"color_count": -1}, "color_count: expected 0 to 2147483647, got -1"),
        ({"opacity": 257}, "opacity: expected 0 to 256, got 257"),
        ({"border": -1}, "border: expected 0 to 2147483647, got -1"),
        ({"color_count": 1}, "colors or output is null"),
        ({"panoptic": 3}, "aligned to 4 bytes"),
    ]
    for changes, message in refusals:
        with pytest.raises(LaunchError, match=message):
            gpu.launch("panrt_cuda_overlay", Struct(OverlayArgs, **(given | changes)))


# --- Memory of any alignment ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pixel_format", "step"), [("BGR8", 1), ("RGB8", 1), ("NV12", 2), ("YUYV", 4)])
@pytest.mark.parametrize("offset", [1, 3, 15, 31, 255])
def test_frames_of_any_alignment_are_read_or_named(gpus: Gpus, pixel_format: str, step: int, offset: int) -> None:
    case = FrameCase(1, pixel_format, (5, 9), (7, 11), (1, 2, 1, 2), "BT601", 4, 0)
    frames = case.frames()
    for aligned in {offset - offset % step, offset}:
        if aligned % step == 0:
            got = cuda_ops.preprocess(frames, padding=4, offset=aligned, gpu=gpus("asan"), **case.options())
            assert np.array_equal(got[0], frame_reference.preprocess(frames[0], **case.options()))
        else:
            with pytest.raises(LaunchError, match=f"{pixel_format}.* aligned to {step} bytes"):
                cuda_ops.preprocess(frames, padding=4, offset=aligned, gpu=gpus("asan"), **case.options())


@pytest.mark.parametrize("offset", [1, 3, 15, 31, 255])
def test_overlays_of_any_alignment_are_drawn(gpus: Gpus, offset: int) -> None:
    frames, panoptic, colors = draw_map((1, 9, 33), (9, 33), 5, 0)
    got = cuda_ops.overlay(frames, panoptic, colors, opacity=0.5, border=1, offset=offset, gpu=gpus("asan"))
    assert np.array_equal(got[0], reference.overlay(frames[0], panoptic[0], colors, opacity=0.5, border=1))


# --- The narrow map ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [1, 3, 4, 31, 33, 1024, 1025, 4099])
def test_ids_narrow_and_saturate(gpus: Gpus, count: int, dtype: type[np.integer[Any]]) -> None:
    edges = [0, 1, 254, 255, 256, 65534, 65535, 65536, 2**31 - 1, -1, -(2**31)]
    ids = np.resize(np.array(edges, np.int32), count)
    for order in ORDERS:
        narrow = cuda_ops.narrow_map(ids, dtype, gpu=gpus("asan"), order=order)
        assert np.array_equal(narrow, frame_reference.narrow_map(ids, dtype))


def test_a_narrow_map_moves_whole_sectors(tracing_gpu: SimulatedGpu) -> None:
    cuda_ops.narrow_map(np.zeros((64, 128), np.int32), np.uint16, gpu=tracing_gpu)
    assert tracing_gpu.trace is not None
    assert tracing_gpu.trace.reads[0].sectors == 64 * 128 * 4 // 32
    assert tracing_gpu.trace.writes[1].sectors == 64 * 128 * 2 // 32


def test_a_map_of_no_ids_is_no_launch_and_odd_widths_are_refused(gpus: Gpus) -> None:
    gpu = gpus("asan")
    gpu.launch("panrt_cuda_narrow_map", Struct(NarrowMapArgs, count=0, bytes_per_id=2))
    assert gpu.launches == 0
    for changes, message in (({"count": -1}, "count: expected 0 to"), ({"bytes_per_id": 4}, "1 or 2"), ({}, "null")):
        with pytest.raises(LaunchError, match=message):
            gpu.launch("panrt_cuda_narrow_map", Struct(NarrowMapArgs, **({"count": 4, "bytes_per_id": 2} | changes)))
