"""Models by name in the runtime: the input size that suits a backend, and what a frame is expected to cost here.

Sizes are (height, width). Both defaults are 4:3, as most photographs and COCO's are, and multiples of 32; a frame of
another shape keeps its aspect ratio and fills a part of the input.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from panrt.errors import BackendError
from panrt.hub import catalogue, models
from panrt.hub.catalogue import Cost, Entry
from panrt.hub.watch import Watch

CPU_HW = (384, 512)  # less than a third of the work of GPU_HW, at the price of small things
GPU_HW = (800, 1088)  # the short side at which the published quality was measured
_TYPICAL_DETECTIONS = 10  # that reach the mask head on a CPU
_SHARE = 0.75  # of the speed of one convolution is what a network reached: 0.6 to 1, as other programs ran
_GPU_BACKENDS = ("tensorrt", "rtx")


class Choice(NamedTuple):
    """A model by name and the size to open it at."""

    model: str  # as the user wrote it
    entry: Entry
    input_hw: tuple[int, int]
    is_default: bool  # the user chose no size


def choose(model: str, *, input_hw: tuple[int, int] | None) -> Choice | None:
    """Return how a session on the CPU opens a model of the catalogue; None: the model is not from there."""
    entry = catalogue.find(model)
    if entry is None:
        return None
    return Choice(model, entry, input_hw or CPU_HW, input_hw is None)


def announcement(choice: Choice, *, threads: int) -> str:
    """Return which size was chosen, what a frame is expected to take here, and how to choose another.

    Measures the speed of this machine, which takes some tenths of a second.

    Raises:
        ThreadLimitError: the system starts no more threads.
    """
    from panrt.engine.backends.cpu.speed import products_per_second  # noqa: PLC0415  # it needs ONNX Runtime

    height, width = choice.input_hw
    products = expected_products(choice.entry.cost, choice.input_hw)
    seconds = products / (_SHARE * products_per_second(threads))
    reason = ", the default for a CPU" if choice.is_default else ""
    return (
        f"{choice.entry.name} at {height}x{width} (height x width{reason}); a frame is expected to take about "
        f"{_rounded(seconds)} here, an estimate from {products / 1e9:.0f} GMAC; other sizes: --height H --width W"
    )


def expected_products(cost: Cost, input_hw: tuple[int, int]) -> float:
    """Return the multiply-adds of a frame on the CPU, which computes masks of kept detections alone."""
    return cost.per_pixel * input_hw[0] * input_hw[1] + cost.fixed + _TYPICAL_DETECTIONS * cost.per_detection


def _rounded(seconds: float) -> str:
    """One digit and a half: an estimate is not known better."""
    return f"{1000 * seconds:.0f} ms" if seconds < 0.1 else f"{seconds:.1f} s"


class Located(NamedTuple):
    """A model by name as a file, and the size to open it with."""

    path: Path
    input_hw: tuple[int, int] | None


def locate(model: str, *, backend: str, input_hw: tuple[int, int] | None, watch: Watch | None = None) -> Located:
    """Return the ONNX file of a model by name, downloaded and exported if need be; see `panrt.hub.models.onnx_file`.

    Raises:
        BackendError: the backend runs engines, which are built first.
    """
    if backend in _GPU_BACKENDS:
        flavour = "" if backend == "tensorrt" else f" --flavour {backend}"
        raise BackendError(
            f"{model}: the backend {backend!r} runs engines; build one:  panrt build {model} -o model.plan{flavour}  "
            f"(at {GPU_HW[0]}x{GPU_HW[1]} unless --height and --width are given), and give model.plan."
        )
    path = models.onnx_file(model, watch=watch)
    exported_here = not (models.is_address(model) and model.endswith(".onnx"))
    return Located(path, input_hw or (CPU_HW if exported_here else None))
