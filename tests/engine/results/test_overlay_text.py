"""Any name can be drawn, also text on which OpenCV would crash the process."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panrt.engine.results.overlay import LONGEST_NAME, drawable
from panrt.engine.results.result import PanopticResult, Timings
from panrt.engine.results.segment import Segment
from panrt.formats.records import shown

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)


def result(name: str, *, is_thing: bool = True) -> PanopticResult:
    segment = Segment(1, 1, name, is_thing, 0.5, 64 * 48, (0, 0, 64, 48))
    return PanopticResult(np.ones((48, 64), np.int32), (segment,), Timings(0, 0, 0), colors={1: (9, 9, 9)})


@pytest.mark.parametrize(
    "name",
    [
        "\ud800x",
        "a\udfff",
        "\0",
        "a\0b",
        "",
        " ",
        "\n\n",
        "\x1b[31m",
        "e\u0301",
        "\U0001f600",
        "\u202e",
        "名前",
        "x" * 10**6,
    ],
    ids=shown,
)
def test_any_name_is_drawn(name: str) -> None:
    for is_thing in (True, False):
        drawn = result(name, is_thing=is_thing).overlay(np.zeros((48, 64, 3), np.uint8), threads=1)
        assert drawn.shape == (48, 64, 3)


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
def test_any_text_is_drawn(name: str) -> None:
    result(name).overlay(np.zeros((48, 64, 3), np.uint8), threads=1)


@given(ANY_TEXT)
def test_what_is_drawn_has_no_part_of_a_character_and_nothing_that_is_no_character(name: str) -> None:
    text = drawable(name)
    assert len(text) == len(name)
    text.encode()
    assert not {"\0", "\n", "\x1b"} & set(text)


def test_ordinary_names_are_drawn_as_they_are() -> None:
    assert drawable("traffic light") == "traffic light"
    assert drawable("y" * 1000) == "y" * LONGEST_NAME
