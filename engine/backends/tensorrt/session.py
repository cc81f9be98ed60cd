"""The TensorRT session: frames go through a ring of slots, each with its own buffers, execution and captured graph.

A frame costs one graph launch: upload, network with its plugins, download. All slots share one stream, so their work
runs in the order of `submit`, and one block of scratch memory serves all. The host prepares frame t + 1 in the next
slot and queues it while the GPU still works on frame t. Nothing is allocated after the session is open.

On a GPU that shares the host's memory (Jetson), the network can read and write the pinned buffers in place, without
copies. Such a GPU may not cache that memory, so both ways are measured when the session opens, and the faster is kept.

Frame and map of a result stay in its slot until the slot takes other frames. Until then the result can be drawn on the
GPU: see `panrt.engine.backends.tensorrt.canvas`.

Shapes: N images of the engine's batch, h x w network input, H x W panoptic map.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import logging
import time
import warnings
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from panrt.engine import forks
from panrt.engine.backends.session_base import SessionBase
from panrt.engine.backends.tensorrt import driver, profile
from panrt.engine.backends.tensorrt.canvas import GpuDrawing
from panrt.engine.backends.tensorrt.engine import Engine, Tensor, expect, wanted_tensors
from panrt.engine.backends.tensorrt.inputs import Inputs, Prepared
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.backends.tensorrt.opening import SlotOpener, drain
from panrt.engine.backends.tensorrt.recorded import opened
from panrt.engine.backends.tensorrt.slot import GpuSlot
from panrt.engine.frame import Frame
from panrt.engine.results.colors import Rgb
from panrt.engine.results.device_map import DeviceMap, Lease
from panrt.engine.results.painter import Painter
from panrt.engine.results.result import PanopticResult, Timings, panoptic_result
from panrt.engine.session import GpuMemory, Preprocess, current_user
from panrt.errors import CudaError, SessionBusyError, SessionError
from panrt.formats.metadata import IMAGE, ModelFile
from panrt.formats.thresholds import NAMES

log = logging.getLogger("panrt")

SLOTS = 2  # one runs while the next one is prepared


class TensorRTSession(SessionBase["_Submission"]):
    """An engine on a GPU; see `panrt.engine.session.Session`.

    Besides frames in host memory it takes frames on the GPU. Such a frame holds, in place of a NumPy array, any object
    with DLPack or `__cuda_array_interface__`, in any size and pixel format, with any distance between rows. A kernel
    reads it in place, after what its library has queued on the stream that the interface names (for other streams see
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
        """Take over an engine and its context; both are closed with the session, or if this fails.

        Args:
            model: metadata of the model that the engine was built from.
            engine: deserialised.
            context: that the engine was deserialised in.
            backend: "tensorrt" or "rtx".
            kernels: of the plugin library; without them the GPU neither prepares frames nor draws, and maps are
                downloaded in int32.
            preprocess: what resizes BGR frames; see `panrt.load`.
            gpu_memory: where network inputs and outputs lie; see `panrt.load`.
            slots: submissions at once.

        Raises:
            EngineError: the engine is not of this model, or TensorRT rejects it.
            CudaError: a call of the driver failed, most likely for lack of memory. Nothing is left allocated.
            SessionError: mapped memory was requested, and the GPU cannot map host memory.
        """
        self.backend, self.path = backend, engine.path
        self.converts_frames = kernels is not None
        self._context, self._engine = context, engine
        self._last: tuple[object, Lease] | None = None  # of what was collected last, and by whom; until the next submit
        self._resources = ExitStack()
        given = ExitStack()
        given.callback(context.close)
        given.callback(engine.close)  # idempotent, and needed if the context cannot be entered
        with given, context, ExitStack() as resources:
            resources.callback(engine.close)
            tensors = expect(engine.tensors, wanted_tensors(model, engine.tensors), path=self.path)
            shapes = {name: tensors[name].shape for name in NAMES if name in tensors}
            batch = tensors[IMAGE].shape[0]
            super().__init__(name=str(engine.path), capacity=slots, batch=batch, model=model, shapes=shapes)
            self._open(resources, tensors, kernels, preprocess, gpu_memory, slots)
            self._resources = resources.pop_all()
            given.pop_all()
        self._is_open = True
        self._at_exit = functools.partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)  # and so before a program that made the context destroys it (`pycuda.autoinit`)

    def _open(
        self,
        resources: ExitStack,
        tensors: dict[str, Tensor],
        kernels: Kernels | None,
        preprocess: Preprocess,
        gpu_memory: GpuMemory,
        slots: int,
    ) -> None:
        """Allocate everything and capture the slots' work, within the context."""
        engine, device, model = self._engine, self._context.device, self.model
        free_pixel = np.clip(np.rint(model.pixel_mean), 0, 255).astype(np.uint8)
        self.stream = opened(resources, driver.Stream())
        self._awaited = opened(resources, driver.Event())  # of other streams, in `wait_for`
        self._scratch = 0
        if engine.scratch_bytes:
            memory = driver.DeviceMemory(engine.scratch_bytes, alignment=device.alignment)
            self._scratch = opened(resources, memory).address
        opener = SlotOpener(
            self.path, engine, tensors, device, self.stream, self._scratch, kernels, free_pixel, self.settings.arrays
        )
        self.gpu_memory = opener.memory(gpu_memory)
        self._slots = [opener.open(resources, self.gpu_memory) for _ in range(slots)]
        draw_stream = opened(resources, driver.Stream()) if kernels is not None else None
        _, height, width, _ = tensors[IMAGE].shape
        self._inputs = Inputs(
            self._context,
            (self.stream, draw_stream),
            kernels,
            self._slots,
            valid_hw=model.valid_hw or (height, width),
            output_hw=(tensors["panoptic"].shape[1], tensors["panoptic"].shape[2]),
            free_pixel=free_pixel,
            preprocess=preprocess,
        )
        resources.callback(self._inputs.close)  # no reference to `self`, so that a session that is dropped is freed
        resources.callback(drain, self.stream, self.path)
        self.graph_error = opener.record(resources, self._slots)
        if self.graph_error is not None:
            log.warning("%s: runs without CUDA graphs, which costs time: %s", self.path, self.graph_error)
        self._inputs.captures = self.graph_error is None
        engine.keep_kernels()

    def __del__(self) -> None:
        if self._is_open:  # dropped without `close`, in whichever thread Python notices
            self.close()

    @property
    def stages(self) -> Mapping[str, float]:
        """Empty: a graph is one piece; `profile` measures its parts."""
        return {}

    def _begin(self, frames: tuple[Frame, ...]) -> _Submission:
        started = time.perf_counter()
        slot = self._slots[0]
        self._last = None
        with self._context:
            slot.settle()
            prepared = self._inputs.prepare(slot, frames)
            seconds = time.perf_counter() - started
            slot.held = prepared.held
            slot.use(self.settings.arrays)
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
        this, device = weakref.ref(self), int(self._context.device.handle)
        results = []
        for image, (frame, placement) in enumerate(zip(frames, prepared.held.placements, strict=True)):
            started = time.perf_counter()
            result = panoptic_result(self.model, slot.found, image, frame=frame, map_hw=placement.map_hw)
            panoptic = result.panoptic.astype(np.int32)  # a copy: the slot's memory is written to again
            shown = slot.map_on_device(image, placement.map_hw)
            results.append(
                dataclasses.replace(
                    result,
                    panoptic=panoptic,
                    timings=Timings(preprocess, inference, time.perf_counter() - started),
                    device_map=DeviceMap(shown.address, shown.pitch, shown.hw, device=device, lease=slot.lease),
                    painter=Painter(functools.partial(_draw, this, slot.lease, image)),
                )
            )
        self._last = current_user(), slot.lease
        return tuple(results)

    def wait_for(self, stream: object) -> None:
        """Make the next submit wait for a stream; see `panrt.engine.session.Session`."""
        with self._inside(), self._submitting:
            self._check_usable()
            with self._context:
                self.stream.wait_for(self._awaited, driver.stream_address(stream))

    def draw_leased(self, lease: Lease, image: int, colors: Mapping[int, Rgb]) -> GpuDrawing | None:
        """Begin to draw an image of the result that a lease is of; see `PanopticResult.start_overlay`."""
        with self._inside(), self._submitting:
            return self._draw_leased(lease, image, colors)

    def draw(self, image: int, colors: Mapping[int, Rgb]) -> GpuDrawing | None:
        """Begin to draw what was collected last, before the next submit. Deprecated: use `result.start_overlay`.

        Raises:
            SessionError: closed, or something was submitted after the last `collect`; SessionBusyError if that was
                another thread's.
            CudaError: the GPU cannot be used any more, or a new size of frames finds no memory.
        """
        warnings.warn("session.draw is deprecated; use result.start_overlay().", DeprecationWarning, stacklevel=2)
        with self._inside(), self._submitting, self._collecting:
            self._check_usable()
            self._check_turn(current_user())
            if self._last is None:
                raise SessionError("session: a result is drawn after its collect and before the next submit.")
            user, lease = self._last
            if user is not current_user():
                raise SessionBusyError("session: the last result is another thread's, which draws it itself.")
            return self._draw_leased(lease, image, colors)

    def _draw_leased(self, lease: Lease, image: int, colors: Mapping[int, Rgb]) -> GpuDrawing | None:
        slot = next((slot for slot in self._slots if slot.lease is lease), None)
        if slot is None or lease.ended_by is not None:
            return None
        with self._context:
            canvas = self._inputs.canvas(slot, image)
            return None if canvas is None else canvas.draw(colors)

    def profile(self, runs: int = 50) -> profile.GpuProfile:
        """Measure the parts of a frame's time on the GPU, on the frame that was submitted last.

        Raises:
            SessionError: closed, or submissions wait.
            EngineError, CudaError: an error of TensorRT or the driver.
        """
        with self._inside(), self._submitting, self._collecting:
            self._check_usable()
            self._check_turn(current_user())
            if self._waiting:
                raise SessionError("session: submissions wait for their collect; collect them before profiling.")
            slot = self._slots[-1]
            with self._context, ExitStack() as resources:
                slot.settle()
                watched = opened(resources, self._engine.execution(self._scratch))
                return profile.measure(slot, watched, runs=runs)

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
        """Become unusable in a forked child; see `forks`."""
        super().after_fork()
        self._end_leases("its session belongs to the process from which this one was forked")


def _close_at_exit(session: weakref.ref[TensorRTSession]) -> None:
    if (it := session()) is not None:
        it.close()


def _draw(
    session: weakref.ref[TensorRTSession], lease: Lease, image: int, colors: Mapping[int, Rgb]
) -> GpuDrawing | None:
    """Draw for a result, which does not keep its session open."""
    it = session() if lease.ended_by is None else None
    return None if it is None else it.draw_leased(lease, image, colors)


class _Submission(NamedTuple):
    slot: GpuSlot
    prepared: Prepared
    preprocess: float  # seconds
