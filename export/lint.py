"""Find what prevents building a TensorRT engine from an ONNX file, before the build, and name the nodes.

TensorRT finds most of it too, but after minutes, one problem at a time, and under its own names; some of it (weights in
float32 in a file that declares fp16) it accepts silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from panrt.errors import LintError
from panrt.formats import input_size, metadata, onnx_graph
from panrt.formats.metadata import ModelFile
from panrt.formats.onnx_file import read_onnx
from panrt.formats.plan_file import Flavour
from panrt.formats.settable import without_defaults
from panrt.plugins.nodes import op_of
from panrt.plugins.schema import DOMAIN, OPS

MAX_TOP_K = 3840  # TensorRT's

Release = tuple[int, ...]

# What TensorRT's parser can do, from which release on, as the changelogs of TensorRT and of its parser say.
_PLUGINS_BEFORE_FUNCTIONS: Release = (10, 7)  # older ones prefer a function to the plugin of its name
_OPSETS: tuple[tuple[Release, int], ...] = (((10, 7), 21), ((0,), 20))  # the newest that it reads
_OPERATORS: dict[str, tuple[int, Release]] = {"GroupNormalization": (21, (10, 9))}  # newer than their opset

# Operators whose output has a size that only the data decide; a CUDA graph cannot hold them.
_DATA_DEPENDENT = {"Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "Unique"}
# Measured with TensorRT-RTX 1.7: the parser or the builder rejects them.
_UNSUPPORTED = {"BitwiseAnd", "DeformConv", "RoiAlign"}
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}

Level = Literal["error", "warning"]


class Finding(NamedTuple):
    """One problem of one node; "" stands for the whole file."""

    level: Level
    node: str
    problem: str

    def __str__(self) -> str:
        return f"{self.node}: {self.problem}" if self.node else self.problem


class Linted(NamedTuple):
    """A file from which an engine can be built."""

    file: ModelFile
    model: bytes  # its content, at one input size
    warnings: tuple[Finding, ...]


def lint(path: Path, *, flavour: Flavour, release: Release, input_hw: tuple[int, int] | None = None) -> Linted:
    """Read an ONNX file and check it for a TensorRT of this flavour and release, e.g. (10, 3, 0).

    Args:
        path: of the file.
        flavour: of TensorRT.
        release: likewise.
        input_hw: of the network's input, for a file that leaves it open: it is fixed, as engines have one size.

    Raises:
        InputSizeError: the file needs an input size and got none, or has another one.
        LintError: it has nodes that do not build; the message lists them all.
        ModelFileError: it is not PanRT's, truncated, from a newer PanRT, or its graph contradicts its metadata.
        OSError: it cannot be read.
    """
    model, said, content = read_onnx(path)
    file = metadata.sized(said, input_hw, source=str(path))
    onnx_graph.check_structure(model, source=str(path))
    if file != said:
        input_size.specialise(model, file, source=str(path))
        content = model.SerializeToString(deterministic=True)
    findings = tuple(find(model, file, flavour=flavour, release=release))
    errors = tuple(finding for finding in findings if finding.level == "error")
    if errors:
        raise LintError(str(path), errors)
    if tuple(output.name for output in model.graph.output) == onnx_graph.RESULTS:  # others are not PanRT's
        tensors = onnx_graph.check(model, file, source=str(path))
        onnx_graph.settable(onnx_graph.Graph(model, file, tensors))
        without_defaults(model)
        content = model.SerializeToString(deterministic=True)
    return Linted(file, content, findings)


def find(model: ModelProto, file: ModelFile, *, flavour: Flavour, release: Release) -> Iterator[Finding]:
    """Yield every problem of a graph; bodies of functions, which TensorRT does not build, are ignored."""
    if flavour == "tensorrt":
        yield from _version(model, release)
    constants = _constants(model.graph)
    for node in model.graph.node:
        for check in (_plugin, _operator):
            if (problem := check(node, constants)) is not None:
                yield Finding("error", _name(node), problem)
    yield from _precision(model, file)


def _version(model: ModelProto, release: Release) -> Iterator[Finding]:
    """Yield what this release of TensorRT cannot read, although later ones can."""
    newest = next(opset for oldest, opset in _OPSETS if release >= oldest)
    opset = next((entry.version for entry in model.opset_import if entry.domain == ""), 0)
    again = "export again with --target tensorrt-10.3"
    version = ".".join(map(str, release))
    if opset > newest:
        yield Finding("error", "", f"opset {opset}: TensorRT {version} reads up to {newest}; {again}.")
    if model.functions and release < _PLUGINS_BEFORE_FUNCTIONS:
        yield Finding("error", "", f"has ONNX functions, which TensorRT {version} prefers to plugins; {again}.")
    if opset > newest:
        return
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATORS:
            continue
        form, oldest = _OPERATORS[node.op_type]
        if opset >= form and release < oldest:
            since = ".".join(map(str, oldest))
            problem = f"{node.op_type} of opset {form}, which TensorRT reads from {since} on, not {version}; {again}."
            yield Finding("error", _name(node), problem)


def _plugin(node: NodeProto, constants: dict[str, TensorProto]) -> str | None:
    """Return what is wrong with a custom op, or with a node of an unknown domain."""
    if node.domain in ("", "ai.onnx"):
        return None
    if node.domain != DOMAIN:
        return f"operator {node.domain}::{node.op_type} is neither ONNX's nor PanRT's."
    if node.op_type not in OPS:
        return f"PanRT has no operator {node.op_type!r}, it has {', '.join(OPS)}; upgrade panrt, or export again."
    try:
        plugin = op_of(node.op_type, node.input).plugin
    except ValueError:  # the number of inputs is invalid, which `onnx_graph.check` reports
        plugin = OPS[node.op_type].plugin
    for name, wanted in plugin.items():
        found = _text(node, name, "")
        if found != wanted:
            return f"{name}: got {found!r}, expected {wanted!r}, which is what this PanRT has; export the model again."
    return None


def _operator(node: NodeProto, constants: dict[str, TensorProto]) -> str | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    kind = node.op_type
    if kind in _DATA_DEPENDENT:
        return f"{kind} has outputs whose size depends on the data, which a CUDA graph cannot hold."
    if kind in _UNSUPPORTED:
        return f"TensorRT does not support {kind}."
    special = _SPECIAL.get(kind)
    return special(node, constants) if special is not None else None


def _top_k(node: NodeProto, constants: dict[str, TensorProto]) -> str | None:
    k = constants.get(node.input[1]) if len(node.input) > 1 else None
    if k is None or math.prod(k.dims) != 1:
        return "TopK with a k that depends on the data, which a CUDA graph cannot hold."
    value = numpy_helper.to_array(k).reshape(-1)[0]
    return f"TopK of {value}, TensorRT supports up to {MAX_TOP_K}." if value > MAX_TOP_K else None


def _resize(node: NodeProto, constants: dict[str, TensorProto]) -> str | None:
    mode = _text(node, "coordinate_transformation_mode", "half_pixel")
    if mode in ("half_pixel_symmetric", "tf_crop_and_resize"):
        return f"Resize with {mode}, which TensorRT does not support."
    return "Resize with antialias, which TensorRT does not support." if _attribute(node, "antialias", 0) else None


def _scatter(node: NodeProto, constants: dict[str, TensorProto]) -> str | None:
    reduction = _text(node, "reduction", "none")
    return (
        None if reduction == "none" else f"{node.op_type} with reduction {reduction}, which TensorRT does not support."
    )


def _dequantize(node: NodeProto, constants: dict[str, TensorProto]) -> str | None:
    weight = constants.get(node.input[0]) if node.input else None
    if weight is not None and weight.data_type == TensorProto.INT32:
        return "DequantizeLinear of int32, which TensorRT does not support; do not quantise biases."
    return None


_SPECIAL: dict[str, Callable[[NodeProto, dict[str, TensorProto]], str | None]] = {
    "DequantizeLinear": _dequantize,
    "Resize": _resize,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "TopK": _top_k,
}


def _precision(model: ModelProto, file: ModelFile) -> Iterator[Finding]:
    """Yield the nodes with weights that compute in float32 in a file that declares another precision."""
    if file.precision == "fp32":
        return
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types.update({weight.name: weight.data_type for weight in graph.initializer})
    dequantized = set()
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) > 1:
            dequantized.update(node.output)
            types[node.output[0]] = types.get(node.input[1], 0)  # its output has the type of its scale
        elif node.op_type == "Cast":
            types[node.output[0]] = _attribute(node, "to", 0)
    for node in graph.node:
        if node.op_type in _WEIGHTED and node.input and node.input[0] not in dequantized:
            known = [types[name] for name in node.input if types.get(name)]
            if TensorProto.FLOAT in known:
                yield Finding("warning", _name(node), f"computes in fp32, in a file that declares {file.precision}.")


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    found = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and (value := _attribute(node, "value", None)) is not None:
            found[node.output[0]] = value
    return found


def _text(node: NodeProto, name: str, default: str) -> str:
    value = _attribute(node, name, default.encode())
    return value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else repr(value)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    attribute: AttributeProto | None = next((a for a in node.attribute if a.name == name), None)
    return default if attribute is None else helper.get_attribute_value(attribute)


def _name(node: NodeProto) -> str:
    return node.name or f"{node.op_type} with output {node.output[0]!r}"
