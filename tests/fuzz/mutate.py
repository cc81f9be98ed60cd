"""Mutations: of numbers, text, bytes, JSON and protocol buffers.

Every function takes the random numbers first and gives something new; what it is given stays as it is. The same
random numbers give the same mutation on every machine and with every Python.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")

# Files beside the input that no reader has any business with; see `watch`. Names that lead to them go into texts.
CANARIES = ("canary.bin", "canary.png", "canary.mp4")
PATHS = (
    *CANARIES,
    *(f"../{name}" for name in CANARIES),
    *(
        "/etc/hostname",
        "file:///etc/hostname",
        "/dev/zero",
        "/dev/stdin",
        "..",
        ".",
        "/",
        "a/../../canary.bin",
        "con\0",
    ),
)
INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 8, 16, 31, 32, 33, 64, 100, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535, 65536),
    *(10**6, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64),
)
FLOATS = (
    0.0,
    -0.0,
    0.5,
    1.0,
    -1.0,
    1e-310,
    1e-45,
    1.5,
    1e10,
    3.5e38,
    1.7e308,
    float("inf"),
    float("-inf"),
    float("nan"),
)
CHARACTERS = (
    "\x00\x07\x1b\n\r\t\x7f\x85\xa0\u2028\u200f\u202e\ufeff\ufffd\ud800\udfff\U0001f600e\u0301%{}[]<>&'\"\\/$`|;:@#?"
)


def integer(rng: Random, bits: int = 70) -> int:
    """A number of at most so many bits that programs tend to get wrong."""
    value = rng.choice(INTEGERS) if rng.random() < 0.8 else rng.getrandbits(rng.randrange(1, bits))
    value += rng.choice((0, 0, 0, -1, 1))
    value = -value if rng.random() < 0.25 else value
    return value if abs(value) < 1 << bits else value % (1 << bits)


def near(rng: Random, value: int, bits: int = 70) -> int:
    """A number that has to do with another one, or any."""
    changed = rng.choice((value + 1, value - 1, -value, value * 2, value // 2, value ^ 1 << rng.randrange(16)))
    return changed if rng.random() < 0.5 and abs(changed) < 1 << bits else integer(rng, bits)


def text(rng: Random, old: str = "") -> str:
    """Text that is hostile, or the old one with something wrong in it."""
    at = rng.randrange(len(old) + 1)
    match rng.randrange(9):
        case 0:
            return ""
        case 1 | 2:
            return old[:at] + rng.choice(CHARACTERS) * rng.choice((1, 1, 3)) + old[at:]
        case 3:
            return old[:at]
        case 4:
            return old[:at] + old
        case 5:
            return rng.choice(PATHS)
        case 6:
            return rng.choice(("x", "é", "\U0001f600", "\n", old or "ab")) * rng.choice((100, 2000, 70000))
        case 7:
            return "".join(
                chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in range(rng.randrange(9))
            )
        case _:
            return str(integer(rng))


def one_of(rng: Random, choices: Sequence[tuple[float, Callable[[], T]]]) -> T:
    """What one of some functions gives, each chosen with its weight."""
    weights = [weight for weight, _ in choices]
    return rng.choices([function for _, function in choices], weights)[0]()


# Bytes ----------------------------------------------------------------------------------------------------------------


def data(rng: Random, old: bytes, *, tokens: Sequence[bytes] = (), most: int = 6) -> bytes:
    """Bytes with a few changes that know nothing of the format but, perhaps, some of its words."""
    new = bytearray(old)
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(new) + 1)
        length = rng.choice((1, 2, 4, 8, 16, rng.randrange(1, 257)))
        match rng.randrange(9):
            case 0 | 1:
                if at < len(new):
                    new[at] ^= 1 << rng.randrange(8)
            case 2:
                new[at : at + length] = rng.randbytes(length)
            case 3 | 4:
                width = rng.choice((1, 2, 4, 8))
                order: Literal["little", "big"] = rng.choice(("little", "big"))
                new[at : at + width] = (integer(rng, 64) % (1 << 8 * width)).to_bytes(width, order)
            case 5:
                del new[at : at + length]
            case 6:
                new[at:at] = new[at : at + length] * rng.choice((1, 1, 2, 50))
            case 7:
                new[at:at] = rng.choice(tokens) if tokens else rng.choice((b"\x00", b"\xff")) * length
            case _:
                if rng.random() < 0.3:
                    del new[at:]
                else:
                    other = rng.randrange(len(new) + 1)
                    new[at : at + length] = new[other : other + length]
    return bytes(new)


def packed(rng: Random, form: str) -> bytes:
    """A number as `struct` packs it."""
    size = 8 * struct.calcsize(form)
    return (integer(rng, 64) % (1 << size)).to_bytes(size // 8, "big" if form.startswith(">") else "little")


def pieces(rng: Random, old: Sequence[T], change: Callable[[T], T]) -> list[T]:
    """A sequence with one piece changed, dropped, repeated, moved, or the rest cut off."""
    new = list(old)
    if not new:
        return new
    at = rng.randrange(len(new))
    match rng.randrange(8):
        case 0:
            del new[at]
        case 1:
            new[at:at] = [new[at]] * rng.choice((1, 1, 30))
        case 2:
            new.insert(rng.randrange(len(new)), new.pop(at))
        case 3:
            del new[at:]
        case _:
            new[at] = change(new[at])
    return new


# JSON -----------------------------------------------------------------------------------------------------------------


class Token(NamedTuple):
    """What stands in the JSON as it is."""

    text: str


TOKENS = tuple(
    map(
        Token,
        ("NaN", "Infinity", "-Infinity", "1e999", "-0", "1e-400", "1" + "0" * 400, "1" * 5000, "[" * 20000, "tru"),
    )
)
PLAIN: tuple[Any, ...] = (None, True, False, 0, 1, -1, 1.5, "", "a", "1", [], {}, [[]], {"": 0}, [0] * 3)


def json_text(rng: Random, old: str) -> bytes:
    """JSON with something wrong in its tree, seldom in its text."""
    if rng.random() < 0.1:
        changed: bytes = one_of(
            rng,
            [
                (3, lambda: data(rng, old.encode())),
                (1, lambda: b"\xef\xbb\xbf" + old.encode()),
                (1, lambda: old.encode("utf-16")),
                (1, lambda: b"[" * rng.choice((500, 5000, 200000))),
                (1, lambda: b'{"a":' * rng.choice((500, 5000, 100000))),
                (1, lambda: old.encode()[: rng.randrange(len(old) + 1)]),
            ],
        )
        return changed
    root = json.loads(old)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        root = tree(rng, root)
    return dump(root, ascii_only=rng.random() < 0.7)


def tree(rng: Random, old: Any) -> Any:
    """A JSON value with one place changed."""
    holder = [copy.deepcopy(old)]
    places = list(_places(holder))
    container, key = rng.choice(places)
    value = container[key]
    match rng.randrange(10):
        case 0 if container is not holder:
            del container[key]
        case 1:
            container[key] = rng.choice(PLAIN)
        case 2:
            other, there = rng.choice(places)
            container[key] = copy.deepcopy(other[there])
        case 3 if isinstance(container, dict):
            container[text(rng, key) if rng.random() < 0.7 else rng.choice(("id", "schema", "__proto__", ""))] = value
        case 4:
            container[key] = rng.choice(TOKENS)
        case 5:
            depth = rng.choice((1, 5, 100, 900, 3000))
            before, after = rng.choice((("[", "]"), ('{"a": ', "}")))
            container[key] = Token(before * depth + "1" + after * depth)
        case _:
            container[key] = _like(rng, value)
    return holder[0]


def dump(root: Any, *, ascii_only: bool = True) -> bytes:
    """A tree as JSON text; lone surrogates are written as they are, which is not UTF-8."""
    tokens: list[str] = []

    def plain(value: Any) -> Any:
        if isinstance(value, Token):
            tokens.append(value.text)
            return f"@token {len(tokens) - 1}@"
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    content = json.dumps(plain(root), ensure_ascii=ascii_only)
    for number, token in enumerate(tokens):
        content = content.replace(f'"@token {number}@"', token)
    return content.encode("utf-8", "surrogatepass")


def _like(rng: Random, value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None or isinstance(value, Token):
        return rng.choice(PLAIN)
    if isinstance(value, int):
        return rng.choice((near(rng, value), near(rng, value), float(value), rng.choice(FLOATS)))
    if isinstance(value, float):
        return rng.choice((*FLOATS, -value, value * 2, integer(rng)))
    if isinstance(value, str):
        return text(rng, value)
    if isinstance(value, list):
        return pieces(rng, value, lambda item: _like(rng, item)) if rng.random() < 0.7 else value * rng.choice((2, 40))
    return {key: value[key] for key in rng.sample(list(value), rng.randrange(len(value) + 1))}


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Every value within, as its container and its key there."""
    waiting = [holder]
    while waiting:
        container = waiting.pop()
        for key, value in list(container.items() if isinstance(container, dict) else enumerate(container)):
            yield container, key
            if isinstance(value, (dict, list)):
                waiting.append(value)


# Protocol buffers -----------------------------------------------------------------------------------------------------


def message(rng: Random, root: Any) -> None:
    """Change one field somewhere in a message, in place."""
    target = root
    while True:
        fields = target.DESCRIPTOR.fields
        present = [field for field, _ in target.ListFields()]
        inner = [field for field in present if field.message_type is not None]
        if inner and rng.random() < 0.8:
            value = getattr(target, rng.choice(inner).name)
            target = rng.choice(value) if hasattr(value, "add") else value
            continue
        field = rng.choice(present if present and rng.random() < 0.8 else fields)
        _change(rng, root, target, field)
        return


def _change(rng: Random, root: Any, target: Any, field: Any) -> None:
    value = getattr(target, field.name)
    repeated = hasattr(value, "extend")
    if rng.random() < 0.2:
        target.ClearField(field.name)
    elif field.message_type is not None:
        item = value.add() if repeated else value
        if repeated and len(value) > 1 and rng.random() < 0.6:
            chosen = rng.randrange(len(value) - 1)
            match rng.randrange(3):
                case 0:
                    del value[chosen]
                case 1:
                    value[-1].CopyFrom(value[chosen])
                case _:  # put last: an order that is not the graph's
                    item.CopyFrom(value[chosen])
                    del value[chosen]
        else:
            item.SetInParent() if not repeated else None
            same = [
                other for other in _messages(root, 300) if other.DESCRIPTOR is item.DESCRIPTOR and other is not item
            ]
            if same:
                item.CopyFrom(copy.deepcopy(rng.choice(same)))
    elif repeated:
        items = list(value)
        target.ClearField(field.name)
        made = pieces(rng, items, lambda item: _scalar(rng, root, field, item)) if items else []
        getattr(target, field.name).extend(made or [_scalar(rng, root, field, 0)])
    else:
        setattr(target, field.name, _scalar(rng, root, field, value))


def _scalar(rng: Random, root: Any, field: Any, old: Any) -> Any:
    kinds = field.DESCRIPTOR if hasattr(field, "DESCRIPTOR") else field
    if field.cpp_type == kinds.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if field.cpp_type in (kinds.CPPTYPE_INT32, kinds.CPPTYPE_INT64):
        bits = 63 if field.cpp_type == kinds.CPPTYPE_INT64 else 31
        value = near(rng, int(old), bits)
        return value if -(1 << bits) <= value < 1 << bits else 0
    if field.cpp_type in (kinds.CPPTYPE_UINT32, kinds.CPPTYPE_UINT64):
        return abs(integer(rng, 32 if field.cpp_type == kinds.CPPTYPE_UINT32 else 64))
    if field.cpp_type in (kinds.CPPTYPE_FLOAT, kinds.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.cpp_type == kinds.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.type == kinds.TYPE_BYTES:
        return data(rng, old or b"")
    names = [other.name for other in _messages(root, 200) if getattr(other, "name", "")]
    word = rng.choice(names) if names and rng.random() < 0.6 else text(rng, old or "")
    return word.encode("utf-8", "replace").decode()


def _messages(root: Any, most: int) -> Iterator[Any]:
    """The messages within, the outer ones first; at most so many."""
    waiting = [root]
    for _ in range(most):
        if not waiting:
            return
        target = waiting.pop(0)
        yield target
        for field, value in target.ListFields():
            if field.message_type is not None:
                waiting.extend(value if hasattr(value, "add") else [value])
