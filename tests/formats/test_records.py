"""JSON from files: every way in which it can be wrong ends in one typed line."""

from __future__ import annotations

import os
import subprocess

import pytest

from panrt.errors import PanrtError
from panrt.formats import records
from panrt.formats.records import argument, names


class FileError(PanrtError):
    pass


def parse(content: str | bytes) -> object:
    return records.parse(content, source="a.json", error=FileError, cure="write it again")


@pytest.mark.parametrize("content", ['{"a": 1}', b'{"a": 1}', b'\xef\xbb\xbf{"a": 1}', '\ufeff{"a": 1}'])
def test_json_is_read_with_and_without_a_byte_order_mark(content: str | bytes) -> None:
    assert parse(content) == {"a": 1}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        b"\xff\xfe{",
        "NaN",
        "[Infinity]",
        "[-Infinity]",
        "1" * 5000,
        '"\x00"',
    ],
    ids=lambda content: repr(content[:8]),
)
def test_unreadable_json_is_one_typed_line(content: str | bytes) -> None:
    with pytest.raises(FileError, match=r"^a\.json: invalid JSON \(.*\); write it again\.$") as caught:
        parse(content)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((3, 3), (-3, -3), (809.0, 809), (0.5, None), (True, None), ("3", None), (None, None), (10**400, None)),
        *((1e300, None), (float("nan"), None), (2**53, 2**53), (2**53 + 1, None)),
    ],
)
def test_whole_numbers(value: object, expected: int | None) -> None:
    assert records.whole(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3.0), (0.5, 0.5), (False, None), ("1", None), (10**400, None), (float("inf"), None), (float("nan"), None)],
)
def test_real_numbers(value: object, expected: float | None) -> None:
    assert records.real(value) == expected


@pytest.mark.parametrize("text", ["a cup", "Straße", "交通", "👩‍🚒", ""])
def test_text_of_people_passes(text: str) -> None:
    assert records.line(text) == text


@pytest.mark.parametrize("value", ["\ud800x", "a\x00", "\x1b[2J", "a\nb", "\u2028", "x" * 1001, 3, None, b"bytes"])
def test_text_that_harms_a_terminal_or_a_drawing_does_not_pass(value: object) -> None:
    assert records.line(value) is None


def test_paragraphs_may_have_line_breaks_and_nothing_else() -> None:
    assert records.paragraph("a\n\tb") == "a\n\tb"
    assert records.paragraph("a\x1b") is None


@pytest.mark.parametrize(
    "value",
    [10**5000, "x" * 10**6, [[[[[[1]]]]]] * 1000, "\ud800", "a\nb\x1b", {"a": {"b": {}}}],
    ids=["digits", "long", "deep", "surrogate", "controls", "object"],
)
def test_shown_values_are_one_short_printable_line(value: object) -> None:
    text = records.shown(value)
    assert len(text) < 500
    assert records.line(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cup", "a cup"),
        ("Straße/交通", "Straße/交通"),
        ("a\nb\t\x1b[2J", r"a\nb\t\x1b[2J"),
        (os.fsdecode(b"\xff\xfea"), r"\xff\xfea"),
        ("\ud800", r"\ud800"),
        ("\u2028", r"\u2028"),
    ],
)
def test_names_are_shown_on_one_line_with_the_rest_escaped(text: str, expected: str) -> None:
    assert records.legible(text) == expected
    assert records.line(records.legible(text)) is not None


@pytest.mark.parametrize(
    "text", ["a.onnx", "a b", "'", "$(x)", "`x`", "\n", "a\x1b[31m'", "-rf", "\\", "é", "\udcff", "!", "*"], ids=ascii
)
def test_an_argument_is_one_word_that_a_shell_reads_back(text: str) -> None:
    shown_text = argument(text)
    assert shown_text.isprintable()
    said = subprocess.run(["bash", "-c", f"printf %s {shown_text}"], capture_output=True, check=True).stdout
    expected = f"./{text}" if text.startswith("-") else text
    assert said == expected.encode("utf-8", "surrogateescape")


def test_an_argument_that_no_file_can_have_is_shown_too() -> None:
    assert argument("\ud800") == "$'\\x3f'"


def test_a_message_keeps_its_lines_and_nothing_else_that_moves_a_cursor() -> None:
    assert records.legible_lines("no such file\n  \x1b[2Jé\r") == "no such file\n  \\x1b[2Jé\\r"


def test_names_are_listed_on_one_short_line() -> None:
    assert names(["b", "a"]) == "a, b"
    assert names([f"f{i}" for i in range(9)]) == "f0, f1, f2, f3, f4, f5, f6, f7 and 1 more"
    assert names(["\x1b[31m", "x" * 10**6]).isprintable()
    assert len(names(["x" * 10**6] * 10**4)) < 1000
