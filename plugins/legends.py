"""Legends: the shape of a tensor as text, one word per axis.

"N 4A C+1" has axes of N, 4 * A and C + 1 entries. A word is a number, a letter, or sums and products of both, such as
"N*R". The C++ side reads the same text, in tensorrt/signature.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple


class Term(NamedTuple):
    """A factor times letters."""

    factor: int
    letters: tuple[str, ...]


Word = tuple[Term, ...]  # a sum


@lru_cache(maxsize=256)
def words(legend: str) -> tuple[Word, ...]:
    """Return the size of each axis: of "N 4A C+1", ((1, N),), ((4, A),), ((1, C), (1,))."""
    return tuple(tuple(_term(text) for text in word.split("+")) for word in legend.split())


def _term(text: str) -> Term:
    factor, letters = 1, []
    for atom in text.split("*"):
        match = re.fullmatch(r"(\d*)([A-Za-z]\w*)?", atom)
        assert match is not None, text
        factor *= int(match[1] or 1)
        letters += [match[2]] if match[2] else []
    return Term(factor, tuple(letters))


def shape(legend: str, letters: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the shape that a legend has with these sizes, which may be integers or symbols of them."""
    return tuple(_size(word, letters) for word in words(legend))


def _size(word: Word, letters: Mapping[str, Any]) -> Any:
    total: Any = None
    for factor, names in word:
        product: Any = factor if factor != 1 or not names else None
        for name in names:
            product = letters[name] if product is None else product * letters[name]
        total = product if total is None else total + product
    return total


def learn(legend: str, shape: Sequence[Any], letters: dict[str, Any]) -> None:
    """Add the letters that an input of this shape is the first to have; inputs have at most one per axis."""
    for word, size in zip(words(legend), shape, strict=True):
        (factor, names), *rest = word
        offset = sum(term.factor for term in rest)
        if names and names[0] not in letters:
            letters[names[0]] = size if (factor, offset) == (1, 0) else (size - offset) // factor
