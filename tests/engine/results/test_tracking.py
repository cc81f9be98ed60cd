"""Lasting ids: on drawn motion with known identities, and on the committed clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.tabletop.classes import CLASSES
from examples.tabletop.clip import Clip, read_clip
from panrt.engine.results.result import PanopticResult, Timings
from panrt.engine.results.segment import Segment
from panrt.engine.results.tracking import Tracker, TrackingConfig
from panrt.formats.metadata import Category
from panrt.model import panoptic_map
from panrt.model.panoptic_map import PanopticMap
from panrt.model.panoptic_map import Segment as TrueSegment
from panrt.model.video_panoptic_quality import identity_switches, video_panoptic_quality

CLIP = Path(__file__).parents[2] / "data" / "tabletop" / "clip.json"
CATEGORIES = [Category(c.id, c.name, c.is_thing, c.color) for c in CLASSES]
TRUE_CATEGORIES = [panoptic_map.Category(c.id, c.name, c.is_thing) for c in CLASSES]
MUG, CAN, FLOOR = 1, 3, 9


def result(panoptic: np.ndarray, categories: dict[int, int], *, score: float = 0.9) -> PanopticResult:
    """What a session would say of a map; `categories` by id."""
    segments = []
    for id_ in np.unique(panoptic[panoptic > 0]).tolist():
        rows, columns = np.nonzero(panoptic == id_)
        box = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
        category = CATEGORIES[categories[id_] - 1]
        segments.append(
            Segment(id_, category.id, category.name, category.is_thing, score, len(rows), box),
        )
    return PanopticResult(panoptic.astype(np.int32), tuple(segments), Timings(0.0, 0.0, 0.0))


def squares(*places: tuple[int, int]) -> np.ndarray:
    """A 64 x 96 map with a square of side 12 at each (x, y), the first being id 1."""
    panoptic = np.zeros((64, 96), np.int32)
    for id_, (x, y) in enumerate(places, start=1):
        panoptic[y : y + 12, x : x + 12] = id_
    return panoptic


def id_at(found: PanopticResult, x: int, y: int) -> int:
    return int(found.panoptic[y + 6, x + 6])


def test_two_of_a_kind_keep_their_ids_when_their_order_in_the_frame_changes() -> None:
    tracker = Tracker(CATEGORIES)
    first = tracker.update(result(squares((10, 10), (50, 30)), {1: MUG, 2: MUG}))
    second = tracker.update(result(squares((52, 31), (12, 10)), {1: MUG, 2: MUG}))
    assert id_at(first, 10, 10) == id_at(second, 12, 10)
    assert id_at(first, 50, 30) == id_at(second, 52, 31)
    assert {s.id for s in second.segments} == set(np.unique(second.panoptic)) - {0}


def test_a_thing_hidden_on_its_way_is_the_same_where_its_motion_leads() -> None:
    tracker = Tracker(CATEGORIES)
    seen = [tracker.update(result(squares((x, 20), (70, 50)), {1: MUG, 2: CAN})) for x in (4, 12, 20)]
    for _ in range(3):
        tracker.update(result(squares((70, 50)), {1: CAN}))
    back = tracker.update(result(squares((52, 20), (70, 50)), {1: MUG, 2: CAN}))
    assert id_at(back, 52, 20) == id_at(seen[0], 4, 20)


def test_a_thing_out_of_sight_for_longer_than_the_limit_is_a_new_one() -> None:
    tracker = Tracker(CATEGORIES, TrackingConfig(max_age=2))
    first = tracker.update(result(squares((10, 10)), {1: MUG}))
    for _ in range(3):
        tracker.update(result(np.zeros((64, 96), np.int32), {}))
    assert id_at(tracker.update(result(squares((10, 10)), {1: MUG})), 10, 10) != id_at(first, 10, 10)


def test_one_frame_of_another_class_changes_neither_id_nor_class() -> None:
    tracker = Tracker(CATEGORIES)
    for _ in range(4):
        before = tracker.update(result(squares((10, 10)), {1: MUG}))
    doubtful = tracker.update(result(squares((10, 10)), {1: CAN}))
    assert doubtful.segments == before.segments


def test_a_thing_of_another_class_far_away_does_not_take_over_an_id() -> None:
    tracker = Tracker(CATEGORIES)
    first = tracker.update(result(squares((10, 10)), {1: MUG}))
    second = tracker.update(result(squares((26, 10)), {1: CAN}))
    assert id_at(second, 26, 10) != id_at(first, 10, 10)


def test_colours_follow_ids_and_stuff_has_the_colour_of_its_class() -> None:
    tracker = Tracker(CATEGORIES)
    both = squares((10, 10), (50, 30))
    first = tracker.update(result(both, {1: MUG, 2: FLOOR}))
    second = tracker.update(result(np.where(both > 0, 3 - both, 0), {2: MUG, 1: FLOOR}))
    assert first.colors == second.colors
    assert first.colors[id_at(first, 50, 30)] == CATEGORIES[FLOOR - 1].color


def test_a_bad_option_is_named() -> None:
    with pytest.raises(ValueError, match=r"min_iou: got 1\.5, expected a number from 0 to 1"):
        TrackingConfig(min_iou=1.5)


@given(st.integers(0, 2**32 - 1))
def test_numbering_things_anew_in_every_frame_changes_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    places = [(4, 4), (30, 8), (60, 4), (8, 40), (44, 40)]
    categories = [MUG, MUG, CAN, CAN, MUG]
    drift = random.integers(-2, 3, (5, 2))
    tracker = Tracker(CATEGORIES)
    expected: list[int] | None = None
    for _ in range(4):
        order = random.permutation(5)
        shown = tracker.update(
            result(squares(*[places[i] for i in order]), {n: categories[i] for n, i in enumerate(order, start=1)})
        )
        found = [id_at(shown, *place) for place in places]
        expected = expected or found
        assert found == expected
        places = [(x + int(dx), y + int(dy)) for (x, y), (dx, dy) in zip(places, drift, strict=True)]
        places = [(min(max(x, 0), 84), min(max(y, 0), 52)) for x, y in places]


def shuffled(clip: Clip) -> list[PanopticResult]:
    """The true segments of each frame as a session gives them: numbered anew in every frame."""
    categories = {segment.id: segment.category_id for segment in clip.segments}
    random = np.random.default_rng(0)
    results = []
    for ids in clip.ids:
        there = np.unique(ids[ids > 0]).tolist()
        numbers = dict(zip(there, (random.permutation(len(there)) + 1).tolist(), strict=True))
        table = np.zeros(256, np.int32)
        table[list(numbers)] = list(numbers.values())
        results.append(result(table[ids], {new: categories[old] for old, new in numbers.items()}))
    return results


def test_the_things_of_the_clip_keep_their_ids() -> None:
    clip = read_clip(CLIP)
    tracker = Tracker(CATEGORIES)
    tracked = [tracker.update(frame) for frame in shuffled(clip)]
    segments = [TrueSegment(segment.id, segment.category_id) for segment in clip.segments]
    truth = [PanopticMap(ids, [s for s in segments if s.id in np.unique(ids)]) for ids in clip.ids]
    pairs = [list(zip(truth, tracked, strict=True))]
    switches = identity_switches(pairs, TRUE_CATEGORIES)
    assert switches.switches <= 9  # most of them were away for long, or come back as a few pixels
    assert switches.matched > 2500
    assert video_panoptic_quality(pairs, TRUE_CATEGORIES, windows=(5, 15)).vpq_things > 0.98
    untracked = identity_switches([list(zip(truth, shuffled(clip), strict=True))], TRUE_CATEGORIES)
    assert untracked.switches > 100 * max(switches.switches, 1)
