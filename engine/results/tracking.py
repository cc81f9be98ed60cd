"""Tracking: a thing keeps its ID, its class and so its colour from frame to frame.

    tracker = Tracker((*session.model.things, *session.model.stuff))
    for frame in frames:
        result = tracker.update(session(frame))

`panrt.stream` does this for every source. Each track stores its last seen mask and its motion. The things of a new
frame are assigned to tracks by their overlap with the mask at its predicted place, things of the same class first; a
thing that overlaps no mask may still continue a track whose predicted place is near. Any other thing starts a new
track. Stuff keeps one ID per class.

Shapes: H x W pixels of a panoptic map; T tracks, D things of a frame. Boxes are (x0, y0, x1, y1) in pixels, half-open.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.engine.results.colors import segment_color
from panrt.engine.results.result import PanopticResult
from panrt.engine.results.segment import Segment
from panrt.formats.metadata import Category

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """The parameters that decide whether two segments are the same thing.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    min_iou: float = 0.2  # of a predicted mask and a thing
    min_part: float = 0.5  # overlap as a share of the smaller of the two, if one is partly hidden; same class only
    other_class: float = 0.5  # factor of an IoU with a thing of another class
    max_distance: float = 1.0  # between centres, in sides of the thing, if no mask overlaps; same class only
    max_age: int = 25  # frames that a thing may be out of sight
    smoothing: float = 0.5  # of the motion: weight of the newest step
    memory: float = 0.9  # of the class: weight of the votes of earlier frames

    def __post_init__(self) -> None:
        for name in ("min_iou", "min_part", "other_class", "smoothing", "memory"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: got {value}, expected a number from 0 to 1.")
        for name in ("max_distance", "max_age"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 0.")


DEFAULT_TRACKING = TrackingConfig()


class _Motion(NamedTuple):
    """Pixels per frame."""

    x: float
    y: float


_STILL = _Motion(0.0, 0.0)


@dataclass
class _Track:
    id: int
    mask: NDArray[np.bool_]  # (h, w), the last seen one within its box
    box: Box  # predicted for the current frame
    center: tuple[float, float]  # (x, y), predicted as well
    area: int
    motion: _Motion | None = None  # None until it was seen twice
    step: _Motion = _STILL  # the motion that `_move` applied
    age: int = 0  # frames since it was seen
    votes: dict[int, float] = field(default_factory=dict)  # by category id


class Tracker:
    """Assigns persistent track IDs to the things of one source, whose results it must be given in order."""

    def __init__(self, categories: Iterable[Category], config: TrackingConfig = DEFAULT_TRACKING) -> None:
        """Start without tracks.

        Args:
            categories: of the model, things and stuff: `(*model.things, *model.stuff)`.
            config: decides which segments are the same thing.
        """
        self.config = config
        self._categories = {category.id: category for category in categories}
        self._tracks: list[_Track] = []
        self._stuff: dict[int, int] = {}  # category id -> segment id
        self._next_id = 1

    def update(self, result: PanopticResult) -> PanopticResult:
        """Return a result with persistent track IDs, each thing in the class that most frames gave it.

        Raises:
            KeyError: a segment has a class that is not among the tracker's categories.
        """
        things = [segment for segment in result.map_segments if segment.is_thing]
        self._move()
        matched = self._match(result.panoptic, things)
        ids: dict[int, int] = {}
        categories: dict[int, int] = {}
        for index, segment in enumerate(things):
            track = matched.get(index) or self._begin(segment)
            self._see(track, result.panoptic, segment)
            ids[segment.id] = track.id
            categories[segment.id] = max(track.votes, key=lambda category: track.votes[category])
        self._tracks = [track for track in self._tracks if track.age <= self.config.max_age]
        for segment in result.map_segments:
            if not segment.is_thing:
                ids[segment.id] = self._stuff_id(segment.category_id)
                categories[segment.id] = segment.category_id
        return self._renumbered(result, ids, categories)

    def _move(self) -> None:
        """Predict the place of every track; one that was seen only once moves as the others do in the median."""
        known = [track.motion for track in self._tracks if track.motion is not None and track.age == 0]
        common = _Motion(*(float(np.median(axis)) for axis in zip(*known, strict=True))) if known else _STILL
        for track in self._tracks:
            track.step = track.motion or common
            track.center = (track.center[0] + track.step.x, track.center[1] + track.step.y)
            dx = round(track.center[0] - (track.box[0] + track.box[2]) / 2)
            dy = round(track.center[1] - (track.box[1] + track.box[3]) / 2)
            x0, y0, x1, y1 = track.box
            track.box = (x0 + dx, y0 + dy, x1 + dx, y1 + dy)
            track.age += 1

    def _match(self, panoptic: NDArray[np.int32], things: list[Segment]) -> dict[int, _Track]:
        """Return the track that each thing (by index) continues; the best pairs are matched first."""
        pairs = [
            (quality, -track.age, index, number)
            for number, track in enumerate(self._tracks)
            for index, quality in enumerate(self._qualities(track, panoptic, things))
            if quality > 0
        ]
        matched: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, _, index, number in sorted(pairs, reverse=True):
            if index not in matched and number not in taken:
                matched[index] = self._tracks[number]
                taken.add(number)
        return matched

    def _qualities(self, track: _Track, panoptic: NDArray[np.int32], things: list[Segment]) -> list[float]:
        """Return how well each thing (D) continues a track: 2 and more by mask, 1 to 2 by a part, below 1 by place."""
        config = self.config
        covered = _covered(track, panoptic)
        category = max(track.votes, key=lambda category: track.votes[category])
        qualities = []
        for segment in things:
            shared = covered.get(segment.id, 0)
            same = segment.category_id == category
            iou = shared / (track.area + segment.area - shared) * (1.0 if same else config.other_class)
            part = shared / min(track.area, segment.area) if same else 0.0
            quality = 0.0
            if iou >= config.min_iou:
                quality = 2.0 + iou
            elif part >= config.min_part:  # it appears from behind something, or disappears there
                quality = 1.0 + part
            elif same and config.max_distance > 0:
                x, y = _center(segment.box)
                side = math.sqrt(max(track.area, segment.area))
                distance = math.hypot(x - track.center[0], y - track.center[1]) / side
                alike = min(track.area, segment.area) / max(track.area, segment.area)
                # near enough for a thing that moved, and of a similar size
                if distance < config.max_distance and alike > 0.3:
                    quality = 1.0 - distance / config.max_distance
            qualities.append(quality)
        return qualities

    def _begin(self, segment: Segment) -> _Track:
        track = _Track(
            id=self._new_id(),
            mask=np.zeros((0, 0), np.bool_),
            box=segment.box,
            center=_center(segment.box),
            area=segment.area,
        )
        self._tracks.append(track)
        return track

    def _see(self, track: _Track, panoptic: NDArray[np.int32], segment: Segment) -> None:
        """Update a track's place, motion, mask and class votes with the thing that continues it."""
        center = _center(segment.box)
        if track.age > 0:  # not new
            # the error of the prediction, per frame
            wrong = (center[0] - track.center[0]) / track.age, (center[1] - track.center[1]) / track.age
            weight = self.config.smoothing if track.motion is not None else 1.0
            track.motion = _Motion(track.step.x + weight * wrong[0], track.step.y + weight * wrong[1])
        for category in track.votes:
            track.votes[category] *= self.config.memory
        track.votes[segment.category_id] = track.votes.get(segment.category_id, 0.0) + segment.score
        x0, y0, x1, y1 = segment.box
        track.mask = panoptic[y0:y1, x0:x1] == segment.id
        track.box, track.center, track.area, track.age = segment.box, center, segment.area, 0

    def _stuff_id(self, category_id: int) -> int:
        if category_id not in self._stuff:
            self._stuff[category_id] = self._new_id()
        return self._stuff[category_id]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _renumbered(self, result: PanopticResult, ids: dict[int, int], categories: dict[int, int]) -> PanopticResult:
        """Return a result with new IDs and categories, both given by the frame's own segment IDs."""
        table = np.zeros(max(ids, default=0) + 1, np.int32)
        for old, new in ids.items():
            table[old] = new
        segments = []
        colors = {}
        for segment in result.map_segments:
            category = self._categories[categories[segment.id]]
            new = ids[segment.id]
            segments.append(segment._replace(id=new, category_id=category.id, name=category.name))
            colors[new] = segment_color(category.color, new, is_thing=segment.is_thing)
        return dataclasses.replace(
            result,
            panoptic=table[result.panoptic],
            map_segments=tuple(segments),
            colors=colors,
            device_map=None,
            painter=None if result.painter is None else result.painter.renumbered(ids),
        )


def _center(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _covered(track: _Track, panoptic: NDArray[np.int32]) -> dict[int, int]:
    """Return the number of pixels of each segment under the mask of a track, by segment ID."""
    height, width = panoptic.shape
    x0, y0, x1, y1 = track.box
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if left >= right or top >= bottom:
        return {}
    mask = track.mask[top - y0 : bottom - y0, left - x0 : right - x0]
    under = panoptic[top:bottom, left:right][mask]
    return {id_: count for id_, count in enumerate(np.bincount(under).tolist()) if count}
