"""Panoptic quality against hand-computed cases, a brute-force oracle and hotcoco."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panrt.errors import PanopticFormatError
from panrt.model.panoptic_map import IdMap, PanopticMap, Segment
from panrt.model.panoptic_quality import PanopticStatistics, evaluate, image_statistics, panoptic_quality
from panrt.model.segment_matching import count_overlaps
from support.panoptic_maps import CATEGORIES, OTHER_THING, STUFF, THING, random_pair


def row(*ids: int) -> npt.NDArray[np.int32]:
    return np.array([ids], np.int32)


def quality(
    truth_ids: IdMap,
    truth_segments: Sequence[Segment],
    predicted_ids: IdMap,
    predicted_segments: Sequence[tuple[int, int]],
) -> tuple[int, int, int, float]:
    """(TP, FP, FN, sum of IoU) of the first thing category."""
    truth = PanopticMap(truth_ids, truth_segments)
    prediction = PanopticMap(predicted_ids, [Segment(i, c) for i, c in predicted_segments])
    s = image_statistics(truth, prediction, CATEGORIES)
    return s.true_positives[0], s.false_positives[0], s.false_negatives[0], s.iou_sum[0]


def test_overlapping_segments_match_with_their_iou() -> None:
    assert quality(row(5, 5, 5, 5, 0, 6), [Segment(5, THING), Segment(6, STUFF)],
                   row(3, 3, 3, 4, 4, 4), [(3, THING), (4, STUFF)]) == (1, 0, 0, 3 / 4)  # fmt: skip


def test_an_iou_of_exactly_one_half_is_no_match() -> None:
    assert quality(row(5, 5, 6, 6), [Segment(5, THING), Segment(6, STUFF)],
                   row(3, 4, 4, 4), [(3, THING), (4, STUFF)]) == (0, 1, 1, 0)  # fmt: skip


def test_segments_of_different_categories_do_not_match() -> None:
    assert quality(row(5, 5), [Segment(5, THING)], row(3, 3), [(3, OTHER_THING)]) == (0, 0, 1, 0)


def test_predicted_pixels_on_void_do_not_lower_the_iou() -> None:
    # 3 common pixels, 2 on void, 1 beside: 3 / (6 + 3 - 3 - 2)
    assert quality(row(5, 5, 5, 0, 0, 6), [Segment(5, THING), Segment(6, STUFF)],
                   row(3, 3, 3, 3, 3, 3), [(3, THING)]) == (1, 0, 0, 3 / 4)  # fmt: skip


def test_true_pixels_predicted_as_void_do_lower_the_iou() -> None:
    assert quality(row(5, 5, 5, 5), [Segment(5, THING)], row(3, 3, 3, 0), [(3, THING)]) == (1, 0, 0, 3 / 4)


@pytest.mark.parametrize(("on_void", "false_positives"), [(2, 1), (3, 0)])
def test_a_prediction_is_ignored_when_more_than_half_of_it_is_on_void(on_void: int, false_positives: int) -> None:
    truth = row(*[0] * on_void, *[6] * (4 - on_void))
    assert quality(truth, [Segment(6, STUFF)], row(3, 3, 3, 3), [(3, THING)]) == (0, false_positives, 0, 0)


def test_a_crowd_is_never_matched_nor_missed_and_excuses_predictions_of_its_category() -> None:
    crowd = [Segment(5, THING, is_crowd=True)]
    assert quality(row(5, 5, 5), crowd, row(3, 3, 3), [(3, THING)]) == (0, 0, 0, 0)
    assert quality(row(5, 5, 5), crowd, row(0, 0, 0), []) == (0, 0, 0, 0)


def test_a_crowd_does_not_excuse_predictions_of_another_category() -> None:
    crowd = [Segment(5, OTHER_THING, is_crowd=True)]
    assert quality(row(5, 5, 5), crowd, row(3, 3, 3), [(3, THING)]) == (0, 1, 0, 0)


def test_crowd_pixels_do_lower_the_iou() -> None:
    segments = [Segment(5, THING), Segment(6, THING, is_crowd=True)]
    assert quality(row(5, 5, 5, 6), segments, row(3, 3, 3, 3), [(3, THING)]) == (1, 0, 0, 3 / 4)


def test_void_and_crowd_add_up_to_excuse_a_prediction() -> None:
    segments = [Segment(5, THING, is_crowd=True), Segment(6, STUFF)]
    assert quality(row(5, 5, 0, 6, 6), segments, row(3, 3, 3, 3, 3), [(3, THING)]) == (0, 0, 0, 0)


@pytest.mark.parametrize(("order", "false_positives"), [((5, 6), 1), ((6, 5), 0)])
def test_only_the_last_listed_crowd_of_a_category_excuses(order: tuple[int, ...], false_positives: int) -> None:
    """The prediction lies on crowd 5."""
    segments = [Segment(i, THING, is_crowd=True) for i in order]
    assert quality(row(5, 5, 6), segments, row(3, 3, 0), [(3, THING)]) == (0, false_positives, 0, 0)


def test_the_stated_area_of_a_true_segment_counts_not_that_of_the_map() -> None:
    assert quality(row(5, 5, 5), [Segment(5, THING, area=4)], row(3, 3, 3), [(3, THING)]) == (1, 0, 0, 3 / 4)


def test_a_true_segment_without_a_pixel_is_missed() -> None:
    assert quality(row(6), [Segment(5, THING, area=3), Segment(6, STUFF)], row(0), []) == (0, 0, 1, 0)


def test_unlisted_true_pixels_are_not_void() -> None:
    assert quality(row(8, 8, 8), [], row(3, 3, 3), [(3, THING)]) == (0, 1, 0, 0)


def test_averages_are_over_the_categories_that_occur() -> None:
    statistics = PanopticStatistics(
        images=2,
        true_positives=np.array([2, 0, 1, 0]),
        false_positives=np.array([1, 1, 0, 0]),
        false_negatives=np.array([1, 0, 0, 0]),
        iou_sum=np.array([1.5, 0, 0.9, 0]),
    )
    result = panoptic_quality(statistics, CATEGORIES)
    cup, box, floor, wall = result.per_category
    assert cup[1:] == pytest.approx((0.5, 0.75, 2 / 3, 2, 1, 1))
    assert box[1:] == (0, 0, 0, 0, 1, 0)
    assert floor[1:] == pytest.approx((0.9, 0.9, 1, 1, 0, 0))
    assert math.isnan(wall.pq)
    assert result.all == pytest.approx((1.4 / 3, 1.65 / 3, 5 / 9, 3))
    assert result.things == pytest.approx((0.25, 0.375, 1 / 3, 2))
    assert result.stuff == pytest.approx((0.9, 0.9, 1, 1))
    assert result.table(per_category=True).splitlines() == [
        "          PQ    SQ     RQ  N",
        "----------------------------",
        "All     46.7  55.0   55.6  3",
        "Things  25.0  37.5   33.3  2",
        "Stuff   90.0  90.0  100.0  1",
        "",
        "         PQ    SQ     RQ  TP  FP  FN",
        "------------------------------------",
        "cup    50.0  75.0   66.7   2   1   1",
        "box     0.0   0.0    0.0   0   1   0",
        "floor  90.0  90.0  100.0   1   0   0",
    ]


def test_the_quality_of_nothing_is_nan_and_null_in_json() -> None:
    result = evaluate([], CATEGORIES)
    assert math.isnan(result.all.pq)
    assert result.all.categories == 0
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert plain["all"] == {"pq": None, "sq": None, "rq": None, "categories": 0}
    assert plain["per_category"][0]["category"] == {"id": THING, "name": "cup", "is_thing": True}
    assert "-" in result.table()


def brute_force_statistics(truth: PanopticMap, prediction: PanopticMap) -> dict[int, list[float]]:
    """category -> [TP, FP, FN, sum of IoU], straight from boolean masks."""
    result = {category.id: [0, 0, 0, 0.0] for category in CATEGORIES}
    void = truth.panoptic == 0
    matched = set()
    for g in truth.segments:
        if g.is_crowd:
            continue
        mask = truth.panoptic == g.id
        hits = []
        for p in prediction.segments:
            predicted = prediction.panoptic == p.id
            union = (mask | (predicted & ~void)).sum()
            iou = (mask & predicted).sum() / union
            if p.category_id == g.category_id and iou > 0.5:
                hits.append((p.id, iou))
        assert len(hits) <= 1
        for predicted_id, iou in hits:
            matched.add(predicted_id)
            result[g.category_id][0] += 1
            result[g.category_id][3] += iou
        if not hits:
            result[g.category_id][2] += 1
    for p in prediction.segments:
        predicted = prediction.panoptic == p.id
        crowds = [truth.panoptic == g.id for g in truth.segments if g.is_crowd and g.category_id == p.category_id]
        excuse = void | crowds[-1] if crowds else void
        if p.id not in matched and (excuse & predicted).sum() * 2 <= predicted.sum():
            result[p.category_id][1] += 1
    return result


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(2, 14), width=st.integers(2, 14))
def test_statistics_equal_those_of_brute_force(seed: int, height: int, width: int) -> None:
    truth, prediction = random_pair(np.random.default_rng(seed), height, width)
    got = image_statistics(truth, prediction, CATEGORIES)
    counts = (got.true_positives, got.false_positives, got.false_negatives, got.iou_sum)
    for i, category in enumerate(CATEGORIES):
        assert [a[i] for a in counts] == pytest.approx(
            brute_force_statistics(truth, prediction)[category.id], abs=1e-12
        )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40))
def test_overlaps_equal_a_count_pixel_by_pixel(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, 4, size=(2, height, width)) * np.array([1 << 29, 77])[:, None, None]
    expected: dict[tuple[int, int], int] = {}
    for pair in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        expected[pair] = expected.get(pair, 0) + 1
    assert count_overlaps(truth, prediction) == expected
    assert count_overlaps(truth.astype(np.uint32), np.asfortranarray(prediction)) == expected


def test_statistics_of_parts_add_up_to_those_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    pairs = [random_pair(rng, 20, 20) for _ in range(6)]
    first, *rest = (image_statistics(*pair, CATEGORIES) for pair in pairs)
    assert panoptic_quality(sum(rest, start=first), CATEGORIES).to_json() == evaluate(pairs, CATEGORIES).to_json()


def test_a_stream_is_consumed_one_pair_at_a_time() -> None:
    alive: list[int] = []

    def stream() -> Iterator[tuple[PanopticMap, PanopticMap]]:
        for i in range(3):
            alive.append(i)
            yield random_pair(np.random.default_rng(i), 8, 8)

    assert evaluate(stream(), CATEGORIES).images == 3
    assert alive == [0, 1, 2]


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (
            PanopticMap(row(5, 5), [Segment(5, THING)]),
            PanopticMap(row(3), [Segment(3, THING)]),
            r"prediction: expected the size of the ground truth, \(H, W\) = \(1, 2\), got \(1, 1\)",
        ),
        (PanopticMap(row(5), [Segment(5, THING)]), PanopticMap(row(3), []), "prediction: ids 3 are in the map but not"),
        (
            PanopticMap(row(5), [Segment(5, THING)]),
            PanopticMap(row(3), [Segment(3, THING), Segment(4, THING)]),
            "prediction: segments 4 have no pixel",
        ),
        (
            PanopticMap(row(5), [Segment(5, THING)]),
            PanopticMap(row(3), [Segment(3, 55)]),
            "prediction: segment 3 has the unknown category 55",
        ),
        (PanopticMap(row(5), [Segment(5, 55)]), PanopticMap(row(0), []), "ground truth: segment 5 has the unknown"),
        (
            PanopticMap(row(5), [Segment(5, THING)]),
            PanopticMap(row(3), [Segment(3, THING), Segment(3, THING)]),
            "prediction: id 3 is listed twice",
        ),
        (PanopticMap(row(5), [Segment(0, THING)]), PanopticMap(row(0), []), "ground truth: id 0 is void"),
        (
            PanopticMap(row(5, 5), [Segment(5, THING, area=1)]),
            PanopticMap(row(3, 3), [Segment(3, THING)]),
            "segment 5 is stated to have 1 pixels, but the map has at least 2",
        ),
        (PanopticMap(row(5), [Segment(5, THING)]), PanopticMap(row(-1), []), "prediction: expected ids from 0"),
        (
            PanopticMap(np.zeros((2, 2, 3), np.uint8), []),
            PanopticMap(row(0), []),
            r"ground truth: expected an \(H, W\) map of integer ids, got \(2, 2, 3\) uint8",
        ),
        (PanopticMap(row(5), [Segment(5, THING)]), PanopticMap(np.zeros((1, 1)), []), "prediction: expected an"),  # type: ignore[arg-type]
    ],
)
def test_inconsistent_input_is_an_error_that_names_it(
    truth: PanopticMap, prediction: PanopticMap, message: str
) -> None:
    with pytest.raises(PanopticFormatError, match=message):
        image_statistics(truth, prediction, CATEGORIES)


def test_statistics_of_other_categories_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 4 categories, got 3"):
        panoptic_quality(PanopticStatistics.empty(3), CATEGORIES)


def test_the_metrics_do_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import panrt.model.panoptic_folders, panrt.model.semantic_iou"
    subprocess.run([sys.executable, "-c", code], check=True)
