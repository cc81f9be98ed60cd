"""The CPU backend: dense parts in ONNX Runtime, the four ops in `panrt.plugins.native`, one set of threads for both.

Parts and ops take turns, so each has all threads while it runs, and none spins for longer than a moment. What passes
between them is memory that both see: ONNX Runtime writes the features where the kernels read them.

Shapes: N images, H x W network input, K detections of the file, k <= K that can enter the merge.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from panrt.engine import forks
from panrt.engine.backends.cpu.partition import Op, Part, Partition, partition
from panrt.engine.backends.cpu.passes.convolutions import Convolution
from panrt.engine.backends.cpu.passes.normalisation import Normalisation
from panrt.engine.backends.session_base import SessionBase
from panrt.engine.frame import Frame
from panrt.engine.nvtx_ranges import nvtx_range
from panrt.engine.pixel_formats import bgr
from panrt.engine.preprocess import Placement, fill, place
from panrt.engine.results.result import PanopticResult, Timings, panoptic_result
from panrt.engine.session import GpuMemory, Preprocess, Session
from panrt.errors import SessionError, ThreadLimitError, UnsupportedModelError
from panrt.formats.input_size import IMAGE
from panrt.formats.metadata import ModelFile
from panrt.formats.onnx_graph import RESULTS
from panrt.plugins import native
from panrt.plugins.contract import Layout, PanopticSegments

forks.skip_destructors()

CAPACITY = 2  # one submission runs while the next one is prepared
DENSE = "dense"  # what `stages` calls the parts
MOMENT = 50  # microseconds that a thread looks out for work before it sleeps, as in plugins/cpu/thread_pool.cpp

# How ONNX Runtime's threads wait: to wake one takes the system about as long as a node of a graph takes. Before 1.26
# they look out for ever or not at all.
SPINNING = {"session.intra_op.allow_spinning": "0"}
if tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 26):
    SPINNING = {"session.intra_op.allow_spinning": "1", "session.intra_op.spin_duration_us": str(MOMENT)}

# What ONNX Runtime raises for a graph that it cannot take, when it opens it or when it runs it.
_states = ort.capi.onnxruntime_pybind11_state
_REFUSALS = (
    *(_states.EPFail, _states.EngineError, _states.Fail, _states.InvalidArgument, _states.InvalidGraph),
    *(_states.InvalidProtobuf, _states.NoModel, _states.NoSuchFile, _states.NotImplemented, _states.RuntimeException),
)


def obstacle(path: Path) -> str | None:
    """Why this backend cannot run a file here."""
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
        SessionError: it was to use a GPU.
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
        self._graph = Graph(partition(path, input_hw=input_hw), path, threads=threads)
        self._graph_turn = threading.Lock()  # for one inference, on whichever thread
        self.model: ModelFile = self._graph.file
        if self.model.batch == 0:
            raise UnsupportedModelError(
                f"{path}: the CPU backend runs files of one batch, this one leaves it open; export it with one."
            )
        super().__init__(name=str(path), capacity=CAPACITY, batch=self.model.batch)
        self._valid_hw = self.model.valid_hw if all(self.model.valid_hw) else self.model.input_hw
        self._output_hw = self.model.output_hw if all(self.model.output_hw) else self._valid_hw
        self._free_pixel = np.clip(np.rint(self.model.pixel_mean), 0, 255).astype(np.uint8)
        shape = (self.model.batch, *self.model.input_hw, 3)
        self._slots: deque[NDArray[np.uint8]] = deque(
            np.broadcast_to(self._free_pixel, shape).copy() for _ in range(self.capacity + 1)
        )
        self._worker: ThreadPoolExecutor | None = None

    @property
    def stages(self) -> Mapping[str, float]:
        """Seconds of the last inference: "dense", and each op by its name."""
        return self._graph.stages

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
        self._graph.close()

    @nvtx_range("preprocess")
    def _prepare(self, frames: Sequence[Frame]) -> _Prepared:
        started = time.perf_counter()
        images = [bgr(frame) for frame in frames]
        self._slots.rotate()
        slot = self._slots[0]
        placements = []
        for image, target in zip(images, slot, strict=False):
            placements.append(place((image.shape[0], image.shape[1]), self._valid_hw, self._output_hw))
            fill(image, placements[-1], self._free_pixel, target)
        return _Prepared(slot, tuple(frames), tuple(placements), time.perf_counter() - started)

    def _infer(self, prepared: _Prepared) -> tuple[PanopticResult, ...]:
        started = time.perf_counter()
        with self._graph_turn:  # what a caller was interrupted in waiting for may still run
            segments = self._graph.run(prepared.images)
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
    seconds: float


class Graph:
    """The steps of a partition, ready to run on a batch of network inputs."""

    def __init__(self, plan: Partition, path: Path, *, threads: int) -> None:
        self.file = plan.file
        self.stages: dict[str, float] = {}
        self._free_rows = plan.free_rows
        merge = plan.steps[-1]
        assert isinstance(merge, Op)
        self._least_score = np.float32(merge.attributes["score_threshold"])
        self._threads = threads
        self._normalisation = plan.normalisation
        self._values: dict[str, NDArray[Any]] = {}
        self._steps: list[_Dense | _Conv3x3 | Op] = [self._ready(step, path) for step in plan.steps]

    def run(self, image: NDArray[np.uint8]) -> PanopticSegments:
        """(N, H, W, 3) uint8 BGR at network size -> the panoptic maps."""
        values = self._values
        values[IMAGE] = image
        stages: dict[str, float] = {}
        if self._normalisation is not None:
            started = time.perf_counter()
            values[self._normalisation.output] = self._normalised(image, self._normalisation)
            stages[DENSE] = time.perf_counter() - started
        for step in self._steps:
            started = time.perf_counter()
            if not isinstance(step, Op):
                step.run(values)
                name = DENSE
            else:
                values.update(zip(step.outputs, self._compute(step), strict=True))
                name = step.name or step.type
            stages[name] = stages.get(name, 0.0) + time.perf_counter() - started
        self.stages = stages
        return PanopticSegments(*(values[name] for name in RESULTS))

    def close(self) -> None:
        self._steps.clear()
        self._values.clear()

    def _ready(self, step: Part | Op | Convolution, path: Path) -> _Dense | _Conv3x3 | Op:
        if isinstance(step, Part):
            return _Dense(step, path, self._threads)
        return _Conv3x3(step, self._threads) if isinstance(step, Convolution) else step

    def _normalised(self, image: NDArray[np.uint8], normalisation: Normalisation) -> NDArray[np.float32]:
        N, H, W, _ = image.shape
        out = self._values.get(normalisation.output)
        if out is None:
            out = np.empty((N, 3, H, W), np.float32)
        return native.look_up(image, normalisation.table, out=out, threads=self._threads)

    def _compute(self, op: Op) -> Sequence[NDArray[Any]]:
        inputs: list[Any] = [self._values[name] for name in op.inputs]
        attributes, threads = op.attributes, self._threads
        if op.type == "RpnProposals":
            levels = len(inputs) // 2
            return native.rpn_proposals(inputs[:levels], inputs[levels:], **attributes, threads=threads)
        if op.type == "PyramidRoiAlign":
            layout: Layout = "NHWC" if op.nhwc else "NCHW"
            return [native.pyramid_roi_align(inputs[:-1], inputs[-1], **attributes, layout=layout, threads=threads)]
        if op.type == "BoxDetections":
            found = native.box_detections(*inputs, **attributes, threads=threads)
            return self._kept(found) if self._free_rows else found
        return native.panoptic_merge(*inputs, **attributes, threads=threads)

    def _kept(self, found: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Without the rows that the merge drops for their score; scores descend. One stays, for parts to have work."""
        boxes, scores, classes, count = found
        real = np.arange(scores.shape[1]) < count[:, None]
        kept = max(int((real & (scores >= self._least_score)).sum(axis=1).max()), 1)
        rows = [np.ascontiguousarray(array[:, :kept]) for array in (boxes, scores, classes)]
        return [*rows, np.minimum(count, np.int32(kept))]


class _Conv3x3:
    """A convolution that runs outside ONNX Runtime, into memory that is allocated once."""

    def __init__(self, convolution: Convolution, threads: int) -> None:
        (self._read,), (self._written,) = convolution.inputs, convolution.outputs
        self._convolve = native.Conv3x3(
            convolution.weight, convolution.bias, bounds=convolution.bounds, threads=threads
        )
        self._output = np.empty(convolution.shape, np.float32)

    def run(self, values: dict[str, NDArray[Any]]) -> None:
        """Compute the output from values by name, into them."""
        values[self._written] = self._convolve(values[self._read], self._output)


class _Dense:
    """A part in ONNX Runtime. Where its shapes are fixed, it writes to memory that is allocated once."""

    def __init__(self, part: Part, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in SPINNING.items():
            options.add_session_config_entry(key, value)
        try:
            self._session = ort.InferenceSession(
                part.model, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except _REFUSALS as error:
            raise _refused(path, error) from error
        except RuntimeError as error:
            if "pthread_create" not in str(error):
                raise
            raise ThreadLimitError(str(path)) from error
        self._path = path
        self._part = part
        self._names = [tensor.name for tensor in part.outputs]
        self._binding: Any = None
        self._outputs: dict[str, NDArray[Any]] = {}
        self._bound: dict[str, NDArray[Any]] = {}
        if not any(size < 0 for tensor in (*part.inputs, *part.outputs) for size in tensor.shape):
            self._binding = self._session.io_binding()
            for name, dtype, shape in part.outputs:
                self._outputs[name] = np.empty(shape, dtype)
                self._binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(self._outputs[name]))

    def run(self, values: dict[str, NDArray[Any]]) -> None:
        """Compute the part's outputs from values by name, into them.

        Raises:
            UnsupportedModelError: ONNX Runtime finds only now that it cannot run it.
        """
        try:
            self._run(values)
        except (*_REFUSALS, RuntimeError) as error:  # a run into bound memory raises the latter for any of them
            raise _refused(self._path, error) from error

    def _run(self, values: dict[str, NDArray[Any]]) -> None:
        if self._binding is None:
            rows = {name: array[: self._rows(values)] for name, array in self._part.constants.items()}
            feeds = {tensor.name: values[tensor.name] for tensor in self._part.inputs if tensor.name not in rows}
            values.update(zip(self._names, self._session.run(self._names, feeds | rows), strict=True))
            return
        for tensor in self._part.inputs:
            array = values[tensor.name]
            if self._bound.get(tensor.name) is not array:  # what earlier steps write is in the same place every time
                self._binding.bind_ortvalue_input(tensor.name, ort.OrtValue.ortvalue_from_numpy(array))
                self._bound[tensor.name] = array
        self._session.run_with_iobinding(self._binding)
        values.update(self._outputs)

    def _rows(self, values: dict[str, NDArray[Any]]) -> int:
        """Detections at hand, those of all images together."""
        return next(len(values[t.name]) for t in self._part.inputs if len(t.shape) == 4 and t.name in values)


def _refused(path: Path, error: Exception) -> UnsupportedModelError:
    problem = " ".join(str(error).split())[:500]
    return UnsupportedModelError(
        f"{path}: ONNX Runtime {ort.__version__} cannot run a part of it ({problem}); export it again, or upgrade "
        "onnxruntime."
    )
