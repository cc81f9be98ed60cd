"""A network on the simulated GPU gives what it gives on the CPU: the runtime around it changes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import onnxruntime
import pytest
from cuda.bindings import driver as cu
from numpy.typing import NDArray

import panrt
from panrt.engine.frame import Frame
from panrt.engine.result import PanopticResult
from simcuda import fake_tensorrt
from simcuda.inside.sessions import open_session

CLIP = Path(__file__).parents[2] / "data" / "tabletop" / "clip.mp4"
ONNX = Path(os.environ["PANRT_TEST_MODEL"])
FRAMES = 24


@pytest.fixture(scope="module")
def clip() -> list[NDArray[np.uint8]]:
    onnxruntime.set_default_logger_severity(3)
    with av.open(str(CLIP)) as container:
        pictures = [
            frame.to_ndarray(format="bgr24") for frame, _ in zip(container.decode(video=0), range(FRAMES), strict=False)
        ]
    assert len(pictures) == FRAMES
    return pictures


@pytest.fixture(scope="module")
def on_cpu(clip: list[NDArray[np.uint8]]) -> list[PanopticResult]:
    with panrt.load(ONNX, backend="cpu", threads=1) as session:
        return [session(picture) for picture in clip]


@pytest.mark.parametrize(("schedule", "integrated"), [("lazy", False), ("random", False), ("eager", True)])
def test_the_clip_gives_identical_panoptic_maps_on_cpu_and_gpu(
    tmp_path: Path,
    gpu: ModuleType,
    clip: list[NDArray[np.uint8]],
    on_cpu: list[PanopticResult],
    schedule: str,
    integrated: bool,
) -> None:
    gpu.schedule(schedule)
    gpu.set_attribute(cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, int(integrated))
    with panrt.load(ONNX, backend="cpu", threads=1) as session:
        model = session.model
    results: list[PanopticResult] = []
    with open_session(tmp_path, model, network=str(ONNX)) as session:
        session.submit([Frame(clip[0], index=0)])
        for index, picture in enumerate(clip[1:], 1):
            session.submit([Frame(picture, index=index)])
            results += session.collect()
        results += session.collect()
    assert fake_tensorrt.failures == []
    assert max(len(result.segments) for result in results) > 2
    for index, (one, other) in enumerate(zip(results, on_cpu, strict=True)):
        assert one.frame_index == index
        np.testing.assert_array_equal(one.panoptic, other.panoptic)
        assert one.segments == other.segments
        assert one.colors == other.colors
