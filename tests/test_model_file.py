"""What a PanRT file says about itself survives writing and reading, and nothing else passes for it."""

import dataclasses
import json

import pytest

from panrt.model_file import (
    Category,
    InputSizeError,
    ModelFile,
    ModelFileError,
    Thresholds,
    dumps,
    loads,
    side_problem,
    sized,
)

FILE = ModelFile(
    name="panoptic_fpn_lite",
    things=(Category(1, "mug", True, (255, 0, 0)), Category(2, "bottle", True, (0, 255, 0))),
    stuff=(Category(9, "floor", False, (0, 0, 255)),),
    batch=1,
    input_hw=(256, 320),
    valid_hw=(240, 320),
    output_hw=(480, 640),
    pixel_mean=(103.5, 116.25, 123.0),
    pixel_std=(1.0, 1.0, 1.0),
    thresholds=Thresholds(0.05, 0.5, 100, 0.5, 0.5, 4096, 0.5),
    precision="fp16",
    opset=21,
    provenance="random weights",
)


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
        ("{", r"^a\.onnx: its PanRT metadata: not JSON"),
        ("[]", r"is list, expected an object"),
        (changed(schema=2), r"schema 2, this PanRT reads up to 1; upgrade"),
        (changed(schema="1"), r"metadata schema: got '1', expected 1"),
        (changed(batch=-1), r"metadata batch: got -1, expected an integer from 0"),
        (changed(batch=True), r"metadata batch: got True"),
        (changed(input_hw=[256]), r"metadata input_hw: got \[256\], expected 2 integers"),
        (changed(pixel_mean=[1, 2, float("nan")]), r"its PanRT metadata: not JSON .*NaN is not a JSON number"),
        (changed(precision="bf16"), r"precision: got 'bf16', expected 'fp32' or 'fp16' or 'int8'"),
        (changed(colour="red"), r"unknown field colour"),
        (changed(thresholds={}), r"a\.onnx: thresholds: metadata: missing field detection_nms"),
        (changed(things=[{"id": 1, "name": "mug", "is_thing": False, "color": [0, 0, 0]}]), r"things\[0\].* is_thing"),
    ],
)
def test_what_is_not_ours_is_refused_by_the_name_of_the_field(text: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        loads(text, source="a.onnx")


OPEN = dataclasses.replace(FILE, input_hw=(0, 0), valid_hw=(0, 0), output_hw=(0, 0))


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
