"""Faults to plant, one at a time, so that a run can show that the suite reports them: `--plant session`.

Each is planted in the process of every phase. A kernel with a fault comes as a library: `--library FILE`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _session() -> None:
    """The session does not upload its frames."""
    from panrt.engine.backends.tensorrt.slot import GpuSlot  # noqa: PLC0415

    GpuSlot.upload = lambda self: None  # type: ignore[method-assign]


def _capture() -> None:
    """A plugin allocates when it runs, which a capture forbids."""
    from cuda.bindings import driver as cu  # noqa: PLC0415

    from tools.gpu import plugin_calls  # noqa: PLC0415

    enqueue = plugin_calls.Plugin.enqueue

    def allocating(self: plugin_calls.Plugin, *arguments: Any) -> None:
        cu.cuMemAlloc(256)
        enqueue(self, *arguments)

    plugin_calls.Plugin.enqueue = allocating  # type: ignore[method-assign,assignment]


FAULTS: dict[str, Callable[[], None]] = {"session": _session, "capture": _capture}


def plant(name: str) -> None:
    """Plant one; none where the name is empty."""
    if name:
        FAULTS[name]()
