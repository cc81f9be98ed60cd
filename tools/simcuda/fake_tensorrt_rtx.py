"""A stand-in for `tensorrt_rtx`: the fake TensorRT, and what TensorRT for RTX has beside it.

An execution context needs the engine's kernels compiled, which takes long unless they are in the runtime cache; a cache
is taken by the process, GPU and version that made it.
"""

from __future__ import annotations

import json
from typing import Any

from cuda.bindings import driver as cu

from tools.simcuda import fake_tensorrt
from tools.simcuda.fake_tensorrt import (  # noqa: F401  # what PanRT finds in the module
    DataType,
    ExecutionContextAllocationStrategy,
    ILogger,
    IProfiler,
    TensorIOMode,
    get_plugin_registry,
    nptype,
    registry,
)

__version__ = "1.7.1.116"
_MAGIC = "fake kernels"

compiled: list[str] = []  # engines whose kernels were compiled, once each time
setups: list[IRuntimeConfig] = []  # what each execution context was made with
takes_caches = True  # whether a cache may be set


class Runtime(fake_tensorrt.Runtime):
    """Turns plans into engines of TensorRT for RTX."""

    def deserialize_cuda_engine(self, data: bytes) -> ICudaEngine | None:
        engine = super().deserialize_cuda_engine(data)
        if engine is not None:
            engine.__class__ = ICudaEngine
        return engine  # type: ignore[return-value]


class IRuntimeCache:
    """Compiled kernels, by the name of their engine's network."""

    def __init__(self) -> None:
        self.kernels: list[str] = []

    def serialize(self) -> bytes:
        return json.dumps([_MAGIC, _environment(), self.kernels]).encode()

    def deserialize(self, blob: bytes) -> bool:
        """Return whether they were for this environment; TensorRT would not survive a damaged blob."""
        magic, environment, kernels = json.loads(blob)
        assert magic == _MAGIC
        if environment != _environment():
            return False
        self.kernels = kernels
        return True


def _environment() -> str:
    error, context = cu.cuCtxGetCurrent()
    assert not error
    assert int(context), "TensorRT for RTX looks at the GPU of the current context"
    _, name = cu.cuDeviceGetName(64, 0)
    return f"{__version__} {name.partition(bytes(1))[0].decode()}"


class IRuntimeConfig:
    """The configuration of execution contexts."""

    def __init__(self) -> None:
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.cache: IRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: int) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        if takes_caches:
            self.cache = cache
        return takes_caches


class ICudaEngine(fake_tensorrt.ICudaEngine):
    """An engine whose kernels are compiled here."""

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any = None) -> fake_tensorrt.IExecutionContext | None:
        assert isinstance(runtime_config, IRuntimeConfig)
        setups.append(runtime_config)
        known = runtime_config.cache.kernels if runtime_config.cache is not None else []
        if self.description["network"] not in known:
            compiled.append(self.description["network"])
            known.append(self.description["network"])
        return super().create_execution_context(runtime_config.strategy)
