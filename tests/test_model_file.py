"""What a PanRT file says about itself survives writing and reading, and nothing else passes for it."""

import json

import pytest

from panrt.model_file import Category, ModelFile, ModelFileError, Thresholds, dumps, loads

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
        ("{", r"^a\.onnx: its PanRT metadata is not JSON"),
        ("[]", r"is list, expected an object"),
        (changed(schema=2), r"schema 2, this PanRT reads up to 1; upgrade"),
        (changed(schema="1"), r"metadata schema: got '1', expected 1"),
        (changed(batch=-1), r"metadata batch: got -1, expected an integer from 0"),
        (changed(batch=True), r"metadata batch: got True"),
        (changed(input_hw=[256]), r"metadata input_hw: got \[256\], expected 2 integers"),
        (changed(pixel_mean=[1, 2, float("nan")]), r"metadata pixel_mean: .* expected 3 numbers"),
        (changed(precision="bf16"), r"precision: got 'bf16', expected 'fp32' or 'fp16' or 'int8'"),
        (changed(colour="red"), r"unknown field colour"),
        (changed(thresholds={}), r"a\.onnx: thresholds: metadata: missing field detection_nms"),
        (changed(things=[{"id": 1, "name": "mug", "is_thing": False, "color": [0, 0, 0]}]), r"things\[0\].* is_thing"),
    ],
)
def test_what_is_not_ours_is_refused_by_the_name_of_the_field(text: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        loads(text, source="a.onnx")
