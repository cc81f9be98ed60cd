"""The forms of the ops as a parameter: a test that takes `ops` runs once a form and must hold for each."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

MODULES = {
    "reference": "panrt.plugins.reference",
    "native": "panrt.plugins.native",
    "onnx": "support.onnx_ops",
    "cuda": "support.cuda_form",
}


@pytest.fixture(scope="session", params=list(MODULES))
def ops(request: pytest.FixtureRequest) -> ModuleType:
    """Every form."""
    return importlib.import_module(MODULES[request.param])


@pytest.fixture(scope="session", params=["native", "onnx", "cuda"])
def form(request: pytest.FixtureRequest) -> ModuleType:
    """The forms that are compared with the reference."""
    return importlib.import_module(MODULES[request.param])


@pytest.fixture(scope="session")
def native() -> ModuleType:
    """The CPU kernels alone, which take `threads`."""
    return importlib.import_module(MODULES["native"])


@pytest.fixture(scope="session")
def onnx() -> ModuleType:
    """The ONNX functions alone."""
    return importlib.import_module(MODULES["onnx"])


@pytest.fixture(scope="session", params=["reference", "native"])
def python_ops(request: pytest.FixtureRequest) -> ModuleType:
    """The forms that check their arguments and offer layout="NHWC"."""
    return importlib.import_module(MODULES[request.param])
