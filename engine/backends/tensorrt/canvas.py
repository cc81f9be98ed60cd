"""Overlays drawn on the GPU, from the frame and the map in the memory of a slot.

An overlay is drawn after its result was collected, with the colours that tracking gave it, and before the slot takes
other frames. It has its own stream, beside the network's work on later frames; the network's stream waits only if the
slot is used again before the overlay is done.

Shapes: H x W pixels of a frame, h x w of the part of the panoptic map that shows it.
"""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.kernels import Kernels
from panrt.engine.backends.tensorrt.recorded import Recorded, opened
from panrt.engine.results.colors import Rgb
from panrt.engine.results.overlay import border_width, color_table
from panrt.engine.results.painter import OPACITY
from panrt.errors import CudaError
from panrt.plugins.cuda_api import OverlayArgs, PixelFormat, PreprocessArgs

log = logging.getLogger("panrt")


class MapOnDevice(NamedTuple):
    """The part of a panoptic map that shows a frame."""

    address: int
    pitch: int  # bytes from a row of int32 to the next
    hw: tuple[int, int]
    most_ids: int  # ids are 1 to this
    is_mapped: bool  # it lies in host memory, which the GPU may not cache


class Canvas:
    """The memory in which one image of a slot is drawn, which never moves, and the work on it.

    Host and device have the same layout: the colours, which are uploaded, the overlay, which is downloaded, and, on the
    device alone, a copy of the map if that has gaps between its rows or lies in host memory.
    """

    def __init__(
        self,
        context: driver.Context,
        stream: driver.Stream,
        kernels: Kernels,
        frame: PreprocessArgs,
        shown: MapOnDevice,
        *,
        captures: bool,
    ) -> None:
        """Allocate memory and prepare the work.

        Args:
            context: of the session.
            stream: for drawing alone.
            kernels: of the plugin library.
            frame: arguments that copy the frame as BGR in its own size; `output` is open.
            shown: its map.
            captures: the work becomes a graph.
        """
        self._context, self._stream, self._kernels = context, stream, kernels
        self._frame, self._map = frame, shown
        height, width = frame.height, frame.width
        rows, row_bytes = shown.hw[0], 4 * shown.hw[1]
        copies_map = row_bytes != shown.pitch or shown.is_mapped
        colors, overlay = _aligned(3 * (shown.most_ids + 1)), _aligned(3 * height * width)
        size = colors + overlay + (rows * row_bytes if copies_map else 0)
        with ExitStack() as resources:
            pinned = opened(resources, driver.PinnedMemory(colors + overlay))
            device = opened(resources, driver.DeviceMemory(size)).address
            self._drawn = opened(resources, driver.Event())
            self._work = Recorded(resources, stream, self._enqueue, captures=captures, what="overlays on the GPU")
            self._resources = resources.pop_all()
        self._host, self._device = pinned.address, device
        self._colors_bytes, self._overlay_bytes = colors, 3 * height * width
        self._dense_map = device + colors + overlay if copies_map else None
        self._colors = pinned.array[: 3 * (shown.most_ids + 1)].reshape(-1, 3)  # BGR by id
        self._pixels = pinned.array[colors:][: 3 * height * width].reshape(height, width, 3)
        frame.output = device + colors
        self._args = OverlayArgs(
            frame=frame.output,
            panoptic=self._dense_map or shown.address,
            colors=device,
            output=frame.output,
            images=1,
            height=height,
            width=width,
            map_height=rows,
            map_width=shown.hw[1],
            color_count=shown.most_ids + 1,
            opacity=round(256 * OPACITY),
            border=border_width((height, width)),
        )
        self._drawing: weakref.ref[GpuDrawing] | None = None
        self._is_pending = False

    def draw(self, colors: Mapping[int, Rgb]) -> GpuDrawing:
        """Queue an overlay of what the slot's memory holds.

        Args:
            colors: (R, G, B) of every id in the map.
        """
        self.settle()
        self._colors[...] = color_table(colors, len(self._colors))
        self._work.run()
        self._drawn.record(self._stream)
        self._is_pending = True
        drawing = GpuDrawing(self)
        self._drawing = weakref.ref(drawing)
        return drawing

    def settle(self) -> None:
        """Wait for the overlay; a drawing that is still referenced gets a copy."""
        drawing = self._drawing() if self._drawing is not None else None
        if drawing is not None:
            drawing.overlay()
        elif self._is_pending:
            self._wait()

    def fetch(self) -> NDArray[np.uint8]:
        """Wait for the overlay, and return a copy."""
        self._wait()
        overlay: NDArray[np.uint8] = self._pixels.copy()
        return overlay

    def close(self) -> None:
        """Pass the overlay to its drawing, and free everything."""
        try:
            self.settle()
        except CudaError as error:
            log.warning("an overlay is lost: %s", error)
        self._resources.close()

    def _wait(self) -> None:
        self._is_pending = False
        with self._context:
            self._drawn.synchronize()

    def _enqueue(self) -> None:
        self._stream.upload(self._device, self._host, self._colors_bytes)
        frame, row_bytes = self._frame, 3 * self._frame.width
        if frame.format == PixelFormat.BGR8:  # perhaps in mapped memory, which is read only once this way
            self._stream.copy_rows(frame.output, row_bytes, frame.frame, frame.pitch, row_bytes, frame.height)
        else:
            self._kernels.preprocess(frame, self._stream.address)
        if self._dense_map is not None:
            (rows, columns), pitch = self._map.hw, self._map.pitch
            self._stream.copy_rows(self._dense_map, 4 * columns, self._map.address, pitch, 4 * columns, rows)
        self._kernels.overlay(self._args, self._stream.address)
        begin = self._colors_bytes
        self._stream.download(self._host + begin, self._device + begin, self._overlay_bytes)


class GpuDrawing:
    """An overlay that is being drawn; see `panrt.engine.results.painter.Drawing`."""

    def __init__(self, canvas: Canvas) -> None:
        self._lock = threading.Lock()
        self._canvas: Canvas | None = canvas
        self._overlay: NDArray[np.uint8] | None = None
        self._error: CudaError | None = None

    def overlay(self) -> NDArray[np.uint8]:
        """Wait for it; may be called from any thread, repeatedly."""
        with self._lock:
            canvas, self._canvas = self._canvas, None  # which is free for other overlays after this
            if canvas is not None:
                try:
                    self._overlay = canvas.fetch()
                    self._overlay.setflags(write=False)
                except CudaError as error:
                    self._error = error
            if self._overlay is None:
                assert self._error is not None
                raise self._error
            return self._overlay

    def picture(self) -> NDArray[np.uint8]:
        """Return `overlay()`. Deprecated."""
        warnings.warn("`picture()` of a drawing is deprecated; use `overlay()`.", DeprecationWarning, stacklevel=2)
        return self.overlay()


def _aligned(size: int) -> int:
    return -(-size // driver.ALIGNMENT) * driver.ALIGNMENT
