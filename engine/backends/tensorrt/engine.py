"""A serialised engine in the hands of TensorRT or TensorRT-RTX, which are alike in all that is used here.

Only what TensorRT 10.3 has is used (JetPack 6), and what 11 and RTX still have; of RTX alone, its cache of kernels.
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
from panrt.gpu.tensorrt_logger import tensorrt_logger


class Tensor(NamedTuple):
    """An input or output of an engine."""

    name: str
    shape: tuple[int, ...]  # -1 where it is left open
    dtype: np.dtype[Any]
    is_input: bool

    @property
    def bytes(self) -> int:
        """Of all its elements."""
        return math.prod(self.shape) * self.dtype.itemsize


class Engine:
    """Weights on the device, and what goes in and out."""

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
        """Deserialise a file that has been found to fit this process.

        Args:
            trt: the module `tensorrt` or `tensorrt_rtx`.
            path: of the file, for messages.
            plan: what it holds; may be forgotten afterwards.
            runs_host_code: as version-compatible engines need it: they carry a part of TensorRT itself.
            compiles: kernels, as TensorRT for RTX does; TensorRT has compiled all.
            kernels: where those are kept for the next start; None: nowhere.

        Raises:
            EngineError: TensorRT does not take it; the message carries what TensorRT logged.
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
        """Something that runs the engine, on scratch memory at this address (0 where `scratch_bytes` is 0).

        Executions may share scratch memory where no two of them run at once.
        """
        cache, strategy = self._runtime_cache, self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        setup = cache.config if cache is not None else strategy
        context = self._ask("make an execution context of it", lambda: self._engine.create_execution_context(setup))
        if scratch:
            use_scratch(context, scratch, self.scratch_bytes)
        return Execution(self, context)

    def keep_kernels(self) -> None:
        """Have what was compiled for the executions so far found by the next start."""
        if self._runtime_cache is not None:
            self._runtime_cache.keep()

    def close(self) -> None:
        """Free the weights; executions must be gone."""
        self._runtime_cache = None
        self._engine = None  # TensorRT frees with the last reference
        self._runtime = None

    def _open_runtime_cache(self, path: Path | None) -> RuntimeCache:
        config = self._ask("set up its execution", self._engine.create_runtime_config)
        config.set_execution_context_allocation_strategy(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        cache = RuntimeCache(config, self._ask("make a cache for its kernels", config.create_runtime_cache), path)
        self._logger.take_errors()  # why it does not take what was kept is no reason of what fails later
        return cache

    def complain(self, problem: str, advice: str) -> EngineError:
        """An error with what TensorRT last had to say."""
        said = "; ".join(self._logger.take_errors()) or "it logged no reason"
        return EngineError(f"{self.path}: {self.trt.__name__} {self.trt.__version__} {problem}: {said}. {advice}")

    def _ask(self, what: str, question: Callable[[], Any]) -> Any:
        """The answer to a question that TensorRT answers with None where it fails."""
        answer = question()
        if answer is None:
            raise self.complain(
                f"cannot {what}", "If the file is whole, free GPU memory and try again; else `panrt build` it again."
            )
        return answer


class Execution:
    """One run of an engine at a time, on memory whose addresses are set once."""

    def __init__(self, engine: Engine, context: Any) -> None:
        self._engine = engine
        self._context = context

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Where inputs and outputs are, on the device.

        Raises:
            EngineError: TensorRT refuses one.
        """
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._engine.complain(f"takes no address for {name!r}", "Please report this.")

    def enqueue(self, stream: int) -> None:
        """Queue a run on a CUDA stream.

        Raises:
            EngineError: TensorRT refuses it.
        """
        if not self._context.execute_async_v3(stream):
            raise self._engine.complain("could not run the engine", "Open the session again.")

    def layer_seconds(self, run: Callable[[], None]) -> dict[str, float]:
        """How long each layer takes while `run` runs this execution and waits for it, in the order of execution.

        TensorRT waits after each layer then, so their sum is more than they take together.
        """
        self._context.profiler = profiler = _profiler(self._engine.trt)
        run()
        seconds: dict[str, float] = profiler.seconds
        return seconds

    def close(self) -> None:
        """Its work must be done."""
        self._context = None


# TensorRT 10.1 and later have the second form of both; the first is gone where weights may be streamed.


def scratch_bytes(engine: Any) -> int:
    """Device memory that an execution of TensorRT's engine needs."""
    return int(engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size)


def use_scratch(context: Any, address: int, size: int) -> None:
    """Give TensorRT's execution context its device memory."""
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, size)
    else:
        context.device_memory = address


def expect(tensors: Sequence[Tensor], wanted: Sequence[Tensor], *, path: Path) -> dict[str, Tensor]:
    """The tensors of an engine by name, where they are those that its sidecar promises (-1: any size).

    Raises:
        EngineError: they are not; the message names the first that differs.
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
    """Something that adds up what TensorRT tells about layers."""

    class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # a class of a module chosen at run time
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.seconds: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.seconds[layer_name] = self.seconds.get(layer_name, 0.0) + ms * 1e-3

    return Profiler()
