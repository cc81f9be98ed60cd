"""The input of a slot: feeds of frames, and canvases over those that the GPU holds.

BGR frames are resized by the host straight into the slot's images. Others go to a feed of their layout, or, if they are
on the GPU already, are read where they lie; a kernel converts and resizes them. Feeds and canvases are made when the
first frame of a layout arrives, and kept for some layouts.

Shapes: N images of the engine's batch, h x w network input, H x W panoptic map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.canvas import Canvas
from panrt.engine.backends.tensorrt.kernels import Kernels, Layout, layout_of, layout_on_device
from panrt.engine.backends.tensorrt.recorded import opened
from panrt.engine.backends.tensorrt.slot import Feed, GpuSlot, Held, Origin
from panrt.engine.frame import Frame, is_on_device
from panrt.engine.nvtx_ranges import nvtx_range
from panrt.engine.preprocess import Placement, fill, place
from panrt.engine.session import Preprocess
from panrt.errors import FrameError

LAYOUTS = 4  # sizes and formats of frames whose feeds and canvases are kept; the least recently used goes


class Prepared(NamedTuple):
    """A slot's work on some frames, ready to be queued."""

    run: Callable[[], None]  # queues it
    held: Held  # what the slot's memory will hold of the frames
    arrays: Sequence[driver.DeviceArray] = ()  # of other libraries, that the work reads


class Inputs:
    """Feeds and canvases of a session's slots."""

    def __init__(
        self,
        context: driver.Context,
        streams: tuple[driver.Stream, driver.Stream | None],
        kernels: Kernels | None,
        slots: Sequence[GpuSlot],
        *,
        valid_hw: tuple[int, int],
        output_hw: tuple[int, int],
        free_pixel: NDArray[np.uint8],
        preprocess: Preprocess,
    ) -> None:
        """Serve the slots of a session.

        Args:
            context: of all this.
            streams: for the network's work, and for drawing, which takes kernels.
            kernels: of the plugin library; without them the GPU neither prepares frames nor draws.
            slots: of the session.
            valid_hw: the part of the network's input that frames go to.
            output_hw: of the panoptic map.
            free_pixel: (3,) BGR of network input that no frame covers.
            preprocess: what resizes BGR frames.
        """
        self.captures = False  # work becomes graphs
        self._context, self._kernels = context, kernels
        self._stream, self._draw_stream = streams
        self._slots = tuple(slots)
        self._valid_hw, self._output_hw, self._free_pixel = valid_hw, output_hw, free_pixel
        self._preprocess = preprocess
        self._origins: OrderedDict[Origin, ExitStack] = OrderedDict()  # what their feeds and canvases hold

    @nvtx_range("preprocess")
    def prepare(self, slot: GpuSlot, frames: Sequence[Frame]) -> Prepared:
        """Bring frames where the slot's work reads them.

        Raises:
            FrameError: they are no frames, differ in layout, or lie where the GPU cannot read them.
        """
        if any(is_on_device(frame.image) for frame in frames):
            return self._prepare_from_device(slot, frames)
        layouts = [layout_of(frame) for frame in frames]
        sizes = tuple(place(layout.hw, self._valid_hw, self._output_hw) for layout in layouts)
        has_size = tuple(layout.hw == size.content_hw for layout, size in zip(layouts, sizes, strict=True))
        on_gpu = any(layout.format != "bgr8" for layout in layouts) or (self._preprocess == "gpu" and not all(has_size))
        if not on_gpu:
            for frame, placement, target in zip(frames, sizes, slot.images, strict=False):
                fill(frame.image, placement, self._free_pixel, target)
            return Prepared(slot.run, Held(sizes, has_size))
        if len(set(layouts)) > 1:
            raise FrameError(
                "frames: those of one submission must be alike in size and format to be prepared on the GPU."
            )
        feed = self._feed(slot, layouts[0], sizes[0])
        feed.write(frames)
        return Prepared(feed.run, Held(sizes, (True,) * len(frames), (layouts[0], feed)))

    def canvas(self, slot: GpuSlot, image: int) -> Canvas | None:
        """Return where an image of a slot is drawn; None if its frame is not on the GPU in its own size."""
        held = slot.held
        if self._kernels is None or self._draw_stream is None or not held.is_on_device[image]:
            return None
        placement = held.placements[image]
        if held.feed is not None:
            layout, feed = held.feed
            if slot.feeds.get(layout) is not feed:  # it was closed for the feed of another layout
                return None
            origin: Origin = ("feed", layout)
            args = layout.preprocess(layout.hw, (1, *layout.hw, 3), self._free_pixel)
            feed.place(args, image)
        else:
            layout = Layout("bgr8", "bt601", placement.content_hw, 0)
            origin = ("input", layout)
            args = layout.preprocess(layout.hw, (1, *layout.hw, 3), self._free_pixel)
            args.frame, args.pitch = slot.image_on_device(image)
        if origin not in self._origins:
            self._make_room()
            self._origins[origin] = ExitStack()
        self._origins.move_to_end(origin)
        key = origin, image
        if key not in slot.canvases:
            shown = slot.map_on_device(image, placement.map_hw)
            canvas = Canvas(self._context, self._draw_stream, self._kernels, args, shown, captures=self.captures)
            slot.canvases[key] = opened(self._origins[origin], canvas)
            self._origins[origin].callback(slot.canvases.pop, key)
        return slot.canvases[key]

    def close(self) -> None:
        """Free everything; the streams' work must be done."""
        for resources in self._origins.values():
            resources.close()
        self._origins.clear()

    def _prepare_from_device(self, slot: GpuSlot, frames: Sequence[Frame]) -> Prepared:
        """Let a kernel read frames in place, each in an array of another library."""
        kernels = self._kernels
        if kernels is None:
            raise FrameError("frame on the GPU: without PanRT's plugin library the GPU cannot prepare frames.")
        arrays = [driver.device_array(frame.image, self._stream) for frame in frames]
        layouts = [layout_on_device(frame, array) for frame, array in zip(frames, arrays, strict=True)]
        placements = tuple(place(layout.hw, self._valid_hw, self._output_hw) for layout in layouts)
        reads = []
        for index, (array, layout, placement) in enumerate(zip(arrays, layouts, placements, strict=True)):
            args = layout.preprocess(placement.content_hw, (1, *slot.images.shape[1:]), self._free_pixel)
            args.frame, args.pitch = array.address, array.pitch
            args.chroma = array.address + layout.hw[0] * array.pitch if layout.format == "nv12" else None
            args.output, _ = slot.image_on_device(index)
            reads.append(args)

        def run() -> None:
            for args in reads:
                kernels.preprocess(args, self._stream.address)
            slot.run_uploaded()

        are_in_input = tuple(
            layout.format == "bgr8" and layout.hw == placement.content_hw
            for layout, placement in zip(layouts, placements, strict=True)
        )
        return Prepared(run, Held(placements, are_in_input), arrays)

    def _feed(self, slot: GpuSlot, layout: Layout, placement: Placement) -> Feed:
        """Return the slot's feed for frames of a layout, made for all slots when the first such frame arrives."""
        if self._kernels is None:
            raise FrameError(
                "frame: without PanRT's plugin library the GPU cannot prepare frames; give BGR, prepared on the host."
            )
        origin: Origin = ("feed", layout)
        if origin not in self._origins:
            self._make_room()
            with ExitStack() as resources:
                for each in self._slots:
                    resources.callback(each.feeds.pop, layout, None)
                    args = layout.preprocess(placement.content_hw, each.images.shape, self._free_pixel)
                    each.feeds[layout] = opened(resources, Feed(each, self._kernels, args, captures=self.captures))
                self._origins[origin] = resources.pop_all()
        self._origins.move_to_end(origin)
        return slot.feeds[layout]

    def _make_room(self) -> None:
        """Close the least recently used layout if as many as are kept are open."""
        if len(self._origins) == LAYOUTS:
            self._stream.synchronize()
            _, oldest = self._origins.popitem(last=False)
            oldest.close()
