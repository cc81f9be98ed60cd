"""The names of `panrt`: what users build with and catch, without a framework."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import panrt
from panrt import errors
from panrt.engine import session
from test_import import HEAVY, modules_after

PACKAGE = Path(panrt.__file__).parent
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}


def test_every_public_name_can_be_imported() -> None:
    assert len(set(panrt.__all__)) == len(panrt.__all__)
    assert all(getattr(panrt, name) is not None for name in panrt.__all__)


def test_every_exception_is_a_public_name_and_a_panrt_error() -> None:
    assert set(errors.__all__) == ERRORS
    assert set(panrt.__all__) >= ERRORS
    assert all(issubclass(getattr(panrt, name), panrt.PanrtError) for name in ERRORS)


def test_public_exceptions_are_defined_in_one_module() -> None:
    stray = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and file != PACKAGE / "errors.py":
                stray += [f"{file}: {node.name}" for base in node.bases if ast.unparse(base) in ERRORS]
    assert stray == []


def test_every_exception_has_a_built_in_base_too() -> None:
    roots = {name: kind for name, kind in vars(errors).items() if name in ERRORS - {"PanrtError"}}
    builtin = (ValueError, RuntimeError, OSError, ImportError)
    assert [name for name, kind in roots.items() if not issubclass(kind, builtin)] == []


def test_naming_an_exception_loads_no_framework() -> None:
    loaded = modules_after("import panrt\nfor name in panrt.errors.__all__: getattr(panrt, name)")
    at_start = modules_after("pass")  # a .pth file of an installed package may import something
    assert (loaded - at_start).isdisjoint(HEAVY | {"numpy", "cuda"})


def test_star_import_does_not_need_pytorch() -> None:
    assert modules_after("from panrt import *").isdisjoint({"torch", "onnx", "tensorrt"})


def test_exceptions_keep_their_place_in_panrt_engine_session_for_a_release() -> None:
    with pytest.warns(DeprecationWarning, match=r"use panrt\.SessionBusyError"):
        assert session.SessionBusyError is panrt.SessionBusyError
    with pytest.raises(AttributeError, match="SessionLostError"):
        _ = session.SessionLostError
