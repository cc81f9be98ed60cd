"""JSON becomes the classes that it describes, or one line that names the value."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panrt.formats.decoding import decode, encode
from panrt.formats.records import LARGEST_WHOLE


class Point(NamedTuple):
    x: int
    y: float = 0.5


@dataclass(frozen=True)
class Square:
    corner: Point
    side: float

    def __post_init__(self) -> None:
        if self.side < 0:
            raise ValueError(f"side: got {self.side}, expected no negative number")


@dataclass(frozen=True)
class Circle:
    middle: Point
    filled: bool


@dataclass(frozen=True)
class Drawing:
    name: str
    shapes: tuple[Square | Circle, ...]
    size: tuple[int, int] | None
    unit: Literal["mm", "inch"]
    notes: dict[str, Point]


POINTS = st.builds(Point, st.integers(-100, LARGEST_WHOLE), st.floats(allow_nan=False, allow_infinity=False))
DRAWINGS = st.builds(
    Drawing,
    st.text("abc dé", max_size=9),
    st.lists(st.builds(Square, POINTS, st.floats(0, 9)) | st.builds(Circle, POINTS, st.booleans())).map(tuple),
    st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.sampled_from(["mm", "inch"]),
    st.dictionaries(st.text("abc", max_size=3), POINTS, max_size=3),
)
ONE: dict[str, Any] = {
    "type": "Drawing",
    "name": "a",
    "shapes": [{"type": "Square", "corner": {"x": 1, "y": 2}, "side": 3}],
    "size": [1, 2],
    "unit": "mm",
    "notes": {},
}


@given(DRAWINGS)
def test_a_value_reads_back_equal(drawing: Drawing) -> None:
    notes = {name: encode(point) for name, point in drawing.notes.items()}
    written = json.loads(json.dumps({**encode(drawing), "notes": notes}))
    assert decode(Drawing, written, source="a.json") == drawing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "a.json: name: got 1, expected one line of printable text"),
        ({"name": "a\x1b[2J"}, r"a.json: name: got 'a\x1b[2J', expected one line of printable text"),
        ({"size": [1]}, "a.json: size: got [1], expected a list of 2"),
        ({"size": [1, 2.5]}, "a.json: size[1]: got 2.5, expected an integer"),
        ({"size": [True, 2]}, "a.json: size[0]: got True, expected an integer"),
        ({"size": 7}, "a.json: size: got 7, expected a list of 2"),
        ({"unit": "mile"}, "a.json: unit: got 'mile', expected 'mm' or 'inch'"),
        ({"unit": ["mm"]}, "a.json: unit: got ['mm'], expected 'mm' or 'inch'"),
        ({"shapes": {}}, "a.json: shapes: got {}, expected a list"),
        ({"shapes": [{"type": "Star"}]}, "a.json: shapes[0]: got type 'Star', expected one of Square, Circle"),
        ({"shapes": [7]}, "a.json: shapes[0]: got type None, expected one of Square, Circle"),
        (
            {"shapes": [{**ONE["shapes"][0], "corner": 7}]},
            "a.json: shapes[0].corner: got 7, expected an object with the fields of Point",
        ),
        (
            {"shapes": [{**ONE["shapes"][0], "side": -1}]},
            "a.json: shapes[0]: side: got -1.0, expected no negative number",
        ),
        ({"shapes": [{**ONE["shapes"][0], "side": 10**400}]}, "a.json: shapes[0].side: got 1"),
        ({"notes": {"b": {"x": 1}}}, "a.json: notes.b: missing field y of Point"),
        ({"notes": {"\x1b]": {"x": 1}}}, r"a.json: notes: got {'\x1b]': {'x': 1}}, expected an object"),
        ({"color": 1}, "a.json: unknown field color of Drawing"),
        ({"type": "Square"}, "a.json: unknown field type of Drawing"),
    ],
)
def test_a_value_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}") as caught:
        decode(Drawing, {**ONE, **change}, source="a.json")
    assert str(caught.value).isprintable()


def test_integers_have_a_least_one_and_fields_may_be_optional() -> None:
    with pytest.raises(ValueError, match=r"^a: x: got -1, expected an integer from 0$"):
        decode(Point, {"x": -1, "y": 1}, source="a", least=0)
    assert decode(Point, {"x": 809.0}, source="a", optional=("y",)) == Point(809)
    with pytest.raises(ValueError, match="missing field x"):
        decode(Point, {}, source="a", optional=("y",))


def test_a_type_may_have_a_reader_of_its_own() -> None:
    found = decode(tuple[Point, ...], [3], source="a", readers={Point: lambda value, where: (where, value)})
    assert found == (("a: [0]", 3),)
