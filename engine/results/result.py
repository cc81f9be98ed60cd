"""The result of a frame: its panoptic map and segments.

Shapes: H x W pixels of the frame, h x w of the panoptic map, which shows the whole frame. Boxes are (x0, y0, x1, y1),
half-open.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine.clock import epoch_of
from panrt.engine.frame import Frame
from panrt.engine.results import coco, frame_pixels
from panrt.engine.results.colors import Rgb, segment_color
from panrt.engine.results.device_map import DeviceMap
from panrt.engine.results.painter import OPACITY, Drawing, Painter
from panrt.engine.results.rle import encode
from panrt.engine.results.segment import Segment
from panrt.engine.uri import nearest
from panrt.errors import DeviceMapError, FrameError
from panrt.formats.metadata import Category, ModelFile
from panrt.plugins.contract import PanopticSegments

if TYPE_CHECKING:
    import supervision

JSON_VERSION = 2  # of `to_json` and JSON lines; without a version: boxes and areas were in pixels of the map


class Timings(NamedTuple):
    """The times of a frame's stages, in seconds."""

    preprocess: float  # frame -> network input
    inference: float  # network input -> panoptic map and segments
    postprocess: float  # -> PanopticResult


class CocoPanoptic(NamedTuple):
    """A result in the COCO panoptic format."""

    annotation: dict[str, Any]  # an entry of `annotations`
    png: NDArray[np.uint8]  # (H, W, 3) BGR as cv2.imwrite takes it; id = R + 256 G + 256^2 B


@dataclass(frozen=True, eq=False, repr=False)
class PanopticResult:
    """The panoptic map of a frame, and its segments.

    `panoptic` and `map_segments` are as the network gave them, in pixels of the map. Everything else is in pixels of
    the frame, whatever size the map has, and is computed when it is asked for.
    """

    panoptic: NDArray[np.int32]  # (h, w), segment id of each pixel of the map, 0 is void
    map_segments: tuple[Segment, ...]  # their areas and boxes are in pixels of the map
    timings: Timings
    frame_index: int = 0
    captured_at: float = 0.0  # seconds of `time.monotonic()`
    media_time: float | None = None
    source: str = ""
    colors: dict[int, Rgb] = field(default_factory=dict)  # RGB by segment id
    device_map: DeviceMap | None = None  # see `panoptic_device`
    painter: Painter | None = None  # see `start_overlay`
    frame_hw: tuple[int, int] = (0, 0)  # (H, W) of the frame; by default that of the map
    categories: tuple[Category, ...] = ()  # of the model; empty: unknown
    file_name: str = ""  # of the image file that the frame was read from, without its folder

    def __post_init__(self) -> None:
        if self.frame_hw == (0, 0):
            object.__setattr__(self, "frame_hw", self.map_hw)

    def __repr__(self) -> str:
        (height, width), (map_height, map_width) = self.frame_hw, self.map_hw
        sizes = f"frame {height}x{width}, map {map_height}x{map_width}"
        return f"PanopticResult({sizes}, {len(self.map_segments)} segments: {self.findings() or 'none'})"

    @property
    def map_hw(self) -> tuple[int, int]:
        """Height and width of the map."""
        height, width = self.panoptic.shape
        return height, width

    @property
    def captured_at_epoch(self) -> float | None:
        """The seconds since 1970 at which the frame was captured; None if that is unknown."""
        return epoch_of(self.captured_at)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, with areas and tight boxes in pixels of the frame.

        Those of which a small frame has no pixel are omitted.
        """
        if self.frame_hw == self.map_hw:
            return self.map_segments
        found: tuple[Segment, ...] | None = self.__dict__.get("_segments")
        if found is None:
            found = frame_pixels.frame_segments(self.panoptic, self.map_segments, self.frame_hw)
            self.__dict__["_segments"] = found
        return found

    def findings(self, most: int = 8) -> str:
        """Return the names of the segments' classes, with the number of things: "2 person, 1 dog, floor".

        Args:
            most: names; the number of further ones follows.
        """
        return _findings(self.map_segments, most)

    def ids(self) -> NDArray[np.int32]:
        """Return the segment id of each pixel of the frame, (H, W); 0 is void."""
        return frame_pixels.resize_ids(self.panoptic, self.frame_hw)

    def semantic(self, *, void: int = -1) -> NDArray[np.int32]:
        """Return the category id of each pixel of the frame, (H, W).

        Args:
            void: the value of pixels without a segment.
        """
        values = {segment.id: segment.category_id for segment in self.map_segments}
        return frame_pixels.resize_ids(frame_pixels.relabelled(self.panoptic, values, void), self.frame_hw)

    def mask(self, segment: Segment | int) -> NDArray[np.bool_]:
        """Return the pixels of a segment in the frame, (H, W).

        Args:
            segment: of this result, or its id.

        Raises:
            ValueError: the result has no such segment.
        """
        return frame_pixels.mask_of(self.panoptic, self._of_map(segment), self.frame_hw)

    def masks(self) -> NDArray[np.bool_]:
        """Return the masks of `segments`, in their order, (n, H, W)."""
        masks = np.empty((len(self.segments), *self.frame_hw), np.bool_)
        for mask, segment in zip(masks, self.segments, strict=True):
            mask[...] = self.mask(segment)
        return masks

    def where(self, *classes: str | int) -> NDArray[np.bool_]:
        """Return the pixels of the frame that show any of these classes, (H, W).

        Args:
            classes: names or category ids.

        Raises:
            ValueError: the model has no such class.
        """
        wanted = {self._category(each) for each in classes}
        ids = [segment.id for segment in self.map_segments if segment.category_id in wanted]
        columns = np.isin(self.panoptic, ids).take(frame_pixels.map_pixels(self.map_hw[1], self.frame_hw[1]), axis=1)
        return columns.take(frame_pixels.map_pixels(self.map_hw[0], self.frame_hw[0]), axis=0)

    def crop(
        self, frame: NDArray[np.uint8], segment: Segment | int, *, background: tuple[int, int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Return a copy of the part of a frame in a segment's box, (h, w, 3).

        Args:
            frame: (H, W, 3), what the result is of.
            segment: of this result, or its id.
            background: the colour of the pixels that are not the segment's, in the order of the frame's channels;
                None leaves them unchanged.

        Raises:
            FrameError: the frame has another size than the one that the result is of.
            ValueError: the result has no such segment.
        """
        if frame.shape[:2] != self.frame_hw:
            raise FrameError(
                f"crop: got a frame of {frame.shape[0]}x{frame.shape[1]}, expected {self.frame_hw[0]}x"
                f"{self.frame_hw[1]}, the size of the one that the result is of; result.resized(hw) is for another."
            )
        number = segment if isinstance(segment, int) else segment.id
        box = next((one.box for one in self.segments if one.id == number), None)
        if box is None:
            raise self._unknown_segment(number)
        x0, y0, x1, y1 = box
        part: NDArray[np.uint8] = frame[y0:y1, x0:x1].copy()
        if background is not None:
            part[~self.mask(number)[y0:y1, x0:x1]] = background
        return part

    def resized(self, hw: tuple[int, int]) -> PanopticResult:
        """Return the result in the pixels of a frame of another size, (H, W); nothing is computed until it is used.

        Raises:
            ValueError: a side is not positive.
        """
        if min(hw) < 1:
            raise ValueError(f"resized: got {hw}, expected a height and a width of at least 1.")
        return dataclasses.replace(self, frame_hw=(int(hw[0]), int(hw[1])))

    def _category(self, name: str | int) -> int:
        """Return the category id of a class, given by name or by id."""
        known = {segment.name: segment.category_id for segment in self.map_segments}
        known |= {category.name: category.id for category in self.categories}
        if isinstance(name, int):
            if name in known.values() or not self.categories:
                return name
        elif name in known:
            return known[name]
        elif not self.categories:  # of another process: what its model has besides is unknown
            return -1
        raise ValueError(f"class {name!r}: the model has none; {nearest(str(name), known)}")

    def _of_map(self, segment: Segment | int) -> Segment:
        """Return the segment of the map that a segment or an id of this result names."""
        number = segment if isinstance(segment, int) else segment.id
        for one in self.map_segments:
            if one.id == number:
                return one
        raise self._unknown_segment(number)

    def _unknown_segment(self, number: int) -> ValueError:
        ids = ", ".join(str(segment.id) for segment in self.segments) or "none"
        return ValueError(f"segment {number}: the result has none of this id in its frame; its ids are {ids}.")

    @property
    def panoptic_device(self) -> DeviceMap:
        """`panoptic` in the memory of the GPU that computed it, for further work in CUDA.

        It is valid until the session's next `submit` or call; see `panrt.engine.results.device_map`.

        Raises:
            DeviceMapError: the map of this result is in host memory alone.
        """
        if self.device_map is None:
            raise DeviceMapError(
                "result.panoptic_device: the map of this result is in host memory alone: it comes from the CPU backend "
                "or another process, or tracking changed its ids (panrt.stream(..., tracker=None) does not); use "
                "result.panoptic."
            )
        return self.device_map

    def to_coco(self, *, image_id: int | None = None, file_name: str = "") -> CocoPanoptic:
        """Return the result as an entry of a COCO panoptic JSON and its PNG image, of the frame's size.

        Args:
            image_id: of the image; by default the number that is the name of its file, as in COCO, else `frame_index`.
            file_name: of the PNG; by default that of the image's file with the suffix .png, else
                "{image_id:012d}.png".

        Raises:
            ValueError: a segment's id is 2^24 or more, for which the PNG has no colour.
        """
        if image_id is None:
            number = coco.image_number(self.file_name)
            image_id = self.frame_index if number is None else number
        stem = PurePath(self.file_name).stem
        annotation = {
            "image_id": image_id,
            "file_name": file_name or (f"{stem}.png" if stem else f"{image_id:012d}.png"),
            "segments_info": coco.segments_info(self.segments),
        }
        return CocoPanoptic(annotation, coco.id_image(self.ids()))

    def to_json(self, *, rle: bool = False) -> dict[str, Any]:
        """Return the result as plain data for `json.dumps`, without its map.

        `width` and `height` are those of the frame, in whose pixels boxes and areas are. Fields: docs/streaming.md.

        Args:
            rle: give each segment its mask, as COCO's compressed run-length encoding: `size` and `counts`.
        """
        segments = [segment._asdict() for segment in self.segments]
        if rle:
            for segment in segments:
                part = frame_pixels.part_of(self.panoptic, self._of_map(segment["id"]), self.frame_hw)
                segment["rle"] = encode(part.mask, place=(part.top, part.left), hw=self.frame_hw)
        return {
            "version": JSON_VERSION,
            "source": self.source,
            "file_name": self.file_name,
            "frame_index": self.frame_index,
            "captured_at": self.captured_at,
            "captured_at_epoch": self.captured_at_epoch,
            "media_time": self.media_time,
            "height": self.frame_hw[0],
            "width": self.frame_hw[1],
            "map_height": self.map_hw[0],
            "map_width": self.map_hw[1],
            "timings": self.timings._asdict(),
            "segments": segments,
        }

    def to_supervision(self) -> supervision.Detections:
        """Return the segments as `supervision.Detections`: boxes, masks (n, H, W), scores, class and segment IDs.

        Raises:
            ModuleNotFoundError: supervision is not installed; it comes with the extra `supervision`.
        """
        import supervision  # noqa: PLC0415  # optional, and slow to import

        segments = self.segments
        if not segments:
            return supervision.Detections.empty()
        return supervision.Detections(
            xyxy=np.array([segment.box for segment in segments], np.float32),
            mask=self.masks(),
            confidence=np.array([segment.score for segment in segments], np.float32),
            class_id=np.array([segment.category_id for segment in segments]),
            tracker_id=np.array([segment.id for segment in segments]),
            data={"class_name": np.array([segment.name for segment in segments])},
        )

    def overlay(
        self,
        frame: NDArray[np.uint8] | None = None,
        *,
        opacity: float = OPACITY,
        border: bool = True,
        labels: bool = True,
        threads: int | None = None,
    ) -> NDArray[np.uint8]:
        """Draw the segments over the frame; returns a new image (H, W, 3) uint8 BGR of the frame's size.

        Args:
            frame: (H, W, 3) uint8 BGR, what the result is of; its size may differ from the map's. None: the frame that
                a GPU still holds, drawn there; see `start_overlay`.
            opacity: of the colours, 0 to 1; on the GPU 0.5.
            border: draw the borders of segments, as the GPU always does.
            labels: write their names.
            threads: None takes every core that this process may use.

        Raises:
            FrameError, ValueError: the frame or an option is invalid, or no frame was given and no GPU holds it.
        """
        from panrt.engine.results import overlay  # noqa: PLC0415  # needs OpenCV, reading results does not

        if frame is None:
            image = self._drawn_on_gpu(opacity=opacity, border=border)
        else:
            image = overlay.draw(frame, self.panoptic, self.colors, opacity=opacity, border=border, threads=threads)
        if labels:
            overlay.write_names(image, self.panoptic, self.map_segments)
        return image

    def _drawn_on_gpu(self, *, opacity: float, border: bool) -> NDArray[np.uint8]:
        drawing = self.start_overlay() if opacity == OPACITY and border else None
        if drawing is None:
            raise FrameError(
                f"overlay: got no frame, and no GPU holds this result's frame to draw it with borders and opacity "
                f"{OPACITY}; give the frame: result.overlay(frame)."
            )
        image: NDArray[np.uint8] = drawing.overlay().copy()
        return image

    def start_overlay(self) -> Drawing | None:
        """Begin to draw the overlay on the GPU that computed the result, and return without waiting.

        The image is that of `overlay(frame, labels=False)`. A session holds frame and map until it uses their memory
        for a later frame: with its default two slots, until the second `submit` or call after the result's own.

        Returns:
            None if no GPU holds the frame in its own size: on the CPU, if the host resized the frame, or if the session
            has used the memory again or is closed. `overlay(frame)` draws such a result on the host.

        Raises:
            CudaError: the GPU cannot be used any more, or a new size of frames finds no memory.
        """
        return None if self.painter is None else self.painter.start(self.colors)


def panoptic_result(
    model: ModelFile, found: PanopticSegments, image: int, *, frame: Frame, map_hw: tuple[int, int]
) -> PanopticResult:
    """Return the result of one image of a batch, with the names of the model's classes.

    Args:
        model: has the classes.
        found: outputs of PanopticMerge.
        image: its number in the batch.
        frame: that the image shows.
        map_hw: size of the map's upper left part that shows the frame; the rest is cut off.
    """
    whole = found.panoptic[image]
    panoptic = whole[: map_hw[0], : map_hw[1]]
    rows = found.segments[image, : found.segment_count[image]].tolist()
    scores = found.segment_scores[image, : len(rows)].tolist()
    segments = []
    colors = {}
    for (segment_id, index, is_thing, area, *corners), score in zip(rows, scores, strict=True):
        category = model.category(index, is_thing=bool(is_thing))
        x0, y0, x1, y1 = corners
        if x1 > map_hw[1] or y1 > map_hw[0]:
            area, (x0, y0, x1, y1) = _extent(panoptic, segment_id, x0, y0)  # noqa: PLW2901
            if area == 0:
                continue
        segments.append(Segment(segment_id, category.id, category.name, bool(is_thing), score, area, (x0, y0, x1, y1)))
        colors[segment_id] = segment_color(category.color, segment_id, is_thing=bool(is_thing))
    return PanopticResult(
        panoptic,
        tuple(segments),
        Timings(0.0, 0.0, 0.0),
        frame_index=frame.index,
        captured_at=frame.captured_at,
        media_time=frame.media_time,
        source=frame.source,
        colors=colors,
        frame_hw=frame.hw,
        categories=model.categories,
        file_name=frame.file_name,
    )


def _findings(segments: Sequence[Segment], most: int) -> str:
    things = Counter(segment.name for segment in segments if segment.is_thing)
    names = [f"{count} {name}" for name, count in things.most_common()]
    names += dict.fromkeys(segment.name for segment in segments if not segment.is_thing)
    return ", ".join([*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])])


def _extent(panoptic: NDArray[np.int32], segment_id: int, x0: int, y0: int) -> tuple[int, tuple[int, int, int, int]]:
    """Return area and tight box of a segment of which a part was cut off; (x0, y0) is the start of its box."""
    mask = panoptic[y0:, x0:] == segment_id
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, (0, 0, 0, 0)
    box = (x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1)
    return int(np.count_nonzero(mask)), box
