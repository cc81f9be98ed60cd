"""The GPU resources of one submission: buffers, an execution of the engine, and their work as graphs.

Shapes: N images of the engine's batch, h x w network input, H x W panoptic map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.tensorrt import driver
from panrt.engine.backends.tensorrt.canvas import Canvas, MapOnDevice
from panrt.engine.backends.tensorrt.engine import Execution, Tensor
from panrt.engine.backends.tensorrt.kernels import Kernels, Layout
from panrt.engine.backends.tensorrt.recorded import Recorded, opened
from panrt.engine.frame import Frame
from panrt.engine.preprocess import Placement
from panrt.engine.results.device_map import Lease
from panrt.formats.metadata import IMAGE
from panrt.formats.thresholds import NAMES, Arrays
from panrt.plugins.contract import PanopticSegments
from panrt.plugins.cuda_api import NarrowMapArgs, PixelFormat, PreprocessArgs

PANOPTIC, *REST = PanopticSegments._fields
NARROW = "narrow"  # the compact panoptic map, in as few bytes per id as suffice

# Where the GPU has frames, and their layout: in a feed, or in their own size in the network's input.
Origin: TypeAlias = tuple[Literal["feed", "input"], Layout]


class Held(NamedTuple):
    """The frames of a submission, as a slot's memory holds them."""

    placements: tuple[Placement, ...] = ()
    is_on_device: tuple[bool, ...] = ()  # whether the GPU has the frame in its own size
    feed: tuple[Layout, Feed] | None = None  # that the frames went to; else they are in the network's input


class GpuSlot:
    """Buffers at fixed addresses, and the work on them.

    If they are mapped, the network reads its input and writes its outputs in host memory, each byte once, and nothing
    is copied. A GPU may not cache that memory, so everything that is read repeatedly lies in device memory.

    Thresholds have memory of their own, which is uploaded when they change, before the work that is to read them: so
    graphs stay valid, and frames that were submitted before keep those of their time.

    Host and device have the same layout: image, panoptic, the other outputs, and the compact map if there is one. So
    the upload is one copy, and so is the download: all outputs, or all but the int32 map.
    """

    def __init__(
        self,
        resources: ExitStack,
        stream: driver.Stream,
        execution: Execution,
        tensors: Mapping[str, Tensor],
        kernels: Kernels | None,
        *,
        mapped: bool,
    ) -> None:
        self.is_mapped = mapped
        self.stream = stream
        self.feeds: dict[Layout, Feed] = {}
        self.canvases: dict[tuple[Origin, int], Canvas] = {}  # by image of the batch
        self.lease = Lease()  # for which the memory holds one result's frame and map
        self.held = Held()
        self.execution = execution
        self._kernels = kernels
        panoptic = tensors[PANOPTIC]
        self.most_ids = tensors["segments"].shape[1]  # ids are 1 to this
        narrow_type = np.min_scalar_type(self.most_ids)
        narrows = kernels is not None and not mapped and narrow_type.itemsize < panoptic.dtype.itemsize
        parts = [tensors[IMAGE], panoptic, *(tensors[name] for name in REST)]
        if narrows:
            parts.append(Tensor(NARROW, panoptic.shape, narrow_type, False))
        offsets, size = {}, 0
        for part in parts:
            offsets[part.name] = size
            size += -(-part.bytes // driver.ALIGNMENT) * driver.ALIGNMENT
        self._input_bytes = parts[0].bytes
        self._down = offsets[REST[0] if narrows else PANOPTIC], size

        pinned = opened(resources, driver.PinnedMemory(size, mapped=mapped))
        self._host = pinned.address
        self._device = pinned.device_address if mapped else opened(resources, driver.DeviceMemory(size)).address
        self.addresses = {name: self._device + offsets[name] for name in (IMAGE, PANOPTIC, *REST)}
        self._settings = _SettingsMemory(resources, stream, [tensors[name] for name in NAMES if name in tensors])
        self.addresses |= self._settings.addresses
        execution.bind(self.addresses)
        self.begun = opened(resources, driver.Event())
        self.done = opened(resources, driver.Event())

        views: dict[str, NDArray[Any]] = {
            part.name: pinned.array[offsets[part.name] :][: part.bytes].view(part.dtype).reshape(part.shape)
            for part in parts
        }
        self.images: NDArray[np.uint8] = views[IMAGE]  # (N, h, w, 3)
        self._downloaded = pinned.array[self._down[0] : self._down[1]]
        self._outputs = self._device + offsets[PANOPTIC], size - offsets[PANOPTIC]  # address and bytes
        self.found = PanopticSegments(views[NARROW if narrows else PANOPTIC], *(views[name] for name in REST))
        self._narrow_map: NarrowMapArgs | None = None
        if narrows:
            ids, narrow = self._device + offsets[PANOPTIC], self._device + offsets[NARROW]
            self._narrow_map = NarrowMapArgs(
                ids=ids, narrow=narrow, count=views[NARROW].size, bytes_per_id=narrow_type.itemsize
            )
        self.run: Callable[[], None] = self.enqueue  # on `images`
        self.run_uploaded: Callable[[], None] = self.enqueue_uploaded  # on what the device holds

    def image_on_device(self, index: int) -> tuple[int, int]:
        """Return address and pitch of an image of the batch."""
        _, height, width, channels = self.images.shape
        return self._device + index * height * width * channels, width * channels

    def map_on_device(self, index: int, hw: tuple[int, int]) -> MapOnDevice:
        """Describe the upper left part of the map of an image."""
        _, height, width = self.found.panoptic.shape
        address = self.addresses[PANOPTIC] + 4 * index * height * width
        return MapOnDevice(address, 4 * width, hw, self.most_ids, is_mapped=self.is_mapped)

    def written(self) -> bytes:
        """Return the outputs of the last run, without the gaps between them, which nothing writes."""
        return b"".join(output.tobytes() for output in self.found)

    def overwrite_outputs(self, value: int) -> None:
        """Set all bytes of the outputs and of the gaps between them to `value`, on host and device."""
        if not self.is_mapped:
            self._downloaded[...] = value
        self.stream.fill(*self._outputs, value)

    def use(self, settings: Arrays) -> None:
        """Queue the upload of the thresholds for all later runs, if they differ from those that are there."""
        self._settings.use(settings)

    def settle(self) -> None:
        """End the lease and finish overlays, so that the slot's memory can be written to again."""
        self.lease.end("the session has used its memory for another frame")
        self.lease = Lease()
        for canvas in self.canvases.values():
            canvas.settle()

    def upload(self) -> None:
        """Queue the upload of the images."""
        if not self.is_mapped:
            self.stream.upload(self._device, self._host, self._input_bytes)

    def enqueue(self) -> None:
        """Queue a run on `images`."""
        self.upload()
        self.enqueue_uploaded()

    def enqueue_uploaded(self) -> None:
        """Queue a run on what the device holds."""
        self.execution.enqueue(self.stream.address)
        self.download()

    def download(self) -> None:
        """Queue the download of the outputs."""
        if self._kernels is not None and self._narrow_map is not None:
            self._kernels.narrow_map(self._narrow_map, self.stream.address)
        if not self.is_mapped:
            begin, end = self._down
            self.stream.download(self._host + begin, self._device + begin, end - begin)


class _SettingsMemory:
    """The inputs for thresholds, on host and device."""

    def __init__(self, resources: ExitStack, stream: driver.Stream, tensors: Sequence[Tensor]) -> None:
        self.addresses: dict[str, int] = {}
        self._stream = stream
        self._current: Arrays = {}
        self._views: dict[str, NDArray[Any]] = {}
        self._size = driver.ALIGNMENT * sum(-(-tensor.bytes // driver.ALIGNMENT) for tensor in tensors)
        if not tensors:
            return
        pinned = opened(resources, driver.PinnedMemory(self._size))
        self._host = pinned.address
        self._device = opened(resources, driver.DeviceMemory(self._size)).address
        offset = 0
        for tensor in tensors:
            self.addresses[tensor.name] = self._device + offset
            self._views[tensor.name] = pinned.array[offset:][: tensor.bytes].view(tensor.dtype)
            offset += -(-tensor.bytes // driver.ALIGNMENT) * driver.ALIGNMENT

    def use(self, settings: Arrays) -> None:
        if settings is self._current or not self._views:
            return
        for name, view in self._views.items():
            view[...] = settings[name]
        self._stream.upload(self._device, self._host, self._size)
        self._current = settings


class Feed:
    """A slot's buffers for frames of one layout, which a kernel turns into network input."""

    def __init__(self, slot: GpuSlot, kernels: Kernels, args: PreprocessArgs, *, captures: bool) -> None:
        """Take arguments whose addresses are open; the work becomes a graph if it `captures`."""
        self._slot = slot
        self._kernels = kernels
        self._args = args
        self._size = args.images * args.frame_bytes
        with ExitStack() as resources:
            pinned = opened(resources, driver.PinnedMemory(self._size))
            self._host = pinned.address
            self._device = opened(
                resources, driver.DeviceMemory(self._size)
            ).address  # a resize reads it more than once
            work = Recorded(
                resources, slot.stream, self.enqueue, captures=captures, what="frames that the GPU prepares"
            )
            self._resources = resources.pop_all()
        self._frames = pinned.array.reshape(args.images, args.frame_bytes)
        self._frames[...] = 0  # a submission may be less than a batch, and all of it is uploaded
        self.place(args, 0)
        args.output, _ = slot.image_on_device(0)
        self.run: Callable[[], None] = work.run

    def place(self, args: PreprocessArgs, image: int) -> None:
        """Set the addresses of arguments to a frame of the batch."""
        args.frame = self._device + image * self._args.frame_bytes
        args.chroma = args.frame + args.height * args.pitch if args.format == PixelFormat.NV12 else None

    def write(self, frames: Sequence[Frame]) -> None:
        """Write the frames of the next run."""
        for frame, target in zip(frames, self._frames, strict=False):
            target.reshape(frame.image.shape)[...] = frame.image

    def enqueue(self) -> None:
        """Queue a run on the written frames."""
        self._slot.stream.upload(self._device, self._host, self._size)
        self._kernels.preprocess(self._args, self._slot.stream.address)
        self._slot.enqueue_uploaded()

    def close(self) -> None:
        """Free it; its work must be done."""
        self._resources.close()
