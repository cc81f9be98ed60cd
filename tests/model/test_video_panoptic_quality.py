"""VPQ and identity switches against hand-computed clips and against PQ of stacked frames."""

from __future__ import annotations

import json

import numpy as np
import pytest

from panrt.errors import PanopticFormatError
from panrt.model.panoptic_map import PanopticMap, Segment
from panrt.model.panoptic_quality import PanopticStatistics, image_statistics, panoptic_quality
from panrt.model.video_panoptic_quality import identity_switches, video_panoptic_quality
from support.panoptic_maps import CATEGORIES, OTHER_THING, STUFF, THING, random_pair


def frame(categories: dict[int, int], *ids: int) -> PanopticMap:
    present = [i for i in dict.fromkeys(ids) if i]
    return PanopticMap(np.array([ids], np.int32), [Segment(i, categories[i]) for i in present])


def thing(*ids: int) -> PanopticMap:
    return frame(dict.fromkeys(ids, THING), *ids)


def test_an_id_that_changes_half_way_costs_the_tube_but_no_frame() -> None:
    clip = [(thing(5, 5), thing(3, 3)), (thing(5, 5), thing(4, 4))]
    result = video_panoptic_quality([clip], CATEGORIES, windows=(1, 2))
    assert result.per_window[1].all.pq == 1
    assert result.per_window[2].all.pq == 0  # both predicted tubes have an IoU of exactly one half
    assert result.vpq == 0.5
    assert (result.per_window[1].images, result.per_window[2].images) == (2, 1)


def test_the_iou_of_a_tube_is_over_all_its_frames() -> None:
    clip = [(thing(5, 5, 5, 5), thing(3, 3, 3, 0)), (thing(5, 5, 5, 5), thing(3, 3, 3, 3))]
    assert video_panoptic_quality([clip], CATEGORIES, windows=(2,)).vpq == 7 / 8


def test_windows_slide_frame_by_frame_within_a_clip() -> None:
    steady = [(thing(5), thing(3))] * 4
    switched = [(thing(5), thing(3)), (thing(5), thing(3)), (thing(5), thing(4)), (thing(5), thing(4))]
    result = video_panoptic_quality([steady, switched], CATEGORIES, windows=(2,)).per_window[2]
    assert result.images == 6
    cup = result.per_category[0]
    assert (cup.tp, cup.fp, cup.fn) == (5, 2, 1)  # one window of the second clip holds the switch


def test_stuff_needs_no_lasting_id_and_things_do() -> None:
    categories = {1: STUFF, 2: STUFF, 5: THING, 6: THING}
    clip = [(frame(categories, 1, 5), frame(categories, 2, 6)), (frame(categories, 2, 5), frame(categories, 1, 5))]
    result = video_panoptic_quality([clip], CATEGORIES, windows=(2,))
    assert result.vpq_stuff == 1
    assert result.vpq_things == 0


def test_a_thing_that_changes_its_category_is_another_tube() -> None:
    clip = [(thing(5), frame({3: THING}, 3)), (thing(5), frame({3: OTHER_THING}, 3))]
    cup, box, *_ = video_panoptic_quality([clip], CATEGORIES, windows=(2,)).per_window[2].per_category
    assert (cup.tp, cup.fp, cup.fn) == (0, 1, 1)
    assert (box.tp, box.fp, box.fn) == (0, 1, 0)


def one_segment_per_stuff(panoptic_map: PanopticMap) -> PanopticMap:
    """The map without the second and further segments of each stuff category, which make one tube."""
    seen: set[int] = set()
    ids, kept = panoptic_map.panoptic.copy(), []
    for segment in panoptic_map.segments:
        if segment.category_id == STUFF and STUFF in seen:
            ids[ids == segment.id] = 0
        else:
            kept.append(segment)
        seen.add(segment.category_id)
    return PanopticMap(ids, kept)


@pytest.mark.parametrize("seed", range(10))
def test_a_window_of_one_frame_is_panoptic_quality(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [random_pair(rng, 16, 16) for _ in range(5)]
    clip = [(one_segment_per_stuff(truth), one_segment_per_stuff(prediction)) for truth, prediction in pairs]
    statistics = sum(
        (image_statistics(truth, prediction, CATEGORIES) for truth, prediction in clip),
        start=PanopticStatistics.empty(len(CATEGORIES)),
    )
    video = video_panoptic_quality([clip], CATEGORIES, windows=(1,))
    assert video.per_window[1].to_json() == panoptic_quality(statistics, CATEGORIES).to_json()


@pytest.mark.parametrize("seed", range(10))
def test_a_window_of_steady_ids_is_panoptic_quality_of_the_stacked_frames(seed: int) -> None:
    """Cut one image into bands: as the frames of a clip they are its tubes."""
    truth, prediction = map(one_segment_per_stuff, random_pair(np.random.default_rng(seed), 20, 16))

    def band(panoptic_map: PanopticMap, start: int) -> PanopticMap:
        ids = panoptic_map.panoptic[start : start + 5]
        segments = [s._replace(area=None) for s in panoptic_map.segments if (ids == s.id).any()]
        return PanopticMap(ids, segments)

    clip = [(band(truth, start), band(prediction, start)) for start in range(0, 20, 5)]
    video = video_panoptic_quality([clip], CATEGORIES, windows=(4,)).per_window[4]
    image = panoptic_quality(image_statistics(truth, prediction, CATEGORIES), CATEGORIES)
    assert [q[4:] for q in video.per_category] == [q[4:] for q in image.per_category]
    assert list(video.all) == pytest.approx(list(image.all), abs=1e-12, nan_ok=True)


def test_switches_are_counted_against_the_last_match() -> None:
    clip = [
        (thing(5, 5), thing(3, 3)),
        (thing(5, 5), thing(0, 0)),  # lost: no match
        (thing(5, 5), thing(4, 4)),  # switch
        (thing(5, 5), thing(4, 4)),
        (thing(5, 5), thing(4, 4)),
        (thing(5, 5), thing(3, 3)),  # switch
    ]
    assert identity_switches([clip, clip[:2]], CATEGORIES) == (2, 6, 2)


def test_stuff_never_switches() -> None:
    clip = [(frame({1: STUFF}, 1), frame({i: STUFF}, i)) for i in (3, 4)]
    assert identity_switches([clip], CATEGORIES) == (0, 0, 0)


def test_the_result_prints_and_is_plain_json() -> None:
    result = video_panoptic_quality([[(thing(5), thing(3))] * 2], CATEGORIES, windows=(1, 2))
    assert result.table().splitlines() == [
        "         All  Things  Stuff  Windows",
        "------------------------------------",
        "VPQ 1  100.0   100.0      -        2",
        "VPQ 2  100.0   100.0      -        1",
        "VPQ    100.0   100.0      -         ",
    ]
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (plain["vpq"], plain["vpq_stuff"], plain["per_window"]["2"]["images"]) == (1, None, 1)


@pytest.mark.parametrize("windows", [(), (0,), (3,)])
def test_window_sizes_that_fit_no_clip_are_refused(windows: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"windows: expected sizes of 1 to 2 frames"):
        video_panoptic_quality([[(thing(5), thing(3))] * 2], CATEGORIES, windows=windows)


def test_an_inconsistent_frame_is_an_error() -> None:
    with pytest.raises(PanopticFormatError, match="in the map but not among"):
        video_panoptic_quality([[(thing(5), thing(3)._replace(segments=[]))]], CATEGORIES, windows=(1,))
