"""Metric tables as aligned text: the first column to the left, numbers to the right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equal length under a header, as aligned text."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "  ".join([cells[0].ljust(widths[0]), *padded[1:]])

    return "\n".join([line(header), "-" * len(line(header)), *map(line, rows)])


def percent(fraction: float) -> str:
    """Return a fraction in percent with one decimal; a dash for NaN, the mean of nothing."""
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}"


def nan_to_none(record: Mapping[str, object]) -> dict[str, object]:
    """Return the record with None for NaN fields, as JSON has no NaN."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}
