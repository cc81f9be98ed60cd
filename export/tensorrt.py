"""One interface to the builders of TensorRT and TensorRT for RTX.

Supported are TensorRT from 10.3 (JetPack 6) to 11.x and TensorRT for RTX from 1.7. The version decides between them,
never the presence of a name: a missing name would build something else than was requested.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from panrt.errors import BuildError
from panrt.formats.plan_file import MODULES, OLDEST, PRODUCTS, BuildOptions, Flavour, version_of
from panrt.gpu import device as gpu
from panrt.gpu.tensorrt_logger import tensorrt_logger
from panrt.plugins import library as plugin_library
from panrt.plugins.library import PluginLibrary

_ALWAYS_STRONGLY_TYPED = (11,)  # before, a flag asks for it
_SAME_COMPUTE_CAPABILITY = (10, 14)  # the oldest that is known to have this level
_STRONGLY_TYPED_DLA = (11, 4, 1)  # 10.x has a DLA, but not for strongly typed networks; 11.0 to 11.4.0 have none


class Layer(NamedTuple):
    """A layer of the network as TensorRT parsed it."""

    node: str  # the ONNX node that it came from
    type: str  # TensorRT's, e.g. "CONVOLUTION"
    precision: str  # that it computes in: fp32, fp16, int8, plugin or other


class TensorRT:
    """TensorRT or TensorRT for RTX, imported and ready to parse PanRT files."""

    def __init__(self, flavour: Flavour, library: PluginLibrary) -> None:
        """Import the module and register the plugins.

        Raises:
            BuildError: it is not installed or too old.
            PluginLibraryError: the plugins do not load.
        """
        self.flavour = flavour
        self.module = _imported(flavour, library)
        self.version: str = self.module.__version__
        if version_of(self.version) < OLDEST[flavour]:
            wanted = ".".join(map(str, OLDEST[flavour]))
            raise BuildError(f"{PRODUCTS[flavour]} {self.version} is too old, PanRT needs {wanted} or newer.")
        self._logger = tensorrt_logger(self.module)
        self._library = library
        self._builder = self.module.Builder(self._logger)
        plugin_library.load(self._builder.get_plugin_registry(), library)

    def __str__(self) -> str:
        return f"{PRODUCTS[self.flavour]} {self.version}"

    @property
    def _release(self) -> tuple[int, ...]:
        return version_of(self.version)

    @property
    def _measures(self) -> bool:
        """Whether it measures kernels while it builds; RTX does that on the machine that runs the engine."""
        return self.flavour == "tensorrt"

    def parse(self, model: bytes, *, source: str) -> Network:
        """Parse an ONNX file.

        Raises:
            BuildError: TensorRT rejects it; the message names the node, and what TensorRT and the plugins reported.
        """
        trt = self.module
        flags = 0
        if self.flavour == "tensorrt" and self._release < _ALWAYS_STRONGLY_TYPED:
            flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        definition = self._builder.create_network(flags)
        parser = trt.OnnxParser(definition, self._logger)
        self._logger.take_errors()
        with plugin_library.refusals(self._library) as refusals:
            parsed = parser.parse(model)
        if not parsed:
            errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
            raise BuildError(_said(f"{source}: {self} cannot parse it", errors + refusals))
        return Network(definition, parser)

    def config(self, options: BuildOptions, *, workspace_bytes: int, timings: bytes) -> Any:
        """Return a builder configuration; `timings` are those of an earlier build, or empty.

        Raises:
            BuildError: this TensorRT lacks something that the options request.
        """
        trt = self.module
        config = self._builder.create_builder_config()
        config.builder_optimization_level = options.optimization_level
        config.max_aux_streams = options.aux_streams  # TensorRT's own choice depends on the release
        if options.tf32:
            config.set_flag(trt.BuilderFlag.TF32)
        else:
            config.clear_flag(trt.BuilderFlag.TF32)  # on by default
        if workspace_bytes:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
        if options.compute_capabilities:
            self._target(config, options.compute_capabilities)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatibility != "none":
            level = options.hardware_compatibility.upper()
            config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
        if options.dla_core >= 0:
            config.default_device_type = trt.DeviceType.DLA
            config.DLA_core = options.dla_core
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        if self._measures:
            config.set_timing_cache(config.create_timing_cache(timings), False)
        return config

    def check(self, options: BuildOptions) -> None:
        """Raise for options that this TensorRT lacks.

        Raises:
            BuildError: the message names the option.
        """
        if options.compute_capabilities and self.flavour != "rtx":
            raise BuildError(f"compute capabilities: {self} builds for this machine's GPU; only RTX takes targets.")
        if self.flavour == "rtx":
            for name, chosen in (
                ("version_compatible", options.version_compatible),
                ("hardware_compatibility", options.hardware_compatibility != "none"),
                ("dla_core", options.dla_core >= 0),
            ):
                if chosen:
                    raise BuildError(f"{name}: {self} does not support it; compute capabilities choose its targets.")
        if options.hardware_compatibility != "none" and gpu.is_jetson():
            raise BuildError(
                "hardware_compatibility: TensorRT does not support it on a Jetson; build the engine on each kind of "
                "board."
            )
        same = options.hardware_compatibility == "same_compute_capability"
        self._need(_SAME_COMPUTE_CAPABILITY, "hardware_compatibility same_compute_capability", same)
        self._need(_STRONGLY_TYPED_DLA, "dla_core", options.dla_core >= 0)

    def _need(self, release: tuple[int, ...], option: str, chosen: bool) -> None:
        if chosen and self._release < release:
            raise BuildError(f"{option}: {self} does not support it; {'.'.join(map(str, release))} and newer do.")

    def _target(self, config: Any, targets: Sequence[str]) -> None:
        known = self.module.ComputeCapability.__members__
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            name = f"SM{target.replace('.', '')}"
            if name not in known:
                there = ", ".join(f"{sm[2:-1]}.{sm[-1]}" for sm in known if sm.startswith("SM"))
                raise BuildError(f"compute capability {target!r}: {self} builds for {there}.")
            config.set_compute_capability(known[name], index)

    def build(self, network: Network, config: Any, *, source: str) -> bytes | None:
        """Build the engine; None if the progress monitor of the configuration stopped the build.

        Raises:
            BuildError: the build failed; the message has what TensorRT and the plugins reported.
        """
        self._logger.take_errors()
        with plugin_library.refusals(self._library) as refusals:
            engine = self._builder.build_serialized_network(network.definition, config)
        if engine is not None:
            return bytes(engine)
        if config.progress_monitor is not None and config.progress_monitor.stopped:
            return None
        raise BuildError(_said(f"{source}: {self} cannot build it", self._logger.take_errors() + refusals))

    def timings(self, config: Any) -> bytes | None:
        """Return what was measured during a build, for the next one; None if nothing is measured."""
        return bytes(config.get_timing_cache().serialize()) if self._measures else None

    def monitor(self, watch: Callable[[str, int, int], bool]) -> Any:
        """Return a monitor for `config.progress_monitor`; `watch(phase, done, of)` returns whether to continue."""
        base = self.module.IProgressMonitor

        class Monitor(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                base.__init__(self)
                self.stopped = False
                self._steps: dict[str, int] = {}

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                self._steps[phase_name] = num_steps

            def step_complete(self, phase_name: str, step: int) -> bool:
                self.stopped |= not watch(phase_name, step + 1, self._steps.get(phase_name, 0))
                return not self.stopped

            def phase_finish(self, phase_name: str) -> None:
                self._steps.pop(phase_name, None)

        return Monitor()


class Network:
    """A parsed file; the parser stays alive because it owns the weights."""

    def __init__(self, definition: Any, parser: Any) -> None:
        self.definition = definition
        self._parser = parser

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the inputs by name; -1 for an open size."""
        tensors = map(self.definition.get_input, range(self.definition.num_inputs))
        return {tensor.name: tuple(tensor.shape) for tensor in tensors}

    def layers(self) -> tuple[Layer, ...]:
        """Return all layers in order, with the type that each computes in."""
        layers = [self.definition.get_layer(index) for index in range(self.definition.num_layers)]
        makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
        return tuple(Layer(_node(layer), layer.type.name, _precision(layer, makers)) for layer in layers)


# Layers ---------------------------------------------------------------------------------------------------------------

_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "INT8": "int8"}
_MOVING = ("CAST", "CONCATENATION", "CONSTANT", "DEQUANTIZE", "GATHER", "IDENTITY", "QUANTIZE", "SHUFFLE", "SLICE")
WEIGHTED = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")  # where nearly all of the time goes


def _node(layer: Any) -> str:
    """Return the node of `[ONNX Layer: backbone.conv1/Conv]`; the first for a layer of several nodes."""
    match = re.search(r"\[ONNX Layer: ([^\]]*)\]", layer.metadata)
    return match[1] if match else layer.name


def _precision(layer: Any, makers: dict[str, Any]) -> str:
    if layer.type.name.startswith("PLUGIN"):
        return "plugin"
    if layer.type.name in _MOVING:
        return "other"
    if layer.type.name in WEIGHTED and _is_dequantized(layer, makers):
        return "int8"
    output = layer.get_output(0) if layer.num_outputs else None
    return _TYPES.get(output.dtype.name, "other") if output is not None else "other"


def _is_dequantized(layer: Any, makers: dict[str, Any]) -> bool:
    """Return whether its input is dequantised directly before: TensorRT then computes in int8."""
    tensor = layer.get_input(0)
    maker = makers.get(tensor.name) if tensor is not None else None
    return maker is not None and maker.type.name == "DEQUANTIZE"


# Messages -------------------------------------------------------------------------------------------------------------


def _said(problem: str, reasons: Sequence[str]) -> str:
    lines = list(dict.fromkeys(reason.strip() for reason in reasons if reason.strip())) or ["it gave no reason"]
    return f"{problem}:\n" + "\n".join(f"  {line}" for line in lines)


def _parser_error(error: Any) -> str:
    node = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
    return f"{node}{error.desc()}"


def _imported(flavour: Flavour, library: PluginLibrary) -> ModuleType:
    try:
        if flavour == "rtx":
            importlib.import_module("tensorrt_rtx_libs")
            plugin_library.load_rtx_loader(library)
        return importlib.import_module(MODULES[flavour])
    except ImportError as error:
        raise BuildError(f"{PRODUCTS[flavour]}: {error}. {_advice(flavour)}") from error


def _advice(flavour: Flavour) -> str:
    if flavour == "rtx":
        return "Install it:  pip install 'panrt[rtx]'"
    if gpu.is_jetson():
        return "JetPack provides it; a virtual environment sees it only with --system-site-packages."
    return "Install it from NVIDIA, or build for an RTX GPU:  panrt build --flavour rtx"
