"""The CPU backend: frames are prepared in the caller's thread, and inferred in one worker.

Shapes: N images, H x W network input.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine import forks
from panrt.engine.backends.cpu.executor import Executor
from panrt.engine.backends.cpu.partition import partition
from panrt.engine.backends.session_base import SessionBase
from panrt.engine.frame import Frame
from panrt.engine.nvtx_ranges import nvtx_range
from panrt.engine.pixel_formats import bgr
from panrt.engine.preprocess import Placement, fill, place
from panrt.engine.results.result import PanopticResult, Timings, panoptic_result
from panrt.engine.session import GpuMemory, Preprocess, Session
from panrt.errors import SessionError, ThreadLimitError, UnsupportedModelError
from panrt.formats.thresholds import Arrays
from panrt.plugins import native
from panrt.plugins.contract import PanopticSegments

forks.skip_destructors()

CAPACITY = 2  # one submission runs while the next one is prepared


def obstacle(path: Path) -> str | None:
    """Return why this backend cannot run a file; None: it can."""
    if path.suffix == ".plan":
        return "it is a TensorRT engine; give the ONNX file that it was built from"
    return None


def open_session(
    path: Path,
    *,
    threads: int | None = None,
    preprocess: Preprocess = "host",
    gpu_memory: GpuMemory = "auto",
    input_hw: tuple[int, int] | None = None,
) -> Session:
    """Load a file; errors as in `panrt.load`.

    Raises:
        SessionError: an option asks for a GPU.
    """
    if preprocess == "gpu":
        raise SessionError(f"{path}: the backend 'cpu' has no GPU to prepare frames on; leave preprocess at \"host\".")
    if gpu_memory != "auto":
        raise SessionError(f"{path}: the backend 'cpu' has no GPU with memory to choose; leave gpu_memory at \"auto\".")
    return CpuSession(path, threads=threads or native.default_threads(), input_hw=input_hw)


class CpuSession(SessionBase["Future[tuple[PanopticResult, ...]]"]):
    """A model on the CPU; see `panrt.engine.session.Session`."""

    backend = "cpu"

    def __init__(self, path: Path, *, threads: int, input_hw: tuple[int, int] | None = None) -> None:
        self.path = path
        self.threads = threads
        self._executor = Executor(partition(path, input_hw=input_hw), path, threads=threads)
        self._executor_lock = threading.Lock()  # held during an inference, in any thread
        model = self._executor.file
        if model.batch == 0:
            raise UnsupportedModelError(
                f"{path}: the CPU backend runs files of one batch, this one leaves it open; export it with one."
            )
        shapes = {name: array.shape for name, array in self._executor.settings.items()}
        super().__init__(name=str(path), capacity=CAPACITY, batch=model.batch, model=model, shapes=shapes)
        self._sizes = self.model.sizes
        self._free_pixel = np.clip(np.rint(self.model.pixel_mean), 0, 255).astype(np.uint8)
        shape = (self.model.batch, *self._sizes.input_hw, 3)
        self._slots: deque[NDArray[np.uint8]] = deque(
            np.broadcast_to(self._free_pixel, shape).copy() for _ in range(self.capacity + 1)
        )
        self._worker: ThreadPoolExecutor | None = None

    @property
    def stages(self) -> Mapping[str, float]:
        """Return the seconds of the last inference: "dense", and each op by its name."""
        return self._executor.stages

    def _begin(self, frames: tuple[Frame, ...]) -> Future[tuple[PanopticResult, ...]]:
        prepared = self._prepare(frames)
        worker = self._worker or ThreadPoolExecutor(1, thread_name_prefix="panrt-cpu")
        try:
            begun = worker.submit(self._infer, prepared)
        except RuntimeError as error:
            raise ThreadLimitError("session: submit") from error
        self._worker = worker
        return begun

    def _finish(
        self, work: Future[tuple[PanopticResult, ...]], frames: tuple[Frame, ...]
    ) -> tuple[PanopticResult, ...]:
        return work.result()

    def _compute(self, frame: Frame) -> PanopticResult:
        return self._infer(self._prepare((frame,)))[0]

    def _free(self) -> None:
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
            self._worker = None
        self._slots.clear()
        self._executor.close()

    @nvtx_range("preprocess")
    def _prepare(self, frames: Sequence[Frame]) -> _Prepared:
        started = time.perf_counter()
        images = [bgr(frame) for frame in frames]
        self._slots.rotate()
        slot = self._slots[0]
        placements = []
        for image, target in zip(images, slot, strict=False):
            placements.append(place((image.shape[0], image.shape[1]), self._sizes.valid_hw, self._sizes.output_hw))
            fill(image, placements[-1], self._free_pixel, target)
        return _Prepared(slot, tuple(frames), tuple(placements), self.settings.arrays, time.perf_counter() - started)

    def _infer(self, prepared: _Prepared) -> tuple[PanopticResult, ...]:
        started = time.perf_counter()
        with self._executor_lock:  # an inference whose caller was interrupted may still run
            segments = self._executor.run(prepared.images, prepared.settings)
            inferred = time.perf_counter()
            return self._results(prepared, segments, inferred - started)

    def _results(self, prepared: _Prepared, segments: PanopticSegments, seconds: float) -> tuple[PanopticResult, ...]:
        results = []
        for image, (frame, placement) in enumerate(zip(prepared.frames, prepared.placements, strict=True)):
            begun = time.perf_counter()
            result = panoptic_result(self.model, segments, image, frame=frame, map_hw=placement.map_hw)
            timings = Timings(prepared.seconds, seconds, time.perf_counter() - begun)
            results.append(dataclasses.replace(result, timings=timings))
        return tuple(results)


class _Prepared(NamedTuple):
    images: NDArray[np.uint8]  # (N, H, W, 3)
    frames: tuple[Frame, ...]  # at most N
    placements: tuple[Placement, ...]
    settings: Arrays  # the thresholds at the time of `submit`
    seconds: float
