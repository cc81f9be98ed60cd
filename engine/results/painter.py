"""Overlays drawn by a GPU, from the frame and the map that a session's memory still holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from panrt.engine.results.colors import Rgb

OPACITY = 0.5  # of colours, by default; on a GPU always


class Drawing(Protocol):
    """An overlay that a GPU draws in the background."""

    def overlay(self) -> NDArray[np.uint8]:
        """Wait for the overlay, (H, W, 3) BGR: the frame with colours and borders but without names, read-only.

        May be called from any thread, repeatedly, and after the session took other frames or was closed.
        """
        ...


class Painter:
    """Draws one result on the GPU that computed it; see `PanopticResult.start_overlay`."""

    def __init__(
        self, draw: Callable[[Mapping[int, Rgb]], Drawing | None], ids: Mapping[int, int] | None = None
    ) -> None:
        """Wrap a function of a session that begins to draw.

        Args:
            draw: begins to draw in these colours, (R, G, B) by id of the map on the GPU; None if that is gone.
            ids: the result's id of each id of that map; None: they are the same.
        """
        self._draw, self._ids = draw, ids

    def start(self, colors: Mapping[int, Rgb]) -> Drawing | None:
        """Begin to draw in these colours by the result's ids; None if the GPU no longer holds the result."""
        if self._ids is not None:
            colors = {there: colors[here] for there, here in self._ids.items() if here in colors}
        return self._draw(colors)

    def renumbered(self, ids: Mapping[int, int]) -> Painter:
        """Return the painter of the same result with other ids, given by the former ones."""
        own = self._ids if self._ids is not None else {former: former for former in ids}
        return Painter(self._draw, {there: ids[here] for there, here in own.items()})

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()  # a result that is copied or sent to another process is drawn by the host
