"""A stand-in for the Python modules `tensorrt` and `tensorrt_rtx`, whose engines run as work of the simulated device.

It has what PanRT uses, with the signatures of TensorRT 10.3, and the traits that a runtime stumbles over: an engine has
weights on the device, an execution allocates when it first runs (which invalidates a capture), a captured graph keeps
its addresses, the end of a context ends its work, and a call that fails returns None or False and logs the reason.

A plan is `plan(...)`: MAGIC and JSON. Its network is "pattern", a small function of the input; "nothing", which finds
none and takes little time; or the path of an ONNX file, which runs on PanRT's CPU backend.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import traceback
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from cuda.bindings import driver as cu
from numpy.typing import NDArray

from panrt.formats.thresholds import INSTANCE, NAMES, Arrays
from panrt.plugins.contract import PanopticSegments
from panrt.plugins.library import OPS
from tools.simcuda import control

Network: TypeAlias = Callable[[NDArray[np.uint8], Arrays | None], PanopticSegments]

MAGIC = b"fake plan 1\n"
WEIGHTS_BYTES = 1 << 16
PERSISTENT_BYTES = 1 << 10
__version__ = "10.3.0"


class _Enum:
    def __init__(self, *names: str) -> None:
        for value, name in enumerate(names):
            setattr(self, name, value)

    def __getattr__(self, name: str) -> int:
        raise AttributeError(name)


TensorIOMode = _Enum("NONE", "INPUT", "OUTPUT")
DataType = _Enum("FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8")
ExecutionContextAllocationStrategy = _Enum("STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED")
_DTYPES = {0: np.float32, 1: np.float16, 2: np.int8, 3: np.int32, 4: np.bool_, 5: np.uint8}


def nptype(dtype: int) -> type[Any]:
    """NumPy's type for TensorRT's."""
    return _DTYPES[dtype]


class ILogger:
    """The interface that TensorRT logs to."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: int, text: str) -> None:
        """Log a message; subclasses override it."""
        raise NotImplementedError


class IProfiler:
    """The interface that receives layer times."""


class PluginRegistry:
    """Libraries that were loaded: one path loads once."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    @property
    def all_creators(self) -> list[SimpleNamespace]:
        """The creators of the four ops, if their library is loaded."""
        return [SimpleNamespace(plugin_namespace="panrt", name=name) for name in OPS if self.loaded]

    def load_library(self, path: str) -> object | None:
        """Return a handle; None if the library is loaded already, or the file does not exist."""
        if path in self.loaded or not Path(path).is_file():
            return None
        self.loaded.append(path)
        return object()


registry = PluginRegistry()


def get_plugin_registry() -> PluginRegistry:
    """The one of this process."""
    return registry


def plan(
    tensors: Sequence[tuple[str, Sequence[int], str, bool]],
    *,
    network: str = "pattern",
    scratch_bytes: int = 1 << 12,
    replays_differ: bool = False,
    replays_do_nothing: bool = False,
    uncapturable: bool = False,
    has_host_code: bool = False,
) -> bytes:
    """The bytes of an engine.

    Args:
        tensors: (name, shape, name of the DataType, whether it is an input).
        network: "pattern", "nothing", or the path of an ONNX file.
        scratch_bytes: of activations.
        replays_differ: what is captured gives other results than what is not.
        replays_do_nothing: what is captured does not write the outputs.
        uncapturable: it allocates whenever it runs.
        has_host_code: as version-compatible engines have.
    """
    description = {
        "tensors": list(map(list, tensors)),
        "network": network,
        "scratch_bytes": scratch_bytes,
        "replays_differ": replays_differ,
        "replays_do_nothing": replays_do_nothing,
        "uncapturable": uncapturable,
        "has_host_code": has_host_code,
    }
    return MAGIC + json.dumps(description).encode() + b"\nend"


class Runtime:
    """Turns plans into engines."""

    def __init__(self, logger: Any) -> None:
        assert isinstance(logger, ILogger)
        self.logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, data: bytes) -> ICudaEngine | None:
        """Return an engine; None if this is not a plan, or the device has no room for its weights."""
        if not data.startswith(MAGIC):
            self.logger.log(ILogger.ERROR, "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.")
            return None
        if not data.endswith(b"\nend"):
            self.logger.log(ILogger.ERROR, "Deserialization failed: unexpected end of the serialized engine.")
            return None
        description = json.loads(data[len(MAGIC) : -3])
        if description["has_host_code"] and not self.engine_host_code_allowed:
            self.logger.log(ILogger.ERROR, "Cannot deserialize engine with lean runtime: host code is not allowed.")
            return None
        weights = _allocate(WEIGHTS_BYTES, self.logger)
        return ICudaEngine(description, weights, self.logger) if weights else None


def _allocate(size: int, logger: Any) -> int:
    error, address = cu.cuMemAlloc(size)
    if error:
        logger.log(ILogger.ERROR, f"[runtime] cudaMalloc of {size} bytes: {error.name}")
        return 0
    return int(address)


class ICudaEngine:
    """Weights, and what goes in and out."""

    def __init__(self, description: dict[str, Any], weights: int, logger: Any) -> None:
        self.description = description
        self.logger = logger
        self.network = _network(description["network"])
        self._weights = weights
        self._tensors = {t[0]: t for t in description["tensors"]}
        self.num_io_tensors = len(self._tensors)
        self.device_memory_size_v2 = description["scratch_bytes"]

    def __del__(self) -> None:
        cu.cuMemFree(self._weights)

    def get_tensor_name(self, index: int) -> str:
        return str(list(self._tensors)[index])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name][1])

    def get_tensor_dtype(self, name: str) -> int:
        return int(getattr(DataType, self._tensors[name][2]))

    def get_tensor_mode(self, name: str) -> int:
        return int(TensorIOMode.INPUT if self._tensors[name][3] else TensorIOMode.OUTPUT)

    def create_execution_context(self, strategy: int = 0) -> IExecutionContext | None:
        """Return a context; None if the device has no room for it."""
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        persistent = _allocate(PERSISTENT_BYTES, self.logger)
        return IExecutionContext(self, persistent) if persistent else None


_contexts: weakref.WeakValueDictionary[int, IExecutionContext] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


class IExecutionContext:
    """Runs an engine on memory that its user gives it."""

    def __init__(self, engine: ICudaEngine, persistent: int) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self._persistent = persistent
        self._scratch = 0
        self._has_run = False
        self.profiler: Any = None
        self._number = next(_numbers)
        _contexts[self._number] = self

    def __del__(self) -> None:
        cu.cuMemFree(self._persistent)

    def set_device_memory(self, memory: int, size: int) -> None:
        """Set the memory of activations, "aligned with cuda memory alignment property"."""
        assert memory % int(control.fact("attributes.TEXTURE_ALIGNMENT")) == 0
        assert size >= self.engine.device_memory_size_v2
        self._scratch = memory

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Return whether there is such a tensor and its address is valid."""
        if name not in self.engine._tensors or address % 256:
            self.engine.logger.log(ILogger.ERROR, f"IExecutionContext::setTensorAddress: {name} at {address:#x}")
            return False
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Return whether a run was queued."""
        description = self.engine.description
        if set(self.addresses) != set(self.engine._tensors) or (description["scratch_bytes"] and not self._scratch):
            self.engine.logger.log(ILogger.ERROR, "IExecutionContext::enqueueV3: Neither address or allocator is set")
            return False
        if not self._has_run or description["uncapturable"]:  # what a first run does, and a captured one may not
            workspace = _allocate(256, self.engine.logger)
            if not workspace:
                return False
            cu.cuMemFree(workspace)
            self._has_run = True
        error, status = cu.cuStreamIsCapturing(stream)
        if error:
            self.engine.logger.log(ILogger.ERROR, f"IExecutionContext::enqueueV3: CUDA error {error.name}")
            return False
        is_captured = status == cu.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE
        run = _Run(self, is_captured=is_captured)
        error = control.launch(stream, "engine", _execute, run.number, run.touched())
        if error:
            self.engine.logger.log(ILogger.ERROR, f"IExecutionContext::enqueueV3: CUDA error {error}")
        if self.profiler is not None:  # TensorRT waits for the run then
            cu.cuStreamSynchronize(stream)
            for layer in ("backbone", "merge"):
                self.profiler.report_layer_time(layer, 0.5)
        return error == 0


class _Run:
    """Addresses as they were when a run was queued or captured."""

    def __init__(self, context: IExecutionContext, *, is_captured: bool) -> None:
        self.context = context._number
        self.addresses = dict(context.addresses)
        self.scratch = context._scratch
        self.weights = context.engine._weights
        self.description = context.engine.description
        self.is_captured = is_captured
        self.number = next(_numbers)
        _runs[self.number] = self

    def touched(self) -> list[tuple[int, int]]:
        ranges = [(self.addresses[name], array_bytes(shape, dtype)) for name, shape, dtype, _ in self._tensors()]
        if self.scratch:
            ranges.append((self.scratch, self.description["scratch_bytes"]))
        return [*ranges, (self.weights, WEIGHTS_BYTES)]

    def execute(self, network: Network) -> None:
        views: dict[str, NDArray[Any]] = {
            name: np.ctypeslib.as_array((ctypes.c_uint8 * array_bytes(shape, dtype)).from_address(self.addresses[name]))
            .view(_DTYPES[getattr(DataType, dtype)])
            .reshape(shape)
            for name, shape, dtype, _ in self._tensors()
        }
        settings = {name: views[name] for name in NAMES if name in views}
        found = network(views["image"], settings or None)
        for name, array in zip(found._fields, found, strict=True):
            views[name][...] = 0  # the CPU backend leaves out rows that it does not need
            views[name][tuple(map(slice, array.shape))] = array
        if self.is_captured and self.description["replays_differ"]:
            views["segment_count"] += 1

    def _tensors(self) -> list[tuple[str, list[int], str, bool]]:
        tensors: list[tuple[str, list[int], str, bool]] = self.description["tensors"]
        return tensors


_runs: dict[int, _Run] = {}
failures: list[str] = []  # of Python while the device worked


def array_bytes(shape: Sequence[int], dtype: str) -> int:
    """Return the bytes of a tensor."""
    return math.prod(shape) * np.dtype(_DTYPES[getattr(DataType, dtype)]).itemsize


@control.KERNEL
def _execute(number: int) -> int:
    run = _runs[number]
    context = _contexts.get(run.context)
    if context is None or not run.is_captured:
        del _runs[number]
    if context is None:
        failures.append("an execution context was destroyed before its work was done")
        return control.ILLEGAL_ADDRESS
    if run.is_captured and run.description["replays_do_nothing"]:
        return 0
    try:
        run.execute(context.engine.network)
    except Exception:
        failures.append(traceback.format_exc())
        return control.LAUNCH_FAILED
    return 0


def _network(name: str) -> Network:
    if name in ("pattern", "nothing"):
        return pattern if name == "pattern" else nothing
    from panrt.engine.backends.cpu.executor import Executor  # noqa: PLC0415  # only where a network is asked for
    from panrt.engine.backends.cpu.partition import partition  # noqa: PLC0415

    path = Path(name)
    return Executor(partition(path), path, threads=1).run


def nothing(images: NDArray[np.uint8], settings: Arrays | None = None) -> PanopticSegments:
    """Finds none."""
    del settings
    n = len(images)
    ids = np.zeros((n, 1, 1), np.int32)  # the rest of an output is zero
    return PanopticSegments(ids, np.zeros((n, 1, 8), np.int32), np.zeros((n, 1), np.float32), np.zeros(n, np.int32))


PATTERN_ROWS = 6  # of segments


def pattern(images: NDArray[np.uint8], settings: Arrays | None = None) -> PanopticSegments:
    """Three segments by the blue of each pixel: a thing below 85, a second one below 170, stuff from there on.

    The map is half the input's size. Things score 0.75; with a higher threshold of instances all is stuff.
    """
    if settings is not None and INSTANCE in settings and settings[INSTANCE][0] > 0.75:
        images = np.full_like(images, 255)
    n = len(images)
    blue = images[:, ::2, ::2, 0]
    panoptic = (1 + blue // 85).clip(max=3).astype(np.int32)
    segments = np.zeros((n, PATTERN_ROWS, 8), np.int32)
    scores = np.zeros((n, PATTERN_ROWS), np.float32)
    for image in range(n):
        for row, (category, is_thing) in enumerate(((0, 1), (1, 1), (1, 0))):
            ys, xs = np.nonzero(panoptic[image] == row + 1)
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else (0, 0, 0, 0)
            segments[image, row] = (row + 1, category, is_thing, len(xs), *box)
        scores[image, :2] = 0.75
    return PanopticSegments(panoptic, segments, scores, np.full(n, 3, np.int32))
