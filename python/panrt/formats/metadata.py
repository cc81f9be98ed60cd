"""The metadata of a PanRT file: written by the export, read by every runtime.

An ONNX file carries it as JSON in `metadata_props["panrt"]`; an engine in the sidecar beside it, together with what the
engine was built with. Sizes are (height, width) in pixels. Reading needs neither PyTorch nor ONNX.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

from panrt.errors import InputSizeError, ModelFileError
from panrt.formats import records
from panrt.formats.records import shown
from panrt.plugins.schema import MAX_ROWS, MAX_SIDE

KEY = "panrt"  # of metadata_props
IMAGE = "image"  # name of the input of a file
SCHEMA = 1
SIZE_DIVISOR = 32  # of the sides of a network's input
MAX_BATCH = 4096
MAX_CLASSES = 10_000  # of things, and of stuff
MAX_COUNT = 2**31 - 1  # of what the ops count in int32

Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["portable", "tensorrt-10.3"]  # the second has no function bodies, so only TensorRT runs it

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TARGETS: tuple[Target, ...] = get_args(Target)


class Category(NamedTuple):
    """A class as the data set names it."""

    id: int  # the data set's
    name: str
    is_thing: bool
    color: tuple[int, int, int]  # RGB


class FileThresholds(NamedTuple):
    """Thresholds that decide which segments a map has, unless others are set where the file runs."""

    detection_score: float  # a detection below it is dropped before NMS
    detection_nms: float
    max_detections: int
    instance_score: float  # a detection below it does not enter the merge
    instance_overlap: float  # smallest visible part of an instance's mask
    stuff_area: int  # output pixels
    mask: float


class Sizes(NamedTuple):
    """The sizes (height, width) of a network's input and map."""

    input_hw: tuple[int, int]
    valid_hw: tuple[int, int]
    output_hw: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """The metadata of one exported network.

    A row of the merge's segments names `things[category]` or, for stuff, `stuff[category - 1]`.
    """

    name: str  # of the configuration, e.g. "panoptic_fpn_lite"
    things: tuple[Category, ...]  # thing class 0..C-1
    stuff: tuple[Category, ...]  # semantic channel 1..S-1
    batch: int  # images per inference; 0: any
    input_hw: tuple[int, int] | None  # of the input `image`, multiples of 32; None: open
    valid_hw: tuple[int, int] | None  # the part of it that holds the frame, from the upper left; None: all of it
    output_hw: tuple[int, int] | None  # of the panoptic map; None: that of the valid part
    pixel_format: Literal["bgr8"] = "bgr8"
    pixel_mean: tuple[float, float, float]  # BGR, 0..255; applied in the graph
    pixel_std: tuple[float, float, float]
    thresholds: FileThresholds
    precision: Precision
    target: Target = "portable"
    opset: int
    provenance: str  # of the weights, and what exported them

    @cached_property
    def categories(self) -> tuple[Category, ...]:
        """Things, then stuff."""
        return (*self.things, *self.stuff)

    def category(self, index: int, *, is_thing: bool) -> Category:
        """Return the class that a row of the merge's segments names."""
        return self.things[index] if is_thing else self.stuff[index - 1]

    @property
    def sizes(self) -> Sizes:
        """The sizes of a file whose input size is fixed.

        Raises:
            InputSizeError: it is open; `sized` returns the metadata at a chosen size.
        """
        if self.input_hw is None:
            raise InputSizeError(f"{self.name}: its input size is open; choose one first.")
        valid_hw = self.valid_hw or self.input_hw
        return Sizes(self.input_hw, valid_hw, self.output_hw or valid_hw)


def sized(file: ModelFile, input_hw: tuple[int, int] | None, *, source: str) -> ModelFile:
    """Return the metadata at an input size: the file's, or the chosen one if it is open.

    Args:
        file: the metadata as read.
        input_hw: the chosen size; None: none.
        source: names the file in messages.

    Raises:
        InputSizeError: it has another size, or it is open and none is chosen, or an invalid one.
    """
    if file.input_hw is not None:
        if input_hw not in (None, file.input_hw):
            raise InputSizeError(
                f"{source}: its input is {_text(file.input_hw)} (height x width) and cannot be {_text(input_hw)}; "
                "leave the size out, or export the model again, at that size or with --dynamic."
            )
        return file
    if input_hw is None:
        raise InputSizeError(
            f"{source}: leaves the size of its input open; choose one, multiples of {SIZE_DIVISOR}: --height 512 "
            "--width 1024, in Python input_hw=(512, 1024)."
        )
    for name, side in zip(("height", "width"), input_hw, strict=True):
        if (problem := side_problem(name, side)) is not None:
            raise InputSizeError(f"{source}: {problem}")
    return dataclasses.replace(file, input_hw=input_hw, valid_hw=input_hw, output_hw=input_hw)


def side_problem(name: str, side: int) -> str | None:
    """Return why a network's input cannot have a side of this length; None if it can."""
    if side % SIZE_DIVISOR == 0 and SIZE_DIVISOR <= side <= MAX_SIDE:
        return None
    low = min(max(side // SIZE_DIVISOR, 1) * SIZE_DIVISOR, MAX_SIDE - SIZE_DIVISOR)
    return (
        f"{name}: got {side}, expected a multiple of {SIZE_DIVISOR} from {SIZE_DIVISOR} to {MAX_SIDE}; near it are "
        f"{low} and {low + SIZE_DIVISOR}."
    )


def _text(hw: tuple[int, int]) -> str:
    return f"{hw[0]}x{hw[1]}"


def dumps(file: ModelFile) -> str:
    """Return the metadata as JSON, with the schema version first."""
    return json.dumps({"schema": SCHEMA, **to_json(file)})


def to_json(file: ModelFile) -> dict[str, Any]:
    """Return the fields as plain data, as the file and `--json` have them; an open size is (0, 0)."""
    fields = dataclasses.asdict(file)
    for name in ("things", "stuff"):
        fields[name] = [category._asdict() for category in getattr(file, name)]
    fields["thresholds"] = file.thresholds._asdict()
    for name in Sizes._fields:  # [0, 0] in the file
        fields[name] = fields[name] or (0, 0)
    return fields


def loads(text: str | bytes, *, source: str) -> ModelFile:
    """Read what `dumps` wrote; `source` names the file in messages.

    Raises:
        ModelFileError: not JSON, another schema, or a field that is missing, unknown, of the wrong type or range.
    """
    data = records.parse(
        text, source=f"{source}: its PanRT metadata", error=ModelFileError, cure="export the model again"
    )
    return from_json(data, source=source)


def from_json(data: Any, *, source: str) -> ModelFile:
    """Read the metadata from parsed JSON; otherwise as `loads`."""
    if not isinstance(data, dict):
        raise ModelFileError(f"{source}: its PanRT metadata is {type(data).__name__}, expected an object.")
    schema = data.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise ModelFileError(
            f"{source}: written with metadata schema {shown(schema)}, this PanRT reads up to {SCHEMA}; upgrade panrt, "
            "or export the model again with this version."
        )
    if schema != SCHEMA or type(schema) is not int:
        raise ModelFileError(
            f"{source}: metadata schema: got {shown(schema)}, expected {SCHEMA}; export the model again."
        )
    reader = _Reader(source, {name: value for name, value in data.items() if name != "schema"})
    reader.expect({field.name for field in dataclasses.fields(ModelFile)})
    file = ModelFile(
        name=reader.name("name"),
        things=reader.categories("things", are_things=True),
        stuff=reader.categories("stuff", are_things=False),
        batch=reader.integer("batch", at_most=MAX_BATCH),
        input_hw=reader.size("input_hw"),
        valid_hw=reader.size("valid_hw"),
        output_hw=reader.size("output_hw"),
        pixel_format=reader.choice("pixel_format", ("bgr8",)),
        pixel_mean=reader.channels("pixel_mean"),
        pixel_std=reader.channels("pixel_std"),
        thresholds=reader.thresholds("thresholds"),
        precision=reader.choice("precision", PRECISIONS),
        target=reader.choice("target", TARGETS),
        opset=reader.integer("opset"),
        provenance=reader.text("provenance"),
    )
    if (problem := _conflict(file)) is not None:
        raise ModelFileError(f"{source}: metadata {problem}; export the model again.")
    return file


def _conflict(file: ModelFile) -> str | None:
    """Return which fields contradict each other or have a value that no network can have; None if none."""
    if file.input_hw is None:
        for name in ("valid_hw", "output_hw"):
            if (size := getattr(file, name)) is not None:
                return f"{name}: got {list(size)}, expected [0, 0], as input_hw is [0, 0]: open"
    else:
        for name, side in zip(("height", "width"), file.input_hw, strict=True):
            if (problem := side_problem(name, side)) is not None:
                return f"input_hw: {problem.rstrip('.')}"
        for name, limits in (("valid_hw", file.input_hw), ("output_hw", (MAX_SIDE, MAX_SIDE))):
            size = getattr(file, name)
            if size is not None and not all(1 <= side <= limit for side, limit in zip(size, limits, strict=True)):
                return f"{name}: got {list(size)}, expected sides from 1 to {limits[0]} and {limits[1]}"
    if not all(std > 0 for std in file.pixel_std):
        return f"pixel_std: got {list(file.pixel_std)}, expected numbers above 0, as pixels are divided by them"
    for what in ("id", "name"):
        met: dict[object, str] = {}
        for group in ("things", "stuff"):
            for index, category in enumerate(getattr(file, group)):
                value, place = getattr(category, what), f"{group}[{index}]"
                if met.setdefault(value, place) != place:
                    return f"{place} {what}: {shown(value)} is that of {met[value]} too; classes need one of their own"
    return None


class _Reader:
    """Typed access to the fields of an object, with errors that name file and field."""

    def __init__(self, source: str, data: dict[str, Any]) -> None:
        self.source = source
        self.data = data

    def expect(self, names: set[str]) -> None:
        for problem, wrong in (("missing", names - self.data.keys()), ("unknown", self.data.keys() - names)):
            if wrong:
                raise ModelFileError(
                    f"{self.source}: metadata: {problem} field {records.names(wrong)}; export the model again."
                )

    def text(self, name: str) -> str:
        value = records.paragraph(self.data[name])
        if value is None:
            raise self._wrong(name, "text, printable and not very long")
        return value

    def name(self, name: str) -> str:
        value = records.line(self.data[name])
        if not value or value.isspace():
            raise self._wrong(name, "a name: one line of printable text")
        return value

    def integer(self, name: str, *, at_most: int = MAX_COUNT) -> int:
        value = self.data[name]
        if type(value) is not int or not 0 <= value <= at_most:
            raise self._wrong(name, "an integer from 0" if at_most == MAX_COUNT else f"an integer from 0 to {at_most}")
        return value

    def number(self, name: str) -> float:
        value = records.real(self.data[name])
        if value is None:
            raise self._wrong(name, "a number")
        return value

    def share(self, name: str) -> float:
        value = self.number(name)
        if not 0 <= value <= 1:
            raise self._wrong(name, "a number from 0 to 1")
        return value

    def choice(self, name: str, choices: tuple[Any, ...]) -> Any:
        value = self.data[name]
        if not isinstance(value, str) or value not in choices:
            raise self._wrong(name, " or ".join(map(repr, choices)))
        return value

    def size(self, name: str) -> tuple[int, int] | None:
        height, width = self._integers(name, 2, MAX_SIDE)
        return (height, width) if height or width else None

    def channels(self, name: str) -> tuple[float, float, float]:
        values = self._list(name, 3, "numbers")
        numbers = [number for value in values if (number := records.real(value)) is not None]
        if len(numbers) != len(values):
            raise self._wrong(name, "3 numbers")
        blue, green, red = numbers
        return blue, green, red

    def thresholds(self, name: str) -> FileThresholds:
        reader = self._inner(name, self.data[name], FileThresholds._fields)
        return FileThresholds(
            detection_score=reader.number("detection_score"),
            detection_nms=reader.share("detection_nms"),
            max_detections=reader.integer("max_detections", at_most=MAX_ROWS),
            instance_score=reader.number("instance_score"),
            instance_overlap=reader.share("instance_overlap"),
            stuff_area=reader.integer("stuff_area"),
            mask=reader.share("mask"),
        )

    def categories(self, name: str, *, are_things: bool) -> tuple[Category, ...]:
        items = self.data[name]
        if not isinstance(items, list) or len(items) > MAX_CLASSES:
            raise self._wrong(name, f"a list of up to {MAX_CLASSES} classes")
        rows = []
        for index, item in enumerate(items):
            reader = self._inner(f"{name}[{index}]", item, Category._fields)
            if reader.data["is_thing"] is not are_things:
                raise reader._wrong("is_thing", repr(are_things))
            red, green, blue = reader._integers("color", 3, 255)
            rows.append(Category(reader.integer("id"), reader.name("name"), are_things, (red, green, blue)))
        return tuple(rows)

    def _inner(self, name: str, value: Any, fields: tuple[str, ...]) -> _Reader:
        if not isinstance(value, dict):
            raise ModelFileError(f"{self.source}: metadata {name}: got {shown(value)}, expected an object.")
        reader = _Reader(f"{self.source}: {name}", value)
        reader.expect(set(fields))
        return reader

    def _list(self, name: str, count: int, of: str) -> list[Any]:
        value = self.data[name]
        if not isinstance(value, list) or len(value) != count:
            raise self._wrong(name, f"{count} {of}")
        return value

    def _integers(self, name: str, count: int, at_most: int) -> list[int]:
        expected = f"integers from 0 to {at_most}"
        values = self._list(name, count, expected)
        if not all(type(value) is int and 0 <= value <= at_most for value in values):
            raise self._wrong(name, f"{count} {expected}")
        return values

    def _wrong(self, name: str, expected: str) -> ModelFileError:
        return ModelFileError(f"{self.source}: metadata {name}: got {shown(self.data[name])}, expected {expected}.")
