"""Engines of the fake TensorRT and sessions on them, for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.engine import Engine, wanted_tensors
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.backends.tensorrt.session import TensorRTSession
from panrt.engine.preprocess import place
from panrt.engine.results.colors import Rgb
from panrt.engine.results.painter import Drawing
from panrt.engine.results.result import PanopticResult
from panrt.engine.session import GpuMemory, Preprocess
from panrt.formats.metadata import FileThresholds, ModelFile
from tools import model_files
from tools.simcuda import control, fake_tensorrt

HW = (32, 64)
MODEL = model_files.make(
    name="pattern",
    input_hw=HW,
    valid_hw=None,
    output_hw=(HW[0] // 2, HW[1] // 2),
    thresholds=FileThresholds(0.05, 0.5, 4, 0.5, 0.5, 0, 0.5),
    precision="fp32",
)

COLORS: dict[int, Rgb] = {1: (250, 10, 20), 2: (30, 240, 50), 3: (60, 70, 230)}

Row = tuple[str, Sequence[int], str, bool]
_NAMES = {np.dtype(np.uint8): "UINT8", np.dtype(np.int32): "INT32", np.dtype(np.float32): "FLOAT"}


def tensors(model: ModelFile) -> list[Row]:
    """Return the tensors of a valid engine, as the fake describes them."""
    return [(t.name, t.shape, _NAMES[t.dtype], t.is_input) for t in wanted_tensors(model)]


def open_session(
    folder: Path,
    model: ModelFile = MODEL,
    *,
    slots: int = 2,
    kernels: Kernels | None = None,
    preprocess: Preprocess = "host",
    gpu_memory: GpuMemory = "auto",
    **options: Any,
) -> TensorRTSession:
    """A session on a plan with these options of `fake_tensorrt.plan`."""
    path = folder / "pattern.plan"
    path.write_bytes(fake_tensorrt.plan(options.pop("tensors", None) or tensors(model), **options))
    context = driver.Context()
    try:
        with context:
            engine = Engine(fake_tensorrt, path, path.read_bytes())
    except BaseException:
        context.close()
        raise
    return TensorRTSession(
        model,
        engine,
        context,
        backend="tensorrt",
        kernels=kernels,
        preprocess=preprocess,
        gpu_memory=gpu_memory,
        slots=slots,
    )


@contextmanager
def contexts_unchanged() -> Iterator[None]:
    """The calling thread's stack of CUDA contexts is the same afterwards."""
    before = control.contexts()
    yield
    assert control.contexts() == before


def picture(seed: int, hw: tuple[int, int] = HW) -> NDArray[np.uint8]:
    """Return an image of noise."""
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)


def expected(image: NDArray[np.uint8], model: ModelFile = MODEL) -> NDArray[np.int32]:
    """Return the panoptic map of an image of the network's size."""
    assert (
        place((image.shape[0], image.shape[1]), model.sizes.input_hw, model.sizes.output_hw).content_hw
        == image.shape[:2]
    )
    return np.asarray(fake_tensorrt.pattern(image[None]).panoptic[0])


def start_drawing(result: PanopticResult, colors: Mapping[int, Rgb] = COLORS) -> Drawing | None:
    """Begin to draw a result in these colours."""
    return dataclasses.replace(result, colors=dict(colors)).start_overlay()


def check(result: PanopticResult, image: NDArray[np.uint8]) -> None:
    """Check that a result is that of the image."""
    np.testing.assert_array_equal(result.panoptic, expected(image))
    assert [(s.name, s.area) for s in result.map_segments] == [
        (name, int(np.count_nonzero(result.panoptic == number)))
        for number, name in enumerate(("mug", "bottle", "floor"), 1)
    ]
