"""Importing PanRT is cheap: what only some users need is imported by what needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "cv2", "av", "tensorrt", "hypothesis"}


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "name",
    ["panrt", "panrt.plugins.contract", "panrt.plugins.reference", "panrt.plugins.native", "panrt.engine", "panrt.cli"],
)
def test_importing_the_runtime_loads_no_framework(name: str) -> None:
    assert modules_after(f"import {name}").isdisjoint(HEAVY)


def test_importing_panrt_alone_does_not_even_load_numpy() -> None:
    assert "numpy" not in modules_after("import panrt")


@pytest.mark.parametrize("name", ["plugins.schema", "formats.metadata", "formats.plan_file", "formats.records"])
def test_what_a_file_says_about_itself_is_read_without_numpy(name: str) -> None:
    assert "numpy" not in modules_after(f"import panrt.{name}")


def test_looking_up_a_model_by_name_loads_no_network_library() -> None:
    found = "from panrt.engine.bundled import locate; locate('tabletop'); import panrt.hub.models"
    assert modules_after(found).isdisjoint({"http", "ssl", "requests", *HEAVY})


def test_the_probe_sees_what_is_loaded() -> None:
    assert "onnx" in modules_after("import onnx")
