"""The names that a pickle of weights may use, and the inert values that they build.

A name that a pickle requests is looked up in `KNOWN`. What it "builds" is a stand-in: which array, of what type and
shape, from which bytes. Nothing is allocated for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


class PickleProblem(Exception):  # noqa: N818 - internal: a reader raises an error that names the file in its place
    """A pickle is damaged, requests anything but data, or is too large; the text continues "<file>: "."""


@dataclass(frozen=True, eq=False)
class Name:
    """A name that the pickle requests; it can only be looked up in the table."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Dtype:
    """A NumPy type: its code without byte order ("f4"), and the order."""

    code: object
    order: object = "|"


@dataclass(eq=False)
class Array:
    """A NumPy array that was not built."""

    dtype: object = None
    shape: object = None
    fortran: object = False
    raw: object = None  # memoryview, str (bytes of Python 2) or Encoded
    complete: bool = False


@dataclass(frozen=True, eq=False)
class Scalar:
    """A NumPy number; its value is not needed."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Bytes as protocol 2 writes them: text whose characters are the bytes."""

    text: str


@dataclass(frozen=True, eq=False)
class Storage:
    """The numbers of PyTorch tensors, elsewhere in the file."""

    kind: str  # "FloatStorage"
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class TensorView:
    """A PyTorch tensor that was not built: a view of a storage."""

    storage: object
    offset: object
    size: object
    stride: object


@dataclass(frozen=True, eq=False)
class Opaque:
    """An object that a framework keeps beside the weights; it was not built, and its content is dropped."""


# Names ----------------------------------------------------------------------------------------------------------------

Arguments: TypeAlias = "tuple[Any, ...]"


def wrong(what: str) -> PickleProblem:
    """Return the error for a program that is none of a pickler."""
    return PickleProblem(f"{what} in a way that no pickler writes")


def _reconstruct(arguments: Arguments) -> Array:
    if len(arguments) != 3:
        raise wrong("an array is built")
    kind, shape, code = arguments
    code = bytes(code) if isinstance(code, memoryview) else code
    code = code.text if isinstance(code, Encoded) else code
    if not (isinstance(kind, Name) and str(kind) == "numpy.ndarray") or shape != (0,) or code not in (b"b", "b"):
        raise wrong("an array is built")
    return Array()


def _frombuffer(arguments: Arguments) -> Array:
    """Build the array that protocol 5 describes."""
    if len(arguments) != 4 or arguments[3] not in ("C", "F"):
        raise wrong("an array is built")
    raw, dtype, shape, order = arguments
    return Array(dtype, shape, order == "F", raw, complete=True)


def _dtype(arguments: Arguments) -> Dtype:
    if not arguments or len(arguments) > 3:
        raise wrong("a type is built")
    return Dtype(arguments[0])


def _encode(arguments: Arguments) -> Encoded:
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
        raise wrong("bytes are encoded")
    return Encoded(arguments[0])


def _bytes(arguments: Arguments) -> object:
    """Build `bytes()`, as protocol 2 writes empty bytes, and `bytearray(bytes)`."""
    if not arguments:
        return memoryview(b"")
    if len(arguments) == 1 and isinstance(arguments[0], memoryview | Encoded):
        return arguments[0]
    raise wrong("bytes are built")


def _tensor(arguments: Arguments) -> TensorView:
    if len(arguments) < 4:
        raise wrong("a tensor is built")
    return TensorView(*arguments[:4])


def _parameter(arguments: Arguments) -> TensorView:
    if not arguments or not isinstance(arguments[0], TensorView):
        raise wrong("a parameter is built")
    return arguments[0]


def _size(arguments: Arguments) -> object:
    if len(arguments) != 1 or not isinstance(arguments[0], tuple | list):
        raise wrong("a torch.Size is built")
    return arguments[0]


def _getattr(arguments: Arguments) -> Opaque:
    """Stand in for a method of an inert class, which protocol 2 names in this way; nothing is looked up."""
    if len(arguments) != 2 or not is_inert(arguments[0]):
        raise PickleProblem("it asks for builtins.getattr")
    return Opaque()


_Builder: TypeAlias = Callable[[Arguments], object]

# None: may be named, not called. OrderedDict and Counter are built by the machine, as they hold many things.
_DATA: Mapping[str, _Builder | None] = {
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "builtins.getattr": _getattr,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": lambda _: Scalar(),
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy.dtype": _dtype,
    "numpy.ndarray": None,
}
STORAGES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}
_TORCH: Mapping[str, _Builder | None] = {
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.device": lambda _: Scalar(),
    **{f"torch.{kind}": None for kind in STORAGES},
    **{f"torch.{name}": None for name in STORAGES.values()},
}
CONTAINERS = ("collections.OrderedDict", "collections.Counter")
KNOWN = {**_DATA, **_TORCH, **dict.fromkeys(CONTAINERS)}


# mmdetection's training checkpoints hold their logs and configurations as objects of these packages.
INERT = ("addict", "mmcv", "mmdet", "mmengine")


def is_inert(value: object) -> bool:
    """Return whether it is a name of an `INERT` package, or what such a name built."""
    return isinstance(value, Opaque) or (isinstance(value, Name) and value.module.split(".", 1)[0] in INERT)


def canonical(module: str) -> str:
    """Return the module's name in `KNOWN`: NumPy 2 renamed `numpy.core`, Python 3 `__builtin__`."""
    if module == "__builtin__":
        return "builtins"
    return re.sub(r"^numpy\._core\b", "numpy.core", module)
