"""Runs in a process of its own: python rtx_worker.py MODEL LIBRARY TIMES WITH_PLUGINS; see rtx.py."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import tensorrt_rtx_libs  # noqa: F401  # the shared libraries, before the loader and the module that need them

import tensorrt_rtx as trt  # isort: skip

from panrt.plugins import library as plugin_library


class Logger(trt.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, severity: trt.ILogger.Severity, text: str) -> None:
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
            self.lines.append(text)


def parse_and_build(model: bytes, library: plugin_library.PluginLibrary, times: int, with_plugins: bool) -> Any:
    logger = Logger()
    plugin_library.load_rtx_loader(library)
    builder = trt.Builder(logger)
    if with_plugins:
        for _ in range(2):  # twice is fine
            plugin_library.load(builder.get_plugin_registry(), library)
    with plugin_library.refusals(library) as refusals:
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        parsed = parser.parse(model)
        engines = [builder.build_serialized_network(network, config(builder, network)) for _ in range(times * parsed)]
    return {
        "parsed": parsed,
        "errors": [parser.get_error(i).desc() for i in range(parser.num_errors)],
        "refusals": refusals,
        "log": logger.lines,
        "layers": [describe(network.get_layer(i)) for i in range(network.num_layers * parsed)],
        "engines": [engine and [len(bytes(engine)), hashlib.sha256(engine).hexdigest()] for engine in engines],
    }


def config(builder: trt.Builder, network: trt.INetworkDefinition) -> trt.IBuilderConfig:
    """Sizes that are not known are from 1 to 4."""
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    for tensor in inputs:
        shapes = [tuple(unknown if size < 0 else size for size in tensor.shape) for unknown in (1, 2, 4)]
        profile.set_shape(tensor.name, *shapes)
    if any(size < 0 for tensor in inputs for size in tensor.shape):
        config.add_optimization_profile(profile)
    return config


def describe(layer: trt.ILayer) -> Any:
    outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
    return layer.type.name, layer.metadata, [(output.dtype.name, list(output.shape)) for output in outputs]


if __name__ == "__main__":
    path, library_path, times, with_plugins = sys.argv[1:]
    found = plugin_library.inspect(Path(library_path))
    print(json.dumps(parse_and_build(Path(path).read_bytes(), found, int(times), with_plugins == "True")))
