"""ONNX files of PanRT with all that is in them, the metadata alone, and engines with their sidecars."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

import panrt
from fuzz import mutate
from fuzz.results import check_result
from fuzz.target import Files, Target, printable, require
from panrt.errors import InputSizeError
from panrt.formats import metadata, plan_file
from panrt.plugins.onnx_functions import add_functions
from support.plans import ENGINE, MODEL
from support.plans import plan_file as sidecar

CORPUS = Path(__file__).parents[1] / "corpus"
FRAME = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
HERE = plan_file.Process("tensorrt", "10.3.0", "Orin (nvgpu)", "8.6", "1", "a" * 64, "b" * 64)

# ONNX ---------------------------------------------------------------------------------------------------------------


@lru_cache
def onnx_files() -> tuple[Files, ...]:
    """Of every precision, of a fixed and an open size, with and without functions."""
    files = []
    for path in sorted(CORPUS.glob("*.onnx.gz")):
        content = gzip.decompress(path.read_bytes())
        files.append({"model.onnx": content})
        if path.name == "fp32.onnx.gz":
            proto = onnx.load_model_from_string(content)
            add_functions(proto)
            files.append({"model.onnx": proto.SerializeToString()})
    return tuple(files)


@lru_cache(maxsize=16)
def _parsed(content: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(content)


def mutate_onnx(rng: Random, files: Files) -> Files:
    old = files["model.onnx"]
    if rng.random() < 0.08:
        return {"model.onnx": mutate.data(rng, old)}
    proto = onnx.ModelProto()
    proto.CopyFrom(_parsed(old))
    beside: Files = {}
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        mutate.one_of(
            rng,
            [
                (5, lambda: mutate.message(rng, proto)),
                (3, lambda: _spoil_metadata(rng, proto)),
                (2, lambda: _spoil_attribute(rng, proto)),
                (1, lambda: beside.update(_move_outside(rng, proto))),
                (0.2, lambda: _nest(rng, proto)),
            ],
        )
    return {"model.onnx": proto.SerializeToString(), **beside}


def _spoil_metadata(rng: Random, proto: onnx.ModelProto) -> None:
    for entry in proto.metadata_props:
        if entry.value in _valid_metadata():
            entry.value = mutate.json_text(rng, entry.value).decode("utf-8", "replace")


def _spoil_attribute(rng: Random, proto: onnx.ModelProto) -> None:
    """Of a node, most often one of PanRT's own."""
    nodes = [node for node in proto.graph.node if node.attribute]
    own = [node for node in nodes if node.domain]
    node = rng.choice(own if own and rng.random() < 0.6 else nodes) if nodes else None
    if node is not None:
        mutate.message(rng, rng.choice(node.attribute))


def _move_outside(rng: Random, proto: onnx.ModelProto) -> Files:
    """A weight that lies in another file: beside the model, or where a model has no business."""
    if not proto.graph.initializer:
        return {}
    tensor = rng.choice(proto.graph.initializer)
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {
        "location": rng.choice(("model.data", *mutate.PATHS)).replace("\0", ""),
        "offset": str(rng.choice((0, 0, mutate.integer(rng)))),
        "length": str(rng.choice((len(content), len(content), mutate.integer(rng)))),
    }
    for key in rng.sample(list(entries), rng.choice((1, 3, 3, 3))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, entries[key]
    return {"model.data": content} if rng.random() < 0.7 else {}


def _nest(rng: Random, proto: onnx.ModelProto) -> None:
    """Graphs within graphs within graphs."""
    graph = onnx.GraphProto()
    for _ in range(rng.choice((3, 20, 80))):
        outer = onnx.GraphProto()
        node = outer.node.add(op_type="If")
        node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g.CopyFrom(graph)
        graph = outer
    node = proto.graph.node.add(op_type="If")
    node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g.CopyFrom(graph)


def check_onnx(folder: Path) -> None:
    """Load it on the CPU and run a frame through it."""
    path = folder / "model.onnx"
    try:
        session = panrt.load(path, backend="cpu", threads=1)
    except InputSizeError:
        session = panrt.load(path, backend="cpu", threads=1, input_hw=(64, 64))
    with session:
        _check_model(session.model)
        check_result(session(FRAME), session.model)


# Metadata and sidecars ------------------------------------------------------------------------------------------------


def _check_model(file: metadata.ModelFile) -> None:
    require(metadata.loads(metadata.dumps(file), source="again") == file, "metadata can be read again")
    for category in (*file.things, *file.stuff):
        category.name.encode()
        require(printable(category.name), "names of classes can be printed")
        require(all(0 <= channel <= 255 for channel in category.color), "colours are bytes")


@lru_cache
def _valid_metadata() -> tuple[str, ...]:
    protos = [_parsed(files["model.onnx"]) for files in onnx_files()]
    own = [entry.value for proto in protos for entry in proto.metadata_props if entry.key == metadata.KEY]
    return (*dict.fromkeys(own), metadata.dumps(MODEL))


def metadata_files() -> tuple[Files, ...]:
    return tuple({"model.json": text.encode()} for text in _valid_metadata())


def mutate_json(name: str) -> Any:
    """A mutation of inputs that are one JSON file."""

    def change(rng: Random, files: Files) -> Files:
        return {**files, name: mutate.json_text(rng, files[name].decode())}

    return change


def check_metadata(folder: Path) -> None:
    path = folder / "model.json"
    _check_model(metadata.loads(path.read_bytes(), source=str(path)))


@lru_cache
def plan_files() -> tuple[Files, ...]:
    options = plan_file.BuildOptions(compute_capabilities=("8.6", "8.9"), input_hw=(512, 1024))
    made = (sidecar(compute_capability="8.6"), sidecar(flavour="rtx", options=options))
    return tuple({"a.plan": ENGINE, "a.plan.json": plan_file.dumps(file).encode()} for file in made)


def mutate_plan(rng: Random, files: Files) -> Files:
    if rng.random() < 0.1:
        return {**files, "a.plan": mutate.data(rng, files["a.plan"])}
    return {**files, "a.plan.json": mutate.json_text(rng, files["a.plan.json"].decode())}


def check_plan(folder: Path) -> None:
    """Read the sidecar, compare it with a process and with the engine."""
    path = folder / "a.plan"
    file = plan_file.read(path)
    plan_file.loads(plan_file.dumps(file), source="again")
    command = plan_file.rebuild_command(path, file, HERE)
    require(printable(command), "a command to paste is one line")
    plan_file.check_engine(path, file)
    plan_file.check(path, file, HERE._replace(flavour=file.flavour))


TARGETS = (
    Target(name="onnx", seeds=onnx_files, mutate=mutate_onnx, check=check_onnx, short=150, refusals=(OSError,)),
    Target(name="metadata", seeds=metadata_files, mutate=mutate_json("model.json"), check=check_metadata, short=500),
    Target(name="plan", seeds=plan_files, mutate=mutate_plan, check=check_plan, short=400, refusals=(OSError,)),
)
