"""The TensorRT backend: frames go through a ring of slots, each with its own buffers, execution and captured graph.

A frame costs one graph launch: upload, network with its plugins, download. All slots share one stream, so their work
runs in the order of `submit`, and one block of scratch memory serves all. The host prepares frame t + 1 in the next
slot and queues it while the GPU is still at frame t. Nothing is allocated after the session is open.

Where the GPU shares the host's memory (Jetson), the network can read and write the pinned buffers in place, without
copies. Such a GPU may not cache that memory, so both ways are measured when the session opens, and the faster is kept.

Frame and map of what was collected last stay where they are until the next `submit`, so that `draw` can paint the one
over the other: see `panrt.engine.backends.tensorrt.canvas`.

Shapes: N images of the engine's batch, h x w network input, H x W panoptic map.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import logging
import statistics
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise, product
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from panrt.engine import forks
from panrt.engine.backends.session_base import SessionBase
from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.canvas import Canvas, GpuDrawing
from panrt.engine.backends.tensorrt.engine import Engine, Tensor, expect
from panrt.engine.backends.tensorrt.kernels import Kernels, Layout, layout_of, layout_on_device
from panrt.engine.backends.tensorrt.recorded import opened
from panrt.engine.backends.tensorrt.slot import IMAGE, Feed, GpuSlot, Origin
from panrt.engine.frame import Frame
from panrt.engine.nvtx_ranges import nvtx_range
from panrt.engine.preprocess import Placement, fill, place
from panrt.engine.results.colors import Rgb
from panrt.engine.results.device_map import DeviceMap
from panrt.engine.results.result import PanopticResult, Timings, panoptic_result
from panrt.engine.session import GpuMemory, Preprocess, current_user
from panrt.errors import CudaError, EngineError, FrameError, KernelError, SessionBusyError, SessionError
from panrt.formats.metadata import ModelFile

log = logging.getLogger("panrt")

SLOTS = 2  # one runs while the next one is prepared
WARM_UPS = 2  # runs before a capture: TensorRT does on its first ones what a capture forbids
UNWRITTEN = 0xCD  # what outputs hold before a replay, which must write them
TRIALS = 5  # runs in each kind of memory, where both are measured
LAYOUTS = 4  # sizes and formats of frames on the GPU; when more come, the one not seen for longest goes

IoMemory: TypeAlias = Literal["mapped", "device"]  # of network inputs and outputs


class TensorRTSession(SessionBase["_Submission"]):
    """An engine on a GPU; see `panrt.engine.session.Session`.

    Beside frames in host memory it takes frames on the GPU. Such a frame holds, in place of a NumPy array, whatever has
    DLPack or `__cuda_array_interface__`, in any size and pixel format, with any distance between rows. A kernel reads
    it where it is, after what its library has queued on the stream that the interface names (for other streams see
    `wait_for`); until `collect` its owner must not write to it.

    A CudaError of any call means that the GPU cannot be used any more.

    No call changes which CUDA context is current for its caller. The session runs in the context that was current when
    it was loaded, else in the device's primary one.
    """

    _is_open = False

    def __init__(
        self,
        model: ModelFile,
        engine: Engine,
        context: driver.Context,
        *,
        backend: str,
        kernels: Kernels | None = None,
        preprocess: Preprocess = "host",
        gpu_memory: GpuMemory = "auto",
        slots: int = SLOTS,
    ) -> None:
        """Take over an engine and the context that it was deserialised in; both are closed with the session, or when
        this fails.

        Args:
            model: what the engine was built from says about itself.
            engine: it, deserialised.
            context: in which it was.
            backend: "tensorrt" or "rtx".
            kernels: of the plugin library; without them the GPU neither prepares frames nor draws, and maps come down
                in int32.
            preprocess: who resizes BGR frames; see `panrt.load`.
            gpu_memory: where network inputs and outputs lie; see `panrt.load`.
            slots: submissions at once.

        Raises:
            EngineError: the engine is not of this model, or TensorRT refuses it.
            CudaError: the driver refuses a call, most likely for want of memory. Nothing is left over.
            SessionError: the GPU cannot work in mapped memory, which it was to.
        """
        self.model = model
        self.backend = backend
        self.path = engine.path
        self._context = context
        self._free_pixel = np.clip(np.rint(model.pixel_mean), 0, 255).astype(np.uint8)
        self._engine = engine
        self._kernels = kernels
        self.converts_frames = kernels is not None
        self._preprocess = preprocess
        self._last: tuple[object, _Submission] | None = None  # collected last, and by whom; until the next submit
        self._origins: OrderedDict[Origin, ExitStack] = OrderedDict()  # what their feeds and canvases hold
        self._resources = ExitStack()
        given = ExitStack()
        given.callback(context.close)
        given.callback(engine.close)  # idempotent, and of use where the context cannot be entered
        with given, context, ExitStack() as resources:
            resources.callback(engine.close)
            wanted = wanted_tensors(model, engine.tensors)
            self._tensors = tensors = expect(engine.tensors, wanted, path=engine.path)
            self._batch, *input_hw, _ = tensors[IMAGE].shape
            self._valid_hw = model.valid_hw if all(model.valid_hw) else (input_hw[0], input_hw[1])
            self._output_hw = tensors["panoptic"].shape[1], tensors["panoptic"].shape[2]
            self.stream = opened(resources, driver.Stream())
            self._awaited = opened(resources, driver.Event())  # of other streams, in `wait_for`
            self._scratch = 0
            if engine.scratch_bytes:
                self._scratch = opened(
                    resources, driver.DeviceMemory(engine.scratch_bytes, alignment=context.device.alignment)
                ).address
            self.gpu_memory = self._chosen_memory(gpu_memory)
            self._slots = [self._open_slot(resources, self.gpu_memory) for _ in range(slots)]
            if kernels is not None:
                self._draw_stream = opened(resources, driver.Stream())
            resources.callback(_close_all, self._origins)  # not of `self`, so that a session that is dropped goes
            resources.callback(_drain, self.stream, self.path)
            self.graph_refusal = self._record(resources, self._slots)
            if self.graph_refusal is not None:
                log.warning("%s: runs without CUDA graphs, which costs time: %s", self.path, self.graph_refusal)
            engine.keep_kernels()
            super().__init__(name=str(engine.path), capacity=slots, batch=self._batch)
            self._resources = resources.pop_all()
            given.pop_all()
        self._is_open = True
        self._at_exit = functools.partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)  # and so before a program that made the context destroys it (`pycuda.autoinit`)

    def __del__(self) -> None:
        if self._is_open:  # dropped without `close`, wherever Python comes to notice
            self.close()

    @property
    def stages(self) -> Mapping[str, float]:
        """None: a graph is one piece; `profile` takes it apart."""
        return {}

    def _begin(self, frames: tuple[Frame, ...]) -> _Submission:
        started = time.perf_counter()
        slot = self._slots[0]
        self._last = None
        with self._context:
            slot.settle()
            prepared = self._prepare(slot, frames)
            seconds = time.perf_counter() - started
            slot.begun.record(self.stream)
            prepared.run()
            slot.done.record(self.stream)
        self._slots.append(self._slots.pop(0))
        return _Submission(slot, prepared, seconds)

    def _finish(self, work: _Submission, frames: tuple[Frame, ...]) -> tuple[PanopticResult, ...]:
        slot, prepared, preprocess = work
        with self._context:
            slot.done.synchronize()
            inference = slot.done.seconds_since(slot.begun)
        results = []
        for image, (frame, placement) in enumerate(zip(frames, prepared.placements, strict=True)):
            started = time.perf_counter()
            result = panoptic_result(self.model, slot.found, image, frame=frame, map_hw=placement.map_hw)
            panoptic = result.panoptic.astype(np.int32)  # a copy: the slot's memory is written to again
            shown = slot.map_on_device(image, placement.map_hw)
            results.append(
                dataclasses.replace(
                    result,
                    panoptic=panoptic,
                    timings=Timings(preprocess, inference, time.perf_counter() - started),
                    device_map=DeviceMap(
                        shown.address, shown.pitch, shown.hw, device=int(self._context.device.handle), lease=slot.lease
                    ),
                )
            )
        self._last = current_user(), work
        return tuple(results)

    def wait_for(self, stream: object) -> None:
        """See `panrt.engine.session.Session`."""
        with self._inside(), self._submitting:
            self._check_usable()
            with self._context:
                self.stream.wait_for(self._awaited, driver.stream_address(stream))

    def draw(self, image: int, colors: Mapping[int, Rgb]) -> GpuDrawing | None:
        """See `panrt.engine.session.Draws`; None where the host resized the frame, so that the GPU does not have it.

        Raises:
            SessionError: closed, or something was submitted after the last `collect`; SessionBusyError where that was
                another thread's.
            CudaError: the GPU cannot be used any more, or a new size of frames finds no memory.
        """
        with self._inside(), self._submitting, self._collecting:
            self._check_usable()
            self._check_turn(current_user())
            if self._last is None:
                raise SessionError("session: a result is drawn after its collect and before the next submit.")
            user, collected = self._last
            if user is not current_user():
                raise SessionBusyError("session: the last result is another thread's, which draws it itself.")
            with self._context:
                canvas = self._canvas(collected, image)
                return None if canvas is None else canvas.draw(colors)

    def profile(self, runs: int = 50) -> GpuProfile:
        """Where the GPU's time of a frame goes, measured on the frame that was submitted last.

        Raises:
            SessionError: closed, or submissions wait.
            EngineError, CudaError: TensorRT or the driver refuses it.
        """
        with self._inside(), self._submitting, self._collecting:
            self._check_usable()
            self._check_turn(current_user())
            if self._waiting:
                raise SessionError("session: submissions wait for their collect; collect them before profiling.")
            with self._context:
                return self._profile(runs)

    def _profile(self, runs: int) -> GpuProfile:
        slot, stream = self._slots[-1], self.stream
        slot.settle()
        with ExitStack() as resources:
            marks = [opened(resources, driver.Event()) for _ in range(4)]

            def seconds(*steps: Callable[[], None]) -> list[float]:
                """The median of each step over the runs."""
                spent = []
                for _ in range(runs):
                    marks[0].record(stream)
                    for step, mark in zip(steps, marks[1:], strict=False):
                        step()
                        mark.record(stream)
                    stream.synchronize()
                    spent.append([after.seconds_since(before) for before, after in pairwise(marks[: len(steps) + 1])])
                return [statistics.median(step) for step in zip(*spent, strict=True)]

            def network() -> None:
                slot.execution.enqueue(stream.address)

            def back_to_back() -> None:
                for _ in range(runs):
                    network()

            upload, alone, download = seconds(slot.upload, network, slot.download)
            (whole,) = seconds(slot.run)
            (many,) = seconds(back_to_back)
            watched = opened(resources, self._engine.execution(self._scratch))
            watched.bind(slot.addresses)

            def run_watched() -> None:
                watched.enqueue(stream.address)
                stream.synchronize()

            run_watched()  # the first one is no measure
            return GpuProfile(upload, alone, download, whole, many / runs, watched.layer_seconds(run_watched))

    def _free(self) -> None:
        atexit.unregister(self._at_exit)
        self._last = None
        self._end_leases("its session is closed")
        with ExitStack() as closing:
            closing.callback(self._context.close)
            try:
                closing.enter_context(self._context)
            except CudaError as error:
                log.warning("%s: while closing: %s", self.path, error)
                if error.name in driver.CONTEXT_IS_GONE:  # and all that it held, whose addresses may be others' by now
                    forks.keep_for_ever(self._resources)
                    return
            self._slots = []
            closing.callback(self._resources.close)

    def _end_leases(self, why: str) -> None:
        for slot in self._slots:
            slot.lease.end(why)

    def after_fork(self) -> None:
        """See `forks`."""
        super().after_fork()
        self._end_leases("its session belongs to the process from which this one was forked")

    @nvtx_range("preprocess")
    def _prepare(self, slot: GpuSlot, frames: Sequence[Frame]) -> _Prepared:
        """Bring pictures where the slot's work expects them."""
        if any(driver.is_on_device(frame.image) for frame in frames):
            return self._prepare_from_device(slot, frames)
        layouts = [layout_of(frame) for frame in frames]
        sizes = [place(layout.hw, self._valid_hw, self._output_hw) for layout in layouts]
        as_they_are = tuple(layout.hw == size.content_hw for layout, size in zip(layouts, sizes, strict=True))
        on_gpu = any(layout.format != "bgr8" for layout in layouts) or (
            self._preprocess == "gpu" and not all(as_they_are)
        )
        if not on_gpu:
            for frame, placement, target in zip(frames, sizes, slot.images, strict=False):
                fill(frame.image, placement, self._free_pixel, target)
            return _Prepared(tuple(sizes), slot.run, as_they_are)
        if len(set(layouts)) > 1:
            raise FrameError(
                "frames: those of one submission must be alike in size and format to be prepared on the GPU."
            )
        feed = self._feed(slot, layouts[0], sizes[0])
        feed.write(frames)
        return _Prepared(tuple(sizes), feed.run, (True,) * len(frames), feed=(layouts[0], feed))

    def _prepare_from_device(self, slot: GpuSlot, frames: Sequence[Frame]) -> _Prepared:
        """Have a kernel read frames where they are, each in an array of another library."""
        kernels = self._kernels
        if kernels is None:
            raise FrameError("frame on the GPU: without PanRT's plugin library the GPU cannot prepare frames.")
        arrays = [driver.device_array(frame.image, self.stream) for frame in frames]
        layouts = [layout_on_device(frame, array) for frame, array in zip(frames, arrays, strict=True)]
        placements = [place(layout.hw, self._valid_hw, self._output_hw) for layout in layouts]
        reads = []
        for index, (array, layout, placement) in enumerate(zip(arrays, layouts, placements, strict=True)):
            args = layout.preprocess(placement.content_hw, (1, *slot.images.shape[1:]), self._free_pixel)
            args.frame, args.pitch = array.address, array.pitch
            args.chroma = array.address + layout.hw[0] * array.pitch if layout.format == "nv12" else None
            args.output, _ = slot.image_on_device(index)
            reads.append(args)

        def run() -> None:
            for args in reads:
                kernels.preprocess(args, self.stream.address)
            slot.run_uploaded()

        are_in_input = tuple(
            layout.format == "bgr8" and layout.hw == placement.content_hw
            for layout, placement in zip(layouts, placements, strict=True)
        )
        return _Prepared(tuple(placements), run, are_in_input, arrays=arrays)

    def _feed(self, slot: GpuSlot, layout: Layout, placement: Placement) -> Feed:
        """The slot's way in for frames of a layout, made when the first one comes."""
        if self._kernels is None:
            raise FrameError(
                "frame: without PanRT's plugin library the GPU cannot prepare frames; give BGR, prepared on the host."
            )
        origin: Origin = ("feed", layout)
        if origin not in self._origins:
            self._make_room()
            with ExitStack() as resources:
                for each in self._slots:
                    resources.callback(each.feeds.pop, layout, None)
                    args = layout.preprocess(placement.content_hw, each.images.shape, self._free_pixel)
                    captures = self.graph_refusal is None
                    each.feeds[layout] = opened(resources, Feed(each, self._kernels, args, captures=captures))
                self._origins[origin] = resources.pop_all()
        self._origins.move_to_end(origin)
        return slot.feeds[layout]

    def _canvas(self, submission: _Submission, image: int) -> Canvas | None:
        """Where an image of a submission is drawn, made when the first one of its kind comes."""
        slot, prepared, _ = submission
        placement = prepared.placements[image]
        if self._kernels is None or not prepared.is_on_device[image]:
            return None
        if prepared.feed is not None:
            layout, feed = prepared.feed
            if slot.feeds.get(layout) is not feed:  # more layouts came than are kept
                return None
            origin: Origin = ("feed", layout)
            args = layout.preprocess(layout.hw, (1, *layout.hw, 3), self._free_pixel)
            feed.place(args, image)
        else:
            layout = Layout("bgr8", "bt601", placement.content_hw, 0)
            origin = ("input", layout)
            args = layout.preprocess(layout.hw, (1, *layout.hw, 3), self._free_pixel)
            args.frame, args.pitch = slot.image_on_device(image)
        if origin not in self._origins:
            self._make_room()
            self._origins[origin] = ExitStack()
        self._origins.move_to_end(origin)
        key = origin, image
        if key not in slot.canvases:
            canvas = Canvas(
                self._context,
                self._draw_stream,
                self._kernels,
                args,
                slot.map_on_device(image, placement.map_hw),
                captures=self.graph_refusal is None,
            )
            slot.canvases[key] = opened(self._origins[origin], canvas)
            self._origins[origin].callback(slot.canvases.pop, key)
        return slot.canvases[key]

    def _make_room(self) -> None:
        """Forget the origin not seen for longest, where there are as many as are kept."""
        if len(self._origins) == LAYOUTS:
            self.stream.synchronize()
            _, oldest = self._origins.popitem(last=False)
            oldest.close()

    def _open_slot(self, resources: ExitStack, memory: IoMemory) -> GpuSlot:
        execution = opened(resources, self._engine.execution(self._scratch))
        return GpuSlot(resources, self.stream, execution, self._tensors, self._kernels, mapped=memory == "mapped")

    def _chosen_memory(self, wanted: GpuMemory) -> IoMemory:
        """Where network inputs and outputs are to lie; where that is open, both are measured if mapping may pay."""
        device = self._context.device
        if wanted == "mapped" and not device.maps_memory:
            raise SessionError(
                f"{self.path}: gpu_memory: got 'mapped', and {device.name} cannot map the host's memory; leave it at "
                "'auto'."
            )
        if wanted != "auto":
            return wanted
        if not device.shares_memory:
            return "device"
        seconds = self._measured()
        log.info(
            "%s: a run takes %.3f ms in mapped memory, %.3f ms with copies to the device's: the faster is kept",
            self.path,
            seconds["mapped"] * 1e3,
            seconds["device"] * 1e3,
        )
        return "mapped" if seconds["mapped"] <= seconds["device"] else "device"

    def _measured(self) -> dict[IoMemory, float]:
        """Seconds of a run as the session would do it, by where its slot lies; they take turns, as clocks may rise."""
        with ExitStack() as resources:
            slots: dict[IoMemory, GpuSlot] = {
                memory: self._open_slot(resources, memory) for memory in get_args(IoMemory)
            }
            before, after = (opened(resources, driver.Event()) for _ in range(2))
            resources.callback(_drain, self.stream, self.path)
            self._record(resources, list(slots.values()))
            spent: dict[IoMemory, list[float]] = {memory: [] for memory in slots}
            for _, (memory, slot) in product(range(TRIALS), slots.items()):
                before.record(self.stream)
                slot.run()
                after.record(self.stream)
                self.stream.synchronize()
                spent[memory].append(after.seconds_since(before))
            return {memory: statistics.median(seconds) for memory, seconds in spent.items()}

    def _record(self, resources: ExitStack, slots: Sequence[GpuSlot]) -> str | None:
        """Capture each slot's work, and let all run as graphs where that gives what it gives without; else say why."""
        noise = np.random.default_rng(0).integers(0, 256, slots[0].images.shape, np.uint8)
        refusal = None
        for slot in slots:
            slot.images[...] = noise
            slot.overwrite_outputs(0)  # the gaps between them come down as well, and nothing else writes them
            for _ in range(WARM_UPS):
                slot.enqueue()
            self.stream.synchronize()
            expected = slot.written()
            replayed = []
            try:
                graph = opened(resources, self.stream.capture(slot.enqueue))
                uploaded = opened(resources, self.stream.capture(slot.enqueue_uploaded))
                for each in (graph, uploaded):
                    slot.overwrite_outputs(UNWRITTEN)
                    each.launch()
                    self.stream.synchronize()
                    replayed.append(slot.written())
            except (CudaError, EngineError, KernelError) as error:
                self.stream.synchronize()  # raises where it was not the capture that failed
                refusal = f"its work cannot be captured: {error}"
                break
            if replayed != [expected] * 2:
                refusal = "a replay gave other results than a run without graph"
                break
            slot.run, slot.run_uploaded = graph.launch, uploaded.launch
        for slot in slots:
            slot.images[...] = self._free_pixel
            if refusal is not None:
                slot.run, slot.run_uploaded = slot.enqueue, slot.enqueue_uploaded
            slot.upload()
        self.stream.synchronize()
        return refusal


def _close_at_exit(session: weakref.ref[TensorRTSession]) -> None:
    if (it := session()) is not None:
        it.close()


def _close_all(origins: OrderedDict[Origin, ExitStack]) -> None:
    for resources in origins.values():
        resources.close()
    origins.clear()


def _drain(stream: driver.Stream, path: Path) -> None:
    try:
        stream.synchronize()
    except CudaError as error:
        log.warning("%s: while closing: %s", path, error)


class GpuProfile(NamedTuple):
    """Where the GPU's time of a frame goes: seconds on its own clock, medians over some runs."""

    upload: float
    network: float  # without a graph
    download: float  # with the narrowing of the map, where it is narrowed
    whole: float  # all three as the session runs them: one graph, where there are graphs
    back_to_back: float  # the network alone, one right after the other, as trtexec measures
    layers: dict[str, float]  # by TensorRT's profiler, one run


class _Prepared(NamedTuple):
    placements: tuple[Placement, ...]
    run: Callable[[], None]  # queues the slot's work
    is_on_device: tuple[bool, ...]  # whether the GPU has the frame in its own size
    feed: tuple[Layout, Feed] | None = None  # that the frames went to
    arrays: Sequence[driver.DeviceArray] = ()  # of others, that the work reads


class _Submission(NamedTuple):
    slot: GpuSlot
    prepared: _Prepared
    preprocess: float  # seconds


def wanted_tensors(model: ModelFile, found: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
    """What an engine of a model takes and gives; -1 where the model leaves a size open.

    Without an instance branch there are no rows of detections, and without a semantic branch all stuff is one channel;
    which branches there are is told by the tensors that an engine was found to have.
    """
    n = model.batch or -1
    height, width = model.input_hw if all(model.input_hw) else (-1, -1)
    out_height, out_width = model.output_hw if all(model.output_hw) else (-1, -1)
    detections, channels = model.thresholds.max_detections, len(model.stuff) + 1
    has = next((tensor.shape[1] for tensor in found if tensor.name == "segments" and len(tensor.shape) == 3), None)
    rows = has if has in (detections + 1, channels) else detections + channels
    int32, float32 = np.dtype(np.int32), np.dtype(np.float32)
    return (
        Tensor(IMAGE, (n, height, width, 3), np.dtype(np.uint8), True),
        Tensor("panoptic", (n, out_height, out_width), int32, False),
        Tensor("segments", (n, rows, 8), int32, False),
        Tensor("segment_scores", (n, rows), float32, False),
        Tensor("segment_count", (n,), int32, False),
    )
