"""Resources that are closed together, and work that is captured as a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol, TypeVar

from panrt.engine.backends.tensorrt import driver
from panrt.errors import CudaError, EngineError, KernelError

log = logging.getLogger("panrt")


class _Closes(Protocol):
    def close(self) -> None: ...


_Resource = TypeVar("_Resource", bound=_Closes)


def opened(resources: ExitStack, resource: _Resource) -> _Resource:
    """Register a resource to be closed with the others, in reverse order, and return it."""
    resources.callback(resource.close)
    return resource


class Recorded:
    """Work on a stream, a graph from its second run on: CUDA loads kernels in the first, which capture forbids."""

    def __init__(
        self, resources: ExitStack, stream: driver.Stream, work: Callable[[], None], *, captures: bool, what: str
    ) -> None:
        """Prepare work whose graph is closed with `resources`; `what` names it if it cannot be captured."""
        self._stream = stream
        self._work = work
        self._what = what
        self._graph = opened(resources, ExitStack())
        self._queue: Callable[[], None] = self._first if captures else work

    def run(self) -> None:
        """Queue the work."""
        self._queue()

    def _first(self) -> None:
        self._work()
        self._queue = self._second

    def _second(self) -> None:
        self._queue = self._work
        try:
            graph = opened(self._graph, self._stream.capture(self._work))
        except (CudaError, EngineError, KernelError) as error:
            log.warning("%s: no CUDA graph, which costs time: %s", self._what, error)
        else:
            self._queue = graph.launch
        self._queue()
