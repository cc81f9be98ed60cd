"""What is fuzzed: a target for each format."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

Files = dict[str, bytes]  # an input: the content of each file by its name


class BrokenError(Exception):
    """A result contradicts what its type promises."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A format: valid inputs, how they are spoilt, and who reads them.

    `check` does what a user of the product would do with the input. It may return or raise a PanrtError; it raises
    BrokenError where a result breaks a promise. Everything else is a finding.
    """

    name: str
    seeds: Callable[[], Sequence[Files]]
    mutate: Callable[[Random, Files], Files]
    check: Callable[[Path], str | None]  # the folder with the input's files; a text is judged as a message is
    short: int = 300  # inputs of the run in `make test`
    lines: int = 3  # that a message may have
    refusals: tuple[type[Exception], ...] = ()  # that are documented beside PanrtError, such as OSError
    allowed: frozenset[str] = frozenset()  # audit events that are the target's own


def printable(text: object) -> bool:
    """Whether a text is one line without control characters and lone surrogates."""
    bad = ("Cc", "Cs", "Zl", "Zp")
    return isinstance(text, str) and not any(unicodedata.category(character) in bad for character in text)


def require(condition: bool, promise: str) -> None:
    """Raise unless a promise is kept."""
    if not condition:
        raise BrokenError(promise)
