"""TensorRT for RTX builds engines of ONNX models on a CPU; each model in a process of its own, which it may abort."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import onnx

from panrt.plugins.library import PluginLibrary

WORKER = Path(__file__).with_name("rtx_worker.py")


class Layer(NamedTuple):
    """One layer of the network that the parser made."""

    type: str
    metadata: str  # "[ONNX Layer: name of the node]"
    outputs: list[tuple[str, tuple[int, ...]]]  # type and shape of each


class Engine(NamedTuple):
    """A serialised engine."""

    bytes: int
    sha256: str


class Build(NamedTuple):
    """What became of a model."""

    parsed: bool
    errors: list[str]  # the parser's
    refusals: list[str]  # the plugins'
    log: list[str]  # warnings and errors
    layers: list[Layer]
    engines: list[Engine | None]  # one a time; None: it did not build


def build(
    model: onnx.ModelProto, library: PluginLibrary, folder: Path, *, times: int = 1, with_plugins: bool = True
) -> Build:
    """Parse a model and build it, the same network several times."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    command: list[str | Path] = [sys.executable, WORKER, path, library.path, str(times), str(with_plugins)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"TensorRT for RTX ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    found = json.loads(done.stdout.splitlines()[-1])
    layers = [
        Layer(kind, metadata, [(name, tuple(shape)) for name, shape in outputs])
        for kind, metadata, outputs in found.pop("layers")
    ]
    engines = [engine and Engine(*engine) for engine in found.pop("engines")]
    return Build(**found, layers=layers, engines=engines)
