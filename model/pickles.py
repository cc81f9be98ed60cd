"""Pickles read as data: a restricted unpickler for weights, which imports and calls nothing.

A pickle is a program for a stack machine, and Python's machine imports and calls whatever the program names. This one
has the opcodes that arrays, tensors and containers of them need, and looks every name up in the table of
`pickle_values`, whose values are inert. To get an array, the caller checks such a value and then builds it.

Bounds: time and memory depend on the length of the file alone, not on its content. A program may take `STEPS` steps,
about 30 for an array; lengths are limited to the rest of the file, memo indices to what picklers write, and keys of
dictionaries to names and small numbers, whose hashes neither recurse nor collide. There is no recursion.
"""

from __future__ import annotations

import codecs
import mmap
import pickletools
import re
import struct
from typing import Any, TypeAlias

from panrt.model.pickle_values import (
    CONTAINERS,
    KNOWN,
    STORAGES,
    Arguments,
    Array,
    Dtype,
    Name,
    Opaque,
    PickleProblem,
    Storage,
    canonical,
    is_inert,
    wrong,
)

STEPS = 400_000
LONGEST_LINE = 1000  # bytes of a name or a number that is written as text
LONGEST_NUMBER = 255  # bytes of an integer

Buffer: TypeAlias = "bytes | mmap.mmap"


def load(data: Buffer, start: int = 0) -> tuple[Any, int]:
    """Read one pickle.

    Args:
        data: the file.
        start: where the pickle begins.

    Returns:
        its value, made of dictionaries, lists, tuples, numbers, texts, `memoryview`s of `data` and stand-ins, and the
        position behind it.

    Raises:
        PickleProblem: it is not a pickle, is damaged, asks for anything else, or is larger than weights can be.
    """
    machine = _Machine(data, start)
    try:
        return machine.run(), machine.position
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        # an empty stack, bytes that are not UTF-8, digits that are none: all of this is damage
        raise PickleProblem(f"it is damaged near byte {machine.position}") from error


_CODES = {opcode.code.encode("latin1")[0]: opcode.name for opcode in pickletools.opcodes}
_STOP = ord(".")
_REJECTED = {
    **dict.fromkeys(("INST", "OBJ", "NEWOBJ_EX"), "it builds an object"),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "it requests an extension of Python's copyreg registry"),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), "its buffers are not in the file"),
    **dict.fromkeys(("EMPTY_SET", "ADDITEMS", "FROZENSET"), "it holds a set"),
}


class _Machine:
    def __init__(self, data: Buffer, start: int) -> None:
        self.data = data
        self.view = memoryview(data)
        self.position = start
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.steps = 0

    def run(self) -> Any:
        handlers = {code: getattr(self, f"_{name.lower()}", None) for code, name in _CODES.items()}
        view, end = self.view, len(self.view)
        while self.position < end:
            code = view[self.position]
            self.position += 1
            if code == _STOP:
                return self.stack.pop()
            handler = handlers.get(code)
            if handler is None:
                raise PickleProblem(_REJECTED.get(_CODES.get(code, ""), "it is not a pickle, or a damaged one"))
            self._step(1)
            handler()
        raise PickleProblem("it is cut short")

    # what opcodes take from the file

    def _step(self, count: int) -> None:
        self.steps += count
        if self.steps > STEPS:
            raise PickleProblem(f"it takes more than {STEPS:,} steps, many times what weights need")

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.view):
            raise PickleProblem("it is cut short")
        taken = self.view[self.position : end]
        self.position = end
        return taken

    def _unsigned(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _line(self, longest: int | None = LONGEST_LINE) -> bytes:
        limit = len(self.view) if longest is None else min(len(self.view), self.position + longest)
        end = self.data.find(b"\n", self.position, limit)
        if end < 0:
            raise PickleProblem("it is damaged: a line without an end")
        line = bytes(self.view[self.position : end])
        self.position = end + 1
        return line

    def _text(self, size: int) -> None:
        self.stack.append(str(self._take(self._unsigned(size)), "utf-8", "surrogatepass"))

    def _old_text(self, size: int) -> None:
        """Push a `str` of Python 2, whose characters are bytes."""
        self.stack.append(str(self._take(self._unsigned(size)), "latin1"))

    def _bytes(self, size: int) -> None:
        self.stack.append(self._take(self._unsigned(size)))

    def _above_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    # structure

    def _proto(self) -> None:
        if (version := self._unsigned(1)) > 5:
            raise PickleProblem(f"it is of protocol {version}, expected 0 to 5")

    def _frame(self) -> None:
        if self._unsigned(8) > len(self.view) - self.position:
            raise PickleProblem("it is cut short")

    def _mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._above_mark()

    def _pop_mark(self) -> None:
        self._above_mark()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    # numbers and constants

    def _none(self) -> None:
        self.stack.append(None)

    def _newtrue(self) -> None:
        self.stack.append(True)

    def _newfalse(self) -> None:
        self.stack.append(False)

    def _binint(self) -> None:
        self.stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def _binint1(self) -> None:
        self.stack.append(self._unsigned(1))

    def _binint2(self) -> None:
        self.stack.append(self._unsigned(2))

    def _long1(self) -> None:
        self.stack.append(int.from_bytes(self._take(self._unsigned(1)), "little", signed=True))

    def _long4(self) -> None:
        if (size := self._unsigned(4)) > LONGEST_NUMBER:
            raise PickleProblem(f"it holds an integer of {size} bytes")
        self.stack.append(int.from_bytes(self._take(size), "little", signed=True))

    def _int(self) -> None:
        line = self._line()
        self.stack.append(line == b"01" if line in (b"00", b"01") else int(line))

    def _long(self) -> None:
        self.stack.append(int(self._line().removesuffix(b"L")))

    def _float(self) -> None:
        self.stack.append(float(self._line()))

    def _binfloat(self) -> None:
        self.stack.append(struct.unpack(">d", self._take(8))[0])

    # texts and bytes

    def _short_binunicode(self) -> None:
        self._text(1)

    def _binunicode(self) -> None:
        self._text(4)

    def _binunicode8(self) -> None:
        self._text(8)

    def _short_binstring(self) -> None:
        self._old_text(1)

    def _binstring(self) -> None:
        self._old_text(4)

    def _short_binbytes(self) -> None:
        self._bytes(1)

    def _binbytes(self) -> None:
        self._bytes(4)

    def _binbytes8(self) -> None:
        self._bytes(8)

    def _bytearray8(self) -> None:
        self._bytes(8)

    def _unicode(self) -> None:
        self.stack.append(str(self._line(None), "raw-unicode-escape"))

    def _string(self) -> None:
        quoted = self._line(None)
        if len(quoted) < 2 or quoted[:1] != quoted[-1:] or quoted[:1] not in (b"'", b'"'):
            raise PickleProblem("it is damaged: a text without quotes")
        if re.search(rb"(?s)(?<!\\)(?:\\\\)*\\(?![\\'\"nrt]|x[0-9a-fA-F]{2})", quoted[1:-1]):
            raise PickleProblem("it is damaged: an escape that Python never writes")
        self.stack.append(str(codecs.escape_decode(quoted[1:-1])[0], "latin1"))

    # containers

    def _empty_dict(self) -> None:
        self.stack.append({})

    def _empty_list(self) -> None:
        self.stack.append([])

    def _empty_tuple(self) -> None:
        self.stack.append(())

    def _tuple(self) -> None:
        items = tuple(self._above_mark())
        self.stack.append(items)

    def _tuple1(self) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _tuple2(self) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _tuple3(self) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _list(self) -> None:
        items = self._above_mark()
        self.stack.append(items)

    def _dict(self) -> None:
        items = self._above_mark()
        self.stack.append({})
        self._fill(items)

    def _append(self) -> None:
        item = self.stack.pop()
        self._extend([item])

    def _appends(self) -> None:
        items = self._above_mark()
        self._extend(items)

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is Opaque:
            return
        if type(self.stack[-1]) is not list:
            raise wrong("something is appended to something other than a list,")
        self.stack[-1].extend(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def _setitems(self) -> None:
        items = self._above_mark()
        self._fill(items)

    def _fill(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is Opaque:
            return
        if type(target) is not dict or len(items) % 2:
            raise wrong("an entry is set in something other than a dictionary,")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value

    # the memo

    def _put_at(self, index: int) -> None:
        if index > self.steps:
            raise PickleProblem(f"it stores a value under the number {index}, which no pickler does")
        self.memo[index] = self.stack[-1]

    def _get_at(self, index: int) -> None:
        if index not in self.memo:
            raise PickleProblem("it is damaged: it recalls a number that it never stored")
        self.stack.append(self.memo[index])

    def _put(self) -> None:
        self._put_at(int(self._line()))

    def _binput(self) -> None:
        self._put_at(self._unsigned(1))

    def _long_binput(self) -> None:
        self._put_at(self._unsigned(4))

    def _memoize(self) -> None:
        self._put_at(len(self.memo))

    def _get(self) -> None:
        self._get_at(int(self._line()))

    def _binget(self) -> None:
        self._get_at(self._unsigned(1))

    def _long_binget(self) -> None:
        self._get_at(self._unsigned(4))

    # names and what they build

    def _global(self) -> None:
        module, name = self._line(), self._line()
        self._name(str(module, "utf-8"), str(name, "utf-8"))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(module) is not str or type(name) is not str:
            raise wrong("a name is given")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        found = Name(canonical(module), name)
        if not is_inert(found) and (str(found) not in KNOWN or "." in name):
            asked = f"{module}.{name}"[:LONGEST_LINE]
            raise PickleProblem(f"it asks for {asked.encode('unicode_escape').decode()}")
        self.stack.append(found)

    def _persid(self) -> None:
        raise PickleProblem("it refers to something outside the file")

    def _binpersid(self) -> None:
        """Look up a storage by the name that PyTorch gives it."""
        what = self.stack.pop()
        if type(what) is not tuple or len(what) not in (5, 6) or what[0] != "storage":
            raise PickleProblem("it refers to something outside the file")
        _, kind, key, _, count, *view = what
        if (
            not isinstance(kind, Name)
            or kind.module != "torch"
            or kind.name not in STORAGES
            or view not in ([], [None])
        ):
            raise PickleProblem("it refers to numbers of an unknown kind")
        if type(key) is not str or type(count) is not int or count < 0:
            raise wrong("numbers are referred to")
        self.stack.append(Storage(kind.name, key, count))

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or type(arguments) is not tuple:
            raise wrong("something is called")
        if is_inert(function):
            self.stack.append(Opaque())
            return
        if str(function) in CONTAINERS:
            self.stack.append({})
            self._fill(self._entries(arguments))
            return
        builder = KNOWN[str(function)]
        if builder is None:
            raise PickleProblem(f"it calls {function}, which is not how weights are written")
        self.stack.append(builder(arguments))

    def _newobj(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not is_inert(kind) or type(arguments) is not tuple:
            raise PickleProblem("it builds an object")
        self.stack.append(Opaque())

    def _entries(self, arguments: Arguments) -> list[Any]:
        """Return keys and values in turn, of the dictionary or the pairs that an OrderedDict is built from."""
        if not arguments:
            return []
        if len(arguments) != 1 or type(arguments[0]) not in (dict, list):
            raise wrong("a dictionary is built")
        self._step(len(arguments[0]))  # the same pairs may be named again and again
        pairs = arguments[0].items() if type(arguments[0]) is dict else arguments[0]
        if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
            raise wrong("a dictionary is built")
        return [item for pair in pairs for item in pair]

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Array) and not target.complete:
            if type(state) is not tuple or len(state) != 5:
                raise wrong("an array is filled")
            _, target.shape, target.dtype, target.fortran, target.raw = state
            target.complete = True
        elif isinstance(target, Dtype):
            # (version, byte order, subarray, names, fields, size, alignment, flags)
            if type(state) is not tuple or not 8 <= len(state) <= 9 or any(x is not None for x in state[2:5]):
                raise PickleProblem("it holds an array of records, expected numbers")
            target.order = state[1]
        elif type(target) not in (
            dict,
            Opaque,
        ):  # attributes of an OrderedDict, such as a state_dict's _metadata, are dropped
            raise wrong("a state is set")


def _checked_key(key: object) -> object:
    if type(key) is str or (type(key) is int and abs(key) < 2**31):
        return key
    raise PickleProblem("it holds a dictionary whose keys are neither names nor small numbers")
