"""YAML read as data: mappings, sequences and scalars, and nothing else.

PyYAML splits the text into events, and they are put together here, without recursion. Bounded are the file, its depth,
and its values with every alias written out, so that no short file becomes large. A tag that asks for a Python object is
an error; `!!python/tuple`, which detectron2's dumps have, is a sequence. Repeated keys, whose meaning differs between
readers, are errors, and so are merge keys (`<<`).
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from panrt.errors import ConfigFileError
from panrt.formats import records

MOST_BYTES = 2**20
MOST_VALUES = 20_000  # with every alias written out
DEEPEST = 32
LONGEST_SCALAR = 10_000  # characters

_YAML = "tag:yaml.org,2002:"
_SCALARS = {f"{_YAML}{kind}" for kind in ("null", "bool", "int", "float", "str")}
_SEQUENCES = {None, "!", f"{_YAML}seq", f"{_YAML}python/tuple"}
_MAPPINGS = {None, "!", f"{_YAML}map"}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file whose top level is a mapping.

    Returns:
        Mappings as dictionaries with text keys, sequences as lists, scalars as YAML 1.1 types them.

    Raises:
        ConfigFileError: it is not YAML, too large, nested too deeply, or asks for more than data.
        OSError: from the file system.
    """
    content = _Composer(path).compose(read_text(path))
    if content is None:  # nothing but comments
        return {}
    if not isinstance(content, dict):
        raise ConfigFileError(f"{path}: got {records.shown(content)} at the top, expected keys and values.")
    return content


def read_text(path: Path, *, most: int = MOST_BYTES) -> str:
    """Read a file of at most so many bytes as text.

    Raises:
        ConfigFileError: not a regular file, too large, or not UTF-8; OSError.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise ConfigFileError(f"{path}: not a regular file.")
    with path.open("rb") as file:
        content = file.read(min(status.st_size, most) + 1)
    if len(content) > most:
        raise ConfigFileError(f"{path}: more than {most >> 20} MiB; expected a configuration or a list of names.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigFileError(f"{path}: byte {error.start} is not UTF-8; expected a text file.") from error


class _Value(NamedTuple):
    content: Any
    size: int  # values in it, itself included


class _Open:
    """A mapping or sequence that has begun."""

    def __init__(self, event: Any) -> None:
        self.anchor: str | None = event.anchor
        self.is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.items: list[_Value] = []  # keys and values in turn, in a mapping


class _Composer:
    """Puts events together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.anchors: dict[str, _Value] = {}
        self.open: list[_Open] = []
        self.values = 0
        self.line = 0
        self.resolver: Any = yaml.resolver.Resolver()  # the stubs lack types
        self.constructor = yaml.constructor.SafeConstructor()

    def compose(self, text: str) -> Any:
        documents: list[Any] = []
        try:
            events: Iterable[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
            for event in events:
                self.line = event.start_mark.line + 1
                if (value := self._value(event)) is None:
                    continue
                if self.open:
                    self.open[-1].items.append(value)
                elif documents:
                    self._fail("a second document; expected one")
                else:
                    documents.append(value.content)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}" if mark is not None else ""
            problem = getattr(error, "problem", None) or "a character that YAML does not allow"
            raise ConfigFileError(f"{self.path}: invalid YAML{where} ({records.legible(problem)}).") from error
        return documents[0] if documents else None

    def _fail(self, problem: str) -> NoReturn:
        raise ConfigFileError(f"{self.path}: line {self.line}: {problem}.")

    def _count(self, more: int) -> None:
        self.values += more
        if self.values > MOST_VALUES:
            self._fail(f"more than {MOST_VALUES:,} values, aliases written out; configurations have some hundreds")

    def _value(self, event: Any) -> _Value | None:
        """Return the value that an event completes."""
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                self._fail(f"alias {records.shown(event.anchor)} has no anchor before it")
            value = self.anchors[event.anchor]
            self._count(value.size)
            return value
        if isinstance(event, yaml.CollectionStartEvent):
            self._count(1)
            expected = _MAPPINGS if isinstance(event, yaml.MappingStartEvent) else _SEQUENCES
            if event.tag not in expected:
                self._fail(_asks(event.tag))
            if len(self.open) == DEEPEST:
                self._fail(f"nested more than {DEEPEST} deep")
            self.open.append(_Open(event))
            return None
        if isinstance(event, yaml.CollectionEndEvent):
            done = self.open.pop()
            content = self._mapping(done.items) if done.is_mapping else [item.content for item in done.items]
            return self._anchored(done.anchor, _Value(content, 1 + sum(item.size for item in done.items)))
        if isinstance(event, yaml.ScalarEvent):
            self._count(1)
            return self._anchored(event.anchor, _Value(self._scalar(event), 1))
        return None

    def _anchored(self, anchor: str | None, value: _Value) -> _Value:
        if anchor is not None:
            self.anchors[anchor] = value
        return value

    def _mapping(self, items: list[_Value]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key.content, str) or records.line(key.content) is None:
                self._fail(f"got key {records.shown(key.content)} in the mapping that ends here, expected a name")
            if key.content in content:
                self._fail(f"key {records.shown(key.content)} is repeated in the mapping that ends here")
            content[key.content] = value.content
        return content

    def _scalar(self, event: Any) -> Any:
        if len(event.value) > LONGEST_SCALAR:
            self._fail(f"a value of {len(event.value):,} characters, expected at most {LONGEST_SCALAR:,}")
        tag = event.tag
        if tag is None or tag == "!":
            tag = self.resolver.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag == f"{_YAML}timestamp":
            tag = f"{_YAML}str"
        if tag not in _SCALARS:
            self._fail(_asks(tag))
        try:
            return self.constructor.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, KeyError, OverflowError, yaml.YAMLError):
            self._fail(f"{records.shown(event.value)} is no {tag.removeprefix(_YAML)}")


def _asks(tag: str | None) -> str:
    """Describe a tag that is more than data."""
    if tag == f"{_YAML}merge":
        return "a merge key (<<) is not supported; write the keys out"
    name = records.legible(str(tag).removeprefix(_YAML))
    return f"the tag !!{name} asks for more than data, which is never built; delete it with its value"
