"""Rewrites of a graph for the CPU that keep its function and reduce its work.

The file stays the reference, and other runtimes read it unchanged. `PASSES` lists the passes in the order in which they
run; each module gives the reason for its place. A pass changes the graph in place and returns None, or returns why
it does not apply. The environment variable PANRT_CPU_PASSES switches passes off, to find the one that causes a
wrong pixel: `-winograd,-free_rows`, or `-all`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from panrt.engine.backends.cpu.draft import Draft, Sections
from panrt.engine.backends.cpu.passes import (
    deconvolution,
    float32,
    free_rows,
    look_up_table,
    nhwc_pooling,
    predict_before_upsampling,
    winograd,
)
from panrt.engine.uri import nearest
from panrt.errors import BackendError

VARIABLE = "PANRT_CPU_PASSES"
_ALL = "all"


class GraphPass(NamedTuple):
    """A pass on the whole graph, before it is split."""

    name: str
    apply: Callable[[Draft], str | None]


class SectionPass(NamedTuple):
    """A pass on the sections of a graph, after it was split."""

    name: str
    apply: Callable[[Sections], str | None]


PASSES: tuple[GraphPass | SectionPass, ...] = (
    GraphPass("float32", float32.apply),
    GraphPass("predict_before_upsampling", predict_before_upsampling.apply),
    GraphPass("deconvolution", deconvolution.apply),
    GraphPass("winograd", winograd.apply),
    GraphPass("look_up_table", look_up_table.apply),
    SectionPass("nhwc_pooling", nhwc_pooling.apply),
    SectionPass("free_rows", free_rows.apply),
)


def switched_off(text: str) -> frozenset[str]:
    """Return the names of the passes that a value of PANRT_CPU_PASSES switches off.

    Args:
        text: names separated by commas, each with a minus before it; "" for none, "-all" for all.

    Raises:
        BackendError: a name has no minus, or is not that of a pass.
    """
    names = [one.name for one in PASSES]
    off: set[str] = set()
    for word in filter(None, (word.strip() for word in text.split(","))):
        name = word.removeprefix("-")
        if name == word:
            raise BackendError(f"{VARIABLE}: got {word!r}, expected -NAME for each pass to switch off: -{names[0]}.")
        if name not in (*names, _ALL):
            raise BackendError(f"{VARIABLE}: {name!r} is not a pass; {nearest(name, (*names, _ALL))}")
        off.update(names if name == _ALL else [name])
    return frozenset(off)
