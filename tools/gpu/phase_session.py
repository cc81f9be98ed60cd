"""Phase 4: the TensorRT session on stand-in engines: graphs, slots, foreign arrays and contexts, drawing, leaks, cost.

What is right is known without the session: `standin.kernel_map` by the reference, the network by a run without it.
"""

from __future__ import annotations

import dataclasses
import resource
import statistics
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt.session import TensorRTSession
from panrt.engine.frame import Frame
from panrt.engine.pixel_formats import bgr
from panrt.engine.results.colors import Rgb
from panrt.plugins import frame_reference
from tools.gpu import real_tensorrt, standin
from tools.gpu.checks import Checks, MissingError, Record
from tools.gpu.device import call, open_context, sticky_error
from tools.gpu.machine import Machine
from tools.gpu.network import HW, Network, import_torch

Image = NDArray[np.uint8]
COLORS: dict[int, Rgb] = {i: (10 * i % 256, 255 - 5 * i, 40 + i) for i in range(1, standin.CHANNELS + 2)}
FRAMES, SIMULATED_FRAMES, SMALL_FRAMES = 2000, 60, 12
WARM_UP = 8  # frames before memory is counted
LEAK_BYTES_PER_FRAME = 2048  # of the process; pages that an allocator keeps are fewer over 2,000 frames
RESERVE_SECONDS = 20.0


def run(checks: Checks, machine: Machine) -> None:
    """Write one record per property of a session."""
    open_context()
    checks.lost = sticky_error
    suite = _Suite(checks, machine)
    for in_mapped_memory in (False, True):
        how = "with shared memory forced" if in_mapped_memory else "as the device is"
        with checks.check(f"graphs are kept, {how}") as check:
            suite.graphs_are_kept(check, in_mapped_memory)
        with checks.check(f"two slots give each frame its own result, {how}"):
            suite.two_slots(in_mapped_memory)
        with checks.check(f"a session draws what the host would, {how}"):
            suite.drawing(in_mapped_memory)
    for name, make in _foreign_arrays(machine).items():
        with checks.check(f"a frame of {name} goes in without the host"):
            suite.foreign_frame(make)
    with checks.check("a session joins the context of another library and leaves it current"):
        suite.foreign_context()
    with checks.check("two sessions at once, each in a thread of its own"):
        suite.two_sessions()
    with checks.check("frames leave nothing behind") as check:
        suite.no_leak(check)
    with checks.check("a submit costs") as check:
        check.figures |= suite.cost()
    for in_mapped_memory in (False,) if machine.profile == "small" else (False, True):
        how = "with shared memory forced" if in_mapped_memory else "as the device is"
        with checks.check(f"the network in PyTorch: graphs are kept and results are those of a plain run, {how}"):
            suite.network(in_mapped_memory)
    with checks.check("a TensorRT engine of the bundled model gives the expected maps") as check:
        real_tensorrt.run(check, machine)


class _Suite:
    """The checks of a session."""

    def __init__(self, checks: Checks, machine: Machine) -> None:
        self._checks, self._machine = checks, machine
        self._hw = (32, 64) if machine.profile == "small" else (64, 96) if machine.simulated else (256, 320)
        self._model = standin.kernel_model(self._hw)

    def graphs_are_kept(self, check: Record, in_mapped_memory: bool) -> None:
        """A capture works, and a replay gives the same."""
        with self._open(in_mapped_memory=in_mapped_memory) as session:
            if session.graph_error is not None:
                raise AssertionError(f"runs without CUDA graphs: {session.graph_error}")
            for seed in range(3):
                self._check_one(session, seed)
        check.figures["frames"] = 3

    def two_slots(self, in_mapped_memory: bool) -> None:
        """Submissions overlap, and come back in order."""
        images = [self._image(seed) for seed in range(6)]
        with self._open(in_mapped_memory=in_mapped_memory) as session:
            session.submit([Frame(images[0], 0)])
            for image, after in pairwise(images):
                session.submit([Frame(after, 0)])
                (result,) = session.collect()
                _assert_map(result.panoptic, standin.kernel_map(image))
            session.collect()

    def drawing(self, in_mapped_memory: bool) -> None:
        """Draw on BGR of the network's size, and on NV12 of another size that the GPU prepares."""
        height, width = self._hw
        larger = np.random.default_rng(9).integers(0, 256, (height * 2 * 3 // 2, width * 2), np.uint8)
        frames = [Frame(self._image(7), 0), Frame(larger, 1, pixel_format="nv12", yuv_standard="bt709")]
        with self._open(in_mapped_memory=in_mapped_memory, preprocess="gpu") as session:
            for frame in frames * 3:  # work becomes a graph on its second run
                session.submit([frame])
                (result,) = session.collect()
                _assert_map(result.panoptic, standin.kernel_map(self._prepared(frame)))
                result = dataclasses.replace(result, colors=COLORS)
                drawing = result.start_overlay()
                assert drawing is not None, "the session does not draw"
                wanted = result.overlay(bgr(frame), labels=False)
                assert np.array_equal(drawing.overlay(), wanted), f"{frame.pixel_format}: the overlay differs"

    def foreign_frame(self, make: Callable[[Image], Any]) -> None:
        """Another library's array is read where it is, after what that library has queued."""
        with self._open() as session:
            for seed in range(3):
                image = self._image(seed)
                _assert_map(session(Frame(make(image), seed)).panoptic, standin.kernel_map(image))

    def foreign_context(self) -> None:
        """Run in a context of the caller, not the primary one."""
        before = call(cu.cuCtxGetCurrent)
        context = call(cu.cuCtxCreate, None, 0, 0) if cu.CUDA_VERSION >= 13000 else call(cu.cuCtxCreate, 0, 0)
        try:
            with self._open() as session:
                self._check_one(session, 1)
                assert int(call(cu.cuCtxGetCurrent)) == int(context), "an open session left another context current"
            assert int(call(cu.cuCtxGetCurrent)) == int(context), "a closed session left another context current"
        finally:
            call(cu.cuCtxSetCurrent, before)
            call(cu.cuCtxDestroy, context)

    def two_sessions(self) -> None:
        """Neither gets the other's frames."""
        failures: list[BaseException] = []

        def work(session: TensorRTSession, seed: int) -> None:
            try:
                for number in range(5):
                    self._check_one(session, seed + number)
            except BaseException as error:  # raised below, in the thread that reports
                failures.append(error)

        with self._open() as one, self._open() as other:
            threads = [threading.Thread(target=work, args=pair) for pair in ((one, 0), (other, 50))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]

    def no_leak(self, check: Record) -> None:
        """Device memory, live resources of the simulation, and the process's own memory."""
        wanted = SMALL_FRAMES if self._machine.profile == "small" else FRAMES
        wanted = min(wanted, SIMULATED_FRAMES) if self._machine.simulated else wanted
        images = [self._image(seed) for seed in range(4)]
        maps = [standin.kernel_map(image) for image in images]
        with self._open() as session:
            done, before = 0, self._memory()
            for done in range(wanted + WARM_UP):
                if done == WARM_UP:
                    before = self._memory()
                if self._checks.seconds_left < RESERVE_SECONDS:
                    check.note(f"stopped after {done} of {wanted} frames for lack of time")
                    break
                _assert_map(session(Frame(images[done % 4], done)).panoptic, maps[done % 4])
            after = self._memory()
        check.figures |= {"frames": done + 1 - WARM_UP, "process bytes": after["process"] - before["process"]}
        lost = {key: after[key] - before[key] for key in after if key != "process" and after[key] > before.get(key, 0)}
        assert not lost, f"left behind: {lost}"
        if not self._machine.simulated:  # the simulation logs every call
            grown = after["process"] - before["process"]
            assert grown <= LEAK_BYTES_PER_FRAME * wanted, f"the process grew by {grown} bytes over {wanted} frames"

    def cost(self) -> dict[str, float]:
        """Return the medians of a submit and of a whole frame, microseconds of the host's clock."""
        submits, frames = [], []
        image = self._image(3)
        with self._open() as session:
            for _ in range(20 if self._machine.simulated else 500):
                started = time.perf_counter()
                session.submit([Frame(image, 0)])
                submits.append(time.perf_counter() - started)
                session.collect()
                frames.append(time.perf_counter() - started)
        return {
            "us per submit": round(1e6 * statistics.median(submits), 1),
            "us per frame": round(1e6 * statistics.median(frames), 1),
        }

    def network(self, in_mapped_memory: bool) -> None:
        """The tabletop network, whose plain run is on PyTorch's own stream."""
        net = Network(self._machine, hw=(64, 96) if self._machine.simulated else HW)
        engine = standin.TorchEngine(self._machine, net.file, net.module)
        with standin.open_session(self._machine, net.file, engine, in_mapped_memory=in_mapped_memory) as session:
            if session.graph_error is not None:
                raise AssertionError(f"runs without CUDA graphs: {session.graph_error}")
            for image in net.some_images(2 if self._machine.simulated else 8):
                _assert_map(session(Frame(image, 0)).panoptic, net.run(image).panoptic)

    def _open(self, **options: Any) -> TensorRTSession:
        engine = standin.KernelEngine(self._machine, self._model)
        return standin.open_session(self._machine, self._model, engine, **options)

    def _image(self, seed: int) -> Image:
        """Grains of noise, so that the map has areas."""
        height, width = self._hw
        grains = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
        return np.ascontiguousarray(grains.repeat(4, axis=0).repeat(4, axis=1))

    def _prepared(self, frame: Frame) -> Image:
        if frame.pixel_format == "bgr8":
            return frame.image
        letterbox = frame_reference.Letterbox(self._hw, self._hw)
        return frame_reference.preprocess(frame.image, letterbox, pixel_format="NV12", standard="BT709")

    def _check_one(self, session: TensorRTSession, seed: int) -> None:
        image = self._image(seed)
        _assert_map(session(Frame(image, seed)).panoptic, standin.kernel_map(image))

    def _memory(self) -> dict[str, int]:
        if self._machine.simulated:
            from tools.simcuda import control  # noqa: PLC0415

            counts = control.alive()
        else:
            error, free, _ = cu.cuMemGetInfo()
            assert not error, error.name
            counts = {"device bytes": -int(free)}
        pages = int(open("/proc/self/statm").read().split()[1])  # noqa: SIM115
        return counts | {"process": pages * resource.getpagesize()}


def _assert_map(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    differing = int(np.count_nonzero(found != wanted))
    assert differing == 0, f"{differing} of {wanted.size} pixels of the map differ"


def _foreign_arrays(machine: Machine) -> dict[str, Callable[[Image], Any]]:
    """Return what makes an array on the device from an image, by the name of the library or protocol."""
    from tools.simcuda import device_arrays  # noqa: PLC0415  # these two work on any driver

    found: dict[str, Callable[[Image], Any]] = {
        "__cuda_array_interface__": device_arrays.CudaArray,
        "DLPack": device_arrays.DlpackArray,
    }
    if not machine.simulated:
        found |= {"PyTorch": lambda image: import_torch(machine).from_numpy(image).cuda(), "CuPy": _cupy_array}
    return found


def _cupy_array(image: Image) -> Any:
    try:
        import cupy  # noqa: PLC0415
    except ImportError as error:
        raise MissingError(f"CuPy does not import ({error})") from error
    return cupy.asarray(image)
