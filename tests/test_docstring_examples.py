"""The examples in docstrings of modules run.

An example is an indented block of Python. Each runs with the names that its module has and those that its preparation
makes; what it takes from elsewhere (a file, a camera) is replaced by what the test has. Those of EXEMPT do not run.
"""

from __future__ import annotations

import ast
import gzip
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import panrt
from panrt.formats import metadata
from panrt.formats.onnx_file import read_onnx
from panrt.model.panoptic_map import PanopticMap
from support.panoptic_maps import CATEGORIES, random_pair
from tools.null_session import NullSession
from tools.streams import IMAGES

ROOT = Path(__file__).parents[1]
EXEMPT = {
    "panrt.export.build": "needs a GPU",
    "panrt.export.onnx": "takes long; tests/export/test_onnx.py exports",
    "panrt.export.verify": "takes long; tests/export/test_verify.py compares",
    "panrt.model.evaluate": "needs a labelled data set",
    "panrt.model.train": "trains for hours",
}


def modules() -> Iterator[str]:
    """Of the package, by their full names."""
    package = ROOT / "python" / "panrt"
    for folder in (package, *sorted(path for path in package.iterdir() if path.is_dir())):
        for path in sorted(folder.rglob("*.py") if folder != package else folder.glob("*.py")):
            name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            yield name.removesuffix(".__init__")


def example(docstring: str) -> str:
    """The indented blocks of a docstring that are Python; empty where it has none."""
    blocks = []
    for paragraph in docstring.split("\n\n"):
        code = textwrap.dedent(paragraph)
        if paragraph.startswith("    "):
            try:
                statements = ast.parse(code).body
            except SyntaxError:
                continue
            if any(isinstance(node, ast.Call) for statement in statements for node in ast.walk(statement)):
                blocks.append(code)
    return "\n".join(blocks)


def with_example() -> dict[str, str]:
    """By module, read from the source: importing all of them would need every optional package."""
    found = {}
    for name in modules():
        path = ROOT / "python" / Path(*name.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if code := example(inspect.cleandoc(ast.get_docstring(ast.parse(source.read_text())) or "")):
            found[name] = code
    return found


EXAMPLES = with_example()


def streams(_: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(panrt, "load", lambda path: NullSession())
    return {"frame": np.zeros((8, 8, 3), np.uint8)}


def subgraph(*_: object) -> dict[str, Any]:
    shape = (1, 4)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("features", "logits")]
    graph = helper.make_graph([helper.make_node("Relu", ["features"], ["logits"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    return {
        "model": model.SerializeToString(),
        "features": np.ones(shape, np.float32),
        "logits": np.empty(shape, np.float32),
    }


def tracked(*_: object) -> dict[str, Any]:
    return {"session": NullSession(), "frames": [np.zeros((8, 8, 3), np.uint8)] * 2}


def quality(*_: object) -> dict[str, Any]:
    pairs = [random_pair(np.random.default_rng(seed), 8, 8) for seed in range(3)]
    predictions: dict[int, PanopticMap] = {number: prediction for number, (_, prediction) in enumerate(pairs)}
    labelled = [(number, truth) for number, (truth, _) in enumerate(pairs)]
    return {"labelled_frames": labelled, "session": predictions.__getitem__, "categories": CATEGORIES}


def onnx_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """With street.onnx, whose input size is open, in the working folder."""
    monkeypatch.chdir(folder)
    path = folder / "street.onnx"
    path.write_bytes(gzip.decompress((ROOT / "tests" / "fuzz" / "corpus" / "open.onnx.gz").read_bytes()))
    read = read_onnx(path)
    return {"proto": read.proto, "file": read.file, "metadata": metadata, "Path": Path}


PREPARATIONS: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "panrt": streams,
    "panrt.engine.backends.cpu.dense": subgraph,
    "panrt.engine.results.tracking": tracked,
    "panrt.formats.input_size": onnx_file,
    "panrt.formats.onnx_graph": onnx_file,
    "panrt.model.panoptic_quality": quality,
}
REPLACED = {
    "rtsp://camera/1": str(IMAGES),
    'read_graph(Path("street.onnx"))': 'read_graph(Path("street.onnx"), input_hw=(64, 64))',
}


def test_exempt_modules_have_examples() -> None:
    assert EXEMPT.keys() | PREPARATIONS.keys() <= EXAMPLES.keys()


@pytest.mark.parametrize("module", [name for name in EXAMPLES if name not in EXEMPT])
def test_an_example_in_a_docstring_runs(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = EXAMPLES[module]
    for old, new in REPLACED.items():
        code = code.replace(old, new)
    imported = importlib.import_module(module)
    names = {module.rpartition(".")[2]: imported, **vars(imported)}
    if module in PREPARATIONS:
        names |= PREPARATIONS[module](tmp_path, monkeypatch)
    exec(compile(code, f"docstring of {module}", "exec"), names)
