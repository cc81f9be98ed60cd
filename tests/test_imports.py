"""Tests and benchmarks share code through `tools` alone: tests import no benchmarks but those that they test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, by their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def test_only_tests_of_benchmarks_import_benchmarks() -> None:
    """The other directions are contracts of import-linter, in pyproject.toml."""
    importing = {
        path.relative_to(TESTS).parts[0]
        for path in TESTS.rglob("*.py")
        if any(name.split(".")[0] == "benchmarks" for name in imported(path))
    }
    assert importing == {"benchmarks"}
