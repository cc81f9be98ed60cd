"""A network on the simulated GPU gives what it gives on the CPU: the runtime around it changes nothing."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import onnxruntime
import pytest
from cuda.bindings import driver as cu

import panrt
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.pixel_formats import bgr
from panrt.engine.results.result import PanopticResult
from panrt.engine.sinks.drawing import annotated
from panrt.engine.sinks.sink import Item, Sink, SinkSpec
from panrt.engine.sources import SourceOptions
from panrt.formats.metadata import ModelFile
from tools.simcuda import fake_tensorrt
from tools.simcuda.sessions import MODEL, check, open_session, picture

CLIP = Path(__file__).parents[2] / "data" / "tabletop" / "clip.mp4"
ONNX = Path(os.environ["PANRT_TEST_MODEL"])
FRAMES = 200  # all of the clip


@pytest.fixture(scope="module")
def model() -> ModelFile:
    onnxruntime.set_default_logger_severity(3)
    with panrt.load(ONNX, backend="cpu", threads=1) as session:
        return session.model


@pytest.fixture(scope="module")
def on_cpu() -> list[PanopticResult]:
    with panrt.load(ONNX, backend="cpu", threads=1) as session, panrt.stream(CLIP, session) as results:
        return list(results)


@pytest.fixture(autouse=True)
def python_of_the_device() -> Iterator[None]:
    """What the device runs in Python does not fail."""
    yield
    failures = list(fake_tensorrt.failures)
    fake_tensorrt.failures.clear()
    assert failures == []


@pytest.mark.parametrize(
    ("schedule", "integrated", "frames"), [("lazy", False, FRAMES), ("random", False, 24), ("eager", True, 24)]
)
def test_the_clip_gives_identical_panoptic_maps_on_cpu_and_gpu(
    tmp_path: Path,
    gpu: ModuleType,
    model: ModelFile,
    on_cpu: list[PanopticResult],
    schedule: str,
    integrated: bool,
    frames: int,
) -> None:
    gpu.schedule(schedule)
    gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
    with (
        open_session(tmp_path, model, network=str(ONNX)) as session,
        panrt.stream(CLIP, session, limit=frames) as stream,
    ):
        results = list(stream)
    assert len(on_cpu) == FRAMES
    assert len(results) == frames
    assert max(len(result.segments) for result in results) > 10
    for index, (one, other) in enumerate(zip(results, on_cpu[:frames], strict=True)):
        assert one.frame_index == other.frame_index == index
        np.testing.assert_array_equal(one.panoptic, other.panoptic)
        assert one.segments == other.segments
        assert one.colors == other.colors


def test_the_clip_as_its_decoder_wrote_it_gives_identical_maps_and_pictures(
    tmp_path: Path, model: ModelFile, kernels: Kernels
) -> None:
    frames = 24
    options = SourceOptions(pixel_format="nv12")
    with panrt.load(ONNX, backend="cpu", threads=1) as session:
        expected = list(panrt.stream(CLIP, session, options=options, limit=frames))
    pictures = Sink(SinkSpec("pictures", lambda context: Nothing(), recording=True, overlays=True))
    with (
        open_session(tmp_path, model, network=str(ONNX), kernels=kernels) as session,
        panrt.stream(CLIP, session, options=options, limit=frames, sinks=[pictures]) as stream,
    ):
        items = list(stream.pairs())
        assert session.converts_frames
    assert len(items) == len(expected) == frames
    for item, other in zip(items, expected, strict=True):
        np.testing.assert_array_equal(item.result.panoptic, other.panoptic)
        assert item.drawing is not None
        np.testing.assert_array_equal(annotated(item), other.overlay(bgr(item.frame)))


class Nothing:
    """A writer that is content."""

    def write(self, item: Item) -> None: ...

    def close(self) -> None: ...


def test_a_sink_that_is_slow_sees_whole_results_while_slots_are_used_again(tmp_path: Path) -> None:
    class Slow:
        """Looks at results long after they came."""

        def __init__(self) -> None:
            self.seen: list[int] = []

        def write(self, item: Item) -> None:
            time.sleep(0.01)
            check(item.result, item.frame.image)
            self.seen.append(item.result.frame_index)

        def close(self) -> None: ...

    slow = Slow()
    sink = Sink(SinkSpec("slow", lambda context: slow, recording=True))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(20):
        assert cv2.imwrite(str(folder / f"{seed:02}.png"), picture(seed))
    with (
        open_session(tmp_path) as session,
        panrt.stream(folder, session, sinks=[sink], tracker=None, policy="block") as stream,
    ):
        assert len(list(stream)) == 20
    assert slow.seen == list(range(20))


def test_two_sources_share_the_batches_of_one_engine_and_keep_their_order(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("left", "right")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        for seed in range(10):
            assert cv2.imwrite(str(folder / f"{seed:02}.png"), picture(100 * number + seed))
    with (
        open_session(tmp_path, dataclasses.replace(MODEL, batch=2)) as session,
        panrt.stream(folders, session, tracker=None, policy="block") as stream,
    ):
        results = list(stream)
    sources = sorted({result.source for result in results})
    assert len(sources) == 2
    for number, source in enumerate(sources):
        of_one = [result for result in results if result.source == source]
        assert [result.frame_index for result in of_one] == list(range(10))
        for seed, result in enumerate(of_one):
            check(result, picture(100 * number + seed))
