"""Untrusted JSON: parsing and checks at the border, and text for messages.

Every fault of such a file becomes one error type with a one-line message that names the file and the field. The checks
return None for an invalid value, so that each reader words its own message with `shown`.
"""

from __future__ import annotations

import json
import math
import reprlib
import shlex
import unicodedata
from collections.abc import Iterable
from typing import Any

from panrt.errors import PanrtError

LONGEST_NAME = 1000  # characters of a name or another text of one line
LARGEST_WHOLE = 2**53  # up to here a float holds every whole number

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlevel = 2


def parse(content: str | bytes, *, source: str, error: type[PanrtError], cure: str, unique: bool = False) -> Any:
    """Parse JSON in UTF-8, with or without a byte order mark.

    Args:
        content: of the file.
        source: names the file, and the part of it, in messages.
        error: type to raise.
        cure: how to fix it, e.g. "export the model again".
        unique: reject an object with a repeated name, whose meaning is ambiguous.

    Raises:
        error: it is not JSON, is nested too deeply, or holds NaN, Infinity or a number of thousands of digits.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
        hook = _reject_duplicates if unique else None
        return json.loads(text, parse_constant=_reject_constant, object_pairs_hook=hook)
    except RecursionError:
        problem = "it is nested too deeply"
    except UnicodeDecodeError as caught:
        problem = f"byte {caught.start} is not UTF-8"
    except ValueError as caught:
        is_long = "integer string conversion" in str(caught)  # Python's limit, whose message is for programmers
        problem = "a number has thousands of digits" if is_long else str(caught)
    raise error(f"{source}: invalid JSON ({problem}); {cure}.")


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"repeated name {shown(name)}")
        content[name] = value
    return content


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def whole(value: object) -> int | None:
    """Return a whole number, also one written as a float (809.0); None for anything else or beyond 2^53."""
    if type(value) is float and value.is_integer():
        value = int(value) if abs(value) <= LARGEST_WHOLE else None
    return value if type(value) is int and abs(value) <= LARGEST_WHOLE else None


def real(value: object) -> float | None:
    """Return a finite number as a float; None for anything else, truth values included."""
    if type(value) is int:
        return float(value) if abs(value) <= LARGEST_WHOLE else None
    return value if type(value) is float and math.isfinite(value) else None


def line(value: object, *, longest: int = LONGEST_NAME) -> str | None:
    """Return text that is safe to print, draw and send: one line, no control characters, no lone surrogates."""
    if not isinstance(value, str) or len(value) > longest:
        return None
    return value if all(_is_printable(character) for character in value) else None


def paragraph(value: object, *, longest: int = 100 * LONGEST_NAME) -> str | None:
    """Return text as `line` accepts it, with line breaks and tabs allowed."""
    if not isinstance(value, str) or len(value) > longest:
        return None
    return value if all(character in "\n\t" or _is_printable(character) for character in value) else None


def shown(value: object) -> str:
    """Return any value as one short line for a message."""
    try:
        text = _SHORT.repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python prints
        text = f"a very long {type(value).__name__}"
    return text.encode("unicode_escape").decode() if line(text) is None else text


def legible(text: object) -> str:
    r"""Return a name or path for messages and results: characters that `line` rejects are escaped.

    A file name may hold line breaks, escape sequences, or bytes that are not UTF-8 (lone surrogates, by `os.fsdecode`):
    here they become \n, \x1b and \xff. The middle of a very long text is elided.
    """
    name = str(text)
    if len(name) > LONGEST_NAME:
        name = f"{name[:60]}...{name[-60:]}"
    return "".join(c if _is_printable(c) else _escaped(c) for c in name)


def legible_lines(text: str) -> str:
    """Return a message of several lines for a terminal, escaped like `legible` except for its line breaks."""
    return "\n".join("".join(c if _is_printable(c) else _escaped(c) for c in line) for line in text.split("\n"))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, see PEP 383
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def names(values: Iterable[object], *, most: int = 8) -> str:
    """Return names for a message: sorted, on one short line."""
    found = sorted(
        value if isinstance(value, str) and len(value) <= 60 and line(value) else shown(value) for value in values
    )
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def argument(value: object) -> str:
    """Return a file name or another text quoted for a shell, for commands in messages.

    A name that cannot be printed, e.g. with an escape sequence in it, is quoted as `$'...'`.
    """
    text = str(value)
    if text.startswith("-"):
        text = f"./{text}"  # no option
    if line(text, longest=len(text)) is not None:
        return shlex.quote(text)
    quoted = "".join(_in_dollar_quotes(character) for character in text)
    return f"$'{quoted}'"


def _in_dollar_quotes(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if _is_printable(character):
        return character
    is_byte = 0xDC80 <= ord(character) <= 0xDCFF
    encoded = character.encode("utf-8", "surrogateescape" if is_byte else "replace")
    return "".join(f"\\x{byte:02x}" for byte in encoded)


def _is_printable(character: str) -> bool:
    # Cc: control characters and escape sequences; Cs: lone surrogates; Zl, Zp: line breaks to some readers
    return unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
