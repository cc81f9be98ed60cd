"""Check a graph before ONNX Runtime, a graph pass or a PanRT kernel reads it.

    proto, file, tensors = onnx_graph.read_graph(Path("street.onnx"))

A PanRT graph is plain: ONNX operators from a short list, none with a subgraph, and the four custom ops; every shape
follows from the input size. What is checked:

* nodes, inputs and outputs (`onnx_nodes`): known operators, attributes of the right type and within range, values
  computed once, and before they are read;
* shapes (`onnx_shapes`): inferred from the operators alone; the shapes that the file declares are ignored;
* memory and work (`onnx_cost`): what one inference takes is bounded by the size of the file;
* the contract of the custom ops, by `panrt.plugins.contract`;
* the metadata (`panrt.formats.metadata`): sizes, batch, classes, thresholds, normalisation.

Shapes: N images, H x W the network's input, C thing classes, K detections, S semantic channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from panrt.errors import ModelFileError, UnsupportedModelError
from panrt.formats import input_size, metadata
from panrt.formats.metadata import IMAGE, ModelFile
from panrt.formats.onnx_cost import check_size
from panrt.formats.onnx_file import AGAIN, read_onnx
from panrt.formats.onnx_nodes import MAX_OPERANDS, attributes, bad_attribute, check_node, label
from panrt.formats.onnx_shapes import Tensor, infer, shape_text
from panrt.formats.records import shown
from panrt.formats.settable import make_settable
from panrt.formats.thresholds import INPUTS, NAMES
from panrt.plugins.nodes import op_of
from panrt.plugins.onnx_functions import LARGEST_OPSET, OUTPUTS, SMALLEST_OPSET, add_functions
from panrt.plugins.schema import DOMAIN, OPS

RESULTS = OUTPUTS["PanopticMerge"]
MAX_NODES = 2000  # ResNet-101 in int8 has 727
MAX_OPS = 32  # PanRT nodes among them; networks have up to 5


class Graph(NamedTuple):
    """A file of one input size, checked."""

    proto: ModelProto
    file: ModelFile  # its metadata
    tensors: dict[str, Tensor]  # every value


def read_graph(path: Path, *, input_hw: tuple[int, int] | None = None) -> Graph:
    """Read a file of `to_onnx`, fix its input size, and check it.

    Args:
        path: of the file.
        input_hw: of the network's input, for a file that leaves it open.

    Raises:
        ModelFileError: it is not ONNX, not PanRT's, damaged, or from a newer PanRT; see `read_onnx` and `check`.
        InputSizeError: it needs an input size and got none, or has another one.
        OSError: from the file system.
    """
    proto, said, _ = read_onnx(path)
    file = metadata.sized(said, input_hw, source=str(path))
    if file != said:
        check_structure(proto, source=str(path))
        input_size.specialise(proto, file, source=str(path))
    return settable(Graph(proto, file, check(proto, file, source=str(path))))


def settable(graph: Graph) -> Graph:
    """Return a checked graph whose thresholds are inputs; that of a file from before is changed in place."""
    nodes = {node.op_type: node for node in graph.proto.graph.node if node.domain == DOMAIN}
    classes = nodes["BoxDetections"].input[0] if "BoxDetections" in nodes else None
    make_settable(
        graph.proto,
        thing_classes=graph.tensors[classes].shape[-1] - 1 if classes is not None else 0,
        channels=graph.tensors[nodes["PanopticMerge"].input[0]].shape[1],
    )
    inputs = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.proto.graph.initializer if tensor.name in NAMES
    }
    added = {name: Tensor(name, array.dtype, array.shape) for name, array in inputs.items()}
    return graph._replace(tensors=graph.tensors | added)


def check(proto: ModelProto, file: ModelFile, *, source: str) -> dict[str, Tensor]:
    """Check a graph of one input size; return the type and shape of every value in it.

    Args:
        proto: from `read_onnx`; of a file of open size, after `input_size.specialise`.
        file: its metadata.
        source: names the file in messages.

    Raises:
        UnsupportedModelError: it holds something that this PanRT cannot run.
        ModelFileError: it is damaged, or contradicts its metadata.
    """
    check_structure(proto, source=source)
    graph = proto.graph
    opset = _opset(proto, file, source)
    for node in graph.node:
        check_node(node, opset, source)
    _check_image(graph, file, source)
    tensors = infer(graph, opset, source=source)
    check_size(graph, tensors, proto.ByteSize(), source)
    _check_file(graph, file, tensors, source)
    return tensors


def check_structure(proto: ModelProto, *, source: str) -> None:
    """Check what holds at any input size: no part of the graph is hidden, and values are computed before they are read.

    Raises:
        UnsupportedModelError, ModelFileError: see `check`.
    """
    graph = proto.graph
    for function in proto.functions:
        if function.domain != DOMAIN or function.name not in OPS:
            raise UnsupportedModelError(
                f"{source}: has the function {shown(f'{function.domain}::{function.name}')}; PanRT files have only "
                f"those of {', '.join(OPS)}; {AGAIN}."
            )
    if graph.sparse_initializer or proto.training_info:
        raise UnsupportedModelError(f"{source}: has sparse tensors or a training graph; {AGAIN}.")
    ours = sum(node.domain == DOMAIN for node in graph.node)
    for found, most, what in ((len(graph.node), MAX_NODES, "nodes"), (ours, MAX_OPS, "nodes of PanRT's ops")):
        if found > most:
            raise UnsupportedModelError(f"{source}: has {found} {what}, PanRT runs up to {most}; {AGAIN}.")
    made = {""}
    for name in (*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)):
        if not name or (name in made and name not in (IMAGE, *NAMES)):
            raise ModelFileError(f"{source}: tensor {shown(name)}: its name is empty or not unique; {AGAIN}.")
        made.add(name)
    for node in graph.node:
        for name in node.input:
            if name not in made:
                raise UnsupportedModelError(
                    f"{source}: {label(node)} reads {shown(name)}, which no earlier node computes; {AGAIN}."
                )
        for name in node.output:
            if name and name in made:
                raise ModelFileError(f"{source}: {label(node)} computes {shown(name)}, which already exists; {AGAIN}.")
            made.add(name)
        if not node.output or not node.output[0]:
            raise ModelFileError(f"{source}: {label(node)} has no output; {AGAIN}.")
        for attribute in node.attribute:
            if attribute.ref_attr_name or attribute.type not in AttributeProto.AttributeType.values()[1:]:
                raise bad_attribute(node, attribute, "a value", source)
        if any(len(several) > MAX_OPERANDS for several in (node.input, node.output, node.attribute)):
            raise UnsupportedModelError(
                f"{source}: {label(node)} has more than {MAX_OPERANDS} inputs, outputs or attributes; {AGAIN}."
            )
    missing = [value.name for value in graph.output if value.name not in made]
    if missing:
        raise ModelFileError(f"{source}: no node computes its output {shown(missing[0])}; {AGAIN}.")


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
                f"{source}: its ONNX function {function.name} is not the one of this PanRT; {AGAIN} with this "
                f"version, or run its ops as PanRT's kernels: cpu:{source}"
            )
    if theirs:
        raise UnsupportedModelError(f"{source}: its ONNX function {shown(next(iter(theirs)))} is not used; {AGAIN}.")


# The model ------------------------------------------------------------------------------------------------------------


def _opset(proto: ModelProto, file: ModelFile, source: str) -> int:
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        if entry.domain not in ("", DOMAIN) or entry.domain in versions:
            raise UnsupportedModelError(
                f"{source}: imports the operators {shown(entry.domain)}, expected ONNX's and PanRT's, once; {AGAIN}."
            )
        versions[entry.domain] = entry.version
    opset = versions.get("", 0)
    if not SMALLEST_OPSET <= opset <= LARGEST_OPSET:
        raise UnsupportedModelError(
            f"{source}: opset: got {opset}, expected {SMALLEST_OPSET} to {LARGEST_OPSET}; {AGAIN}."
        )
    if opset != file.opset:
        raise _conflict(source, "opset", file.opset, opset)
    return opset


def _check_image(graph: GraphProto, file: ModelFile, source: str) -> None:
    inputs = [value.name for value in graph.input]
    expected_inputs = [IMAGE, *_settings(graph, source)]
    results = tuple(value.name for value in graph.output)
    if inputs != expected_inputs or results != RESULTS:
        raise UnsupportedModelError(
            f"{source}: its graph has the inputs {shown(', '.join(inputs))} and outputs {shown(', '.join(results))}; "
            f"expected {', '.join(expected_inputs)}, and {', '.join(RESULTS)}."
        )
    image = graph.input[0].type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in image.shape.dim]
    expected = [file.batch or -1, *file.sizes.input_hw, 3]
    if image.elem_type != TensorProto.UINT8:
        raise UnsupportedModelError(
            f"{source}: its input {IMAGE}: data type {image.elem_type}, expected uint8 pixels (N, H, W, 3); {AGAIN}."
        )
    if dims != expected:
        raise _conflict(source, "batch and input_hw", f"an input of {shape_text(expected)}", shape_text(dims))


def _settings(graph: GraphProto, source: str) -> list[str]:
    """Return the inputs that the graph's ops of version 2 read, each of which has a default of its shape and type."""
    names: list[str] = []
    for node in graph.node:
        if node.domain == DOMAIN and op_of(node.op_type, node.input).version > 1:
            wanted = INPUTS[node.op_type]
            if tuple(node.input[-len(wanted) :]) != wanted:
                raise UnsupportedModelError(
                    f"{source}: {label(node)} reads {shown(', '.join(node.input))}, expected {', '.join(wanted)} last; "
                    f"{AGAIN}."
                )
            names += [name for name in wanted if name not in names]
    defaults = {tensor.name: tensor for tensor in graph.initializer}
    for value in graph.input:
        if value.name in names:
            found, default = value.type.tensor_type, defaults.get(value.name)
            dims = [dim.dim_value for dim in found.shape.dim]
            if default is None or (found.elem_type, dims) != (default.data_type, list(default.dims)):
                raise ModelFileError(f"{source}: input {value.name} lacks a default of its type and shape; {AGAIN}.")
    return names


# The metadata ---------------------------------------------------------------------------------------------------------


def _check_file(graph: GraphProto, file: ModelFile, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise if the graph contradicts the metadata."""
    _, valid, output = file.sizes
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
        raise UnsupportedModelError(f"{source}: its graph does not end in PanopticMerge; {AGAIN}.")
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in ops:
        values = attributes(node) | _defaults(node, constants)
        for name, (field, said) in expected.get(node.op_type, {}).items():
            if not _same(said, values[name]):
                raise _conflict(source, field, said, f"{values[name]} ({node.op_type}'s {name})")
        if node.op_type == "BoxDetections":
            C = tensors[node.input[0]].shape[-1] - 1
            if C not in (1, len(file.things)):  # 1: boxes suppress those of all classes
                raise _conflict(source, "things", f"{len(file.things)} classes", C)
    S = tensors[ops[-1].input[0]].shape[1]
    if S not in (1, len(file.stuff) + 1):  # 1: no semantic branch
        raise _conflict(source, "stuff", f"{len(file.stuff)} classes", f"{S - 1}, and a channel of things")
    for name in ("pixel_mean", "pixel_std"):
        if name in constants and not _same(getattr(file, name), _numbers(constants[name])):
            raise _conflict(source, name, getattr(file, name), _numbers(constants[name]))


def _defaults(node: NodeProto, constants: Mapping[str, TensorProto]) -> dict[str, Any]:
    """Return the numbers that a node of version 2 reads by default, by the attribute of version 1; the same of all."""
    found: dict[str, Any] = {}
    for name, setting in zip(INPUTS.get(node.op_type, ()), OPS[node.op_type].settings, strict=False):
        if name in node.input:
            numbers = numpy_helper.to_array(constants[name]).tolist()
            first, *others = setting.attributes
            leading = numbers[: len(numbers) - len(others)]
            found[first] = leading[0] if len(set(leading)) == 1 else leading
            found.update(zip(others, numbers[len(leading) :], strict=True))
    return found


def _numbers(tensor: TensorProto) -> list[float]:
    numbers: list[float] = numpy_helper.to_array(tensor).reshape(-1)[:4].tolist()
    return numbers


def _same(said: Any, computed: Any) -> bool:
    """Return whether two are equal up to the rounding of an attribute or of a float16 constant."""
    left, right = (list(value) if isinstance(value, Iterable) else [value] for value in (said, computed))
    pairs = zip(left, right, strict=False)
    return len(left) == len(right) and all(abs(a - b) <= 1e-3 * abs(a) if b != a else True for a, b in pairs)


def _conflict(source: str, field: str, said: object, computed: object) -> ModelFileError:
    return ModelFileError(
        f"{source}: metadata {field}: declares {shown(said) if not isinstance(said, str) else said}, its graph has "
        f"{computed if isinstance(computed, str) else shown(computed)}; {AGAIN}."
    )
