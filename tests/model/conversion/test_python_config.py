"""Python configurations are data: literals and `dict(...)` are read, everything else is named or skipped."""

from __future__ import annotations

from typing import Any

import pytest

from panrt.errors import ConfigFileError
from panrt.model.conversion.python_config import DEEPEST, MOST_BYTES, read_assignments


def read(text: str) -> dict[str, Any]:
    return read_assignments(text, source="config.py", wanted=("model", "other"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("model = dict(a=1, b=-2.5, c='x' 'y', d=None, e=True, f=[1, (2, 3), ], g=dict())", {
            "a": 1, "b": -2.5, "c": "xy", "d": None, "e": True, "f": [1, [2, 3]], "g": {}}),
        ("model = {'a': {'b': 1}, 2: 'c', }", {"a": {"b": 1}, "2": "c"}),
        ("model = (1)", 1),
        ("model = (1,)", [1]),
        ("model = ()", []),
        ("model = 1e-3", 0.001),
        ("model = dict(\n  a=1,  # a remark\n\n  b=2)\n", {"a": 1, "b": 2}),
        ("x = range(3)\nimport os\nmodel = 5\ny = open('/etc/passwd').read()\n", 5),
        ("model = 1\nmodel = 2\n", 2),
        ("model = r'\\d'", "\\d"),
    ],
)  # fmt: skip
def test_literals_are_read(text: str, value: object) -> None:
    assert read(text) == {"model": value}


def test_other_statements_are_skipped() -> None:
    assert read("a = 1\ndef model(): return 5\nmodel_2 = 3\nfor model in []: pass\nmodel += 1\nmodel.x = 2\n") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = __import__('os').system('x')", "line 1: got '__import__', expected a literal"),
        ("x = 1\nmodel = dict(a=f'{x}')", "line 2: got"),
        ("model = dict(a=x)", "got 'x', expected a literal"),
        ("model = [i for i in y]", "got 'i'"),
        ("model = 1 + 2", r"got '\+'"),
        ("model = dict(**x)", "expected a literal"),
        ("model = dict(a=1, a=2)", "'a' is repeated"),
        ("model = {'a': 1, 'a': 2}", "'a' is repeated"),
        ("model = dict(a=1 b=2)", "got 'b'"),
        ("model = 'a' b'c'", "expected a literal"),
        ("model = lambda: 0", "got 'lambda'"),
        ("model = -'a'", "expected a literal"),
        ("model = -", "expected a literal"),
        ("model = dict(a=", "not a Python file, or cut short"),
        ("model = 'abc", "expected a literal|not a Python file"),
        ("model = " + "[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), f"nested more than {DEEPEST} deep"),
        ("model = " + "(" * 5000 + ")" * 5000, "not a Python file|nested more than"),
        ("model = " + "-" * 5000 + "1", "expected a literal"),
        ("model = " + "9" * 5000, "expected a literal"),
        ("#" * (MOST_BYTES + 1), "more than 1 MiB"),
    ],
)
def test_anything_else_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigFileError, match=rf"config\.py: .*({message})"):
        read(text)
