"""The status of a stream: rate, ages and faults."""

from __future__ import annotations

import numpy as np
import pytest

from panrt.engine.results.result import PanopticResult, Timings
from panrt.engine.status import SAMPLES, SILENCE, WINDOW, Meter
from tools.clock import ManualClock

INFERENCE = 0.01


def result(captured_at: float) -> PanopticResult:
    return PanopticResult(
        panoptic=np.zeros((1, 1), np.int32),
        map_segments=(),
        frame_index=0,
        captured_at=captured_at,
        timings=Timings(0.0, INFERENCE, 0.0),
    )


@pytest.mark.parametrize("fps", [5, 30, 100])
def test_rate_is_that_of_the_last_seconds(fps: int) -> None:
    clock = ManualClock()
    meter = Meter(clock)
    for _ in range(3 * fps):
        clock.advance(1 / fps, threads=lambda: 0)
        meter.add(result(clock.now()), clock.now())
    assert meter.status((), ()).fps == pytest.approx(fps, rel=0.5 / WINDOW)  # a result more or less in the window
    clock.advance(WINDOW, threads=lambda: 0)
    assert meter.status((), ()).fps == pytest.approx(0, abs=1 / WINDOW)


def test_ages_are_of_the_last_results_from_capture() -> None:
    clock = ManualClock()
    meter = Meter(clock)
    for milliseconds in (*[900] * 10, *range(SAMPLES)):
        meter.add(result(clock.now() - milliseconds / 1000), clock.now())
    ages = meter.status((), ()).age
    assert ages is not None
    last = (SAMPLES - 1) / 1000
    assert ages.last == pytest.approx(last)
    assert ages.worst == pytest.approx(last)  # those of 900 ms are forgotten
    assert ages.median == pytest.approx(SAMPLES // 2 / 1000)
    assert meter.status((), ()).results == 10 + SAMPLES


def test_elapsed_time_and_inference_are_reported() -> None:
    clock = ManualClock()
    meter = Meter(clock)
    assert meter.status((), ()).age is None
    meter.add(result(clock.now()), clock.now())
    clock.advance(SILENCE + 1, threads=lambda: 0)
    status = meter.status((), ())
    assert status.elapsed == pytest.approx(SILENCE + 1)
    assert status.inference == pytest.approx(INFERENCE)
    assert status.healthy  # no source, so none that gives frames in vain
