"""What a PanRT file says about itself survives writing and reading, and nothing else passes for it."""

import dataclasses
import json

import pytest

from panrt.errors import InputSizeError, ModelFileError
from panrt.formats import records
from panrt.formats.metadata import dumps, loads, side_problem, sized
from tools import model_files

FILE = model_files.make()


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(dumps(FILE)), **fields})


def test_reading_gives_what_was_written() -> None:
    assert loads(dumps(FILE), source="a.onnx") == FILE


def test_a_category_is_found_from_a_row_of_the_segments() -> None:
    assert FILE.category(1, is_thing=True).name == "bottle"
    assert FILE.category(1, is_thing=False).name == "floor"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"^a\.onnx: its PanRT metadata: invalid JSON"),
        ("[]", r"is list, expected an object"),
        (changed(schema=2), r"schema 2, this PanRT reads up to 1; upgrade"),
        (changed(schema="1"), r"metadata schema: got '1', expected 1"),
        (changed(batch=-1), r"metadata batch: got -1, expected an integer from 0"),
        (changed(batch=True), r"metadata batch: got True"),
        (changed(input_hw=[256]), r"metadata input_hw: got \[256\], expected 2 integers"),
        (changed(pixel_mean=[1, 2, float("nan")]), r"its PanRT metadata: invalid JSON .*NaN is not a JSON number"),
        (changed(precision="bf16"), r"precision: got 'bf16', expected 'fp32' or 'fp16' or 'int8'"),
        (changed(colour="red"), r"unknown field colour"),
        (changed(thresholds={}), r"a\.onnx: thresholds: metadata: missing field detection_nms"),
        (changed(things=[{"id": 1, "name": "mug", "is_thing": False, "color": [0, 0, 0]}]), r"things\[0\].* is_thing"),
    ],
)
def test_what_is_not_ours_is_refused_by_the_name_of_the_field(text: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        loads(text, source="a.onnx")


OPEN = dataclasses.replace(FILE, input_hw=None, valid_hw=None, output_hw=None)


def test_a_file_of_one_size_keeps_it() -> None:
    assert sized(FILE, None, source="a.onnx") is FILE
    assert sized(FILE, (256, 320), source="a.onnx") is FILE
    with pytest.raises(
        InputSizeError, match=r"^a\.onnx: its input is 256x320 \(height x width\) and cannot be 320x256; "
    ):
        sized(FILE, (320, 256), source="a.onnx")


def test_an_open_file_takes_the_size_that_is_chosen_for_all_of_its_sizes() -> None:
    found = sized(OPEN, (512, 1024), source="a.onnx")
    assert found == dataclasses.replace(FILE, input_hw=(512, 1024), valid_hw=(512, 1024), output_hw=(512, 1024))
    with pytest.raises(
        InputSizeError, match=r"^a\.onnx: leaves the size of its input open; choose one, multiples of 32"
    ):
        sized(OPEN, None, source="a.onnx")
    with pytest.raises(InputSizeError, match=r"^a\.onnx: height: got 500, expected a multiple of 32"):
        sized(OPEN, (500, 1024), source="a.onnx")


@pytest.mark.parametrize(
    ("side", "near"), [(0, "32 and 64"), (-64, "32 and 64"), (500, "480 and 512"), (32800, "32736 and 32768")]
)
def test_a_side_that_does_not_do_has_good_ones_near_it(side: int, near: str) -> None:
    assert side_problem("width", side) == (
        f"width: got {side}, expected a multiple of 32 from 32 to 32768; near it are {near}."
    )
    assert all(side_problem("width", int(good)) is None for good in near.split(" and "))


# Text and numbers that somebody else wrote


def named(name: object) -> str:
    things = json.loads(dumps(FILE))["things"]
    return changed(things=[{**things[0], "name": name}, things[1]])


@pytest.mark.parametrize(
    "name",
    ["\ud800x", "\udfff", "\0", "a\nb", "\x1b[31m", "\x7f", "\u2028", "\u0085", "", "  ", "x" * 10**6, None, 7, ["a"]],
    ids=records.shown,
)
def test_a_class_is_named_by_one_line_of_text(name: object) -> None:
    with pytest.raises(ModelFileError, match=r"^a\.onnx: things\[0\]: metadata name: got ") as caught:
        loads(named(name), source="a.onnx")
    said = str(caught.value)
    assert len(said) < 300
    assert said.isprintable()


def test_names_of_all_scripts_do() -> None:
    for name in ("traffic light", "e\u0301", "道路", "\U0001f600", "a/b", "<script>"):
        assert loads(named(name), source="a.onnx").things[0].name == name


def classes(*pairs: tuple[int, str], is_thing: bool = True) -> list[dict[str, object]]:
    return [{"id": id_, "name": name, "is_thing": is_thing, "color": [0, 0, 0]} for id_, name in pairs]


MUG = classes((1, "mug"))[0]
THRESHOLDS = FILE.thresholds._asdict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"things": classes((1, "mug"), (1, "cup"))}, r"things\[1\] id: 1 is that of things\[0\] too"),
        ({"things": classes((1, "mug"), (2, "mug"))}, r"things\[1\] name: 'mug' is that of things\[0\] too"),
        ({"things": classes((9, "mug"))}, r"stuff\[0\] id: 9 is that of things\[0\] too"),
        ({"things": classes((1, "floor"))}, r"stuff\[0\] name: 'floor' is that of things\[0\] too"),
        ({"things": classes((-1, "mug"))}, r"things\[0\]: metadata id: got -1, expected an integer from 0"),
        ({"things": classes((2**40, "mug"))}, r"things\[0\]: metadata id: got 1099511627776"),
        ({"things": [{**MUG, "color": [256, 0, 0]}]}, r"color: got \[256, 0, 0\], expected 3 integers from 0 to 255"),
        ({"things": [{**MUG, "color": [True, 0, 0]}]}, r"color: got \[True, 0, 0\]"),
        ({"things": [[]] * 10_001}, r"metadata things: got .* expected a list of up to 10000 classes"),
        ({"name": "a\x1b[2J"}, r"metadata name: got 'a\\x1b\[2J', expected a name"),
        ({"provenance": "\ud800"}, r"metadata provenance: got .* expected text"),
        ({"provenance": "x" * 10**6}, r"metadata provenance: got .* expected text"),
        ({"pixel_mean": [10**400, 1, 1]}, r"metadata pixel_mean: got .* expected 3 numbers"),
        ({"pixel_std": [1, 0, 1]}, r"metadata pixel_std: got \[1.0, 0.0, 1.0\], expected numbers above 0"),
        ({"input_hw": [10**400, 32]}, r"metadata input_hw: got .* expected 2 integers from 0 to 32768"),
        ({"input_hw": [256, 100]}, r"metadata input_hw: width: got 100, expected a multiple of 32"),
        ({"input_hw": [0, 0]}, r"metadata valid_hw: got \[240, 320\], expected \[0, 0\]"),
        ({"input_hw": [256, 0]}, r"metadata input_hw: width: got 0, expected a multiple of 32"),
        ({"valid_hw": [512, 512]}, r"metadata valid_hw: got \[512, 512\], expected sides from 1 to 256 and 320"),
        ({"valid_hw": [0, 5]}, r"metadata valid_hw: got \[0, 5\]"),
        ({"batch": 10**6}, r"metadata batch: got 1000000, expected an integer from 0 to 4096"),
        ({"precision": []}, r"metadata precision: got \[\], expected 'fp32'"),
        ({"thresholds": {**THRESHOLDS, "mask": 1.5}}, r"metadata mask: got 1.5, expected a number from 0 to 1"),
        ({"thresholds": {**THRESHOLDS, "stuff_area": 2**31}}, r"metadata stuff_area: got 2147483648"),
        ({"\x1b]0;x": 1}, r"metadata: unknown field '\\x1b\]0;x'"),
    ],
    ids=[str(number) for number in range(25)],
)
def test_a_value_that_no_network_has_is_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(
        ModelFileError, match=rf"^a\.onnx: (things\[0\]: |thresholds: )?(metadata )?{message}"
    ) as caught:
        loads(changed(**fields), source="a.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, '{"schema":1,"a":' + "9" * 5000 + "}", b"\xff", ""], ids=records.shown
)
def test_json_that_cannot_be_read_is_one_line(text: str | bytes) -> None:
    with pytest.raises(ModelFileError, match=r"^a\.onnx: its PanRT metadata: invalid JSON") as caught:
        loads(text, source="a.onnx")
    assert "sys." not in str(caught.value)


def test_many_classes_are_read_in_one_go() -> None:
    things = classes(*((number, f"class {number}") for number in range(10_000)))
    assert len(loads(changed(things=things, stuff=[]), source="a.onnx").things) == 10_000


def test_an_open_size_is_two_zeros_in_the_file_and_none_in_python() -> None:
    written = json.loads(dumps(OPEN))
    assert written["input_hw"] == written["valid_hw"] == written["output_hw"] == [0, 0]
    assert loads(dumps(OPEN), source="a.onnx") == OPEN
    with pytest.raises(InputSizeError, match="its input size is open; choose one first"):
        _ = OPEN.sizes


def test_a_valid_part_and_a_map_that_are_not_given_are_all_of_the_input() -> None:
    assert dataclasses.replace(FILE, valid_hw=None, output_hw=None).sizes == ((256, 320), (256, 320), (256, 320))
    assert dataclasses.replace(FILE, output_hw=None).sizes == ((256, 320), (240, 320), (240, 320))
