"""JSON values as dataclasses and named tuples: one decoder for the files that PanRT writes.

The type annotations of a class are the schema: every field must be there, none may be added, and each must have its
type. Ranges are the business of the class, or of who reads the file. A dataclass field with the metadata entry "added"
is newer than its schema: it may be missing, and is not written at its default, so that earlier releases read the file.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

from panrt.formats import records
from panrt.formats.records import LARGEST_WHOLE, shown

Reader = Callable[[object, str], Any]  # (value, where) -> the decoded value


class _Plain(NamedTuple):
    """The reader of a type without parts."""

    read: Callable[[object], Any]  # None: it is not one
    expected: str


_PLAIN: dict[Any, _Plain] = {
    bool: _Plain(lambda value: value if type(value) is bool else None, "true or false"),
    int: _Plain(records.whole, "an integer"),
    float: _Plain(records.real, "a number"),
    str: _Plain(records.line, "one line of printable text"),
}


def decode(
    kind: Any,
    data: Any,
    *,
    source: str,
    least: int = -LARGEST_WHOLE,
    optional: Collection[str] = (),
    readers: Mapping[Any, Reader] = types.MappingProxyType({}),
) -> Any:
    """Return `data` as a `kind`.

    Args:
        kind: a dataclass, named tuple, tuple, dict with text keys, union, literal or plain type. Of several classes in
            a union, the entry "type" of an object names one.
        data: parsed JSON.
        source: names the file, or the part of it, in messages.
        least: the smallest integer that the file may hold.
        optional: names of fields that may be missing and then have their default.
        readers: for types with a reader of their own.

    Raises:
        ValueError: a field is missing, unknown or of the wrong type, in one line that names it; or a class rejects its
            values.
    """
    return _Decoder(source, least, frozenset(optional), readers).value(kind, data, "")


class _Decoder(NamedTuple):
    """The options of `decode`; a path names a value within the source, such as `trunk.depth` or `things[2]`."""

    source: str
    least: int
    optional: frozenset[str]
    readers: Mapping[Any, Reader]

    def value(self, kind: Any, data: Any, path: str) -> Any:
        origin, inside = typing.get_origin(kind), typing.get_args(kind)
        if kind in self.readers:
            return self.readers[kind](data, self._where(path))
        if kind in _PLAIN:
            return self._plain(kind, data, path)
        if origin in (types.UnionType, typing.Union):
            return self._union(inside, data, path)
        if (read := {Literal: self._literal, tuple: self._tuple, dict: self._dict}.get(origin)) is not None:
            return read(inside, data, path)
        return self._record(kind, data, path)

    def _plain(self, kind: Any, data: Any, path: str) -> Any:
        plain = _PLAIN[kind]
        if (value := plain.read(data)) is None or (kind is int and value < self.least):
            least = f" from {self.least}" if kind is int and self.least > -LARGEST_WHOLE else ""
            raise self._wrong(path, data, plain.expected + least)
        return value

    def _literal(self, values: tuple[Any, ...], data: Any, path: str) -> Any:
        if type(data) not in map(type, values) or data not in values:
            raise self._wrong(path, data, " or ".join(map(repr, values)))
        return data

    def _union(self, kinds: tuple[Any, ...], data: Any, path: str) -> Any:
        if data is None and type(None) in kinds:
            return None
        choices = [kind for kind in kinds if kind is not type(None)]
        if len(choices) == 1:
            return self.value(choices[0], data, path)
        names = {choice.__name__: choice for choice in choices}
        name = data.get("type") if isinstance(data, dict) else None
        if not isinstance(name, str) or name not in names:
            raise ValueError(f"{self._where(path)}: got type {shown(name)}, expected one of {', '.join(names)}")
        return self.value(names[name], data, path)

    def _tuple(self, kinds: tuple[Any, ...], data: Any, path: str) -> Any:
        is_open = len(kinds) == 2 and kinds[1] is Ellipsis
        if not isinstance(data, list) or not (is_open or len(data) == len(kinds)):
            raise self._wrong(path, data, "a list" if is_open else f"a list of {len(kinds)}")
        each = [kinds[0]] * len(data) if is_open else kinds
        return tuple(
            self.value(kind, item, f"{path}[{index}]")
            for index, (kind, item) in enumerate(zip(each, data, strict=True))
        )

    def _dict(self, kinds: tuple[Any, ...], data: Any, path: str) -> Any:
        if not isinstance(data, dict) or any(records.line(name) is None for name in data):
            raise self._wrong(path, data, "an object")
        return {name: self.value(kinds[1], item, _joined(path, name)) for name, item in data.items()}

    def _record(self, kind: Any, data: Any, path: str) -> Any:
        if not isinstance(data, dict):
            raise self._wrong(path, data, f"an object with the fields of {kind.__name__}")
        hints = typing.get_type_hints(kind)
        found = {name: value for name, value in data.items() if (name, value) != ("type", kind.__name__)}
        missing = hints.keys() - found.keys() - self.optional - _added(kind)
        for problem, names in (("missing", missing), ("unknown", found.keys() - hints.keys())):
            if names:
                raise ValueError(f"{self._where(path)}: {problem} field {records.names(names)} of {kind.__name__}")
        values = {name: self.value(hints[name], value, _joined(path, name)) for name, value in found.items()}
        try:
            return kind(**values)
        except ValueError as error:
            raise ValueError(f"{self._where(path)}: {error}") from error

    def _where(self, path: str) -> str:
        return f"{self.source}: {path}" if path else self.source

    def _wrong(self, path: str, data: Any, expected: str) -> ValueError:
        return ValueError(f"{self._where(path)}: got {shown(data)}, expected {expected}")


def _joined(path: str, name: str) -> str:
    if not name.isidentifier() or len(name) > 100:
        name = shown(name)
    return f"{path}.{name}" if path else name


def _added(kind: Any) -> set[str]:
    """Return the fields that are newer than the schema of their class."""
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return {field.name for field in fields if "added" in field.metadata}


def encode(value: Any) -> Any:
    """Return a value that `decode` reads back equal: each dataclass as an object with its name as "type"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        added = _added(value)
        fields = {
            field.name: encode(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in added or getattr(value, field.name) != field.default
        }
        return {"type": type(value).__name__, **fields}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: encode(item) for name, item in value._asdict().items()}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value
