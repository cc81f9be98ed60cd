"""The Markdown summary of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tools.gpu.checks import Record
from tools.gpu.phases import Phase

MOST_SKIPPED = 40  # lines


def has_failed(records: Sequence[Record], phases: Sequence[Phase]) -> bool:
    """Return whether a check failed, or a phase reported nothing at all."""
    return any(record.status == "failed" for record in records) or bool(_silent(records, phases))


def verdict(records: Sequence[Record], phases: Sequence[Phase]) -> str:
    """Return one line."""
    counts = Counter(record.status for record in records)
    parts = [f"{counts[status]} {status}" for status in ("passed", "failed", "skipped", "noted")]
    silent = "".join(f"; phase {number} reported nothing" for number in _silent(records, phases))
    return ("FAILED: " if has_failed(records, phases) else "passed: ") + ", ".join(parts) + silent


def markdown(records: Sequence[Record], phases: Sequence[Phase], *, simulated: bool) -> str:
    """Return the whole summary: a table of the phases, then failures, facts and what was skipped."""
    lines = ["# PanRT on this GPU", "", verdict(records, phases), ""]
    if simulated:
        lines += ["**Run on stand-ins: no figure here is a GPU's.**", ""]
    lines += ["| phase | | passed | failed | skipped | noted | seconds |", "|---|---|---|---|---|---|---|"]
    for phase in phases:
        own = [record for record in records if record.phase == phase.number]
        counts = Counter(record.status for record in own)
        cells = " | ".join(str(counts[status]) for status in ("passed", "failed", "skipped", "noted"))
        lines.append(f"| {phase.number} | {phase.title} | {cells} | {sum(r.seconds for r in own):.1f} |")
    for title, status, most in (
        ("Failed", "failed", None),
        ("Noted", "noted", None),
        ("Skipped", "skipped", MOST_SKIPPED),
    ):
        chosen = [record for record in records if record.status == status]
        if chosen:
            lines += ["", f"## {title}", ""]
            lines += [f"* phase {r.phase}, {_escaped(r.check)}: {_escaped(r.detail)}" for r in chosen[:most]]
            if len(chosen[most:] if most else []) > 0:
                lines.append(f"* and {len(chosen) - MOST_SKIPPED} more")
    figures = [record for record in records if record.figures]
    if figures:
        lines += ["", "## Figures", "", "| phase | check | |", "|---|---|---|"]
        lines += [f"| {r.phase} | {_escaped(r.check)} | {_escaped(_values(r.figures))} |" for r in figures]
    return "\n".join(lines) + "\n"


def _silent(records: Sequence[Record], phases: Sequence[Phase]) -> list[int]:
    spoken = {record.phase for record in records}
    return [phase.number for phase in phases if phase.number not in spoken]


def _values(figures: dict[str, Any]) -> str:
    flat = []
    for name, value in figures.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        flat += [f"{name} {key} {number}".replace("  ", " ") for key, number in inner]
    return ", ".join(flat)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
