"""What a graph may hold, found out before ONNX Runtime, a rewrite or a PanRT kernel sees it.

    proto, file, tensors = onnx_graph.read_graph(Path("street.onnx"))

A PanRT graph is plain: operators from the list below, none with a subgraph, and the four ops; every shape follows from
the size of the input. What is checked:

* nodes, inputs and outputs: known operators, attributes of the right type and within range, values made before they are
  read, and made once;
* shapes: inferred here, from the operators alone. What the file says about its values in between is not believed;
* memory and work: what one inference takes is bounded by the size of the file, see `BYTES` and `PRODUCTS`;
* the contract of the four ops, by `panrt.plugins.contract`;
* what the file says about itself (`panrt.formats.metadata`): sizes, batch, classes, thresholds, normalisation.

Shapes: N images, H x W the network's input, C thing classes, K detections, S semantic channels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from panrt.errors import ModelFileError, UnsupportedModelError
from panrt.formats import input_size, metadata
from panrt.formats.input_size import IMAGE
from panrt.formats.metadata import ModelFile
from panrt.formats.onnx_file import read_onnx
from panrt.formats.records import shown
from panrt.plugins import contract
from panrt.plugins.onnx_functions import (
    ATTRIBUTES,
    DOMAIN,
    INPUT_SIZE,
    INPUTS,
    LARGEST_OPSET,
    OUTPUTS,
    SMALLEST_OPSET,
    add_functions,
    form,
)

RESULTS = OUTPUTS["PanopticMerge"]
MAX_NODES = 2000  # ResNet-101 in int8 has 727
MAX_OPS = 32  # PanRT nodes among them; networks have up to 5
MAX_OPERANDS = 64  # inputs, outputs or attributes of a node
MAX_RANK = 8

# What one inference may take: a base, and so much for each byte of the file. ResNet-50 takes a third of it for 4K.
BYTES = (2**30, 64)
PRODUCTS = (10**10, 50_000)

_AGAIN = "export the model again"


class Tensor(NamedTuple):
    """A value of a graph; a dimension of -1 is known when it runs."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Graph(NamedTuple):
    """A file of one input size, checked."""

    proto: ModelProto
    file: ModelFile  # what it says about itself
    tensors: dict[str, Tensor]  # every value


def read_graph(path: Path, *, input_hw: tuple[int, int] | None = None) -> Graph:
    """Read a file of `to_onnx`, fix its input size, and check it.

    Args:
        path: of the file.
        input_hw: of the network's input, for a file that leaves it open.

    Raises:
        ModelFileError: it is not ONNX, not ours, damaged, or from a newer PanRT; see `read_onnx` and `check`.
        InputSizeError: it needs an input size and got none, or has another one.
        OSError: from the file system.
    """
    proto, said, _ = read_onnx(path)
    file = metadata.sized(said, input_hw, source=str(path))
    if file != said:
        check_structure(proto, source=str(path))
        input_size.specialise(proto, file, source=str(path))
    return Graph(proto, file, check(proto, file, source=str(path)))


def check(proto: ModelProto, file: ModelFile, *, source: str) -> dict[str, Tensor]:
    """Check a graph of one input size, and give the type and shape of every value in it.

    Args:
        proto: as `read_onnx` gives it; of an open file, what `input_size.specialise` made of it.
        file: what the file says about itself.
        source: names the file in messages.

    Raises:
        UnsupportedModelError: it has something that this PanRT does not run.
        ModelFileError: it is damaged, or does not fit what it says about itself.
    """
    check_structure(proto, source=source)
    graph = proto.graph
    opset = _opset(proto, file, source)
    _check_image(graph, file, source)
    for node in graph.node:
        _check_node(node, opset, source)
    tensors = infer(graph, opset, source=source)
    _check_size(graph, tensors, proto.ByteSize(), source)
    _check_file(graph, file, tensors, source)
    return tensors


def check_structure(proto: ModelProto, *, source: str) -> None:
    """Check what holds at any input size: no part of the graph is hidden, and values are made before they are read.

    Raises:
        UnsupportedModelError, ModelFileError: see `check`.
    """
    graph = proto.graph
    for function in proto.functions:
        if function.domain != DOMAIN or function.name not in ATTRIBUTES:
            raise UnsupportedModelError(
                f"{source}: has the function {shown(f'{function.domain}::{function.name}')}, and PanRT's files have "
                f"none but those of {', '.join(ATTRIBUTES)}; {_AGAIN}."
            )
    if graph.sparse_initializer or proto.training_info:
        raise UnsupportedModelError(f"{source}: has sparse tensors or a training graph; {_AGAIN}.")
    ours = sum(node.domain == DOMAIN for node in graph.node)
    for found, most, what in ((len(graph.node), MAX_NODES, "nodes"), (ours, MAX_OPS, "nodes of PanRT's ops")):
        if found > most:
            raise UnsupportedModelError(f"{source}: has {found} {what}, PanRT takes up to {most}; {_AGAIN}.")
    made = {""}
    for name in (*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)):
        if not name or (name in made and name != IMAGE):
            raise ModelFileError(f"{source}: tensor {shown(name)}: has no name of its own; {_AGAIN}.")
        made.add(name)
    for node in graph.node:
        for name in node.input:
            if name not in made:
                raise UnsupportedModelError(
                    f"{source}: {label(node)} reads {shown(name)}, which nothing gives before it; {_AGAIN}."
                )
        for name in node.output:
            if name and name in made:
                raise ModelFileError(f"{source}: {label(node)} gives {shown(name)}, which is there already; {_AGAIN}.")
            made.add(name)
        if not node.output or not node.output[0]:
            raise ModelFileError(f"{source}: {label(node)} gives nothing; {_AGAIN}.")
        for attribute in node.attribute:
            if attribute.ref_attr_name or attribute.type not in AttributeProto.AttributeType.values()[1:]:
                raise _bad_attribute(node, attribute, "a value", source)
        if any(len(several) > MAX_OPERANDS for several in (node.input, node.output, node.attribute)):
            raise UnsupportedModelError(
                f"{source}: {label(node)} has more than {MAX_OPERANDS} inputs, outputs or attributes; {_AGAIN}."
            )
    missing = [value.name for value in graph.output if value.name not in made]
    if missing:
        raise ModelFileError(f"{source}: its result {shown(missing[0])} is given by no node; {_AGAIN}.")


def check_functions(proto: ModelProto, *, source: str) -> None:
    """Check that the functions in a file are those that PanRT would write into it, before a runtime executes them.

    Raises:
        UnsupportedModelError: they are not.
    """
    ours = ModelProto()
    ours.CopyFrom(proto)
    add_functions(ours)
    theirs = {function.name: function.SerializeToString(deterministic=True) for function in proto.functions}
    for function in ours.functions:
        if theirs.pop(function.name, None) != function.SerializeToString(deterministic=True):
            raise UnsupportedModelError(
                f"{source}: its ONNX function {function.name} is not the one of this PanRT; {_AGAIN} with this "
                f"version, or run its ops as PanRT's kernels: cpu:{source}"
            )
    if theirs:
        raise UnsupportedModelError(f"{source}: its ONNX function {shown(next(iter(theirs)))} is not used; {_AGAIN}.")


def label(node: NodeProto) -> str:
    """Return what a message calls a node."""
    return f"node {shown(node.name or node.op_type)}"


# The model ------------------------------------------------------------------------------------------------------------


def _opset(proto: ModelProto, file: ModelFile, source: str) -> int:
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        if entry.domain not in ("", DOMAIN) or entry.domain in versions:
            raise UnsupportedModelError(
                f"{source}: imports the operators {shown(entry.domain)}, expected ONNX's and PanRT's, once; {_AGAIN}."
            )
        versions[entry.domain] = entry.version
    opset = versions.get("", 0)
    if not SMALLEST_OPSET <= opset <= LARGEST_OPSET:
        raise UnsupportedModelError(
            f"{source}: opset: got {opset}, expected {SMALLEST_OPSET} to {LARGEST_OPSET}; {_AGAIN}."
        )
    if opset != file.opset:
        raise _conflict(source, "opset", file.opset, opset)
    return opset


def _check_image(graph: GraphProto, file: ModelFile, source: str) -> None:
    inputs = [value.name for value in graph.input]
    results = tuple(value.name for value in graph.output)
    if inputs != [IMAGE] or results != RESULTS:
        raise UnsupportedModelError(
            f"{source}: its graph takes {shown(', '.join(inputs))} and gives {shown(', '.join(results))}; expected "
            f"{IMAGE}, and {', '.join(RESULTS)}."
        )
    image = graph.input[0].type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in image.shape.dim]
    expected = [file.batch or -1, *file.input_hw, 3]
    if image.elem_type != TensorProto.UINT8:
        raise UnsupportedModelError(
            f"{source}: its input {IMAGE}: data type {image.elem_type}, expected uint8 pixels (N, H, W, 3); {_AGAIN}."
        )
    if dims != expected:
        raise _conflict(source, "batch and input_hw", f"an input of {_shape(expected)}", _shape(dims))


# Nodes ----------------------------------------------------------------------------------------------------------------

MAX_SIDE = contract.MAX_SIDE

# The operators that exports are made of, with those that the backends' rewrites add.
OPERATORS = frozenset(
    (
        *("Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "ConstantOfShape", "Conv"),
        *("ConvTranspose", "DepthToSpace", "DequantizeLinear", "Div", "Expand", "Flatten", "Gather", "Gemm"),
        *("GlobalAveragePool", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization"),
        *("LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "QuantizeLinear", "Relu", "Reshape", "Resize", "Sigmoid"),
        *("Slice", "Softmax", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
    )
)

# (least, most) of the integers in an attribute; those that are not named are from -8 to 8, as axes are.
_RANGES: dict[str, tuple[int, int]] = {
    "blocksize": (1, 64),
    "dilations": (1, MAX_SIDE),
    "group": (1, 2**20),
    "kernel_shape": (1, MAX_SIDE),
    "num_outputs": (1, MAX_OPERANDS),
    "output_padding": (0, MAX_SIDE),
    "output_shape": (1, MAX_SIDE),
    "num_groups": (1, 2**20),
    "pads": (0, MAX_SIDE),
    "strides": (1, MAX_SIDE),
    "to": (0, 64),
}
_TYPES = (
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8),
    *(TensorProto.INT8, TensorProto.BOOL),
)


def _check_node(node: NodeProto, opset: int, source: str) -> None:
    """Operator, number of operands, and attributes."""
    if node.domain == DOMAIN:
        _check_op(node, source)
        return
    if node.domain or node.op_type not in OPERATORS:
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        raise UnsupportedModelError(
            f"{source}: {label(node)}: the operator {shown(name)} is none of those that panrt export writes; {_AGAIN}."
        )
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    operands = (("inputs", len(node.input), schema.min_input, schema.max_input),)
    for what, found, least, most in (*operands, ("outputs", len(node.output), schema.min_output, schema.max_output)):
        if not least <= found <= most:
            raise ModelFileError(f"{source}: {label(node)}: {node.op_type} of {found} {what}; {_AGAIN}.")
    if any(not name for name in node.input[: schema.min_input]):
        raise ModelFileError(f"{source}: {label(node)}: {node.op_type} lacks an input; {_AGAIN}.")
    names = Counter(attribute.name for attribute in node.attribute)
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in names:
            raise ModelFileError(f"{source}: {label(node)}: lacks attribute {name}; {_AGAIN}.")
    for attribute in node.attribute:
        wanted = schema.attributes.get(attribute.name)
        if wanted is None or names[attribute.name] > 1 or attribute.type != _type_of(wanted):
            raise _bad_attribute(node, attribute, f"one of {node.op_type}, once, and of its type", source)
        _check_attribute(node, attribute, source)


def _type_of(attribute: Any) -> int:
    kind: int = attribute.type.value  # its stubs know no `value`
    return kind


def _check_attribute(node: NodeProto, attribute: AttributeProto, source: str) -> None:
    kind = attribute.type
    if kind in (AttributeProto.INT, AttributeProto.INTS):
        values = [attribute.i] if kind == AttributeProto.INT else list(attribute.ints)
        low, high = _RANGES.get(attribute.name, (-MAX_RANK, MAX_RANK))
        if len(values) > 2 * MAX_RANK or any(not low <= value <= high for value in values):
            raise _bad_attribute(node, attribute, f"integers from {low} to {high}", source)
        if attribute.name == "to" and attribute.i not in _TYPES:
            raise _bad_attribute(node, attribute, "a type of numbers that PanRT has", source)
    elif kind in (AttributeProto.FLOAT, AttributeProto.FLOATS):
        numbers = [attribute.f] if kind == AttributeProto.FLOAT else list(attribute.floats)
        if len(numbers) > 2 * MAX_RANK or not all(math.isfinite(number) for number in numbers):
            raise _bad_attribute(node, attribute, "finite numbers", source)
    elif kind == AttributeProto.STRING:
        if len(attribute.s) > 64 or not attribute.s.isascii():
            raise _bad_attribute(node, attribute, "a short word", source)
    elif kind != AttributeProto.TENSOR or math.prod(attribute.t.dims) != 1:
        raise _bad_attribute(node, attribute, "numbers or a word", source)


def _bad_attribute(node: NodeProto, attribute: AttributeProto, expected: str, source: str) -> ModelFileError:
    return ModelFileError(
        f"{source}: {label(node)}: attribute {shown(attribute.name)}: got {_value(attribute)}, expected {expected}; "
        f"{_AGAIN}."
    )


def _value(attribute: AttributeProto) -> str:
    try:
        return shown(helper.get_attribute_value(attribute))
    except ValueError:  # of no type, or that of a function's attribute
        return "none"


def _check_op(node: NodeProto, source: str) -> None:
    """A node of one of the four ops; what its attributes may be is for the contract to say, once shapes are known."""
    if node.op_type not in ATTRIBUTES:
        raise UnsupportedModelError(
            f"{source}: {label(node)} is {DOMAIN}.{shown(node.op_type)[1:-1]}, this PanRT has {', '.join(ATTRIBUTES)}; "
            "upgrade panrt, or export the model again with this version."
        )
    wanted = ATTRIBUTES[node.op_type]
    names = Counter(attribute.name for attribute in node.attribute)
    missing = wanted.keys() - names.keys()
    if missing or len(node.output) != len(OUTPUTS[node.op_type]) or len(node.input) < len(INPUTS[node.op_type]):
        what = f"attribute {', '.join(sorted(missing))}" if missing else "an input or output"
        raise UnsupportedModelError(f"{source}: {label(node)} lacks {what}; {_AGAIN}.")
    for attribute in node.attribute:
        if attribute.name in wanted and (attribute.type != wanted[attribute.name] or names[attribute.name] > 1):
            raise _bad_attribute(node, attribute, "a value of the type that OPS.md gives, once", source)
    try:
        has_size = form(node.op_type, node.input).open_size
    except ValueError as error:
        raise UnsupportedModelError(f"{source}: {label(node)}: {error}; {_AGAIN}.") from error
    if has_size or not all((*node.input, *node.output)):
        raise ModelFileError(f"{source}: {label(node)} lacks an input or output, or reads {INPUT_SIZE}; {_AGAIN}.")


# Shapes ---------------------------------------------------------------------------------------------------------------

_SMALL = 64  # numbers of a constant whose values shapes may follow from
_SAME_SHAPE = {"GroupNormalization"}  # operators that ONNX infers nothing for: they give what their first input has


def infer(graph: GraphProto, opset: int, *, source: str) -> dict[str, Tensor]:
    """Type and shape of every value, from the graph's input, its constants and its operators alone.

    Raises:
        ModelFileError: one does not follow, or a PanRT node does not get what the contract asks for.
    """
    known: dict[str, Tensor] = {}
    for tensor in graph.initializer:
        known[tensor.name] = Tensor(tensor.name, _dtype(tensor.data_type, tensor.name, source), tuple(tensor.dims))
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in dims)  # an open batch: of one
        known[value.name] = Tensor(value.name, _dtype(value.type.tensor_type.elem_type, value.name, source), shape)
    small = {tensor.name: tensor for tensor in graph.initializer if math.prod(tensor.dims) <= _SMALL}
    segment: list[NodeProto] = []
    for node in (*graph.node, None):
        if node is not None and node.domain == "" and node.op_type not in _SAME_SHAPE:
            segment.append(node)
            continue
        known.update(_inferred(segment, known, small, opset, source))
        segment = []
        if node is not None and node.domain == DOMAIN:
            known.update(_op_outputs(node, known, source))
        elif node is not None:
            known[node.output[0]] = known[node.input[0]]._replace(name=node.output[0])
    return known


def _inferred(
    nodes: Sequence[NodeProto], known: Mapping[str, Tensor], small: Mapping[str, TensorProto], opset: int, source: str
) -> dict[str, Tensor]:
    """Of nodes of ONNX's own."""
    if not nodes:
        return {}
    read = dict.fromkeys(name for node in nodes for name in node.input if name)
    constants = [small[name] for name in read if name in small]
    kept = {tensor.name for tensor in constants}
    inputs = [value_info(known[name]) for name in read if name in known and name not in kept]
    skeleton = helper.make_graph(nodes, "shapes", inputs, [], constants)
    model = helper.make_model(skeleton, opset_imports=[helper.make_opsetid("", opset)])
    try:
        values = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{source}: its shapes do not fit: {_first_line(error)}; {_AGAIN}.") from error
    found = {}
    for value in values:
        tensor_type = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor_type.shape.dim]
        if tensor_type.HasField("shape") and min(dims, default=0) >= 0 and len(dims) <= MAX_RANK:
            found[value.name] = Tensor(value.name, _dtype(tensor_type.elem_type, value.name, source), tuple(dims))
    for node in nodes:
        for name in node.output:
            if name and name not in found:
                raise UnsupportedModelError(
                    f"{source}: {label(node)}: the shape of {shown(name)} is not known; {_AGAIN}."
                )
    everything = {**known, **found}
    for node in nodes:
        if (problem := _misfit(node, everything)) is not None:
            raise ModelFileError(f"{source}: {label(node)}: {problem}; {_AGAIN}.")
    return found


def _misfit(node: NodeProto, tensors: Mapping[str, Tensor]) -> str | None:
    """What does not fit together in a node although ONNX infers a shape for it; None: nothing."""
    shapes = [tensors[name].shape for name in node.input if name]
    out = tensors[node.output[0]].shape
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") and math.prod(shapes[0]) != math.prod(out):
        return f"makes {_shape(out)} of {_shape(shapes[0])}"
    if node.op_type in ("Conv", "ConvTranspose"):
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        channels, filters = shapes[1][1] * group, shapes[1][0]
        if node.op_type == "ConvTranspose":
            channels, filters = filters, channels
        if shapes[0][1] != channels or filters % group or channels % group or shapes[2:] not in ([], [(filters,)]):
            return f"weights {_shape(shapes[1])} and bias in {group} groups do not fit {_shape(shapes[0])}"
    if node.op_type == "Clip" and any(math.prod(bound) != 1 for bound in shapes[1:]):
        return "clips to more than one number"
    return None


def value_info(tensor: Tensor) -> ValueInfoProto:
    """As a graph declares it; a dimension of -1 is left open."""
    shape = [None if size < 0 else size for size in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(tensor.dtype), shape)


def _dtype(data_type: int, name: str, source: str) -> np.dtype[Any]:
    if data_type not in _TYPES:
        raise UnsupportedModelError(
            f"{source}: tensor {shown(name)}: data type {data_type} is not supported; {_AGAIN}."
        )
    dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    return dtype


def _op_outputs(node: NodeProto, known: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of a PanRT node, whose attributes and inputs are checked by the contract."""
    given = [known[name] for name in node.input]
    values = attributes(node)
    try:
        # the contract looks at arrays; these are never touched, so that they take no memory
        arrays: list[Any] = [np.empty(tensor.shape, tensor.dtype) for tensor in given]
        shapes = _OUTPUTS[node.op_type](arrays, values)
    except (ValueError, TypeError, MemoryError) as error:
        raise ModelFileError(f"{source}: {label(node)}: {_first_line(error)}; {_AGAIN}.") from error
    return {
        name: Tensor(name, np.dtype(dtype), shape) for name, (dtype, shape) in zip(node.output, shapes, strict=True)
    }


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of a PanRT node that its op has, by name."""
    wanted = ATTRIBUTES[node.op_type]
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in wanted}


_Shapes = list[tuple[Any, tuple[int, ...]]]


def _rpn(arrays: list[NDArray[Any]], values: dict[str, Any]) -> _Shapes:
    levels = len(arrays) // 2
    sizes = contract.check_rpn_proposals(arrays[:levels], arrays[levels:], **values)
    return [(np.float32, (sizes.N, values["post_nms_top_k"], 4)), (np.int32, (sizes.N,))]


def _roi_align(arrays: list[NDArray[Any]], values: dict[str, Any]) -> _Shapes:
    sizes = contract.check_pyramid_roi_align(arrays[:-1], arrays[-1], **values, layout="NCHW")
    S = values["output_size"]
    return [(arrays[0].dtype, (sizes.N * sizes.R, sizes.C, S, S))]


def _detections(arrays: list[NDArray[Any]], values: dict[str, Any]) -> _Shapes:
    sizes, K = contract.check_box_detections(*arrays, **values), values["max_detections"]
    N = sizes.N
    return [(np.float32, (N, K, 4)), (np.float32, (N, K)), (np.int32, (N, K)), (np.int32, (N,))]


def _merge(arrays: list[NDArray[Any]], values: dict[str, Any]) -> _Shapes:
    sizes = contract.check_panoptic_merge(*arrays, **values)
    N, rows = sizes.N, sizes.K + sizes.S
    return [
        (np.int32, (N, *values["output_hw"])),
        (np.int32, (N, rows, 8)),
        (np.float32, (N, rows)),
        (np.int32, (N,)),
    ]


_OUTPUTS: dict[str, Callable[[list[NDArray[Any]], dict[str, Any]], _Shapes]] = {
    "RpnProposals": _rpn,
    "PyramidRoiAlign": _roi_align,
    "BoxDetections": _detections,
    "PanopticMerge": _merge,
}


# Memory and work ------------------------------------------------------------------------------------------------------


def _check_size(graph: GraphProto, tensors: Mapping[str, Tensor], file_bytes: int, source: str) -> None:
    """Raise where an inference would take more memory or work than a file of its size may ask for."""
    for what, needed, (base, each) in (
        ("bytes of memory", peak_bytes(graph, tensors), BYTES),
        ("multiplications", products(graph, tensors), PRODUCTS),
    ):
        if needed > base + each * file_bytes:
            raise UnsupportedModelError(
                f"{source}: an inference takes {needed:.3g} {what}, PanRT allows a file of {file_bytes} bytes "
                f"{base + each * file_bytes:.3g}; {_AGAIN}, at a smaller input or output size or batch."
            )


def peak_bytes(graph: GraphProto, tensors: Mapping[str, Tensor]) -> int:
    """Memory of constants, and of values from where they are made to where they are last read, in the file's order."""
    last = {name: place for place, node in enumerate(graph.node) for name in node.input}
    last.update({value.name: len(graph.node) for value in graph.output})
    size = {name: _bytes(tensor) for name, tensor in tensors.items()}
    live = sum(size[tensor.name] for tensor in graph.initializer) + sum(size[value.name] for value in graph.input)
    peak = live
    constants = {tensor.name for tensor in graph.initializer}
    for place, node in enumerate(graph.node):
        live += sum(size[name] for name in node.output if name)
        peak = max(peak, live)
        live -= sum(size[name] for name in node.output if name and name not in last)
        live -= sum(size[name] for name in {*node.input} if name and last[name] == place and name not in constants)
    return peak


def _bytes(tensor: Tensor) -> int:
    """In float32 where it is in float16, as the CPU computes."""
    each = 4 if tensor.dtype == np.float16 else tensor.dtype.itemsize
    return math.prod(tensor.shape) * each


def products(graph: GraphProto, tensors: Mapping[str, Tensor]) -> int:
    """Multiplications of an inference, or what takes as long."""
    return sum(_products(node, tensors) for node in graph.node)


def _products(node: NodeProto, tensors: Mapping[str, Tensor]) -> int:
    out = _count(tensors[node.output[0]])
    work = _WORK.get(node.op_type)
    return out if work is None else work(node, [tensors[name] for name in node.input if name], out)


def _pool_products(node: NodeProto, given: Sequence[Tensor], out: int) -> int:
    return out * math.prod(next((a.ints for a in node.attribute if a.name == "kernel_shape"), [1]))


def _rpn_products(node: NodeProto, given: Sequence[Tensor], out: int) -> int:
    most = attributes(node)["pre_nms_top_k"]
    return sum(min(_count(level), most) ** 2 for level in given[: len(given) // 2])


# What a node's inputs, and the numbers of its first output, make of multiplications; of the others it is the latter.
_WORK: dict[str, Callable[[NodeProto, Sequence[Tensor], int], int]] = {
    "AveragePool": _pool_products,
    "BoxDetections": lambda node, given, out: math.prod(given[0].shape[:2]) ** 2 * given[0].shape[-1],
    "Conv": lambda node, given, out: out * math.prod(given[1].shape[1:]),
    "ConvTranspose": lambda node, given, out: _count(given[0]) * math.prod(given[1].shape[1:]),
    "Gemm": lambda node, given, out: out * max(given[1].shape, default=1),
    "MatMul": lambda node, given, out: out * max(given[1].shape, default=1),
    "MaxPool": _pool_products,
    "PanopticMerge": lambda node, given, out: out * (given[0].shape[1] + given[2].shape[1]),
    "PyramidRoiAlign": lambda node, given, out: 4 * out * max(attributes(node)["sampling_ratio"], 1) ** 2,
    "RpnProposals": _rpn_products,
}


def _count(tensor: Tensor) -> int:
    return math.prod(tensor.shape)


# What the file says about itself --------------------------------------------------------------------------------------


def _check_file(graph: GraphProto, file: ModelFile, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise where the graph computes something else than the file says."""
    valid = file.valid_hw if all(file.valid_hw) else file.input_hw
    output = file.output_hw if all(file.output_hw) else valid
    thresholds = file.thresholds
    expected: dict[str, dict[str, tuple[str, Any]]] = {
        "RpnProposals": {"input_hw": ("valid_hw", valid)},
        "BoxDetections": {
            "input_hw": ("valid_hw", valid),
            "score_threshold": ("thresholds.detection_score", thresholds.detection_score),
            "nms_threshold": ("thresholds.detection_nms", thresholds.detection_nms),
            "max_detections": ("thresholds.max_detections", thresholds.max_detections),
        },
        "PanopticMerge": {
            "input_hw": ("valid_hw", valid),
            "output_hw": ("output_hw", output),
            "score_threshold": ("thresholds.instance_score", thresholds.instance_score),
            "overlap_threshold": ("thresholds.instance_overlap", thresholds.instance_overlap),
            "stuff_area_limit": ("thresholds.stuff_area", thresholds.stuff_area),
            "mask_threshold": ("thresholds.mask", thresholds.mask),
        },
    }
    ops = [node for node in graph.node if node.domain == DOMAIN]
    if not ops or ops[-1].op_type != "PanopticMerge" or tuple(ops[-1].output) != RESULTS:
        raise UnsupportedModelError(f"{source}: its graph does not end in PanopticMerge; {_AGAIN}.")
    for node in ops:
        values = attributes(node)
        for name, (field, said) in expected.get(node.op_type, {}).items():
            if not _same(said, values[name]):
                raise _conflict(source, field, said, f"{values[name]} ({node.op_type}'s {name})")
        if node.op_type == "BoxDetections":
            C = tensors[node.input[0]].shape[-1] - 1
            if len(file.things) != C:
                raise _conflict(source, "things", f"{len(file.things)} classes", C)
    S = tensors[ops[-1].input[0]].shape[1]
    if S not in (1, len(file.stuff) + 1):  # 1: no semantic branch
        raise _conflict(source, "stuff", f"{len(file.stuff)} classes", f"{S - 1}, and a channel of things")
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for name in ("pixel_mean", "pixel_std"):
        if name in constants and not _same(getattr(file, name), _numbers(constants[name])):
            raise _conflict(source, name, getattr(file, name), _numbers(constants[name]))


def _numbers(tensor: TensorProto) -> list[float]:
    numbers: list[float] = numpy_helper.to_array(tensor).reshape(-1)[:4].tolist()
    return numbers


def _same(said: Any, computed: Any) -> bool:
    """Whether two are equal but for the rounding of an attribute, or of a float16 constant."""
    left, right = (list(value) if isinstance(value, Iterable) else [value] for value in (said, computed))
    pairs = zip(left, right, strict=False)
    return len(left) == len(right) and all(abs(a - b) <= 1e-3 * abs(a) if b != a else True for a, b in pairs)


def _conflict(source: str, field: str, said: object, computed: object) -> ModelFileError:
    return ModelFileError(
        f"{source}: metadata {field}: says {shown(said) if not isinstance(said, str) else said}, its graph has "
        f"{computed if isinstance(computed, str) else shown(computed)}; {_AGAIN}."
    )


def _shape(dims: Iterable[int]) -> str:
    return f"({', '.join('any' if size < 0 else str(size) for size in dims)})"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = " ".join(line.strip() for line in lines[:2]) if lines else type(error).__name__
    return text[:300].encode("ascii", "backslashreplace").decode().rstrip(".;")
