"""Time budgets of the runtime: `make perf`, on an otherwise idle machine. Linux only.

They measure time, so they are not part of `make test`: on a busy machine they fail although the code is correct.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_host_time
from benchmarks.pipeline import BAR_MS, live, overhead
from panrt.engine.sources import SourceOptions, open_source
from tools.streams import PATTERN, drain, free_port, rtsp_server

pytestmark = pytest.mark.perf


def test_pipeline_and_json_sink_cost_less_than_half_a_millisecond_per_frame(tmp_path: Path) -> None:
    rows = {row.setup: row for row in overhead(frames=500, rounds=3, folder=tmp_path)}
    assert rows["pipeline, JSON sink"].processor_ms <= BAR_MS


def test_results_of_a_live_source_are_no_older_than_two_periods_and_inference(tmp_path: Path) -> None:
    run = live(seconds=10.0, source_fps=60.0, inference=0.040, folder=tmp_path)
    assert run.every_drop_counted
    assert run.over_bar == 0


def test_first_frame_of_an_rtsp_camera_comes_within_two_seconds() -> None:
    port = free_port()
    with rtsp_server(port, PATTERN):
        started = time.monotonic()
        with open_source(f"rtsp://127.0.0.1:{port}/clip", options=SourceOptions(policy="block")) as source:
            frames = drain(source, most=50)
    assert frames[0].captured_at - started < 2.0
    # Frames that were read for probing come at once, then each frame at its time.
    assert np.diff([frame.captured_at for frame in frames[15:]]).mean() == pytest.approx(0.04, abs=0.02)


def test_gpu_runtime_takes_little_host_time() -> None:
    assert np.median(gpu_host_time.measure()) <= 150e-6


def test_idle_thread_pool_takes_no_processor_time() -> None:
    script = """
import time
import numpy as np
from panrt.plugins import native
features = [np.ones((1, 8, 16, 16), np.float32)]
rois = np.zeros((1, 4, 4), np.float32)
native.pyramid_roi_align(features, rois, strides=[4], output_size=7, sampling_ratio=2, threads=4)
start = time.process_time()
time.sleep(1.0)
print(time.process_time() - start)
"""
    spent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert float(spent) < 0.02
