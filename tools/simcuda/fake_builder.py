"""The builder of the fake TensorRT, limited to what the Python module of TensorRT 10.3 (JetPack 6) has.

Its classes take no attribute that theirs does not have. The parser reads ONNX files as 10.3 does where that matters to
PanRT: up to opset 20, and a function goes before a plugin. An engine is a plan of `fake_tensorrt` whose network is the
parsed file, run by PanRT's CPU backend.
"""

from __future__ import annotations

import itertools
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
from onnx import ModelProto

from panrt.formats.metadata import KEY, loads
from panrt.formats.thresholds import NAMES, settings
from tools.simcuda import fake_tensorrt

NEWEST_OPSET = 20
_TYPES = {"Conv": "CONVOLUTION", "ConvTranspose": "DECONVOLUTION", "Gemm": "MATRIX_MULTIPLY", "Cast": "CAST"}
_DATA_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.UINT8: "UINT8",
}

NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH STRONGLY_TYPED", start=0)
BuilderFlag = IntEnum(
    "BuilderFlag",
    "FP16 INT8 DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS SAFETY_SCOPE "
    "OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS DIRECT_IO REJECT_EMPTY_ALGORITHMS VERSION_COMPATIBLE "
    "EXCLUDE_LEAN_RUNTIME FP8 ERROR_ON_TIMING_CACHE_MISS BF16 DISABLE_COMPILATION_CACHE STRIP_PLAN REFIT_IDENTICAL "
    "WEIGHT_STREAMING INT4 REFIT_INDIVIDUAL",
    start=0,
)
MemoryPoolType = IntEnum(
    "MemoryPoolType",
    "WORKSPACE DLA_MANAGED_SRAM DLA_LOCAL_DRAM DLA_GLOBAL_DRAM TACTIC_DRAM TACTIC_SHARED_MEMORY",
    start=0,
)
HardwareCompatibilityLevel = IntEnum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS", start=0)
DeviceType = IntEnum("DeviceType", "GPU DLA", start=0)

built: list[IBuilderConfig] = []  # the configuration of each engine


class IProgressMonitor:
    """The interface that reports a build's progress."""


class IBuilderConfig:
    """The options of a build."""

    __slots__ = (
        "DLA_core",
        "builder_optimization_level",
        "default_device_type",
        "flags",
        "hardware_compatibility_level",
        "max_aux_streams",
        "pools",
        "progress_monitor",
        "timings",
    )
    max_aux_streams: int

    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.pools: dict[MemoryPoolType, int] = {}
        self.progress_monitor: Any = None
        self.timings = b""

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[pool] = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> bytes:
        return serialized_timing_cache

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.timings = cache
        return True

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: b"measured " + self.timings)


class INetworkDefinition:
    """The network that a parser fills."""

    __slots__ = ("_layers", "inputs", "model")

    def __init__(self) -> None:
        self._layers: list[Any] = []
        self.inputs: list[Any] = []
        self.model = onnx.ModelProto()

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def fill(self, model: onnx.ModelProto) -> None:
        """Take what a parser read."""
        self.model = model
        values = {value.name: value for value in (*model.graph.value_info, *model.graph.output, *model.graph.input)}
        tensors = {name: _tensor(value) for name, value in values.items()}
        self.inputs = [tensors[value.name] for value in model.graph.input]
        self._layers = [_layer(node, tensors) for node in model.graph.node]


def _tensor(value: onnx.ValueInfoProto) -> SimpleNamespace:
    dims = value.type.tensor_type.shape.dim
    dtype = SimpleNamespace(name=_DATA_TYPES.get(value.type.tensor_type.elem_type, "INT64"))
    return SimpleNamespace(name=value.name, dtype=dtype, shape=[dim.dim_value for dim in dims])


def _layer(node: onnx.NodeProto, tensors: dict[str, Any]) -> SimpleNamespace:
    kind = "PLUGIN_V3" if node.domain == "panrt" else _TYPES.get(node.op_type, "ELEMENTWISE")
    outputs = [tensors[name] for name in node.output]
    return SimpleNamespace(
        name=node.name,
        type=SimpleNamespace(name=kind),
        metadata=f"[ONNX Layer: {node.name}]",
        num_outputs=len(outputs),
        get_output=outputs.__getitem__,
        get_input=lambda index: tensors.get(node.input[index]),
    )


class OnnxParser:
    """Reads what TensorRT 10.3 reads."""

    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        self._network = network
        self._errors: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(node_name=str, node_operator=str, desc=lambda: self._errors[index])

    def parse(self, model: bytes) -> bool:
        """Return whether the file can be read."""
        proto = onnx.load_from_string(model)
        opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
        if opset > NEWEST_OPSET:
            self._errors.append(f"opset {opset} is not supported")
        if proto.functions:
            self._errors.append("functions are imported, and the plugins of their names are not used")
        known = [(creator.plugin_namespace, creator.name) for creator in fake_tensorrt.registry.all_creators]
        for node in proto.graph.node:
            if node.domain == "panrt" and ("panrt", node.op_type) not in known:
                self._errors.append(f"Plugin not found, are the plugin name and namespace correct? {node.op_type}")
        if not self._errors:
            self._network.fill(proto)
        return not self._errors


class Builder:
    """Makes networks, configurations and engines."""

    folder: Path  # for the files that engines run

    def __init__(self, logger: Any) -> None:
        assert isinstance(logger, fake_tensorrt.ILogger)

    def get_plugin_registry(self) -> fake_tensorrt.PluginRegistry:
        return fake_tensorrt.registry

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        """A plan; None where the progress monitor stops it."""
        built.append(config)
        config.progress_monitor.phase_start("Building Engine", None, 2)
        for step in range(2):
            if not config.progress_monitor.step_complete("Building Engine", step):
                return None
        config.progress_monitor.phase_finish("Building Engine")
        graph = network.model.graph
        path = self.folder / f"network-{len(built)}.onnx"
        path.write_bytes(_with_defaults(network.model).SerializeToString())
        tensors = [(_tensor(value), value in graph.input) for value in itertools.chain(graph.input, graph.output)]
        rows = [(tensor.name, tensor.shape, tensor.dtype.name, is_input) for tensor, is_input in tensors]
        return fake_tensorrt.plan(rows, network=str(path))


def _with_defaults(model: ModelProto) -> ModelProto:
    """Return a copy that PanRT reads: the inputs for thresholds have their defaults, which a build takes away."""
    found = ModelProto()
    found.CopyFrom(model)
    metadata = next(entry.value for entry in model.metadata_props if entry.key == KEY)
    shapes = {value.name: _tensor(value).shape for value in model.graph.input if value.name in NAMES}
    for name, array in settings(loads(metadata, source="network"), shapes).arrays.items():
        found.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return found


def tensorrt(folder: Path) -> ModuleType:
    """The module: this builder, whose engines run files in a folder, and the runtime of `fake_tensorrt`."""
    Builder.folder = folder
    module = ModuleType("tensorrt")
    for name, value in {**vars(fake_tensorrt), **globals()}.items():
        if not name.startswith("__"):
            setattr(module, name, value)
    module.__version__ = fake_tensorrt.__version__  # type: ignore[attr-defined]
    module.__spec__ = SimpleNamespace(name="tensorrt")  # type: ignore[assignment]  # `find_spec` asks for it
    return module
