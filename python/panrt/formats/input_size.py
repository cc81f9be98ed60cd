"""Fix or open the input size of an ONNX file; an open one is chosen when the file is loaded.

    file = metadata.sized(file, (512, 1024), source="street.onnx")
    specialise(proto, file, source=...)  # now equal to a static export at that size, byte for byte

A PanRT graph has the same nodes at every size. The size decides three things, which `open_size` makes depend on it:

* dimensions of values are symbols: `height/4`, `ceil(width/64)`, `height*width/16`;
* the custom ops that need the size read it from one more input, `input_size`, and 0, 0 in its attributes;
* constants that are shapes are computed from `input_size`, which is the Shape of the image.

Shapes: H x W the network's input; image (N, H, W, 3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto, helper, numpy_helper

from panrt.errors import InputSizeError, ModelFileError
from panrt.formats import metadata
from panrt.formats.metadata import IMAGE, SIZE_DIVISOR, ModelFile
from panrt.formats.records import shown
from panrt.plugins.onnx_functions import add_functions
from panrt.plugins.schema import DOMAIN, INPUT_SIZE, SIZED

Size = tuple[int, int]

_AXES = ("height", "width")
_STRIDES = (1, 2, 4, 8, 16, 32, 64)  # of maps; sides are multiples of 32, so only the last one rounds
_OWN = f"{INPUT_SIZE}/"  # prefix of the nodes that only a file of open size has


# To one size ----------------------------------------------------------------------------------------------------------


def specialise(proto: ModelProto, file: ModelFile, *, source: str) -> None:
    """Fix the size of a file of open size, in place; no node that computes shapes is left.

    Args:
        proto: of a file whose size is open.
        file: its metadata at the size; see `metadata.sized`.
        source: names the file in messages.

    Raises:
        ModelFileError: its graph is not open as its metadata says, or in a way that PanRT does not write.
    """
    try:
        _fix(proto.graph, file)
        if any(function.domain == DOMAIN for function in proto.functions):
            add_functions(proto)
    except ValueError as error:
        raise ModelFileError(f"{source}: declares an open input size, but {error}; export the model again.") from error
    for entry in proto.metadata_props:
        if entry.key == metadata.KEY:
            entry.value = metadata.dumps(file)


def _fix(graph: GraphProto, file: ModelFile) -> None:
    input_hw, valid_hw, output_hw = file.sizes
    for dimension in _dimensions(graph):
        if dimension.dim_param:
            dimension.dim_value = _evaluated(dimension.dim_param, input_hw)
    for node in _sized_nodes(graph):
        if not node.input or node.input.pop() != INPUT_SIZE:
            raise InputSizeError(f"node {shown(node.name)} does not read {INPUT_SIZE}")
        _set_sizes(node, input_hw=valid_hw, output_hw=output_hw)
    _fold(graph, input_hw)


def _evaluated(symbol: str, input_hw: Size) -> int:
    match = re.fullmatch(r"(?:ceil\()?(height\*width|height|width)(?:/([1-9]\d{0,9}))?\)?", symbol)
    if match is None:
        raise InputSizeError(f"dimension {shown(symbol)} is not a known function of it")
    height, width = input_hw
    value = {"height": height, "width": width}.get(match[1], height * width)
    return -(-value // int(match[2] or 1))


def _fold(graph: GraphProto, input_hw: Size) -> None:
    """Compute what depends on `input_size`, remove its nodes, and put the constants back in their places."""
    own = [node for node in graph.node if node.name.startswith(_OWN)]
    others = [node for node in graph.node if not node.name.startswith(_OWN)]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    sizes = {INPUT_SIZE: np.array(input_hw, np.int64)}
    for node in own:
        given = list(node.input)
        if node.op_type == "Shape" and given == [IMAGE] and list(node.output) == [INPUT_SIZE]:
            continue
        if node.op_type == "Div" and len(given) == 2 and given[0] in sizes and given[1] in constants:
            stride = constants.pop(given[1])
            sizes[node.output[0]] = sizes[given[0]] // _shape_in(stride, least=1, count=2)
            graph.initializer.remove(stride)
        elif node.op_type == "Concat" and len(given) == 2 and given[0] in constants and given[1] in sizes:
            lead = constants.pop(given[0])
            shape = np.concatenate([_shape_in(lead, least=0), sizes[given[1]]])
            lead.CopyFrom(numpy_helper.from_array(shape, node.output[0]))
        else:
            raise InputSizeError(f"node {shown(node.name)} does not compute a shape from it")
    del graph.node[:]
    graph.node.extend(others)


def _shape_in(tensor: TensorProto, *, least: int, count: int | None = None) -> NDArray[np.int64]:
    """Return the numbers of a constant that is a shape or a part of one."""
    shape: NDArray[np.int64] = numpy_helper.to_array(tensor)
    if shape.dtype != np.int64 or shape.ndim != 1 or (count or shape.size) != shape.size or (shape < least).any():
        raise InputSizeError(f"{shown(tensor.name)} is not a shape")
    return shape


# From two sizes -------------------------------------------------------------------------------------------------------


class Static(NamedTuple):
    """A network at one size, without margins: all of its input is valid, and its map covers all of it."""

    graph: GraphProto
    file: ModelFile


def open_size(one: Static, other: Static) -> GraphProto:
    """Return the graph of open size, derived from the differences between two sizes.

    Args:
        one: at one size.
        other: the same network at another one. Both sides differ, and none is a multiple of 64, so that no two symbols
            fit the same dimensions.

    Raises:
        InputSizeError: something depends on the size in a way that PanRT does not know. The result is proven: at
            either size the graph has to become the static one again, to the byte.
    """
    opened = GraphProto()
    opened.CopyFrom(one.graph)
    sizes = one.file.sizes.input_hw, other.file.sizes.input_hw
    dimensions = (_dimensions(graph) for graph in (opened, one.graph, other.graph))
    for dimension, a, b in zip(*dimensions, strict=True):
        if a.dim_value != b.dim_value:
            dimension.dim_param = _symbol((a.dim_value, b.dim_value), sizes)
    _open_constants(opened, other.graph, sizes)
    for node in _sized_nodes(opened):
        node.input.append(INPUT_SIZE)
        _set_sizes(node, input_hw=(0, 0), output_hw=(0, 0))
    for static in (one, other):
        _prove(opened, static)
    return opened


def _symbol(values: tuple[int, int], sizes: tuple[Size, Size]) -> str:
    """Return the symbol that has these values at these sizes."""
    for axis, name in enumerate(_AXES):
        for stride in _STRIDES:
            if all(-(-size[axis] // stride) == value for size, value in zip(sizes, values, strict=True)):
                divided = f"{name}/{stride}" if stride > 1 else name
                return divided if SIZE_DIVISOR % stride == 0 else f"ceil({divided})"
    (height, width), value = sizes[0], values[0]
    symbol = f"height*width/{max(height * width // max(value, 1), 1)}"  # of maps that are flattened
    if any(_evaluated(symbol, size) != value for size, value in zip(sizes, values, strict=True)):
        raise InputSizeError(f"a dimension is {values[0]} for an input of {sizes[0]} and {values[1]} for {sizes[1]}")
    return symbol


def _open_constants(graph: GraphProto, other: GraphProto, sizes: tuple[Size, Size]) -> None:
    """Add `input_size`, and compute the constants that depend on it: shapes that end in a height and a width."""
    nodes = [helper.make_node("Shape", [IMAGE], [INPUT_SIZE], name=f"{_OWN}Shape", start=1, end=3)]
    for tensor, others in zip(list(graph.initializer), other.initializer, strict=True):
        if tensor == others:
            continue
        name, shape, theirs = tensor.name, numpy_helper.to_array(tensor), numpy_helper.to_array(others)
        is_shape = shape.dtype == np.int64 and shape.ndim == 1 and shape.size >= 2 and shape.min() > 0
        if not is_shape or not np.array_equal(shape[:-2], theirs[:-2]):
            raise InputSizeError(f"{name!r} depends on it")
        strides = [size // side for size, side in zip(sizes[0], shape[-2:].tolist(), strict=True)]
        lead, stride, divided = (f"{name}/{part}" for part in ("lead", "stride", "divided"))
        tensor.CopyFrom(numpy_helper.from_array(shape[:-2], lead))
        graph.initializer.append(numpy_helper.from_array(np.array(strides, np.int64), stride))
        nodes += [
            helper.make_node("Div", [INPUT_SIZE, stride], [divided], name=f"{_OWN}{name}/Div"),
            helper.make_node("Concat", [lead, divided], [name], name=f"{_OWN}{name}/Concat", axis=0),
        ]
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _prove(opened: GraphProto, static: Static) -> None:
    """Raise unless the open graph becomes the static one again."""
    again = GraphProto()
    again.CopyFrom(opened)
    _fix(again, static.file)
    if again.SerializeToString(deterministic=True) != static.graph.SerializeToString(deterministic=True):
        both = zip(_entries(again), _entries(static.graph), strict=False)
        name = next((theirs.name for ours, theirs in both if ours != theirs), static.graph.name)
        raise InputSizeError(f"{name!r} depends on it")


def _entries(graph: GraphProto) -> Iterator[NodeProto | TensorProto | ValueInfoProto]:
    yield from graph.node
    yield from graph.initializer
    yield from (*graph.input, *graph.value_info, *graph.output)


# Both -----------------------------------------------------------------------------------------------------------------


def _dimensions(graph: GraphProto) -> Iterator[TensorShapeProto.Dimension]:
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield from value.type.tensor_type.shape.dim


def _sized_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    return (node for node in graph.node if node.domain == DOMAIN and node.op_type in SIZED)


def _set_sizes(node: NodeProto, **sizes: Size) -> None:
    for attribute in node.attribute:
        if attribute.name in sizes:
            attribute.ints[:] = sizes[attribute.name]
