"""Opening the slots of a session: placing network inputs and outputs, and capturing their work as CUDA graphs."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.engine import Engine, Tensor
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.backends.tensorrt.recorded import opened
from panrt.engine.backends.tensorrt.slot import GpuSlot
from panrt.engine.session import GpuMemory
from panrt.errors import CudaError, EngineError, KernelError, SessionError
from panrt.formats.thresholds import Arrays

log = logging.getLogger("panrt")

WARM_UPS = 2  # runs before a capture: TensorRT does on its first ones what a capture forbids
UNWRITTEN = 0xCD  # what outputs hold before a replay, which must write them
TRIALS = 5  # runs in each kind of memory, if both are measured

IoMemory: TypeAlias = Literal["mapped", "device"]  # of network inputs and outputs


@dataclass(frozen=True)
class SlotOpener:
    """The parts that all slots of a session share."""

    path: Path  # of the engine, for messages
    engine: Engine
    tensors: dict[str, Tensor]
    device: driver.Device
    stream: driver.Stream
    scratch: int  # address of the engine's scratch memory
    kernels: Kernels | None
    free_pixel: NDArray[np.uint8]  # (3,) BGR of network input that no frame covers
    settings: Arrays  # the thresholds

    def open(self, resources: ExitStack, memory: IoMemory) -> GpuSlot:
        """Open a slot, to be closed with `resources`."""
        execution = opened(resources, self.engine.execution(self.scratch))
        slot = GpuSlot(resources, self.stream, execution, self.tensors, self.kernels, mapped=memory == "mapped")
        slot.use(self.settings)
        return slot

    def memory(self, wanted: GpuMemory) -> IoMemory:
        """Return where network inputs and outputs lie; if that is open and mapping may pay, both are measured.

        Raises:
            SessionError: mapped memory is wanted, and the GPU cannot map the host's.
        """
        if wanted == "mapped" and not self.device.maps_memory:
            raise SessionError(
                f"{self.path}: gpu_memory: got 'mapped', and {self.device.name} cannot map the host's memory; leave it "
                "at 'auto'."
            )
        if wanted != "auto":
            return wanted
        if not self.device.shares_memory:
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
        """Measure a run as the session would do it, by memory, in turns, as clocks may rise."""
        with ExitStack() as resources:
            slots: dict[IoMemory, GpuSlot] = {memory: self.open(resources, memory) for memory in get_args(IoMemory)}
            before, after = (opened(resources, driver.Event()) for _ in range(2))
            resources.callback(drain, self.stream, self.path)
            self.record(resources, list(slots.values()))
            spent: dict[IoMemory, list[float]] = {memory: [] for memory in slots}
            for _, (memory, slot) in product(range(TRIALS), slots.items()):
                before.record(self.stream)
                slot.run()
                after.record(self.stream)
                self.stream.synchronize()
                spent[memory].append(after.seconds_since(before))
            return {memory: statistics.median(seconds) for memory, seconds in spent.items()}

    def record(self, resources: ExitStack, slots: Sequence[GpuSlot]) -> str | None:
        """Capture each slot's work; all run as graphs if replays give the results of a plain run.

        Returns:
            Why they do not run as graphs; None: they do.
        """
        noise = np.random.default_rng(0).integers(0, 256, slots[0].images.shape, np.uint8)
        problem = None
        for slot in slots:
            problem = self._record_one(resources, slot, noise)
            if problem is not None:
                break
        for slot in slots:
            slot.images[...] = self.free_pixel
            if problem is not None:
                slot.run, slot.run_uploaded = slot.enqueue, slot.enqueue_uploaded
            slot.upload()
        self.stream.synchronize()
        return problem

    def _record_one(self, resources: ExitStack, slot: GpuSlot, images: NDArray[np.uint8]) -> str | None:
        """Replace a slot's work by graphs that were checked on these images; else return why not."""
        slot.images[...] = images
        slot.overwrite_outputs(0)  # the gaps between them are downloaded as well, and nothing else writes them
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
            self.stream.synchronize()  # raises if it was not the capture that failed
            return f"its work cannot be captured: {error}"
        if replayed != [expected] * 2:
            return "a replay gave other results than a run without graph"
        slot.run, slot.run_uploaded = graph.launch, uploaded.launch
        return None


def drain(stream: driver.Stream, path: Path) -> None:
    """Wait for the work of a stream that is about to be closed."""
    try:
        stream.synchronize()
    except CudaError as error:
        log.warning("%s: while closing: %s", path, error)
