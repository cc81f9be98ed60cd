"""Builds of engines, each in a separate process, since TensorRT for RTX may abort it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from onnx import ModelProto, TensorProto, helper

from panrt.formats import metadata as model_metadata
from panrt.formats.metadata import Precision
from support.networks import exported, frames
from support.plans import MODEL
from tools.plugin_library import plugin_library

TIMEOUT = 300  # seconds
PLAIN = (sys.executable, "-c", "from panrt.cli import main; main()")  # the command, wherever it is installed

_LAYERS = """
import json, sys
from pathlib import Path
from panrt.export.lint import lint
from panrt.export.tensorrt import TensorRT
from panrt.plugins import library
path = Path(sys.argv[1])
tensorrt = TensorRT("rtx", library.find())
size = tuple(map(int, sys.argv[2:])) or None
linted = lint(path, flavour="rtx", release=(1, 7), input_hw=size)
print(json.dumps(tensorrt.parse(linted.model, source=str(path)).layers()))
"""


@lru_cache
def demo(precision: Precision) -> Path:
    """The demo network as an ONNX file, untrained; exported once a test run, which is what takes long."""
    folder = Path(tempfile.mkdtemp(prefix="panrt-"))
    atexit.register(shutil.rmtree, folder)
    samples = [] if precision == "fp32" else list(frames(1))
    return exported(folder / f"lite_{precision}.onnx", precision=precision, samples=samples)


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    stdout: str
    stderr: str


def panrt(*arguments: object, cache: Path, **environment: str) -> Ended:
    """Run the command with our plugin library, and with a cache of its own."""
    return _run([*PLAIN, *map(str, arguments)], cache, environment)


def layers(path: Path, *size: int, cache: Path) -> list[list[str]]:
    """Node, type and precision of each layer that TensorRT for RTX makes of a file, at a height and width if open."""
    ended = _run([sys.executable, "-c", _LAYERS, str(path), *map(str, size)], cache, {})
    assert ended.code == 0, ended
    found: list[list[str]] = json.loads(ended.stdout)
    return found


def ours(cache: Path, **environment: str) -> dict[str, str]:
    """The environment of a process that has our plugin library, and a cache of its own."""
    return {
        **os.environ,
        "PANRT_PLUGINS": str(plugin_library("auto").path),
        "XDG_CACHE_HOME": str(cache),
        **environment,
    }


def _run(command: list[str], cache: Path, environment: dict[str, str]) -> Ended:
    done = subprocess.run(
        command, env=ours(cache, **environment), capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def tiny_model(*nodes: Any, batch: int | str = 1, metadata: str | None = None, **changes: Any) -> ModelProto:
    """A file that says it is ours, and whose graph is an image, these nodes from its `pixels`, and `out`."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 4, 4, 3])
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [3, 2], [0.5] * 6)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], "cast", to=TensorProto.FLOAT),
            *nodes,
            helper.make_node("MatMul", ["pixels", "weight"], ["out"], "head/MatMul"),
        ],
        "tiny",
        [image],
        [out],
        [weight],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", changes.pop("opset", 20)), helper.make_opsetid("panrt", 1)],
        ir_version=10,
    )
    said = json.loads(model_metadata.dumps(MODEL))
    said.update({"precision": "fp32", **changes})
    helper.set_model_props(model, {model_metadata.KEY: metadata or json.dumps(said)})
    return model
