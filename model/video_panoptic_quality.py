"""Video panoptic quality (VPQ) and identity switches: do segments keep their ids through a clip?

Shapes: T frames. A clip is T pairs of ground truth and prediction; an id is the same object in each of its frames.

A tube is all that an object covers in a window of k consecutive frames. VPQ_k is the panoptic quality of tubes in
place of segments, over every window of every clip; VPQ is the mean over the window sizes. Source: Kim et al., "Video
Panoptic Segmentation", CVPR 2020. Things are distinguished by id and category: an id that changes its category starts
another tube. Stuff is one tube per category, so it needs no persistent id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from panrt.model.metric_table import nan_to_none, percent, text_table
from panrt.model.panoptic_map import VOID, Category, PanopticMap, Prediction
from panrt.model.panoptic_quality import (
    PanopticQuality,
    PanopticStatistics,
    comparison_statistics,
    panoptic_quality,
)
from panrt.model.segment_matching import Comparison, Region, compare, match_segments

Clip = Sequence[tuple[PanopticMap, Prediction]]  # T pairs


@dataclass(frozen=True)
class VideoPanopticQuality:
    """VPQ of a set of clips."""

    vpq: float  # the means over the window sizes; NaN if no category occurs
    vpq_things: float
    vpq_stuff: float
    per_window: dict[int, PanopticQuality]  # by window size; its `images` are the windows

    def table(self) -> str:
        """Return aligned text in percent, a row for each window size and one for the mean."""
        rows = [
            (f"VPQ {k}", *map(percent, (q.all.pq, q.things.pq, q.stuff.pq)), str(q.images))
            for k, q in self.per_window.items()
        ]
        rows.append(("VPQ", *map(percent, (self.vpq, self.vpq_things, self.vpq_stuff)), ""))
        return text_table(("", "All", "Things", "Stuff", "Windows"), rows)

    def to_json(self) -> dict[str, object]:
        """Return plain data for `json.dumps`, qualities as fractions."""
        means = {"vpq": self.vpq, "vpq_things": self.vpq_things, "vpq_stuff": self.vpq_stuff}
        return {**nan_to_none(means), "per_window": {str(k): q.to_json() for k, q in self.per_window.items()}}


class IdentitySwitches(NamedTuple):
    """The identity switches of things through a set of clips."""

    switches: int  # a thing is matched by another predicted id than when it was last matched
    matched: int  # (thing, frame) pairs with a match: the most that could have switched
    things: int  # ground-truth identities that are matched at least once


def video_panoptic_quality(
    clips: Sequence[Clip], categories: Sequence[Category], *, windows: Sequence[int] = (1, 5, 10, 15)
) -> VideoPanopticQuality:
    """Compute the VPQ of a set of clips.

    Args:
        clips: labelled and predicted frames, in order.
        categories: of the data set.
        windows: window sizes in frames. Clips shorter than a window have no part in it.

    Raises:
        PanopticFormatError: a frame is inconsistent; see `image_statistics`.
        ValueError: a window size is not positive, or longer than every clip.
    """
    longest = max(map(len, clips), default=0)
    if not windows or min(windows) < 1 or max(windows) > longest:
        raise ValueError(f"windows: expected sizes of 1 to {longest} frames (the longest clip), got {tuple(windows)}.")
    tubes = _Tubes({category.id for category in categories if not category.is_thing})
    known = {category.id for category in categories}
    frames = [[tubes.of(compare(*pair, known)) for pair in clip] for clip in clips]
    per_window = {}
    for k in windows:
        statistics = PanopticStatistics.empty(len(categories))
        for clip in frames:
            for start in range(len(clip) - k + 1):
                statistics += comparison_statistics(_join(clip[start : start + k]), categories)
        per_window[k] = panoptic_quality(statistics, categories)
    return VideoPanopticQuality(
        vpq=fmean(q.all.pq for q in per_window.values()),
        vpq_things=fmean(q.things.pq for q in per_window.values()),
        vpq_stuff=fmean(q.stuff.pq for q in per_window.values()),
        per_window=per_window,
    )


def identity_switches(clips: Sequence[Clip], categories: Sequence[Category]) -> IdentitySwitches:
    """Count how often a thing is taken for another one than before.

    Things are matched frame by frame as for panoptic quality. A frame without a match neither switches nor forgives:
    the next match is compared with the last one. Source: the mismatches of Bernardin and Stiefelhagen, "Evaluating
    Multiple Object Tracking Performance: The CLEAR MOT Metrics", 2008.

    Raises:
        PanopticFormatError: a frame is inconsistent; see `image_statistics`.
    """
    things = {category.id for category in categories if category.is_thing}
    known = {category.id for category in categories}
    switches = matched = identities = 0
    for clip in clips:
        last_match: dict[int, int] = {}  # true id -> predicted id
        for pair in clip:
            comparison = compare(*pair, known)
            for true_id, predicted_id, _ in match_segments(comparison).matches:
                if comparison.truth[true_id].category_id not in things:
                    continue
                matched += 1
                switches += last_match.get(true_id, predicted_id) != predicted_id
                last_match[true_id] = predicted_id
        identities += len(last_match)
    return IdentitySwitches(switches, matched, identities)


class _Tubes:
    """Numbers tubes from 1: the same number for the same object in every frame."""

    def __init__(self, stuff: set[int]) -> None:
        self._stuff = stuff
        self._numbers: dict[tuple[int, int, bool], int] = {}

    def of(self, frame: Comparison) -> Comparison:
        """Return the frame with tubes in place of segments; areas and overlaps of stuff add up."""
        truth = {i: self._number(i, region) for i, region in frame.truth.items()}
        prediction = {i: self._number(i, region) for i, region in frame.prediction.items()}
        overlaps: Counter[tuple[int, int]] = Counter()
        for (true_id, predicted_id), pixels in frame.overlaps.items():
            if true_id in truth or true_id == VOID:  # an id that is not listed adds to predicted areas only
                overlaps[truth.get(true_id, VOID), prediction.get(predicted_id, VOID)] += pixels
        return Comparison(
            _add_up((truth[i], region) for i, region in frame.truth.items()),
            _add_up((prediction[i], region) for i, region in frame.prediction.items()),
            overlaps,
        )

    def _number(self, segment_id: int, region: Region) -> int:
        identity = VOID if region.category_id in self._stuff else segment_id
        return self._numbers.setdefault((region.category_id, identity, region.is_crowd), len(self._numbers) + 1)


def _join(frames: Sequence[Comparison]) -> Comparison:
    """Return the tubes of a window."""
    overlaps: Counter[tuple[int, int]] = Counter()
    for frame in frames:
        overlaps.update(frame.overlaps)
    return Comparison(
        _add_up(item for frame in frames for item in frame.truth.items()),
        _add_up(item for frame in frames for item in frame.prediction.items()),
        overlaps,
    )


def _add_up(parts: Iterable[tuple[int, Region]]) -> dict[int, Region]:
    """Return the regions by tube number, their areas summed."""
    tubes: dict[int, Region] = {}
    for number, region in parts:
        seen = tubes.get(number)
        tubes[number] = region if seen is None else seen._replace(area=seen.area + region.area)
    return tubes
