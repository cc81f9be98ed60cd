"""The kernels' thread pool, seen from Python: equal results, concurrent callers, fork, the GIL."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from panrt.plugins import native
from panrt.plugins.contract import Floating

RNG = np.random.default_rng(0)
FEATURES = [RNG.standard_normal((1, 24, 64 // s, 96 // s), dtype=np.float32) for s in (1, 2, 4, 8)]
CORNERS = RNG.uniform(0, 256, (1, 60, 2)).astype(np.float32)
ROIS = np.concatenate([CORNERS, CORNERS + RNG.uniform(1, 120, (1, 60, 2)).astype(np.float32)], axis=2)


def pool(threads: int | None) -> Floating:
    return native.pyramid_roi_align(
        FEATURES, ROIS, strides=[4, 8, 16, 32], output_size=7, sampling_ratio=0, threads=threads
    )


def in_fresh_process(script: str) -> str:
    """Run a script that knows `pool` in a process whose thread pool is its own; returns what it printed."""
    setup = f"import os, sys, time\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    setup += f"from {Path(__file__).stem} import pool\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("threads", [2, 3, 16, None])
def test_results_do_not_depend_on_the_number_of_threads(threads: int | None) -> None:
    np.testing.assert_array_equal(pool(threads), pool(1))


def test_calls_from_several_python_threads_do_not_disturb_one_another() -> None:
    expected = pool(1)
    with ThreadPoolExecutor(4) as executor:
        for pooled in executor.map(pool, [1, 2, 3, 4] * 25):
            np.testing.assert_array_equal(pooled, expected)


def test_a_forked_process_starts_a_pool_of_its_own() -> None:
    in_fresh_process("""
expected = pool(3).tobytes()
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if pool(3).tobytes() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pool(3).tobytes() == expected
""")


def test_kernel_releases_the_gil() -> None:
    """Where threads never have to give it up, another thread only runs while a kernel has released it."""
    features = [np.ones((1, 64, 64, 64), np.float32)]
    rois = np.tile(np.array([0, 0, 256, 256], np.float32), (1, 40, 1))
    started, seen = threading.Event(), threading.Event()
    most = 200
    calls = 0

    def work() -> None:
        nonlocal calls
        started.set()
        while calls < most and not seen.is_set():
            native.pyramid_roi_align(features, rois, strides=[4], output_size=14, sampling_ratio=0, threads=1)
            calls += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e6)
    try:
        worker = threading.Thread(target=work)
        worker.start()
        started.wait()
        seen.set()
        worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert calls < most


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_are_named_and_kept_for_the_next_call() -> None:
    names = in_fresh_process("""
for threads in (1, 3, 2, 3):
    pool(threads)
    names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
    print(*sorted(name for name in names if name.startswith("panrt")))
""")
    assert names.splitlines() == ["", *["panrt-1 panrt-2"] * 3]


def test_importing_the_kernels_imports_neither_pytorch_nor_onnx() -> None:
    script = "import sys, panrt.plugins.native; print({'torch', 'onnx', 'onnxruntime', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
