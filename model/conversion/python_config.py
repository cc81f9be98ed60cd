"""Python configurations read as data: assignments of literals and `dict(...)`, nothing of it executed.

mmdetection writes the configuration of a training as such a file, with everything that it was derived from written out,
and stores the text in its checkpoints. The text is split into tokens, and a small parser with a bounded depth reads
the assignments that are asked for; all others are skipped.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Collection
from typing import Any, NoReturn

from panrt.errors import ConfigFileError
from panrt.formats import records

MOST_BYTES = 2**20
DEEPEST = 32
_IGNORED = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
_CONSTANTS = {"True": True, "False": False, "None": None}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def read_assignments(text: str, *, source: str, wanted: Collection[str]) -> dict[str, Any]:
    """Return the values that a file assigns to some names.

    Args:
        text: of the file.
        source: names it in messages.
        wanted: the names; other statements are skipped.

    Returns:
        Dictionaries, lists (tuples too), texts, numbers, truth values and None.

    Raises:
        ConfigFileError: it is not Python, or a wanted value is no literal; the message names the line.
    """
    if len(text) > MOST_BYTES:
        raise ConfigFileError(f"{source}: more than {MOST_BYTES >> 20} MiB; configurations have some kilobytes.")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError, ValueError) as error:
        raise ConfigFileError(f"{source}: not a Python file, or cut short.") from error
    values: dict[str, Any] = {}
    for statement in _statements([token for token in tokens if token.type not in _IGNORED]):
        name = statement[0].string
        if name in wanted and len(statement) > 2 and statement[1].string == "=":
            values[name] = _Parser(statement[2:], source).parse()
    return values


def _statements(tokens: list[tokenize.TokenInfo]) -> list[list[tokenize.TokenInfo]]:
    statements: list[list[tokenize.TokenInfo]] = [[]]
    for token in tokens:
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
            statements.append([])
        else:
            statements[-1].append(token)
    return [statement for statement in statements if statement]


class _Parser:
    """Reads one expression."""

    def __init__(self, tokens: list[tokenize.TokenInfo], source: str) -> None:
        self.tokens = tokens
        self.source = source
        self.position = 0

    def parse(self) -> Any:
        value = self._value(0)
        if self.position < len(self.tokens):
            self._fail()
        return value

    def _fail(self) -> NoReturn:
        token = self.tokens[min(self.position, len(self.tokens) - 1)]
        raise ConfigFileError(
            f"{self.source}: line {token.start[0]}: got {records.shown(token.string)}, expected a literal or "
            "dict(...); nothing in the file is executed. Give the file that mmdetection writes to its working "
            "directory, which has all values written out."
        )

    def _next(self) -> tokenize.TokenInfo:
        if self.position == len(self.tokens):
            self._fail()
        self.position += 1
        return self.tokens[self.position - 1]

    def _at(self, text: str) -> bool:
        return self.position < len(self.tokens) and self.tokens[self.position].string == text

    def _skip(self, text: str) -> None:
        if not self._at(text):
            self._fail()
        self.position += 1

    def _value(self, depth: int) -> Any:
        if depth > DEEPEST:
            raise ConfigFileError(f"{self.source}: nested more than {DEEPEST} deep.")
        token = self._next()
        if token.type == tokenize.STRING:
            value: Any = self._text(token)
        elif token.type == tokenize.NUMBER:
            value = self._literal(token)
        elif token.string == "-" and self.position < len(self.tokens):
            value = self._negative(self._next())
        elif token.string in _CONSTANTS:
            value = _CONSTANTS[token.string]
        elif token.string in ("[", "("):
            value = self._sequence(token.string, depth)
        elif token.string == "{":
            value = self._pairs("}", ":", depth)
        elif token.string == "dict" and self._at("("):
            self.position += 1
            value = self._pairs(")", "=", depth)
        else:
            self.position -= 1
            self._fail()
        return value

    def _negative(self, number: tokenize.TokenInfo) -> Any:
        if number.type != tokenize.NUMBER:
            self.position -= 1
            self._fail()
        return -self._literal(number)

    def _literal(self, token: tokenize.TokenInfo) -> Any:
        try:
            return ast.literal_eval(token.string)
        except (ValueError, SyntaxError):
            self.position -= 1
            self._fail()

    def _text(self, token: tokenize.TokenInfo) -> str:
        """Adjacent texts are one."""
        parts = [self._literal(token)]
        while self.position < len(self.tokens) and self.tokens[self.position].type == tokenize.STRING:
            parts.append(self._literal(self._next()))
        if not all(isinstance(part, str) for part in parts):
            self._fail()
        return "".join(parts)

    def _sequence(self, opening: str, depth: int) -> Any:
        closing, items, commas = _CLOSING[opening], [], 0
        while not self._at(closing):
            items.append(self._value(depth + 1))
            if not self._at(closing):
                self._skip(",")
                commas += 1
        self.position += 1
        is_grouping = opening == "(" and len(items) == 1 and not commas
        return items[0] if is_grouping else items

    def _pairs(self, closing: str, between: str, depth: int) -> dict[str, Any]:
        """Keys and values of a dictionary; keys that are no texts are not what configurations need."""
        content: dict[str, Any] = {}
        while not self._at(closing):
            key = self._next().string if between == "=" else self._value(depth + 1)
            self._skip(between)
            value = self._value(depth + 1)
            if isinstance(key, str) and key in content:
                raise ConfigFileError(f"{self.source}: {records.shown(key)} is repeated in a dictionary.")
            content[str(key)] = value
            if not self._at(closing):
                self._skip(",")
        self.position += 1
        return content
