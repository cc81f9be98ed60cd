"""A builder of ONNX function bodies: values with arithmetic operators, and subgraphs as Python functions.

    op = FunctionBuilder("Scaled", inputs=("x",), attributes={"factor": FLOAT}, opset=18)
    (x,) = op.inputs
    function = op.build(y=op.Relu(x * op.attribute("factor")))

Any ONNX operator is a method of the builder. Where an operand is a Python or NumPy value it becomes a constant: a bool
or an int is bool or int64, a float is float32, a list of ints is an int64 vector, a NumPy value keeps its type.
Inside the callable of a `loop` or a `branch` the same builder and all outer values can be used, as ONNX subgraphs see
the values around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT, INT, STRING = AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING
FLOATS, INTS = AttributeProto.FLOATS, AttributeProto.INTS
# The attribute of Constant that holds a value of each type.
CONSTANT_FIELDS = {FLOAT: "value_float", INT: "value_int", FLOATS: "value_floats", INTS: "value_ints"}

LARGEST_FLOAT = float(np.finfo(np.float32).max)

Operand: TypeAlias = "Value | bool | int | float | Sequence[int] | NDArray[np.generic] | np.generic"


class Reference(NamedTuple):
    """A node's attribute that takes its value from the function's attribute of this name."""

    attribute: str


class Value:
    """One tensor of a body. Arithmetic and comparison append the ONNX operator to the block under construction."""

    __slots__ = ("name", "op")
    __array_ufunc__ = None  # a NumPy scalar on the left leaves the operator to this class

    def __init__(self, op: FunctionBuilder, name: str) -> None:
        self.op = op
        self.name = name

    def __add__(self, other: Operand) -> Value:
        return self.op.Add(self, other)

    def __sub__(self, other: Operand) -> Value:
        return self.op.Sub(self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self.op.Sub(other, self)

    def __mul__(self, other: Operand) -> Value:
        return self.op.Mul(self, other)

    def __truediv__(self, other: Operand) -> Value:
        return self.op.Div(self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self.op.Div(other, self)

    def __mod__(self, other: Operand) -> Value:
        return self.op.Mod(self, other)

    def __lt__(self, other: Operand) -> Value:
        return self.op.Less(self, other)

    def __le__(self, other: Operand) -> Value:
        return self.op.LessOrEqual(self, other)

    def __gt__(self, other: Operand) -> Value:
        return self.op.Greater(self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.op.GreaterOrEqual(self, other)

    def __and__(self, other: Operand) -> Value:
        return self.op.And(self, other)

    def __invert__(self) -> Value:
        return self.op.Not(self)

    def cast(self, dtype: type[np.generic]) -> Value:
        return self.op.Cast(self, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def size(self, axis: int) -> Value:
        """Return the length of one axis, () int64."""
        return self.op.Squeeze(self.op.Shape(self, start=axis, end=axis + 1))

    def __getitem__(self, index: int) -> Value:
        """Return an entry of the first axis."""
        return self.op.Gather(self, index, axis=0)


Columns: TypeAlias = tuple[Value, Value, Value, Value]  # of boxes, each (..., 1)


class FunctionBuilder:
    """Collects the nodes of one `FunctionProto` in domain `panrt`."""

    def __init__(
        self, name: str, *, inputs: Sequence[str], attributes: Mapping[str, AttributeProto.AttributeType], opset: int
    ) -> None:
        self.name = name
        self.inputs = tuple(Value(self, name) for name in inputs)
        self.settings: dict[str, Callable[[], Value]] = {}  # values of attributes that this version has as inputs
        self._attributes = attributes
        self._opset = opset
        self._nodes: list[NodeProto] = []  # of the block under construction
        self._constants: dict[tuple[object, ...], Value] = {}  # each once, ahead of all blocks
        self._constant_nodes: list[NodeProto] = []
        self._values = 0  # names must differ across all blocks of a function

    def __getattr__(self, op_type: str) -> Callable[..., Value]:
        if not op_type[:1].isupper():  # no operator: a wrong name, or a question such as copy's for __deepcopy__
            raise AttributeError(f"FunctionBuilder has no {op_type!r}")

        def append(*inputs: Operand, **attributes: object) -> Value:
            return self.emit(op_type, inputs, 1, attributes)[0]

        return append

    def emit(
        self, op_type: str, inputs: Sequence[Operand], outputs: int, attributes: Mapping[str, object]
    ) -> tuple[Value, ...]:
        """Append a node with any number of outputs."""
        results = tuple(self._fresh(op_type) for _ in range(outputs))
        operands = [self.value(value).name for value in inputs]
        node = helper.make_node(op_type, operands, [result.name for result in results])
        for name, value in attributes.items():
            node.attribute.append(self._attribute(name, value))
        self._nodes.append(node)
        return results

    def value(self, operand: Operand) -> Value:
        """Return the operand itself, or a constant."""
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, (np.ndarray, np.generic)):
            array = np.asarray(operand)
        elif isinstance(operand, float):
            array = np.asarray(operand, np.float32)
        else:
            array = np.asarray(operand, np.bool_ if isinstance(operand, bool) else np.int64)
        key = (array.dtype.str, array.shape, array.tobytes())
        return self._constant(key, self._attribute("value", numpy_helper.from_array(array)))

    def attribute(self, name: str) -> Value:
        """Return an attribute of the function as a tensor: () or (length,), float32 or int64."""
        field = CONSTANT_FIELDS[self._attributes[name]]
        return self._constant((name,), self._attribute(field, Reference(name)))

    def setting(self, name: str) -> Value:
        """The attribute of this name, or its value in an input: (), or one that broadcasts."""
        return self.attribute(name) if name in self._attributes else self.settings[name]()

    def size_attribute(self, name: str, open_size: bool) -> Value:
        """Return the attribute of this name, (2,) int64, or the last input if the size is open."""
        return self.inputs[-1] if open_size else self.attribute(name)

    def loop(
        self, trips: Value, state: Sequence[Operand], step: Callable[..., tuple[Sequence[Value], Sequence[Value]]]
    ) -> tuple[Value, ...]:
        """Append an ONNX Loop: step(i, *state) returns the next state, and values that are stacked over all trips.

        Returns the last state, then the stacks.
        """
        i, go_on, *carried = (self._fresh("Loop_in") for _ in range(2 + len(state)))
        counts: list[int] = []

        def body() -> Sequence[Value]:
            next_state, stacked = step(i, *carried)
            counts.append(len(next_state) + len(stacked))
            return [self.Identity(value) for value in (go_on, *next_state, *stacked)]

        parameters = [
            helper.make_tensor_value_info(i.name, TensorProto.INT64, ()),
            helper.make_tensor_value_info(go_on.name, TensorProto.BOOL, ()),
            *(ValueInfoProto(name=value.name) for value in carried),  # typed by inference from `state`
        ]
        graph = self._block("Loop_body", parameters, body)
        return self.emit("Loop", (trips, True, *state), counts[0], {"body": graph})

    def branch(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        """Append an ONNX If with one result."""
        blocks = {
            "then_branch": self._block("If_then", (), lambda: [self.Identity(then())]),
            "else_branch": self._block("If_else", (), lambda: [self.Identity(otherwise())]),
        }
        return self.emit("If", (condition,), 1, blocks)[0]

    def build(self, **outputs: Value) -> FunctionProto:
        """Return the function, its outputs named and ordered as the keywords are."""
        for name, value in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        return helper.make_function(
            "panrt",
            self.name,
            [value.name for value in self.inputs],
            list(outputs),
            self._constant_nodes + self._nodes,
            [helper.make_opsetid("", self._opset)],
            list(self._attributes),
        )

    def _attribute(self, name: str, value: object) -> AttributeProto:
        if isinstance(value, Reference):
            return AttributeProto(name=name, type=self._attributes[value.attribute], ref_attr_name=value.attribute)
        return helper.make_attribute(name, value)

    def _constant(self, key: tuple[object, ...], attribute: AttributeProto) -> Value:
        if key not in self._constants:
            self._constants[key] = self._fresh("Constant")
            self._constant_nodes.append(
                NodeProto(op_type="Constant", output=[self._constants[key].name], attribute=[attribute])
            )
        return self._constants[key]

    def _block(self, name: str, inputs: Sequence[ValueInfoProto], body: Callable[[], Sequence[Value]]) -> GraphProto:
        outer, self._nodes = self._nodes, []
        try:
            outputs = body()
            return helper.make_graph(self._nodes, name, inputs, [ValueInfoProto(name=value.name) for value in outputs])
        finally:
            self._nodes = outer

    def _fresh(self, stem: str) -> Value:
        self._values += 1
        return Value(self, f"{stem}_{self._values}")


# --- values of several nodes ------------------------------------------------------------------------------------------


def shape(op: FunctionBuilder, *sizes: Value | int) -> Value:
    """Return scalars as one vector."""
    return op.Concat(*(op.Reshape(size, [1]) if isinstance(size, Value) else [size] for size in sizes), axis=0)


def split(op: FunctionBuilder, boxes: Value) -> Columns:
    """Return the four columns of the last axis."""
    x0, y0, x1, y1 = op.emit("Split", (boxes,), 4, {"axis": -1, "num_outputs": 4})
    return x0, y0, x1, y1


def top_k(op: FunctionBuilder, scores: Value, k: Value) -> tuple[Value, Value]:
    """Return the best k of each row and their index; equal ones keep their order."""
    values, index = op.emit("TopK", (scores, op.Reshape(k, [1])), 2, {"axis": -1})
    return values, index


def descending(op: FunctionBuilder, size: Value) -> Value:
    """Return size, size - 1 ... 1, (size,) float32; exact up to 2^24."""
    return (size - op.Range(0, size, 1)).cast(np.float32)


def first_of(op: FunctionBuilder, size: Value, count: Value) -> Value:
    """Return whether entries are before each of the N counts, (N, size) bool."""
    return op.Range(0, size, 1) < op.Unsqueeze(count.cast(np.int64), [1])


def is_finite(op: FunctionBuilder, x: Value) -> Value:
    return op.Abs(x) <= LARGEST_FLOAT


def at_least(op: FunctionBuilder, x: Value, limit: Operand) -> Value:
    """Return the larger one; NaN stays NaN."""
    return op.Where(x < limit, limit, x)


def at_most(op: FunctionBuilder, x: Value, limit: Operand) -> Value:
    """Return the smaller one; NaN stays NaN."""
    return op.Where(x > limit, limit, x)


def exp(op: FunctionBuilder, x: Value) -> Value:
    """Compute exp in float64, rounded to float32."""
    return op.Exp(x.cast(np.float64)).cast(np.float32)
