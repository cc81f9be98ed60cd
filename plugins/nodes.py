"""The nodes of ops in an ONNX graph: which version and form of its op a node is, and the names of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .schema import ALL_OPS, INPUT_SIZE, OPS, SIZED, Op


class Form(NamedTuple):
    """The form of an op's ONNX function that a node needs."""

    levels: int  # of the pyramid; 1 if the op has none
    open_size: bool  # the size of the network's input is an input
    version: int = 1  # of the op


def form(op_type: str, inputs: Sequence[str]) -> Form:
    """Return the form of a node with these inputs.

    Raises:
        ValueError: no such op, or an input is missing or unknown.
    """
    if op_type not in OPS:
        raise ValueError(f"op_type: expected one of {', '.join(OPS)}, got {op_type!r}")
    open_size = op_type in SIZED and list(inputs[-1:]) == [INPUT_SIZE]
    found = len(inputs) - open_size
    for op in versions(op_type):
        per_level = sum(tensor.per_level for tensor in op.inputs)
        fixed = len(op.inputs) - per_level
        levels, rest = divmod(found - fixed, per_level) if per_level else (1, found - fixed)
        if levels >= 1 and not rest:
            return Form(levels, open_size, op.version)
    wanted = ", ".join(tensor.name + ("_0 ..." if tensor.per_level else "") for tensor in OPS[op_type].inputs)
    raise ValueError(f"{op_type}: expected names for {wanted}, got {list(inputs)}")


def op_of(op_type: str, inputs: Sequence[str]) -> Op:
    """Return the declaration of the op of a node with these inputs; errors as of `form`."""
    return declared(op_type, form(op_type, inputs).version)


def versions(op_type: str) -> tuple[Op, ...]:
    """Return all versions of an op, the oldest first."""
    return tuple(op for op in ALL_OPS if op.name == op_type)


def declared(op_type: str, version: int) -> Op:
    """Return the declaration of a version of an op."""
    return next(op for op in versions(op_type) if op.version == version)


def input_names(op_type: str, form: Form) -> list[str]:
    """Return the names of a node's inputs in OPS.md: those of all levels of a tensor, then the next tensor."""
    names = [
        f"{tensor.name}_{i}" if tensor.per_level else tensor.name
        for tensor in declared(op_type, form.version).inputs
        for i in range(form.levels if tensor.per_level else 1)
    ]
    return [*names, INPUT_SIZE] if form.open_size else names


def by_tensor(op: Op, values: Sequence[Any]) -> list[Any]:
    """Return one entry per input of an op, a list for a tensor per level, of a node's inputs one after the other."""
    per_level = sum(tensor.per_level for tensor in op.inputs)
    levels = (len(values) - len(op.inputs) + per_level) // per_level if per_level else 0
    grouped: list[Any] = []
    rest = list(values)
    for tensor in op.inputs:
        size = levels if tensor.per_level else 1
        grouped.append(rest[:size] if tensor.per_level else rest[0])
        rest = rest[size:]
    return grouped
