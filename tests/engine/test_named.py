"""A model by name is opened at a size that suits the backend, and its cost is told before."""

from __future__ import annotations

import time

import pytest

from panrt.engine.backends.cpu import speed
from panrt.engine.named import CPU_HW, GPU_HW, announcement, choose
from panrt.formats.metadata import SIZE_DIVISOR


@pytest.mark.parametrize(("size", "short"), [(CPU_HW, range(320, 385)), (GPU_HW, range(800, 801))])
def test_default_sizes_are_valid_and_about_4_to_3(size: tuple[int, int], short: range) -> None:
    assert min(size) in short
    assert all(side % SIZE_DIVISOR == 0 for side in size)
    assert size[1] / size[0] == pytest.approx(4 / 3, rel=0.03)


@pytest.mark.parametrize(
    ("products", "expected"), [(100e9, "about 0.8 s here, an estimate from 61 GMAC"), (2e12, "about 41 ms here")]
)
def test_announcement_divides_the_work_by_the_speed(
    monkeypatch: pytest.MonkeyPatch, products: float, expected: str
) -> None:
    monkeypatch.setattr(speed, "products_per_second", lambda threads: products)
    choice = choose("coco", input_hw=None)
    assert choice is not None
    text = announcement(choice, threads=2)
    assert text.startswith("panoptic_fpn_R_50_3x at 384x512 (height x width, the default for a CPU); a frame")
    assert expected in text
    assert text.endswith("--height H --width W")


def test_chosen_size_is_announced_and_not_called_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "products_per_second", lambda threads: 1e12)
    choice = choose("coco-large", input_hw=(320, 448))
    assert choice is not None
    assert announcement(choice, threads=1).startswith("panoptic_fpn_R_101_3x at 320x448 (height x width); a frame")


def test_files_are_not_announced() -> None:
    assert choose("street.onnx", input_hw=None) is None
    assert choose("tabletop", input_hw=None) is None


def test_speed_is_that_of_the_fastest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([moment for run in range(100) for moment in (10 * run, 10 * run + (2 if run == 3 else 7))])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    assert speed.products_per_second(1) == 9 * 256 * 256 * 16 * 64 / 2
