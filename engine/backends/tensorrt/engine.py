"""A deserialised engine of TensorRT or TensorRT for RTX; the code uses only interfaces that both have.

That is what TensorRT 10.3 (JetPack 6) has, and 11 and RTX still have; in addition, RTX's cache of kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from panrt.engine.backends.tensorrt.runtime_cache import RuntimeCache
from panrt.errors import EngineError
from panrt.formats.metadata import IMAGE, ModelFile
from panrt.formats.thresholds import DETECTION, INSTANCE, STUFF
from panrt.gpu.tensorrt_logger import tensorrt_logger


class Tensor(NamedTuple):
    """An input or output of an engine."""

    name: str
    shape: tuple[int, ...]  # -1 if open
    dtype: np.dtype[Any]
    is_input: bool

    @property
    def bytes(self) -> int:
        """The size of all its elements."""
        return math.prod(self.shape) * self.dtype.itemsize


class Engine:
    """Weights on the device, and the description of inputs and outputs."""

    def __init__(
        self,
        trt: ModuleType,
        path: Path,
        plan: bytes,
        *,
        runs_host_code: bool = False,
        compiles: bool = False,
        kernels: Path | None = None,
    ) -> None:
        """Deserialise a file that fits this process.

        Args:
            trt: the module `tensorrt` or `tensorrt_rtx`.
            path: of the file, for messages.
            plan: its content, not needed afterwards.
            runs_host_code: needed by version-compatible engines, which contain a part of TensorRT itself.
            compiles: kernels are compiled on this machine, as TensorRT for RTX does.
            kernels: file that keeps those for the next start; None: they are not kept.

        Raises:
            EngineError: TensorRT rejects it; the message has what TensorRT logged.
        """
        self.trt = trt
        self.path = path
        self._logger = tensorrt_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        if runs_host_code:
            self._runtime.engine_host_code_allowed = True
        self._engine: Any = self._ask("deserialise it", lambda: self._runtime.deserialize_cuda_engine(plan))
        engine = self._engine
        self._runtime_cache = self._open_runtime_cache(kernels) if compiles else None
        self.tensors: tuple[Tensor, ...] = tuple(
            Tensor(
                name,
                tuple(engine.get_tensor_shape(name)),
                np.dtype(trt.nptype(engine.get_tensor_dtype(name))),
                engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            )
            for name in map(engine.get_tensor_name, range(engine.num_io_tensors))
        )

    @property
    def scratch_bytes(self) -> int:
        """Device memory that an execution needs while it runs."""
        return scratch_bytes(self._engine)

    def execution(self, scratch: int) -> Execution:
        """Create an execution on scratch memory at this address (0 if `scratch_bytes` is 0).

        Executions may share scratch memory if no two of them run at once.
        """
        cache, strategy = self._runtime_cache, self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        setup = cache.config if cache is not None else strategy
        context = self._ask("make an execution context of it", lambda: self._engine.create_execution_context(setup))
        if scratch:
            use_scratch(context, scratch, self.scratch_bytes)
        return Execution(self, context)

    def keep_kernels(self) -> None:
        """Keep the kernels that were compiled for the executions so far for the next start."""
        if self._runtime_cache is not None:
            self._runtime_cache.keep()

    def close(self) -> None:
        """Free the weights; executions must be closed."""
        self._runtime_cache = None
        self._engine = None  # TensorRT frees with the last reference
        self._runtime = None

    def _open_runtime_cache(self, path: Path | None) -> RuntimeCache:
        config = self._ask("set up its execution", self._engine.create_runtime_config)
        config.set_execution_context_allocation_strategy(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        cache = RuntimeCache(config, self._ask("make a cache for its kernels", config.create_runtime_cache), path)
        self._logger.take_errors()  # why it rejects the cache does not explain later errors
        return cache

    def complain(self, problem: str, advice: str) -> EngineError:
        """Return an error with what TensorRT logged last."""
        said = "; ".join(self._logger.take_errors()) or "it logged no reason"
        return EngineError(f"{self.path}: {self.trt.__name__} {self.trt.__version__} {problem}: {said}. {advice}")

    def _ask(self, what: str, question: Callable[[], Any]) -> Any:
        """Return the answer to a question that TensorRT answers with None on failure."""
        answer = question()
        if answer is None:
            raise self.complain(
                f"cannot {what}", "If the file is complete, free GPU memory and try again; else `panrt build` it again."
            )
        return answer


class Execution:
    """Runs an engine, one run at a time, on memory whose addresses are set once."""

    def __init__(self, engine: Engine, context: Any) -> None:
        self._engine = engine
        self._context = context

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Set the device addresses of inputs and outputs.

        Raises:
            EngineError: TensorRT rejects one.
        """
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._engine.complain(f"rejects the address of {name!r}", "Please report this.")

    def enqueue(self, stream: int) -> None:
        """Queue a run on a CUDA stream.

        Raises:
            EngineError: an error of TensorRT.
        """
        if not self._context.execute_async_v3(stream):
            raise self._engine.complain("could not run the engine", "Open the session again.")

    def layer_seconds(self, run: Callable[[], None]) -> dict[str, float]:
        """Return the time of each layer while `run` runs this execution and waits for it, in the order of execution.

        TensorRT then waits after each layer, so that the sum exceeds the time of the whole.
        """
        self._context.profiler = profiler = _profiler(self._engine.trt)
        run()
        seconds: dict[str, float] = profiler.seconds
        return seconds

    def close(self) -> None:
        """Free it; its work must be done."""
        self._context = None


# TensorRT 10.1 and later have the second form of both; the first is unavailable if weights may be streamed.


def scratch_bytes(engine: Any) -> int:
    """Return the device memory that an execution of a TensorRT engine needs."""
    return int(engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size)


def use_scratch(context: Any, address: int, size: int) -> None:
    """Give TensorRT's execution context its device memory."""
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, size)
    else:
        context.device_memory = address


def wanted_tensors(model: ModelFile, found: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
    """Return the inputs and outputs of an engine of a model; -1 for a size that the model leaves open.

    Without an instance branch there are no rows of detections, and without a semantic branch all stuff is one channel;
    the tensors that an engine was found to have tell which branches the model has. An engine whose thresholds are fixed
    has no inputs for them.
    """
    n = model.batch or -1
    height, width = model.input_hw or (-1, -1)
    out_height, out_width = model.output_hw or (-1, -1)
    detections, channels = model.thresholds.max_detections, len(model.stuff) + 1
    has = next((tensor.shape[1] for tensor in found if tensor.name == "segments" and len(tensor.shape) == 3), None)
    rows = has if has in (detections + 1, channels) else detections + channels
    int32, float32 = np.dtype(np.int32), np.dtype(np.float32)
    sizes = {DETECTION: (len(model.things) + 1, 2), INSTANCE: (3,), STUFF: (channels, 1)}  # usual, and possible
    shapes = {tensor.name: tensor.shape for tensor in found}
    settings = tuple(
        Tensor(name, (size,), int32 if name == STUFF else float32, True)
        for name, (usual, *others) in sizes.items()
        if not found or name in shapes
        for size in [next((other for other in others if shapes.get(name) == (other,)), usual)]
    )
    return (
        Tensor(IMAGE, (n, height, width, 3), np.dtype(np.uint8), True),
        Tensor("panoptic", (n, out_height, out_width), int32, False),
        Tensor("segments", (n, rows, 8), int32, False),
        Tensor("segment_scores", (n, rows), float32, False),
        Tensor("segment_count", (n,), int32, False),
        *settings,
    )


def expect(tensors: Sequence[Tensor], wanted: Sequence[Tensor], *, path: Path) -> dict[str, Tensor]:
    """Return the tensors of an engine by name if they are those that its sidecar states (-1: any size).

    Raises:
        EngineError: they differ; the message names the first that does.
    """
    found = {tensor.name: tensor for tensor in tensors}
    for tensor in wanted:
        has = found.pop(tensor.name, None)
        if has is not None and min(has.shape, default=1) < 1:
            raise EngineError(
                f"{path}: {_describe(has)} leaves a size open, and PanRT runs engines of one size. Export the model "
                "with a fixed size and batch, and build it again."
            )
        if has is None or has[2:] != tensor[2:] or not _fits(has.shape, tensor.shape):
            raise EngineError(
                f"{path}: {_describe(tensor)} is expected, the engine has {_describe(has) if has else 'none'}. Engine "
                "and sidecar do not belong together; build it again with `panrt build`."
            )
    if found:
        raise EngineError(f"{path}: the engine has {_describe(next(iter(found.values())))}, which PanRT does not know.")
    return {tensor.name: tensor for tensor in tensors}


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, h) for h, w in zip(shape, wanted, strict=True))


def _describe(tensor: Tensor) -> str:
    kind = "input" if tensor.is_input else "output"
    return f"{kind} {tensor.name!r} {tensor.shape} {tensor.dtype}"


def _profiler(trt: ModuleType) -> Any:
    """Return a profiler that sums the times of layers."""

    class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # a class of a module chosen at run time
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.seconds: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.seconds[layer_name] = self.seconds.get(layer_name, 0.0) + ms * 1e-3

    return Profiler()
