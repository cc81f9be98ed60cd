"""Engines of the fake TensorRT and sessions on them, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.engine import Engine
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.backends.tensorrt.session import TensorRTSession, wanted_tensors
from panrt.engine.preprocess import place
from panrt.engine.results.result import PanopticResult
from panrt.engine.session import GpuMemory, Preprocess
from panrt.formats.metadata import Category, ModelFile, Thresholds
from tools.simcuda import control, fake_tensorrt

HW = (32, 64)
MODEL = ModelFile(
    name="pattern",
    things=(Category(7, "mug", True, (255, 0, 0)), Category(8, "bottle", True, (0, 255, 0))),
    stuff=(Category(9, "floor", False, (0, 0, 255)),),
    batch=1,
    input_hw=HW,
    valid_hw=(0, 0),
    output_hw=(HW[0] // 2, HW[1] // 2),
    pixel_mean=(103.5, 116.25, 123.0),
    pixel_std=(1.0, 1.0, 1.0),
    thresholds=Thresholds(0.05, 0.5, 4, 0.5, 0.5, 0, 0.5),
    precision="fp32",
    opset=20,
    provenance="none",
)

Row = tuple[str, Sequence[int], str, bool]
_NAMES = {np.dtype(np.uint8): "UINT8", np.dtype(np.int32): "INT32", np.dtype(np.float32): "FLOAT"}


def tensors(model: ModelFile) -> list[Row]:
    """Those of a right engine, as the fake describes them."""
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
    """Noise."""
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)


def expected(image: NDArray[np.uint8], model: ModelFile = MODEL) -> NDArray[np.int32]:
    """The panoptic map of a picture of the network's size."""
    assert place((image.shape[0], image.shape[1]), model.input_hw, model.output_hw).content_hw == image.shape[:2]
    return np.asarray(fake_tensorrt.pattern(image[None]).panoptic[0])


def check(result: PanopticResult, image: NDArray[np.uint8]) -> None:
    """The result is that of the picture."""
    np.testing.assert_array_equal(result.panoptic, expected(image))
    assert [(s.name, s.area) for s in result.segments] == [
        (name, int(np.count_nonzero(result.panoptic == number)))
        for number, name in enumerate(("mug", "bottle", "floor"), 1)
    ]
