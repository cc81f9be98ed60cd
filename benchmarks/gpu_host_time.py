"""Host time that the GPU runtime spends per frame, measured on the simulated driver.

    python -m benchmarks.gpu_host_time

The thread's time less the device's, which the simulation spends in the same thread; at the demo's size.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tools.simcuda import build

HW = (256, 320)


def measure(*, frames: int = 1000) -> list[float]:
    """Return the seconds of each frame."""
    result = build.run(["-m", "benchmarks.gpu_host_time", str(frames)])
    if result.returncode != 0:
        raise RuntimeError(f"the simulation ended with status {result.returncode}:\n{result.stderr[-2000:]}")
    spent: list[float] = json.loads(result.stdout)
    return spent


def _measure(folder: Path, frames: int) -> list[float]:
    """The same, on the simulated driver of this process."""
    from tools.simcuda import control
    from tools.simcuda.sessions import MODEL, open_session, picture

    model = dataclasses.replace(MODEL, input_hw=HW, output_hw=HW)
    spent = []
    with open_session(folder, model, network="nothing") as session:
        image = picture(0, HW)
        for _ in range(frames):
            begun, busy = time.thread_time(), control.busy_seconds()
            session(image)
            spent.append(time.thread_time() - begun - (control.busy_seconds() - busy))
    return spent


def main() -> None:
    """Print the seconds of each frame in the simulation, and a summary of them outside it."""
    if "PANRT_SIMCUDA" in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(_measure(Path(folder), int(sys.argv[1]))))
    else:
        spent = measure()
        print(f"{np.median(spent) * 1e6:.0f} us median, {np.percentile(spent, 99) * 1e6:.0f} us 99th percentile")


if __name__ == "__main__":
    main()
