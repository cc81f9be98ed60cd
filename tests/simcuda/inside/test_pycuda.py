"""PyCUDA and PanRT in one process: contexts, arrays, streams, and the example that shows them."""

from __future__ import annotations

import atexit
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pycuda.driver as pycuda
import pytest
from numpy.typing import NDArray
from pycuda import gpuarray
from pycuda.tools import clear_context_caches, make_default_context

from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.frame import Frame
from panrt.errors import FrameError
from simcuda.inside.test_plans import Engine, engine, machine
from tools.simcuda import control
from tools.simcuda.sessions import HW, check, contexts_unchanged, open_session, picture

__all__ = ["engine", "machine"]  # fixtures
EXAMPLE = Path(__file__).parents[3] / "examples" / "pycuda_frames.py"


@pytest.fixture(params=["own", "primary"])
def context(request: pytest.FixtureRequest, gpu: ModuleType) -> Iterator[Any]:
    """One that PyCUDA has made, current as after `import pycuda.autoinit`."""
    pycuda.init()
    if request.param == "own":
        made = make_default_context()
    else:
        made = pycuda.Device(0).retain_primary_context()
        made.push()
    yield made
    pycuda.Context.pop()
    clear_context_caches()
    made.detach()


def array_of(image: NDArray[np.uint8], stream: Any = None) -> Any:
    """A GPUArray that a copy on the stream fills, and the host memory that it comes from."""
    pinned = pycuda.pagelocked_empty(image.shape, np.uint8)
    pinned[...] = image
    array = gpuarray.empty(image.shape, np.uint8)
    array.set_async(pinned, stream)
    return array, pinned


@pytest.mark.usefixtures("context")
def test_the_context_stack_is_the_same_before_and_after_every_public_call(tmp_path: Path, kernels: Kernels) -> None:
    with contexts_unchanged():
        session = open_session(tmp_path, kernels=kernels)
    stream = pycuda.Stream()
    array, pinned = array_of(picture(0))
    pycuda.Context.synchronize()
    calls: list[Callable[[], object]] = [
        lambda: check(session(array), picture(0)),
        lambda: session(array).overlay(),
        lambda: session.submit([Frame(array)]),
        lambda: session.collect()[0].panoptic_device.__cuda_array_interface__,
        lambda: session.wait_for(stream.handle),
        lambda: session.profile(runs=1),
        session.close,
    ]
    for call in calls:
        with contexts_unchanged():
            call()
    np.testing.assert_array_equal(array.get(), pinned)  # PyCUDA goes on


def test_a_context_of_pycuda_made_after_the_session_is_no_trouble(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels
) -> None:
    session = open_session(tmp_path, kernels=kernels)  # on the primary context
    pycuda.init()
    context = make_default_context()
    check(session(picture(0)), picture(0))
    array, pinned = array_of(picture(1))
    np.testing.assert_array_equal(array.get(), pinned)
    with pytest.raises(FrameError, match="the memory of GPUArray belongs to another CUDA context than the session's"):
        session(array)
    session.close()
    del array, pinned
    context.pop()
    clear_context_caches()
    context.detach()
    assert control.contexts() == []


@pytest.mark.usefixtures("context")
def test_frames_go_in_and_maps_come_out_without_a_copy(tmp_path: Path, gpu: ModuleType, kernels: Kernels) -> None:
    gpu.schedule("lazy")
    with open_session(tmp_path, kernels=kernels) as session:
        stream = pycuda.Stream()
        for seed, hw in enumerate((HW, (50, 40), (64, 128))):
            wanted = session(picture(seed, HW)).panoptic if hw == HW else None
            array, pinned = array_of(picture(seed, hw), stream)
            gpu.take_log()
            session.wait_for(stream.handle)
            result = session(array)
            shown = result.panoptic_device
            theirs = gpuarray.GPUArray(
                shown.shape, shown.dtype, gpudata=shown.address, strides=shown.strides, base=shown
            )
            assert [call for call in gpu.take_log() if "Memcpy" in call or "MemAlloc" in call] == []
            assert theirs.ptr == shown.address
            if hw == HW:
                np.testing.assert_array_equal(result.panoptic, wanted)
            if theirs.flags.c_contiguous:
                np.testing.assert_array_equal(theirs.get(), result.panoptic)
            else:
                rows = np.empty((shown.shape[0], shown.strides[0] // 4), np.int32)
                pycuda.memcpy_dtoh(rows, shown.address)
                np.testing.assert_array_equal(rows[:, : shown.shape[1]], result.panoptic)
            del theirs, array, pinned


def test_the_example_runs(
    tmp_path: Path, gpu: ModuleType, kernels: Kernels, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its kernel built for the host, under the same name: there is no nvcc, and no GPU to run what it compiles."""
    monkeypatch.setattr("pycuda.compiler.compile", lambda *_, **__: b"an image that nobody reads")
    gpu.schedule("lazy")
    images = [np.kron(picture(seed, (5, 8)), np.ones((10, 8, 1), np.uint8)) for seed in range(4)]
    for number, image in enumerate(images):
        cv2.imwrite(f"{tmp_path}/in{number}.png", image)
    plan, out = engine(), tmp_path / "out"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(plan), str(tmp_path / "in%d.png"), str(out)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    autoinit = sys.modules.pop("pycuda.autoinit")
    autoinit._finish_up()  # what it does when Python ends
    atexit.unregister(autoinit._finish_up)
    with open_session(tmp_path, kernels=kernels, preprocess="gpu") as session:
        for number, image in enumerate(images):
            result = session(image)
            things = [segment.id for segment in result.segments if segment.is_thing]
            height, width = result.panoptic.shape
            ys, xs = np.arange(50) * height // 50, np.arange(64) * width // 64
            keeps = np.isin(result.panoptic, things)[ys][:, xs, None]
            np.testing.assert_array_equal(
                cv2.imread(f"{out}/{number:06}.png"), np.where(keeps, image, image // 4), err_msg=str(number)
            )


AT_THE_END = """
import atexit
from tools.simcuda import control
atexit.register(lambda: print(control.findings(), control.contexts(), control.alive()))
import pathlib, sys
import pycuda.autoinit
from tools.simcuda.sessions import open_session, picture
session = open_session(pathlib.Path(sys.argv[1]))
session(picture(0))
"""


def test_a_session_that_nobody_closed_goes_before_the_context_of_autoinit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AT_THE_END, str(tmp_path)]
    paths = os.pathsep.join(sys.path)
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=os.environ | {"PYTHONPATH": paths}
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "[] [] {}\n")
