"""NVTX ranges: names of a frame's stages in Nsight Systems, if the package `nvtx` is installed.

    capture      a source waits for a frame and decodes it               on the source's thread
    submit       a frame is handed to the session                        on the stream's thread
    preprocess   ... of which this is its way to the network's input
    collect      the stream waits for the session, and makes a result
    sink         a sink writes a result                                  on the sink's thread

Without the package a marked function stays the function that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

Stage = Literal["capture", "preprocess", "submit", "collect", "sink"]

DOMAIN = "panrt"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def nvtx_range(stage: Stage) -> Callable[[_Function], _Function]:
    """Show each call of a function as a range of this name."""
    try:
        import nvtx  # noqa: PLC0415  # optional
    except ImportError:
        return lambda function: function
    mark: Callable[[_Function], _Function] = nvtx.annotate(stage, domain=DOMAIN)
    return mark
