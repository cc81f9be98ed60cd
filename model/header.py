"""The header of a `.safetensors` file, read and checked without PyTorch and without its tensors.

The format (https://huggingface.co/docs/safetensors): eight bytes with the length of a JSON object, the object, the
tensors one after the other. A PanRT model file has in its metadata an entry "panrt", JSON with the configuration.
"""

from __future__ import annotations

import math
import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from panrt.errors import CheckpointError
from panrt.files import PACKAGE
from panrt.formats import records
from panrt.hub import catalogue
from panrt.hub import weights as hub_weights
from panrt.hub.watch import StandardError
from panrt.model.config import PanopticFPNConfig, from_json, make_config

SCHEMA = 1
LONGEST_HEADER = 4 * 2**20  # bytes of JSON; that of 10,000 tensors has 1 MB
ITEM_SIZES = MappingProxyType(
    {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8}
)

OTHERS = (".pkl", ".pth", ".pt", ".ckpt", ".bin")  # suffixes of weights that are not PanRT's

# Bundled models by name; weights/README.md describes them. A wheel has their weights once, in the ONNX file.
BUNDLED: Mapping[str, Path] = MappingProxyType(
    {"tabletop": Path(__file__).parent / "weights" / "tabletop.safetensors"},
)
EXPORTED: Mapping[str, Path] = MappingProxyType({"tabletop": PACKAGE / "models" / "tabletop.onnx"})


class Header(NamedTuple):
    """The header of a PanRT model file."""

    config: PanopticFPNConfig
    provenance: str  # where the weights come from, as text; "" if unknown
    shapes: Mapping[str, tuple[int, ...]]  # of its tensors; empty for weights of the catalogue


class TensorsHeader(NamedTuple):
    """The header of any safetensors file."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


def locate(model: str | os.PathLike[str]) -> Path:
    """Return the file of a model by its name; anything else is a path already, `./tabletop` too.

    The weights of a model of the catalogue are downloaded if they are not in the cache.

    Raises:
        DownloadError, NoCacheFolderError: they cannot be.
    """
    name = os.fspath(model)
    if (entry := catalogue.find(name)) is not None:
        return hub_weights.obtain(entry, StandardError()).path
    if name in BUNDLED and not BUNDLED[name].is_file():
        return EXPORTED[name]
    return BUNDLED.get(name, Path(name))


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return the header of a PanRT model file; its tensors are not read.

    Raises:
        CheckpointError: not a PanRT model file, or of a later schema.
        OSError: from the file system.
    """
    path = Path(path)
    if path in EXPORTED.values():
        return _exported_header(path)
    if (entry := hub_weights.entry_of(path)) is not None:
        return Header(make_config(entry.config), catalogue.provenance(entry), {})
    if path.suffix.lower() in OTHERS and path.is_file():
        raise CheckpointError(f"{path}: not a PanRT model file; make one of it: {_convert(path)}")
    header = read_tensors_header(path)
    if "panrt" not in header.metadata:
        raise CheckpointError(
            f"{path}: no 'panrt' entry in its metadata, so it is not a PanRT model file; if it holds weights of "
            f"detectron2, make one of it: {_convert(path)}"
        )
    where = f"{path}: metadata 'panrt'"
    cure = "save or convert the model again"
    content = records.parse(header.metadata["panrt"], source=where, error=CheckpointError, cure=cure)
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: got {records.shown(content)}, expected an object; {cure}.")
    if (schema := content.get("schema")) != SCHEMA or type(schema) is not int:
        raise CheckpointError(
            f"{where}: schema {records.shown(schema)}, expected {SCHEMA}; read it with the PanRT that wrote it."
        )
    provenance = records.paragraph(content.get("provenance", ""))
    if provenance is None:
        raise CheckpointError(f"{where}: provenance: got {records.shown(content['provenance'])}, expected a text.")
    try:
        config = from_json(content.get("config"))
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error
    return Header(config, provenance, header.shapes)


def _exported_header(path: Path) -> Header:
    """Return the header of a bundled ONNX file; its network has the configuration of its name."""
    from panrt.formats.onnx_file import read_onnx  # noqa: PLC0415 - slow to import, and seldom needed

    exported = read_onnx(path)
    shapes = {weight.name: tuple(weight.dims) for weight in exported.proto.graph.initializer}
    return Header(make_config(exported.file.name), exported.file.provenance, shapes)


def _convert(path: Path) -> str:
    """Return the command that converts weights to a PanRT model file."""
    return f"panrt convert {shlex.quote(str(path))} -o model.safetensors --config CONFIG"


def read_tensors_header(path: Path) -> TensorsHeader:
    """Return the header of a safetensors file, checked against the file's size.

    Raises:
        CheckpointError: it is not a safetensors file, or its tensors do not match the header; OSError.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path}: not a regular file.")
        length = int.from_bytes(file.read(8), "little")
        if status.st_size < 10 or length > status.st_size - 8:
            raise CheckpointError(f"{path}: not a safetensors file, or cut short.")
        if length > LONGEST_HEADER:
            raise CheckpointError(f"{path}: its header has {length} bytes, expected at most {LONGEST_HEADER}.")
        text = file.read(length)
    content = records.parse(
        text, source=f"{path}: header", error=CheckpointError, cure="expected a safetensors file", unique=True
    )
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: header: got {records.shown(content)}, expected an object.")
    metadata = content.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: header: __metadata__: expected an object of texts.")
    if unprintable := [name for name in content if records.line(name) is None]:
        raise CheckpointError(f"{path}: header: the name {records.shown(unprintable[0])} is not a line of text.")
    end, shapes = 0, {}
    entries = {name: _entry(f"{path}: header: {records.shown(name)}", entry) for name, entry in content.items()}
    for name, (shape, begin, until) in sorted(entries.items(), key=lambda item: item[1][1:]):
        if begin != end:
            raise CheckpointError(f"{path}: header: {records.shown(name)}: begins at byte {begin}, expected {end}.")
        shapes[name], end = shape, until
    if 8 + length + end != status.st_size:
        raise CheckpointError(
            f"{path}: holds {status.st_size - 8 - length} bytes of tensors, its header states {end}; it is damaged or "
            "cut short."
        )
    return TensorsHeader(metadata, shapes)


def _entry(where: str, entry: Any) -> tuple[tuple[int, ...], int, int]:
    """Return the shape, begin and end of one tensor."""
    if not isinstance(entry, dict):
        raise CheckpointError(f"{where}: got {records.shown(entry)}, expected an object.")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise CheckpointError(f"{where}: dtype: got {records.shown(dtype)}, expected one of {', '.join(ITEM_SIZES)}.")
    for field, value in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(value, list) or not all(type(side) is int and 0 <= side < 2**53 for side in value):
            raise CheckpointError(f"{where}: {field}: got {records.shown(value)}, expected a list of whole numbers.")
    if len(shape) > 32 or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * ITEM_SIZES[dtype]:
        raise CheckpointError(
            f"{where}: bytes {records.shown(offsets)} for {dtype} of shape {records.shown(shape)} do not agree."
        )
    return tuple(shape), offsets[0], offsets[1]
