"""Read ONNX files that PanRT exported, and reject all others with a clear message.

A file is read as data: it is one regular file, whole, and every tensor has as many bytes as its shape needs. ONNX can
keep tensors in other files ("external data"); PanRT reads only the file that was named, so such a file is
rejected. Whether PanRT can run the graph is checked in `panrt.formats.onnx_graph`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from panrt.errors import ModelFileError, UnsupportedModelError
from panrt.files import read_whole
from panrt.formats import metadata
from panrt.formats.metadata import ModelFile
from panrt.formats.records import shown

LONGEST = 2**31 - 1  # bytes, protobuf's limit
MAX_MESSAGES = 500_000  # of a file; the largest that PanRT exports has a tenth. Parsed, an empty one takes 200 bytes
AGAIN = "export the model again"


class OnnxFile(NamedTuple):
    """A PanRT ONNX file."""

    proto: ModelProto
    file: ModelFile  # its metadata
    content: bytes


def read_onnx(path: str | os.PathLike[str]) -> OnnxFile:
    """Read a file of `to_onnx` and its metadata.

    Raises:
        ModelFileError: it is not ONNX, not PanRT's, damaged, or from a newer PanRT.
        OSError: from the file system.
    """
    path = Path(path)
    content = read_whole(path, longest=LONGEST, error=ModelFileError, expected="an .onnx file of panrt export")
    if count_messages(content, most=MAX_MESSAGES) > MAX_MESSAGES:
        raise UnsupportedModelError(f"{path}: has more than {MAX_MESSAGES} nodes, tensors and other parts; {AGAIN}.")
    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelFileError(f"{path}: not an ONNX file, or cut off ({error}); export or copy it again.") from error
    try:
        _check_text(proto, path)
        said = next((entry.value for entry in proto.metadata_props if entry.key == metadata.KEY), None)
        if said is None:
            raise ModelFileError(
                f"{path}: not exported by PanRT, or cut off: it has no metadata {metadata.KEY!r}; "
                "make one with  panrt export MODEL -o model.onnx"
            )
        file = metadata.loads(said, source=str(path))
        for tensor in _tensors(proto):
            _check_tensor(tensor, path)
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: holds text that is not UTF-8 ({error.reason}); {AGAIN}.") from error
    return OnnxFile(proto, file, content)


def _check_text(proto: ModelProto, path: Path) -> None:
    """Raise unless all text is UTF-8; for other text, protobuf returns bytes or raises UnicodeDecodeError."""
    waiting: list[Any] = [proto]
    while waiting:
        for field, value in waiting.pop().ListFields():
            values = value if hasattr(value, "extend") else (value,)
            if field.message_type is not None:
                waiting.extend(values)
            elif field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in values):
                raise ModelFileError(f"{path}: {field.full_name}: holds text that is not UTF-8; {AGAIN}.")


# Parts ----------------------------------------------------------------------------------------------------------------


def count_messages(content: bytes, *, most: int) -> int:
    """Count the messages of a serialised model without parsing it, until there are more than `most`.

    Two bytes are a message, for which protobuf allocates a hundred times as much. What is not protobuf is not counted
    any further; the parser finds it.
    """
    count = 0
    waiting = [(0, len(content), _MESSAGES[ModelProto.DESCRIPTOR.full_name])]
    while waiting and count <= most:
        position, end, fields = waiting.pop()
        while position < end and count <= most:
            tag, position = _varint(content, position)
            kind = tag & 7
            if kind == _VARINT:
                _, position = _varint(content, position)
            elif kind == _BYTES:
                size, position = _varint(content, position)
                if (inner := fields.get(tag >> 3)) is not None:
                    count += 1
                    if position + size <= end:
                        waiting.append((position, position + size, _MESSAGES[inner]))
                position += size
            elif kind in _FIXED:
                position += _FIXED[kind]
            else:
                break
    return count


_VARINT, _BYTES = 0, 2  # protobuf's wire types
_FIXED = {1: 8, 5: 4}  # and the bytes that numbers of others take


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Return a number and the position after it; bytes past the end count as zeros."""
    value = shift = 0
    while position < len(content) and shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    return value, position + 1


def _message_fields(root: Any) -> dict[str, dict[int, str]]:
    """Return the kinds of the messages in each kind of message of a model, by field number."""
    found: dict[str, dict[int, str]] = {}
    waiting = [root]
    while waiting:
        kind = waiting.pop()
        if kind.full_name not in found:
            inner = {field.number: field.message_type for field in kind.fields if field.message_type is not None}
            found[kind.full_name] = {number: message.full_name for number, message in inner.items()}
            waiting += inner.values()
    return found


_MESSAGES = _message_fields(ModelProto.DESCRIPTOR)


# Tensors --------------------------------------------------------------------------------------------------------------

# Bytes of a number, and the field that holds it where `raw_data` does not.
_TYPES: dict[int, tuple[int, str]] = {
    TensorProto.FLOAT: (4, "float_data"),
    TensorProto.DOUBLE: (8, "double_data"),
    TensorProto.FLOAT16: (2, "int32_data"),
    TensorProto.BOOL: (1, "int32_data"),
    TensorProto.INT8: (1, "int32_data"),
    TensorProto.UINT8: (1, "int32_data"),
    TensorProto.INT32: (4, "int32_data"),
    TensorProto.INT64: (8, "int64_data"),
}
_LIMITS: dict[int, tuple[int, int]] = {  # of numbers that int32_data holds in place of smaller ones
    TensorProto.FLOAT16: (0, 2**16 - 1),
    TensorProto.BOOL: (0, 1),
    TensorProto.INT8: (-(2**7), 2**7 - 1),
    TensorProto.UINT8: (0, 2**8 - 1),
}


def _check_tensor(tensor: TensorProto, path: Path) -> None:
    """Raise unless the file itself holds all numbers of a tensor."""
    name = shown(tensor.name)
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        raise UnsupportedModelError(
            f"{path}: tensor {name} is stored in another file, {shown(location)}, and PanRT reads only the file that "
            f"it is given; {AGAIN}: panrt export writes one file."
        )
    if tensor.data_type not in _TYPES:
        raise UnsupportedModelError(f"{path}: tensor {name}: data type {tensor.data_type} is not supported; {AGAIN}.")
    bytes_each, field = _TYPES[tensor.data_type]
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > 16:
        raise ModelFileError(f"{path}: tensor {name}: shape {shown(list(tensor.dims))} is invalid; {AGAIN}.")
    count = math.prod(tensor.dims)
    raw = tensor.HasField("raw_data")
    numbers = getattr(tensor, field)
    found = len(tensor.raw_data) if raw else len(numbers) * bytes_each
    if tensor.HasField("segment") or found != count * bytes_each or (raw and len(numbers)):
        raise ModelFileError(
            f"{path}: tensor {name}: holds {found} bytes, shape {shown(list(tensor.dims))} needs {count * bytes_each}; "
            f"the file is damaged, {AGAIN}."
        )
    if not raw and tensor.data_type in _LIMITS:
        low, high = _LIMITS[tensor.data_type]
        if any(not low <= number <= high for number in numbers):
            raise ModelFileError(f"{path}: tensor {name}: a number exceeds its data type; {AGAIN}.")


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor, also those of subgraphs and functions; protobuf limits how deep these are nested."""
    waiting: list[GraphProto | FunctionProto | NodeProto | AttributeProto] = [proto.graph, *proto.functions]
    for training in proto.training_info:
        waiting += [training.initialization, training.algorithm]
    while waiting:
        item = waiting.pop()
        if isinstance(item, GraphProto):
            yield from item.initializer
            for sparse in item.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            waiting += item.node
        elif isinstance(item, FunctionProto):
            waiting += [*item.node, *item.attribute_proto]
        elif isinstance(item, NodeProto):
            waiting += item.attribute
        else:
            if item.HasField("t"):
                yield item.t
            yield from item.tensors
            for sparse in (*([item.sparse_tensor] if item.HasField("sparse_tensor") else []), *item.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            waiting += [*([item.g] if item.HasField("g") else []), *item.graphs]
