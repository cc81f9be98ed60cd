"""The result of a frame: its panoptic map and segments.

Shapes: H x W pixels of the panoptic map. Boxes are (x0, y0, x1, y1) in pixels of the map, half-open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine.frame import Frame
from panrt.engine.results.colors import Rgb, segment_color
from panrt.engine.results.device_map import DeviceMap
from panrt.engine.results.painter import OPACITY, Drawing, Painter
from panrt.engine.results.segment import Segment
from panrt.errors import DeviceMapError, FrameError
from panrt.formats.metadata import ModelFile
from panrt.plugins.contract import PanopticSegments

if TYPE_CHECKING:
    import supervision


class Timings(NamedTuple):
    """The times of a frame's stages, in seconds."""

    preprocess: float  # frame -> network input
    inference: float  # network input -> panoptic map and segments
    postprocess: float  # -> PanopticResult


class CocoPanoptic(NamedTuple):
    """A result in the COCO panoptic format."""

    annotation: dict[str, Any]  # an entry of `annotations`
    png: NDArray[np.uint8]  # (H, W, 3) BGR as cv2.imwrite takes it; id = R + 256 G + 256^2 B


@dataclass(frozen=True, eq=False)
class PanopticResult:
    """The panoptic map of a frame, and its segments."""

    panoptic: NDArray[np.int32]  # (H, W), segment id of each pixel, 0 is void
    segments: tuple[Segment, ...]
    timings: Timings
    frame_index: int = 0
    captured_at: float = 0.0  # seconds of `time.monotonic()`
    media_time: float | None = None
    source: str = ""
    colors: dict[int, Rgb] = field(default_factory=dict)  # RGB by segment id
    device_map: DeviceMap | None = field(default=None, repr=False)  # see `panoptic_device`
    painter: Painter | None = field(default=None, repr=False)  # see `start_overlay`

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

    def to_coco(self, *, image_id: int = 0, file_name: str = "") -> CocoPanoptic:
        """Return the result as an entry of a COCO panoptic JSON and its PNG image.

        Args:
            image_id: of the image; `frame_index` if it is 0.
            file_name: of the PNG; by default "{image_id:012d}.png".
        """
        number = image_id or self.frame_index
        annotation = {
            "image_id": number,
            "file_name": file_name or f"{number:012d}.png",
            "segments_info": [
                {
                    "id": segment.id,
                    "category_id": segment.category_id,
                    "isthing": int(segment.is_thing),
                    "area": segment.area,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "iscrowd": 0,
                    "score": segment.score,
                }
                for segment in self.segments
                for x0, y0, x1, y1 in (segment.box,)
            ],
        }
        ids = self.panoptic
        png = np.stack([ids >> 16, ids >> 8, ids], axis=-1) & 0xFF
        return CocoPanoptic(annotation, png.astype(np.uint8))

    def to_supervision(self) -> supervision.Detections:
        """Return the segments as `supervision.Detections`: boxes, masks (n, H, W), scores, class and segment IDs.

        Raises:
            ModuleNotFoundError: supervision is not installed; it comes with the extra `supervision`.
        """
        import supervision  # noqa: PLC0415  # optional, and slow to import

        if not self.segments:
            return supervision.Detections.empty()
        ids = np.array([segment.id for segment in self.segments])
        return supervision.Detections(
            xyxy=np.array([segment.box for segment in self.segments], np.float32),
            mask=self.panoptic == ids[:, None, None],
            confidence=np.array([segment.score for segment in self.segments], np.float32),
            class_id=np.array([segment.category_id for segment in self.segments]),
            tracker_id=ids,
            data={"class_name": np.array([segment.name for segment in self.segments])},
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
            overlay.write_names(image, self.panoptic, self.segments)
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
    )


def _extent(panoptic: NDArray[np.int32], segment_id: int, x0: int, y0: int) -> tuple[int, tuple[int, int, int, int]]:
    """Return area and tight box of a segment of which a part was cut off; (x0, y0) is the start of its box."""
    mask = panoptic[y0:, x0:] == segment_id
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, (0, 0, 0, 0)
    box = (x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1)
    return int(np.count_nonzero(mask)), box
