"""YAML is data: what asks for more, or for more room than it has characters, is an error that names the line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from panrt.errors import ConfigFileError
from panrt.model.conversion.yaml_files import DEEPEST, LONGEST_SCALAR, MOST_BYTES, MOST_VALUES, read_yaml


def read(folder: Path, text: str | bytes) -> dict[str, Any]:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path)


def test_scalars_have_the_types_of_yaml_1_1(tmp_path: Path) -> None:
    text = "a: 1\nb: 0.5\nc: true\nd: no\ne: ~\nf: 1e-4\ng: '1'\nh: 0x10\ni: 2020-01-01\nj: .inf\nk: 1.0e+3\n"
    found = read(tmp_path, text)
    assert found == {
        "a": 1, "b": 0.5, "c": True, "d": False, "e": None, "f": "1e-4", "g": "1", "h": 16, "i": "2020-01-01",
        "j": float("inf"), "k": 1000.0,
    }  # fmt: skip
    assert {name: type(value) for name, value in found.items() if name in "ac"} == {"a": int, "c": bool}


def test_a_python_tuple_is_a_sequence(tmp_path: Path) -> None:
    assert read(tmp_path, "A: !!python/tuple\n- 1\n- [2, 3]\nB: !!python/tuple []\n") == {"A": [1, [2, 3]], "B": []}


def test_an_alias_is_what_its_anchor_is(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &x {b: [1, 2]}\nc: *x\nd: &y 5\ne: [*y, *y]\n") == {
        "a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": 5, "e": [5, 5]
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~\n"])
def test_a_file_without_content_is_empty(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == {}


@pytest.mark.parametrize(
    "tag",
    [
        '!!python/object/apply:os.system ["touch victim"]',
        '!!python/object/new:os.system ["touch victim"]',
        "!!python/name:os.system",
        "!!python/module:os",
        "!!set {a, b}",
        "!!binary aGVsbG8=",
        "!own 5",
    ],
)
def test_a_tag_that_asks_for_more_than_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    monkeypatch.chdir(tmp_path)
    name = tag.split(" ", 1)[0].removeprefix("!!")
    with pytest.raises(ConfigFileError) as caught:
        read(tmp_path, f"MODEL:\n  X: {tag}\n")
    assert "config.yaml: line 2: the tag !!" in str(caught.value)
    assert name.removeprefix("!") in str(caught.value)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 4: key 'a' is repeated"),
        ("a: {b: 1, b: 2}\n", "line 1: key 'b' is repeated"),
        ("1: 2\n", "got key 1 in the mapping that ends here, expected a name"),
        ("[1]: 2\n", r"got key \[1\] in the mapping"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", r"line 2: a merge key \(<<\) is not supported"),
        ("a: &x [*x]\n", "line 1: alias 'x' has no anchor before it"),
        ("a: *x\n", "alias 'x' has no anchor before it"),
        ("a: 1\n---\nb: 2\n", "a second document; expected one"),
        ("- 1\n", r"got \[1\] at the top, expected keys and values"),
        ("text\n", "got 'text' at the top"),
        ("a: [1\n", "invalid YAML in line 2"),
        ("a: b: c\n", "invalid YAML in line 1"),
        ("a: \x01\n", "invalid YAML"),
        ("a: !!int x\n", "line 1: 'x' is no int"),
        ("a: " + "9" * 5000 + "\n", "is no int"),
        ("a: !!bool maybe\n", "line 1: 'maybe' is no bool"),
        (b"a: \xff\n", "byte 3 is not UTF-8"),
        ("a: " + "x" * (LONGEST_SCALAR + 1), f"a value of {LONGEST_SCALAR + 1:,} characters"),
        ("a: " + "[" * (DEEPEST + 1), f"nested more than {DEEPEST} deep"),
        ("a: " + "{b: " * 100_000, f"nested more than {DEEPEST} deep"),
        (b"#" * (MOST_BYTES + 1), "more than 1 MiB"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigFileError, match=message):
        read(tmp_path, text)


def test_aliases_of_aliases_do_not_grow(tmp_path: Path) -> None:
    """Nine levels of nine aliases each would be 400 million values."""
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(ConfigFileError, match=f"more than {MOST_VALUES:,} values, aliases written out"):
        read(tmp_path, "\n".join(rows) + "\n")


def test_a_long_list_is_bounded(tmp_path: Path) -> None:
    assert len(read(tmp_path, f"a: [{'1, ' * 1000}]")["a"]) == 1000
    with pytest.raises(ConfigFileError, match="values, aliases written out"):
        read(tmp_path, f"a: [{'1, ' * MOST_VALUES}]")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "none.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path, tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(ConfigFileError, match="not a regular file"):
            read_yaml(path)
