"""Write what is generated from `panrt.plugins.schema`: the C++ header of the ops and the stub of the CPU kernels.

    python -m tools.generate_ops

A test holds the files to the schema.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from panrt.plugins import cuda_api, schema
from panrt.plugins.attributes import kernel_arguments
from panrt.plugins.schema import ALL_OPS, MAX_LEVELS, OPS, Attribute, Field, Op, Tensor

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
NUMBERS = {"int": "std::int32_t", "float": "float"}
ELEMENTS = {"float32": "float", "int32": "std::int32_t", "floating": "void", "features": "void"}
KINDS = {"float32": "kFloat32", "int32": "kInt32", "floating": "kFloating", "features": "kFeatures"}
ARRAYS = {"float32": "Float32", "int32": "Int32", "floating": "Float32", "features": "Floating"}

HEADER = """\
// Written by tools/generate_ops.py from plugins/schema.py: change the schema, and run  python -m tools.generate_ops.
//
// Of each op: the struct that its kernels take, the functions around them (plugins/cuda/launch.h), and a description in
// panrt::ops, of which tensorrt/op_plugin.h makes a plugin. plugins/OPS.md says what the ops compute.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "panrt/cuda/status.h"
#include "panrt/cuda/types.h"

struct CUstream_st;

namespace panrt::cuda {

using Stream = CUstream_st*;  // cudaStream_t, of which CPU code knows nothing

}  // namespace panrt::cuda
"""


def files() -> dict[Path, str]:
    """Return every generated file with its text; C++ still without clang-format."""
    return {PLUGINS / "include/panrt/ops.h": header(), PLUGINS / "_native.pyi": stub()}


def header() -> str:
    """Return include/panrt/ops.h."""
    return "\n".join([HEADER, *(line for op in ALL_OPS for line in _op(op)), *_lists()]) + "\n"


def _op(op: Op) -> Iterator[str]:
    yield f"// --- {op.name}" + (f", version {op.version}" if op.version > 1 else "")
    yield ""
    yield from _kernels(op) if op.version == 1 else []
    yield "namespace panrt::ops {"
    yield from _description(op)
    yield "}  // namespace panrt::ops"
    yield ""


def _kernels(op: Op) -> Iterator[str]:
    if not op.own_cpu_arguments:
        yield "namespace panrt {"
        yield from _args(op)
        yield f"void {op.function}({op.name}Args const& args, int threads);  // on the CPU; throws std::bad_alloc only"
        yield "}  // namespace panrt"
        yield ""
    yield "namespace panrt::cuda {"
    yield from _args(op) if op.own_cpu_arguments else [f"using panrt::{op.name}Args;", ""]
    args = f"{op.name}Args const& args"
    yield "// Whether sizes and attributes are within the limits of panrt/limits.h; pointers are not checked."
    yield f"Status check_{op.function}({args}) noexcept;"
    if op.has_workspace:
        yield "// Reads sizes and attributes only. 0 if the launch would reject them."
        yield f"std::size_t {op.function}_workspace_bytes({args}) noexcept;"
    yield f"Status prepare_{op.function}() noexcept;  // panrt/cuda/prepare.h"
    yield f"Status launch_{op.function}({args}, Stream stream) noexcept;"
    yield "}  // namespace panrt::cuda"
    yield ""


def _args(op: Op) -> Iterator[str]:
    if op.level_struct:
        yield f"struct {op.level_struct} {{"
        yield from (_member(op, field) for field in op.level_fields)
        yield "};"
        yield ""
    yield f"struct {op.name}Args {{"
    if op.level_struct:
        yield f"  {op.level_struct} levels[{MAX_LEVELS}];  // L of them, finest first"
    yield from (_member(op, field) for field in op.fields)
    yield "};"
    yield ""
    if op.level_struct:
        yield from _layout(op.level_struct, cuda_api.level_arguments(op))
    yield from _layout(f"{op.name}Args", cuda_api.arguments(op))
    yield ""


def _layout(name: str, struct: type[ctypes.Structure]) -> Iterator[str]:
    """Yield what must hold of a struct on a 64-bit machine, where ctypes has it in plugins/cuda_api.py."""
    yield f"static_assert(sizeof({name}) == {ctypes.sizeof(struct)});"
    for member, *_ in struct._fields_:
        yield f"static_assert(offsetof({name}, {member}) == {getattr(struct, member).offset});"


def _member(op: Op, field: Field) -> str:
    notes = [field.note] if field.note else []
    array = f"[{field.length}]" if field.length else ""
    if field.source == "tensor":
        tensor = _tensor(op, field.of)
        kind = ELEMENTS[tensor.type] + ("*" if tensor in op.outputs else " const*")
        notes.insert(0, f"({', '.join(tensor.legend.split())})")
    elif field.source == "size":
        kind = NUMBERS["int"] if field.type == "" else f"std::{field.type}_t"
        notes.insert(0, field.of)
    elif field.source == "attribute":
        attribute = op.attribute(field.of.split("[")[0])
        kind = "float" if field.type == "float32" else NUMBERS[attribute.type]
        notes = notes or [attribute.note]
    else:
        kind = {"type": "DataType", "layout": "Layout", "workspace": "void*", "workspace_bytes": "std::size_t"}[
            field.source
        ]
    return f"  {kind} {field.name}{array};" + (f"  // {', '.join(notes)}" if notes else "")


def _tensor(op: Op, name: str) -> Tensor:
    settings = (setting.tensor for setting in op.settings)
    return next(tensor for tensor in (*op.inputs, *op.outputs, *settings) if tensor.name == name)


def _description(op: Op) -> Iterator[str]:
    yield f"struct {op.key} {{"
    yield f'  static constexpr char const* kName = "{op.name}";'
    yield f'  static constexpr char const* kVersion = "{op.version}";'
    yield f"  using Args = cuda::{op.name}Args;"
    yield ""
    yield from (f"  {_storage(attribute)} {attribute.name}{{}};" for attribute in op.attributes)
    yield ""
    yield "  template <typename Visit>"
    yield "  void attributes(Visit&& visit) {"
    yield from (f'    visit("{attribute.name}", {attribute.name});' for attribute in op.attributes)
    yield "  }"
    yield ""
    yield "  template <typename Expect>"
    yield "  void check_attributes(Expect const& expect) const {"
    yield from (f"    {line}" for attribute in op.attributes for line in _checks(attribute))
    yield "  }"
    yield ""
    yield "  template <typename Signature>"
    yield "  void tensors(Signature& signature) const {"
    yield from _signature(op)
    yield "  }"
    yield ""
    yield "  template <typename Sizes>"
    yield "  Args arguments(Sizes const& sizes) const {"
    yield from _arguments(op)
    yield "  }"
    yield ""
    yield "  static void point("
    yield "      Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {"
    yield from _point(op)
    yield "  }"
    yield ""
    yield f"  static cuda::Status check(Args const& args) {{ return cuda::check_{op.launcher}(args); }}"
    found = f"cuda::{op.launcher}_workspace_bytes(args)" if op.has_workspace else "0"
    parameter = "args" if op.has_workspace else "/*args*/"
    yield f"  static std::size_t workspace_bytes(Args const& {parameter}) {{ return {found}; }}"
    yield f"  static cuda::Status prepare() {{ return cuda::prepare_{op.launcher}(); }}"
    yield "  static cuda::Status launch(Args const& args, cuda::Stream stream) {"
    yield f"    return cuda::launch_{op.launcher}(args, stream);"
    yield "  }"
    yield "};"


def _storage(attribute: Attribute) -> str:
    number = NUMBERS[attribute.type]
    if isinstance(attribute.length, tuple):
        return f"std::array<{number}, {len(attribute.length)}>"
    return f"std::vector<{number}>" if attribute.length else number


def _checks(attribute: Attribute) -> Iterator[str]:
    """Yield calls of tensorrt/attributes.h's Expect."""
    name = attribute.name
    if attribute.length == "L":
        yield f'expect.levels("{name}", {name}.size()' + (");" if name == "strides" else ", strides.size());")
    elif isinstance(attribute.length, str) and attribute.length:
        letter = schema.LETTERS[attribute.length]
        yield f'expect.entries("{name}", {name}.size(), {letter.least}, {letter.most});'
    each = f"for (auto const number : {name}) " if attribute.length else ""
    number = "number" if attribute.length else name
    if attribute.type == "int":
        unit = "sides" if isinstance(attribute.length, tuple) else attribute.unit
        most = "INT32_MAX" if attribute.most is None else str(attribute.most)
        yield f'{each}expect.integer("{name}", {number}, {attribute.least}, {most}, "{unit}");'
    elif attribute.above is not None:
        most = "" if attribute.most is None else f", {float(attribute.most)}F"
        yield f'{each}expect.above_zero("{name}", {number}{most});'
    elif attribute.least is not None:
        yield f'{each}expect.fraction("{name}", {number});'
    else:
        yield f'{each}expect.finite("{name}", {number});'


def _signature(op: Op) -> Iterator[str]:
    for tensor in op.inputs:
        arguments = f'"{tensor.name}", "{tensor.legend}", Signature::{KINDS[tensor.type]}'
        if tensor.per_level:
            yield f"    signature.inputs_per_level(strides.size(), {arguments});"
        else:
            yield f"    signature.input({arguments});"
    for tensor in op.outputs:
        yield f'    signature.output("{tensor.name}", "{tensor.legend}", Signature::{KINDS[tensor.type]});'
    for attribute in op.attributes:
        if isinstance(attribute.length, str) and attribute.length not in ("", "L"):
            yield f'    signature.constant("{attribute.length}", static_cast<std::int64_t>({attribute.name}.size()));'
        for i, letter in enumerate(attribute.sizes):
            yield f'    signature.constant("{letter}", {attribute.name}{f"[{i}]" if attribute.length else ""});'


def _arguments(op: Op) -> Iterator[str]:
    if not any(field.source in ("size", "type", "layout") for field in (*op.fields, *op.level_fields)):
        yield "    (void)sizes;"
    for attribute in op.attributes:
        if attribute.within is not None:
            letters = ", ".join(f'sizes("{letter}")' for letter in attribute.within.letters)
            yield (
                f'    sizes.expect_within("{attribute.name}", {attribute.name}, {attribute.within.factor}, '
                f'{{{letters}}}, "{attribute.within.text}");'
            )
    yield "    Args args{};"
    if op.level_fields:
        yield "    for (std::size_t i = 0; i < strides.size(); ++i) {"
        for field in op.level_fields:
            if field.source == "size":
                yield f'      args.levels[i].{field.name} = sizes("{field.of}", i);'
            elif field.source == "attribute":
                value = f"{field.of}[i]"
                value = f"static_cast<float>({value})" if field.type == "float32" else value
                yield f"      args.levels[i].{field.name} = {value};"
        yield "    }"
    for field in _own(op):
        if field.length:
            yield f"    std::copy({field.of}.begin(), {field.of}.end(), args.{field.name});"
        elif field.source == "size" and field.of == "L":
            yield f"    args.{field.name} = static_cast<std::int32_t>(strides.size());"
        elif field.source == "size":
            yield f'    args.{field.name} = sizes("{field.of}");'
        elif field.source == "attribute":
            yield f"    args.{field.name} = {field.of};"
        elif field.source in ("type", "layout"):
            index = [tensor.name for tensor in op.inputs].index(field.of)
            yield f"    args.{field.name} = sizes.{field.source}({index});"
    for attribute in OPS[op.name].attributes:
        if attribute.name not in op.attribute_names and attribute.unread:
            yield f"    args.{attribute.name} = {attribute.unread};  // read from an input"
    yield "    return args;"


def _point(op: Op) -> Iterator[str]:
    unused = [] if op.has_workspace else ["    (void)workspace;", "    (void)bytes;"]
    levels = [tensor.name for tensor in op.inputs if tensor.per_level]
    yield from unused
    if levels:
        yield "    auto const levels = static_cast<std::size_t>(args.level_count);"
        yield "    for (std::size_t i = 0; i < levels; ++i) {"
        for field in op.level_fields:
            if field.source == "tensor":
                place = _level_place(levels.index(field.of))
                yield f"      args.levels[i].{field.name} = {_cast(op, field.of, place)};"
        yield "    }"
    fixed = [tensor.name for tensor in op.inputs if not tensor.per_level]
    outputs = [tensor.name for tensor in op.outputs]
    for field in _own(op):
        if field.source == "tensor" and field.of in fixed:
            before = {0: "", 1: "levels + "}.get(len(levels), f"{len(levels)} * levels + ")
            yield f"    args.{field.name} = {_cast(op, field.of, f'inputs[{before}{fixed.index(field.of)}]')};"
        elif field.source == "tensor":
            yield f"    args.{field.name} = {_cast(op, field.of, f'outputs[{outputs.index(field.of)}]')};"
        elif field.source == "workspace":
            yield f"    args.{field.name} = workspace;"
        elif field.source == "workspace_bytes":
            yield f"    args.{field.name} = bytes;"


def _own(op: Op) -> Iterator[Field]:
    """Yield the members of the struct that this version of the op fills in; the others stay null or 0."""
    tensors = {tensor.name for tensor in (*op.inputs, *op.outputs)}
    for field in op.fields:
        known = {"tensor": tensors, "attribute": op.attribute_names}.get(field.source, {field.of})
        if field.of.split("[")[0] in known:
            yield field


def _level_place(tensor: int) -> str:
    before = {0: "", 1: "levels + "}.get(tensor, f"{tensor} * levels + ")
    return f"inputs[{before}i]"


def _cast(op: Op, name: str, pointer: str) -> str:
    tensor = _tensor(op, name)
    element = ELEMENTS[tensor.type]
    constant = " const" if tensor in op.inputs else ""
    return pointer if element == "void" else f"static_cast<{element}{constant}*>({pointer})"


def _lists() -> Iterator[str]:
    yield "// X(name, function) for each op, for each version of one, and for each whose kernels need a workspace."
    yield "// A template cannot name functions of C."
    yield "// clang-format off"
    yield from _list("OP", ((op.name, op.function) for op in OPS.values()))
    yield from _list("PLUGIN", ((op.key, op.function) for op in ALL_OPS))
    yield from _list("WORKSPACE", ((op.name, op.function) for op in OPS.values() if op.has_workspace))
    yield "// clang-format on"


def _list(kind: str, items: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f"#define PANRT_FOR_EACH_{kind}(X) \\"
    yield " \\\n".join(f"  X({name}, {function})" for name, function in items)


# --- _native.pyi ------------------------------------------------------------------------------------------------------

STUB = """\
# Written by tools/generate_ops.py: functions and attributes of ops from plugins/schema.py, the others as they are here.
# The types of attributes are for the type checker alone: the compiled module does not have them.
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import NotRequired, TypedDict

from .contract import Float32, Floating, Int32

"""
OTHERS = """\
def conv3x3_variants() -> list[str]: ...
def conv3x3_workspace(channels: int, filters: int) -> int: ...
def conv3x3(
    input: Float32,
    weights: Float32,
    bias: Float32,
    output: Float32,
    workspace: Float32,
    *,
    lower: float,
    upper: float,
    variant: int,
    threads: int,
) -> None: ...
def skip_destructors() -> None: ...
def look_up(image: NDArray[np.uint8], table: Float32, output: Float32, *, threads: int) -> None: ...
def overlay(
    frame: NDArray[np.uint8],
    panoptic: Int32,
    colors: NDArray[np.uint8],
    result: NDArray[np.uint8],
    *,
    opacity: int,
    border: int,
    threads: int,
) -> None: ...
"""


def stub() -> str:
    """Return _native.pyi."""
    return STUB + "".join(map(_attributes, ALL_OPS)) + "".join(map(_kernel, ALL_OPS)) + OTHERS


def _attributes(op: Op) -> str:
    members = "".join(f"    {attribute.name}: {_required(attribute)}\n" for attribute in op.attributes)
    return f"class {op.key}Attributes(TypedDict):\n{members}\n"


def _required(attribute: Attribute) -> str:
    kind = attribute.python_type
    if attribute.default is None:
        return f"{kind}  # {attribute.note}"
    return f"NotRequired[{kind}]  # {attribute.note}; {attribute.default}"


def _kernel(op: Op) -> str:
    lines = [_array(tensor) for tensor in (*op.inputs, *op.outputs)]
    lines += ["*,", *(f"{name}: {kind}," for name, kind in kernel_arguments(op).items()), "threads: int,"]
    return f"def {op.function}(\n" + "".join(f"    {line}\n" for line in lines) + ") -> None: ...\n"


def _array(tensor: Tensor) -> str:
    kind = ARRAYS[tensor.type]
    axes = tensor.legend.split()
    shape = ", ".join(axes) + ("," if len(axes) == 1 else "")
    return f"{tensor.name}: {f'Sequence[{kind}]' if tensor.per_level else kind},  # ({shape})"


def formatted(path: Path, text: str) -> str:
    """Return a file's text as the formatter leaves it."""
    if path.suffix != ".h":
        return text
    clang_format = Path(sys.executable).with_name("clang-format")
    command = [str(clang_format) if clang_format.exists() else "clang-format", f"--assume-filename={path}"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    for file, content in files().items():
        file.write_text(formatted(file, content))
