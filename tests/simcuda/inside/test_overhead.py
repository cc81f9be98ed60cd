"""What the host spends on a frame; in a process without coverage, whose tracing takes longer than what is measured."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from types import ModuleType

import numpy as np

from simcuda.inside.sessions import MODEL, open_session, picture


def test_the_host_spends_little_on_a_frame(tmp_path: Path, gpu: ModuleType) -> None:
    """The thread's time less the device's, which the simulation spends in the same thread; at the demo's size."""
    model = dataclasses.replace(MODEL, input_hw=(256, 320), output_hw=(256, 320))
    with open_session(tmp_path, model, network="nothing") as session:
        image = picture(0, (256, 320))
        spent = []
        for _ in range(1000):
            begun, busy = time.thread_time(), gpu.busy_seconds()
            session(image)
            spent.append(time.thread_time() - begun - (gpu.busy_seconds() - busy))
    print(f"host overhead: {np.median(spent) * 1e6:.0f} us median, {np.percentile(spent, 99) * 1e6:.0f} us p99")
    assert np.median(spent) <= 150e-6
