"""The TensorRT backend: frames go through a ring of slots, each with its own buffers, execution and captured graph.

A frame costs one graph launch: upload, network with its plugins, download. All slots share one stream, so their work
runs in the order of `submit`, and one block of scratch memory serves all. The host prepares frame t + 1 in the next
slot and queues it while the GPU is still at frame t. Nothing is allocated after the session is open.

Where the GPU shares the host's memory (Jetson), the network reads and writes the pinned buffers in place, and nothing
is copied.

Shapes: N images of the engine's batch, h x w network input, H x W panoptic map.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends import cuda
from panrt.engine.backends.trt_engine import Engine, EngineError, Execution, Tensor, expect
from panrt.engine.frame import Frame
from panrt.engine.preprocess import Placement, check_frame, fill, place
from panrt.engine.result import PanopticResult, Timings, panoptic_result
from panrt.engine.session import SessionError
from panrt.model_file import ModelFile
from panrt.plugins.contract import PanopticSegments

log = logging.getLogger("panrt")

SLOTS = 2  # one runs while the next one is prepared
WARM_UPS = 2  # runs before a capture: TensorRT does on its first ones what a capture forbids
IMAGE = "image"
UNWRITTEN = 0xCD  # what outputs hold before the runs that are compared


class TensorRTSession:
    """An engine on a GPU; see `panrt.engine.session.Session`.

    Beside frames in host memory it takes frames on the GPU: see `submit`.
    """

    def __init__(
        self, model: ModelFile, engine: Engine, context: cuda.Context, *, backend: str, slots: int = SLOTS
    ) -> None:
        """Take over an engine and the context that it was deserialised in; both are closed with the session, or when
        this fails.

        Raises:
            EngineError: the engine is not of this model, or TensorRT refuses it.
            CudaError: the driver refuses a call, most likely for want of memory. Nothing is left over.
        """
        self.model = model
        self.backend = backend
        self.path = engine.path
        self.graph_refusal: str | None = None  # why there are no graphs; None: there are
        self._context = context
        self._free = np.clip(np.rint(model.pixel_mean), 0, 255).astype(np.uint8)
        self._pending: deque[_Submission] = deque()
        self._resources = ExitStack()
        with ExitStack() as resources:
            resources.callback(context.close)
            resources.callback(engine.close)
            context.enter()
            tensors = expect(engine.tensors, wanted_tensors(model), path=engine.path)
            self._batch, *input_hw, _ = tensors[IMAGE].shape
            self._valid_hw = model.valid_hw if all(model.valid_hw) else (input_hw[0], input_hw[1])
            self._output_hw = tensors["panoptic"].shape[1], tensors["panoptic"].shape[2]
            self.stream = _opened(resources, cuda.Stream())
            scratch = _opened(resources, cuda.DeviceMemory(engine.scratch_bytes)).address if engine.scratch_bytes else 0
            self._slots = []
            for _ in range(slots):
                execution = _opened(resources, engine.execution(scratch))
                self._slots.append(_Slot(resources, self.stream, execution, tensors, mapped=context.shares_memory))
            resources.callback(self._drain)
            self._record(resources)
            self._resources = resources.pop_all()

    @property
    def capacity(self) -> int:
        """How many submissions may wait for their `collect` at once."""
        return len(self._slots)

    def __call__(self, frame: Any) -> PanopticResult:
        """The result of one frame, (H, W, 3) uint8 BGR of any size, or on the GPU of the network's."""
        if self._pending:
            raise SessionError("session: called while submissions wait for their collect; collect them first.")
        self.submit((frame if isinstance(frame, Frame) else Frame(frame, captured_at=time.monotonic()),))
        return self.collect()[0]

    def submit(self, frames: Sequence[Frame]) -> None:
        """Start on 1 to `model.batch` frames and return without waiting.

        A frame may hold, in place of a NumPy array, an array on the GPU: whatever has DLPack or
        `__cuda_array_interface__`, (h, w, 3) uint8 BGR, the part of the network's input that holds frames. It is copied
        on the GPU, after what its library has queued on it; until `collect` its owner must not write to it.

        Raises:
            SessionError: closed, or `capacity` submissions wait already.
            FrameError, ValueError: what was given is not 1 to `model.batch` frames.
            CudaError: the GPU cannot be used any more.
        """
        self._check_open()
        if len(self._pending) == self.capacity:
            raise SessionError(f"session: {self.capacity} submissions wait for their collect already; collect one.")
        if not 1 <= len(frames) <= self._batch:
            raise ValueError(f"frames: got {len(frames)}, expected 1 to {self._batch}, the batch of {self.path}.")
        started = time.perf_counter()
        slot = self._slots[0]
        self._context.enter()
        arrays: list[cuda.DeviceArray] = []
        if any(cuda.is_on_device(frame.image) for frame in frames):
            arrays = self._copy_from_device(slot, frames)
            placements = (Placement(self._valid_hw, self._output_hw),) * len(frames)
            run = slot.run_uploaded
        else:
            placements = self._fill(slot, frames)
            run = slot.run
        prepared = time.perf_counter()
        slot.begun.record(self.stream)
        run()
        slot.done.record(self.stream)
        self._slots.append(self._slots.pop(0))
        self._pending.append(_Submission(slot, tuple(frames), placements, prepared - started, arrays))

    def collect(self) -> tuple[PanopticResult, ...]:
        """Wait for the oldest submission; a result for each of its frames, in order.

        Raises:
            SessionError: closed, or nothing was submitted.
            CudaError: the GPU cannot be used any more.
        """
        self._check_open()
        if not self._pending:
            raise SessionError("session: nothing was submitted that could be collected.")
        slot, frames, placements, preprocess, _ = self._pending.popleft()
        slot.done.synchronize()
        inference = slot.done.seconds_since(slot.begun)
        results = []
        for image, (frame, placement) in enumerate(zip(frames, placements, strict=True)):
            started = time.perf_counter()
            result = panoptic_result(self.model, slot.found, image, frame=frame, map_hw=placement.map_hw)
            panoptic = result.panoptic.copy()  # the slot's memory is written to again
            timings = Timings(preprocess, inference, time.perf_counter() - started)
            results.append(dataclasses.replace(result, panoptic=panoptic, timings=timings))
        return tuple(results)

    def close(self) -> None:
        """Free everything; what is in flight is waited for and dropped. Twice is fine."""
        self._pending.clear()
        self._slots = []
        self._resources.close()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._slots:
            raise SessionError(f"session: {self.path} is closed; panrt.load opens it again.")

    def _fill(self, slot: _Slot, frames: Sequence[Frame]) -> tuple[Placement, ...]:
        for frame in frames:
            check_frame(frame.image)
        placements = []
        for frame, target in zip(frames, slot.images, strict=False):
            placements.append(place((frame.image.shape[0], frame.image.shape[1]), self._valid_hw, self._output_hw))
            fill(frame.image, placements[-1], self._free, target)
        return tuple(placements)

    def _copy_from_device(self, slot: _Slot, frames: Sequence[Frame]) -> list[cuda.DeviceArray]:
        height, width = self._valid_hw
        arrays = [cuda.device_array(frame.image, self.stream, shape=(height, width, 3)) for frame in frames]
        for index, array in enumerate(arrays):
            target, pitch = slot.image_on_device(index)
            self.stream.copy_rows(target, pitch, array.address, array.pitch, width * 3, height)
        return arrays

    def _record(self, resources: ExitStack) -> None:
        """Capture each slot's work, and let it run as a graph where that gives what it gives without."""
        noise = np.random.default_rng(0).integers(0, 256, self._slots[0].images.shape, np.uint8)
        for slot in self._slots:
            slot.images[...] = noise
            for _ in range(WARM_UPS):
                slot.enqueue()
            self.stream.synchronize()
            expected = slot.outputs.copy()
            slot.outputs[...] = UNWRITTEN
            try:
                graph = _opened(resources, self.stream.capture(slot.enqueue))
                uploaded = _opened(resources, self.stream.capture(slot.enqueue_uploaded))
                graph.launch()
            except (cuda.CudaError, EngineError) as error:
                self.stream.synchronize()  # raises where it was not the capture that failed
                self.graph_refusal = f"its work cannot be captured: {error}"
                break
            self.stream.synchronize()
            if not np.array_equal(slot.outputs, expected):
                self.graph_refusal = "a replay gave other results than a run without graph"
                break
            slot.run, slot.run_uploaded = graph.launch, uploaded.launch
        for slot in self._slots:
            slot.images[...] = self._free
            if self.graph_refusal is not None:
                slot.run, slot.run_uploaded = slot.enqueue, slot.enqueue_uploaded
            elif not slot.is_mapped:
                slot.upload()
        self.stream.synchronize()
        if self.graph_refusal is not None:
            log.warning("%s: runs without CUDA graphs, which costs time: %s", self.path, self.graph_refusal)

    def _drain(self) -> None:
        try:
            self._context.enter()
            self.stream.synchronize()
        except cuda.CudaError as error:
            log.warning("%s: while closing: %s", self.path, error)


class _Submission(NamedTuple):
    slot: _Slot
    frames: tuple[Frame, ...]
    placements: tuple[Placement, ...]
    preprocess: float  # seconds
    arrays: Sequence[cuda.DeviceArray]  # what the GPU still reads


class _Slot:
    """What one submission at a time works with. Inputs lie first and outputs behind them, alike on host and device, so
    that each way is one copy.
    """

    def __init__(
        self,
        resources: ExitStack,
        stream: cuda.Stream,
        execution: Execution,
        tensors: Mapping[str, Tensor],
        *,
        mapped: bool,
    ) -> None:
        self.is_mapped = mapped
        self._stream = stream
        self._execution = execution
        image = tensors[IMAGE]
        offsets, size = {}, 0
        for tensor in (image, *(tensors[name] for name in PanopticSegments._fields)):
            offsets[tensor.name] = size
            size += -(-tensor.bytes // cuda.ALIGNMENT) * cuda.ALIGNMENT
        self._outputs_at = offsets[PanopticSegments._fields[0]]
        self._input_bytes = image.bytes
        self._output_bytes = size - self._outputs_at

        pinned = _opened(resources, cuda.PinnedMemory(size, mapped=mapped))
        self._host = pinned.address
        self._device = pinned.device_address if mapped else _opened(resources, cuda.DeviceMemory(size)).address
        for name, offset in offsets.items():
            execution.bind(name, self._device + offset)
        self.begun = _opened(resources, cuda.Event())
        self.done = _opened(resources, cuda.Event())

        def view(tensor: Tensor) -> NDArray[Any]:
            offset = offsets[tensor.name]
            return pinned.array[offset : offset + tensor.bytes].view(tensor.dtype).reshape(tensor.shape)

        self.images: NDArray[np.uint8] = view(image)  # (N, h, w, 3)
        self.outputs = pinned.array[self._outputs_at :]
        self.found = PanopticSegments(*(view(tensors[name]) for name in PanopticSegments._fields))
        self.run: Callable[[], None] = self.enqueue  # what `images` hold
        self.run_uploaded: Callable[[], None] = self.enqueue_uploaded  # what the device holds

    def image_on_device(self, index: int) -> tuple[int, int]:
        """Address and pitch of an image of the batch."""
        _, height, width, channels = self.images.shape
        return self._device + index * height * width * channels, width * channels

    def upload(self) -> None:
        """Queue the images' way to the device."""
        self._stream.upload(self._device, self._host, self._input_bytes)

    def enqueue(self) -> None:
        """Queue a run on `images`."""
        if not self.is_mapped:
            self.upload()
        self.enqueue_uploaded()

    def enqueue_uploaded(self) -> None:
        """Queue a run on what the device holds."""
        self._execution.enqueue(self._stream.address)
        if not self.is_mapped:
            self._stream.download(self._host + self._outputs_at, self._device + self._outputs_at, self._output_bytes)


class _Closes(Protocol):
    def close(self) -> None: ...


_Resource = TypeVar("_Resource", bound=_Closes)


def _opened(resources: ExitStack, resource: _Resource) -> _Resource:
    """Have it closed with the others, the last one first."""
    resources.callback(resource.close)
    return resource


def wanted_tensors(model: ModelFile) -> tuple[Tensor, ...]:
    """What an engine of a model takes and gives; -1 where the model leaves a size open."""
    n = model.batch or -1
    height, width = model.input_hw if all(model.input_hw) else (-1, -1)
    out_height, out_width = model.output_hw if all(model.output_hw) else (-1, -1)
    rows = model.thresholds.max_detections + len(model.stuff) + 1
    int32, float32 = np.dtype(np.int32), np.dtype(np.float32)
    return (
        Tensor(IMAGE, (n, height, width, 3), np.dtype(np.uint8), True),
        Tensor("panoptic", (n, out_height, out_width), int32, False),
        Tensor("segments", (n, rows, 8), int32, False),
        Tensor("segment_scores", (n, rows), float32, False),
        Tensor("segment_count", (n,), int32, False),
    )


def obstacle(path: Path) -> str | None:
    """Why this backend cannot run a file here."""
    if path.suffix != ".plan":
        return f"it runs engines; build one:  panrt build {path} -o {path.with_suffix('.plan')}"
    return "engines cannot be opened by their path yet"
