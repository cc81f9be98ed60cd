"""Pictures that the GPU draws from the frames and maps that it holds."""

from __future__ import annotations

import copy
import dataclasses
import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Literal

import cv2
import numpy as np
import pytest
from cuda.bindings import driver as cu
from numpy.typing import NDArray

import panrt
from panrt.engine.backends.tensorrt.inputs import LAYOUTS
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.frame import Frame, PixelFormat
from panrt.engine.pixel_formats import bgr
from panrt.engine.results.colors import Rgb
from panrt.engine.results.result import PanopticResult
from panrt.engine.results.tracking import Tracker
from panrt.engine.sinks.drawing import annotated
from panrt.engine.sinks.sink import Context, Item, Sink, SinkSpec
from panrt.errors import CudaError, FrameError, SessionError
from tools.simcuda.control import SCHEDULES, Schedule
from tools.simcuda.device_arrays import CudaArray
from tools.simcuda.sessions import COLORS, HW, MODEL, open_session, picture, start_drawing

Kind = Literal["bgr8 of the network's size", "bgr8", "rgb8", "nv12", "yuyv"]
KINDS: tuple[Kind, ...] = ("bgr8 of the network's size", "bgr8", "rgb8", "nv12", "yuyv")


def frame_of(kind: Kind, seed: int, hw: tuple[int, int] = (50, 64)) -> Frame:
    """Noise in large grains, so that the map has areas."""
    pixel_format: PixelFormat = "bgr8" if kind == "bgr8 of the network's size" else kind
    height, width = HW if kind == "bgr8 of the network's size" else hw
    shape = {"nv12": (height * 3 // 2, width), "yuyv": (height, width, 2)}.get(kind, (height, width, 3))
    grains = np.random.default_rng(seed).integers(0, 256, (-(-shape[0] // 6), -(-shape[1] // 6), *shape[2:]), np.uint8)
    image = grains.repeat(6, axis=0).repeat(6, axis=1)[: shape[0], : shape[1]].copy()
    return Frame(image, seed, pixel_format=pixel_format, yuv_standard="bt709" if seed % 2 else "bt601")


def drawn_by_host(frame: Frame, result: PanopticResult, colors: dict[int, Rgb]) -> NDArray[np.uint8]:
    return dataclasses.replace(result, colors=colors).overlay(bgr(frame), labels=False)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gpu_draws_what_the_host_would(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, kind: Kind, integrated: bool, schedule: Schedule
) -> None:
    gpu.schedule(schedule, 5)
    gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
    with open_session(tmp_path, kernels=kernels, preprocess="gpu") as session:
        waiting: list[Frame] = []
        for seed in range(8):
            waiting.append(frame_of(kind, seed % 2))
            session.submit([waiting[-1]])
            if len(waiting) < session.capacity:
                continue
            frame = waiting.pop(0)
            (result,) = session.collect()
            drawing = start_drawing(result)
            assert drawing is not None
            np.testing.assert_array_equal(drawing.overlay(), drawn_by_host(frame, result, COLORS))


def test_a_picture_that_somebody_wants_survives_the_frames_after_it_and_the_session(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels
) -> None:
    gpu.schedule("lazy")
    kept = []
    with open_session(tmp_path, kernels=kernels) as session:
        for seed in range(7):
            frame = frame_of("nv12", seed)
            result = session(frame)
            drawing = start_drawing(result)
            assert drawing is not None
            if seed != 3:  # nobody wants that one
                kept.append((drawing, drawn_by_host(frame, result, COLORS)))
    for drawing, expected in kept:
        np.testing.assert_array_equal(drawing.overlay(), expected)
        assert drawing.overlay() is drawing.overlay()
        assert not drawing.overlay().flags.writeable


def test_two_pictures_of_one_result_may_differ_in_colours(tmp_path: Path, kernels: Kernels) -> None:
    frame = frame_of("yuyv", 0)
    with open_session(tmp_path, kernels=kernels) as session:
        result = session(frame)
        others: dict[int, Rgb] = {number: (g, b, r) for number, (r, g, b) in COLORS.items()}
        drawings = [start_drawing(result, colors) for colors in (COLORS, others)]
        for drawing, colors in zip(drawings, (COLORS, others), strict=True):
            assert drawing is not None
            np.testing.assert_array_equal(drawing.overlay(), drawn_by_host(frame, result, colors))


def test_every_image_of_a_batch_is_drawn(tmp_path: Path, kernels: Kernels) -> None:
    model = dataclasses.replace(MODEL, batch=3)
    with open_session(tmp_path, model, kernels=kernels, preprocess="gpu") as session:
        for kind in ("bgr8", "nv12", "bgr8 of the network's size"):
            frames = [frame_of(kind, seed) for seed in (0, 2, 4)]
            session.submit(frames)
            results = session.collect()
            drawings = [start_drawing(result) for result in results]
            for drawing, frame, result in zip(drawings, frames, results, strict=True):
                assert drawing is not None
                np.testing.assert_array_equal(drawing.overlay(), drawn_by_host(frame, result, COLORS))


@pytest.mark.usefixtures("own_context")
def test_frames_that_were_on_the_device_are_drawn_on(tmp_path: Path, kernels: Kernels) -> None:
    frame = frame_of("bgr8 of the network's size", 0)
    with open_session(tmp_path, kernels=kernels) as session:
        array = CudaArray(frame.image)
        result = session(array)
        drawing = start_drawing(result)
        assert drawing is not None
        np.testing.assert_array_equal(drawing.overlay(), drawn_by_host(frame, result, COLORS))
        array.close()


def test_what_the_device_does_not_have_it_does_not_draw(tmp_path: Path, kernels: Kernels) -> None:
    with open_session(tmp_path, kernels=kernels) as session:
        resized_by_the_host = session(picture(0, (50, 64)))
        assert resized_by_the_host.start_overlay() is None
        with pytest.raises(FrameError, match=r"no GPU holds this result's frame .* give the frame"):
            resized_by_the_host.overlay()
    with open_session(tmp_path) as session:
        assert session(picture(0)).start_overlay() is None
    with open_session(tmp_path, kernels=kernels, slots=LAYOUTS + 1) as session:
        for seed in range(LAYOUTS + 1):
            session.submit([frame_of("nv12", seed, (40 + 2 * seed, 64))])
        (result,) = session.collect()
        assert start_drawing(result) is None  # the frames after it took its memory
        (result,) = session.collect()
        assert start_drawing(result) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_drawn_as_long_as_the_session_holds_it(tmp_path: Path, kernels: Kernels, kind: Kind) -> None:
    first, second, third = (frame_of(kind, seed) for seed in range(3))
    with open_session(tmp_path, kernels=kernels, preprocess="gpu") as session:
        result = session(first)
        np.testing.assert_array_equal(result.overlay(), result.overlay(bgr(first)))
        session.submit([second])  # into the other slot
        np.testing.assert_array_equal(result.overlay(labels=False), drawn_by_host(first, result, result.colors))
        (other,) = session.collect()
        drawings = start_drawing(result), start_drawing(other)
        session.submit([third])  # into the first one's
        assert result.start_overlay() is None
        with pytest.raises(FrameError, match=r"no GPU holds this result's frame .* give the frame"):
            result.overlay()
        for drawing, frame, found in zip(drawings, (first, second), (result, other), strict=True):
            assert drawing is not None
            np.testing.assert_array_equal(drawing.overlay(), drawn_by_host(frame, found, COLORS))
        assert other.start_overlay() is not None
        assert copy.deepcopy(other).start_overlay() is None
        (last,) = session.collect()
        with pytest.raises(FrameError, match=r"with borders and opacity 0\.5"):
            last.overlay(border=False)
    assert other.start_overlay() is None
    assert np.array_equal(other.overlay(bgr(second), labels=False), drawn_by_host(second, other, other.colors))


def test_a_tracked_result_is_drawn_in_its_own_colours(tmp_path: Path, kernels: Kernels) -> None:
    tracker, frame = Tracker((*MODEL.things, *MODEL.stuff)), frame_of("nv12", 0)
    with open_session(tmp_path, kernels=kernels) as session:
        result = session(frame)
        once = tracker.update(dataclasses.replace(result, map_segments=result.map_segments[::-1]))
        assert [segment.id for segment in once.segments] != [segment.id for segment in result.segments[::-1]]
        for tracked in (once, Tracker((*MODEL.things, *MODEL.stuff)).update(once)):
            np.testing.assert_array_equal(tracked.overlay(labels=False), drawn_by_host(frame, tracked, tracked.colors))


def test_a_result_draws_from_any_thread_and_keeps_no_session_open(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels
) -> None:
    frame = frame_of("nv12", 0)
    before = gpu.alive()
    session = open_session(tmp_path, kernels=kernels)
    result = session(frame)
    with ThreadPoolExecutor(1) as pool:
        np.testing.assert_array_equal(pool.submit(result.overlay).result(), result.overlay(bgr(frame)))
    del session
    gc.collect()
    assert gpu.alive() == before
    assert result.start_overlay() is None


@pytest.mark.filterwarnings("ignore:session.draw is deprecated", "ignore:`picture..` of a drawing")
def test_the_former_call_of_the_session_draws_between_collect_and_the_next_submit(
    tmp_path: Path, kernels: Kernels
) -> None:
    with open_session(tmp_path, kernels=kernels) as session:
        with (
            pytest.warns(DeprecationWarning, match=r"use result\.start_overlay"),
            pytest.raises(SessionError, match="a result is drawn after its collect and before the next submit"),
        ):
            session.draw(0, COLORS)
        result = session(picture(0))
        drawing = session.draw(0, COLORS)
        assert drawing is not None
        with pytest.warns(DeprecationWarning, match=r"use `overlay\(\)`"):
            drawn = drawing.picture()
        np.testing.assert_array_equal(drawn, drawn_by_host(Frame(picture(0)), result, COLORS))
        session.submit([Frame(picture(1))])
        with pytest.raises(SessionError, match="after its collect"):
            session.draw(0, COLORS)
        session.collect()
    with pytest.raises(SessionError, match="is closed"):
        session.draw(0, COLORS)


def test_the_third_picture_of_a_size_costs_a_graph(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    frames = [frame_of("nv12", seed) for seed in range(4)]

    def run(count: int) -> None:
        for seed in range(count):
            drawing = start_drawing(session(frames[seed % 4]))
            assert drawing is not None
            drawing.overlay()

    with open_session(tmp_path, kernels=kernels) as session:
        run(8)
        gpu.take_log()
        run(10)
        calls = gpu.take_log()
    assert not set(calls) & gpu.ALLOCATIONS
    assert calls.count("cuGraphLaunch") == 20  # the network, the picture
    assert len(calls) == 10 * (9 + 4 + 3)  # submit and collect, draw, picture


def test_only_the_most_recent_sizes_are_kept(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    sizes = [(40 + 2 * n, 64) for n in range(LAYOUTS + 2)]
    model = dataclasses.replace(MODEL, valid_hw=None)
    with open_session(tmp_path, model, kernels=kernels) as session:
        before = gpu.alive()["host memory"]
        for _ in range(2):
            for seed, hw in enumerate(sizes):
                for _ in range(session.capacity):
                    frame = frame_of("nv12", seed, hw)
                    result = session(frame)
                    drawing = start_drawing(result)
                    assert drawing is not None
                    np.testing.assert_array_equal(drawing.overlay(), drawn_by_host(frame, result, COLORS))
        assert gpu.alive()["host memory"] - before == 2 * LAYOUTS * session.capacity  # a feed and a canvas each


@pytest.mark.parametrize("nth", range(1, 5))
@pytest.mark.parametrize("call", ["cuMemHostAlloc", "cuMemAlloc", "cuEventCreate", "cuStreamBeginCapture"])
def test_any_failure_for_a_first_overlay_leaves_nothing_behind(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, call: str, nth: int
) -> None:
    frame = frame_of("bgr8 of the network's size", 0)
    with open_session(tmp_path, kernels=kernels) as session:
        result = session(frame)
        before = gpu.alive()
        gpu.fail(call, gpu.OUT_OF_MEMORY, nth=nth)
        try:
            for _ in range(3):
                start_drawing(result)
        except CudaError:
            assert gpu.alive() == before
        gpu.reset()
        drawing = start_drawing(result)
        assert drawing is not None
        np.testing.assert_array_equal(drawing.overlay(), drawn_by_host(frame, result, COLORS))


def test_a_picture_that_is_lost_with_the_device_says_so(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, caplog: pytest.LogCaptureFixture
) -> None:
    with open_session(tmp_path, kernels=kernels) as session:
        drawing = start_drawing(session(picture(0)))
        assert drawing is not None
        gpu.fail("cuEventSynchronize", gpu.LAUNCH_FAILED)
        for _ in range(2):
            with pytest.raises(CudaError):
                drawing.overlay()
        gpu.reset()
        unwanted = start_drawing(session(picture(0)))
        assert unwanted is not None
        del unwanted
        gpu.fail("cuEventSynchronize", gpu.LAUNCH_FAILED)
        with caplog.at_level(logging.WARNING, "panrt"):
            session.close()
    gpu.reset()
    assert "an overlay is lost" in caplog.text


def test_sinks_that_show_pictures_get_those_of_the_gpu_in_the_colours_of_tracking(
    tmp_path: Path, kernels: Kernels
) -> None:
    class Album:
        """Compares each picture with one that the host draws."""

        def __init__(self) -> None:
            self.same = 0
            self.drawn = 0

        def write(self, item: Item) -> None:
            self.drawn += item.drawing is not None
            self.same += np.array_equal(annotated(item), annotated(item._replace(drawing=None)))

        def close(self) -> None: ...

    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(12):
        image = np.full((50, 64, 3), 255, np.uint8)
        row, column = (0, 0) if seed % 4 < 2 else (38, 50)  # too far for the same thing
        image[row : row + 12, column : column + 14, 0] = 0
        assert cv2.imwrite(str(folder / f"{seed:02}.png"), image)
    for pictures in (True, False):
        album = Album()

        def opened(_: Context, album: Album = album) -> Album:
            return album

        sink = Sink(SinkSpec("album", opened, recording=True, overlays=pictures))
        with (
            open_session(tmp_path, kernels=kernels, preprocess="gpu") as session,
            panrt.stream(folder, session, sinks=[sink], policy="block") as stream,
        ):
            results = list(stream)
            assert any(segment.id > 3 for result in results for segment in result.segments)  # not as the network has it
        assert sink.status.failed == 0
        assert (album.drawn, album.same) == (12 if pictures else 0, 12)
