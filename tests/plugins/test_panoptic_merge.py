"""PanopticMerge: hand-drawn cases, detectron2's own results, OPS.md section 6, and agreement of the forms."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from panrt.plugins import reference
from panrt.plugins.contract import PanopticSegments
from support import oracles
from support.cases import MergeCase, merge_cases, network_cases
from support.compare import assert_identical

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
ONES = np.ones((28, 28))  # over a box of whole pixels this is exactly the box

# Two channels of 8 x 8 pixels: "things" wins nowhere. Stuff 1 has the left half, stuff 2 the right half.
HALVES = [[[-9, -9], [-9, -9]], [[1, 0], [1, 0]], [[0, 1], [0, 1]]]
THINGS_EVERYWHERE = [[[0.0, 0.0], [0.0, 0.0]]]


def merge(
    ops: ModuleType, instances: list[tuple[float, Any]], logits: Any = THINGS_EVERYWHERE, **options: Any
) -> PanopticSegments:
    """Merge (score, box) instances of one 8 x 8 image; classes are 10, 11, ..., masks ones where not given."""
    K = len(instances)
    masks = options.pop("masks", [ONES] * K)
    count = options.pop("count", K)
    defaults: dict[str, Any] = {
        "input_hw": (8, 8),
        "output_hw": options.get("input_hw", (8, 8)),
        "score_threshold": 0.5,
        "overlap_threshold": 0.5,
        "stuff_area_limit": 4,
    }
    merged: PanopticSegments = ops.panoptic_merge(
        np.array(logits, np.float32)[None],
        np.array([box for _, box in instances], np.float32).reshape(1, K, 4),
        np.array([score for score, _ in instances], np.float32).reshape(1, K),
        np.arange(10, 10 + K, dtype=np.int32)[None],
        np.array([count], np.int32),
        np.array(masks, np.float32).reshape(1, K, *np.shape(masks)[1:] or (28, 28)),
        **(defaults | options),
    )
    return merged


def drawing(merged: PanopticSegments) -> list[str]:
    """The map as text, '.' for void."""
    return ["".join(".123456789"[id] for id in row) for row in merged.panoptic[0].tolist()]


def segments(merged: PanopticSegments) -> list[list[int]]:
    """The real segment rows: id, category, is_thing, area, x0, y0, x1, y1."""
    rows: list[list[int]] = merged.segments[0, : merged.segment_count[0]].tolist()
    return rows


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_instances_cover_by_score_and_stuff_fills_what_is_left(ops: ModuleType) -> None:
    merged = merge(ops, [(0.6, [1, 1, 4, 5]), (0.9, [3, 2, 7, 4])], HALVES)
    assert drawing(merged) == [
        "33334444",
        "32224444",
        "32211114",
        "32211114",
        "32224444",
        "33334444",
        "33334444",
        "33334444",
    ]
    assert segments(merged) == [
        [1, 11, 1, 8, 3, 2, 7, 4],
        [2, 10, 1, 10, 1, 1, 4, 5],
        [3, 1, 0, 20, 0, 0, 4, 8],
        [4, 2, 0, 26, 4, 0, 8, 8],
    ]
    assert_array_equal(merged.segment_scores[0], np.array([0.9, 0.6, 0, 0, 0], np.float32))
    assert not merged.segments[0, 4:].any()


def test_equal_scores_go_to_the_lower_index(ops: ModuleType) -> None:
    merged = merge(ops, [(0.5, [0, 0, 4, 8]), (0.5, [3, 0, 8, 8])])
    assert drawing(merged) == ["11112222"] * 8
    assert segments(merged) == [[1, 10, 1, 32, 0, 0, 4, 8], [2, 11, 1, 32, 4, 0, 8, 8]]


def test_a_score_equal_to_the_threshold_is_enough(ops: ModuleType) -> None:
    just_less = float(np.nextafter(np.float32(0.7), np.float32(0)))
    merged = merge(ops, [(0.7, [0, 0, 4, 4]), (just_less, [4, 4, 8, 8])], score_threshold=0.7)
    assert [row[1] for row in segments(merged)] == [10]


def test_an_overlap_equal_to_the_threshold_is_kept(ops: ModuleType) -> None:
    instances = [(0.9, [0, 0, 4, 4]), (0.8, [2, 0, 6, 4])]
    assert [row[1:4] for row in segments(merge(ops, instances, overlap_threshold=0.5))] == [[10, 1, 16], [11, 1, 8]]
    just_less = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert [row[1:4] for row in segments(merge(ops, instances, overlap_threshold=just_less))] == [[10, 1, 16]]


def test_a_share_is_rounded_to_float32_before_it_is_compared(ops: ModuleType) -> None:
    # 1/3 in float64 is less than in float32, whose neighbour below it is less again.
    instances = [(0.9, [0, 0, 4, 4]), (0.8, [3, 0, 6, 4])]
    assert len(segments(merge(ops, instances, overlap_threshold=1 / 3))) == 2
    below = float(np.nextafter(np.float32(1 / 3), np.float32(0)))
    assert len(segments(merge(ops, instances, overlap_threshold=below))) == 1


def test_overlap_counts_all_accepted_instances_and_none_of_the_dropped(ops: ModuleType) -> None:
    # The second lies on the first and is dropped. The third shares 2 of 4 columns with the first, and would share all
    # with the first two together.
    merged = merge(ops, [(0.9, [0, 0, 4, 2]), (0.8, [1, 0, 5, 2]), (0.7, [2, 0, 6, 2])])
    assert [row[1:4] for row in segments(merged)] == [[10, 1, 8], [12, 1, 4]]
    # Two accepted ones together take the third's place.
    merged = merge(ops, [(0.9, [0, 0, 3, 2]), (0.8, [5, 0, 8, 2]), (0.7, [1, 0, 7, 2])])
    assert [row[1] for row in segments(merged)] == [10, 11]


def test_stuff_of_exactly_the_limit_stays_and_of_one_pixel_less_goes(ops: ModuleType) -> None:
    instances = [(0.9, [0, 0, 4, 3])]
    assert [row[1:4] for row in segments(merge(ops, instances, HALVES, stuff_area_limit=20))] == [
        [10, 1, 12],
        [1, 0, 20],
        [2, 0, 32],
    ]
    merged = merge(ops, instances, HALVES, stuff_area_limit=21)
    assert [row[:4] for row in segments(merged)] == [[1, 10, 1, 12], [2, 2, 0, 32]]
    assert drawing(merged)[3:] == ["....2222"] * 5


def test_where_things_win_the_semantic_map_and_no_instance_is_stays_void(ops: ModuleType) -> None:
    merged = merge(ops, [(0.9, [0, 0, 2, 2])], [[[1, 0], [1, 0]], [[0, 1], [0, 1]]])
    assert drawing(merged) == ["11..2222", "11..2222", *["....2222"] * 6]


def test_equal_logits_go_to_the_lower_channel(ops: ModuleType) -> None:
    logits = np.zeros((4, 2, 2))
    assert segments(merge(ops, [], logits)) == []
    logits[0] = -1
    assert [row[1:4] for row in segments(merge(ops, [], logits))] == [[1, 0, 64]]


def test_a_mask_at_exactly_the_threshold_is_in(ops: ModuleType) -> None:
    half = np.full((28, 28), 0.5)
    just_less = np.full((28, 28), np.nextafter(np.float32(0.5), np.float32(0)))
    merged = merge(ops, [(0.9, [1, 1, 5, 4]), (0.8, [5, 4, 8, 8])], masks=[half, just_less])
    assert segments(merged) == [[1, 10, 1, 12, 1, 1, 5, 4]]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flat_mask_at_the_threshold_stays_whole_wherever_it_is_sampled(ops: ModuleType, threshold: float) -> None:
    # Not wider than the mask, or border pixels would fade into what is outside.
    options: dict[str, Any] = {"input_hw": (32, 32), "mask_threshold": threshold}
    merged = merge(ops, [(0.9, [2, 3, 29, 28])], np.zeros((1, 8, 8)), masks=[np.full((28, 28), threshold)], **options)
    assert segments(merged) == [[1, 10, 1, 27 * 25, 2, 3, 29, 28]]


def test_the_mask_is_stretched_over_its_box(ops: ModuleType) -> None:
    left = np.zeros((28, 28))
    left[:, :14] = 1
    top = np.zeros((28, 28))
    top[:14] = 1
    merged = merge(ops, [(0.9, [0, 0, 4, 4]), (0.8, [4, 4, 8, 8])], masks=[left, top])
    assert drawing(merged) == [*["11......"] * 4, *["....2222"] * 2, *["........"] * 2]


def test_a_low_threshold_lets_a_mask_reach_half_a_cell_beyond_its_box(ops: ModuleType) -> None:
    # One cell of 1 over 4 pixels falls from 1 in the middle to 0.5 at the border and 0 half a cell, 2 pixels, beyond:
    # along an axis 0.125, 0.375, 0.625, 0.875 and back. Pixels count where the product of both axes is 0.3.
    mask = np.ones((1, 1))
    merged = merge(ops, [(0.9, [2, 2, 6, 6])], masks=[mask], mask_threshold=0.3)
    assert drawing(merged) == [
        "........",
        "...11...",
        "..1111..",
        ".111111.",
        ".111111.",
        "..1111..",
        "...11...",
        "........",
    ]
    merged = merge(ops, [(0.9, [2, 2, 6, 6])], masks=[mask])
    assert drawing(merged)[2:6] == ["...11...", "..1111..", "..1111..", "...11..."]


def test_boxes_scale_with_the_output(ops: ModuleType) -> None:
    merged = merge(ops, [(0.9, [2, 4, 6, 8])], output_hw=(4, 16))
    assert segments(merged) == [[1, 10, 1, 16, 4, 2, 12, 4]]
    merged = merge(ops, [(0.9, [2, 4, 6, 8])], output_hw=(16, 4))
    assert segments(merged) == [[1, 10, 1, 16, 1, 8, 3, 16]]


# --- OPS.md section 6, row by row -------------------------------------------------------------------------------------


def assert_stuff_alone(merged: PanopticSegments) -> None:
    assert drawing(merged) == ["11112222"] * 8
    assert segments(merged) == [[1, 1, 0, 32, 0, 0, 4, 8], [2, 2, 0, 32, 4, 0, 8, 8]]
    assert not merged.segment_scores.any()


def test_without_detections_there_is_stuff_alone(ops: ModuleType) -> None:
    assert_stuff_alone(merge(ops, [], HALVES))
    assert_stuff_alone(merge(ops, [(0.49, [0, 0, 8, 8])], HALVES))
    assert_stuff_alone(merge(ops, [(0.9, [0, 0, 8, 8])], HALVES, count=0))
    assert_stuff_alone(merge(ops, [(0.9, [0, 0, 8, 8])], HALVES, count=-5))


@pytest.mark.parametrize(("count", "real"), [(-(2**31), 0), (-1, 0), (0, 0), (1, 1), (2, 2), (3, 2), (2**31 - 1, 2)])
def test_the_count_is_clamped_and_rows_beyond_it_are_never_read(ops: ModuleType, count: int, real: int) -> None:
    instances = [(0.9, [0, 0, 4, 4]), (0.8, [4, 4, 8, 8])]
    merged = merge(ops, [*instances[:real], *[(math.nan, [math.nan] * 4)] * (2 - real)], count=count)
    assert [row[1] for row in segments(merged)] == [10, 11][:real]


def test_a_score_that_is_nan_is_no_instance_and_one_that_is_infinite_is_the_best(ops: ModuleType) -> None:
    merged = merge(ops, [(0.9, [0, 0, 8, 8]), (math.nan, [0, 0, 4, 4]), (math.inf, [4, 4, 8, 8])])
    assert [row[1] for row in segments(merged)] == [12, 10]
    assert_array_equal(merged.segment_scores[0, :2], np.array([np.inf, 0.9], np.float32))


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 0, 0],
        [3, 3, 3, 5],
        [5, 3, 3, 5],
        [3, 5, 5, 3],
        [-4, 2, 0, 5],
        [8, 2, 12, 5],
        [2, 2, math.nan, 5],
        [math.nan, 2, 5, 5],
        [2, math.inf, 5, 5],
        [math.inf, 2, math.inf, 5],
    ],
)
def test_a_box_without_extent_in_the_output_has_no_mask_and_takes_no_id(ops: ModuleType, box: list[float]) -> None:
    merged = merge(ops, [(0.9, box), (0.8, [0, 0, 8, 8])])
    assert segments(merged) == [[1, 11, 1, 64, 0, 0, 8, 8]]


def test_an_infinite_box_is_clipped_to_the_output(ops: ModuleType) -> None:
    merged = merge(ops, [(0.9, [-math.inf, 2, math.inf, 6])])
    assert segments(merged) == [[1, 10, 1, 32, 0, 2, 8, 6]]


def test_a_mask_squeezes_into_the_clipped_box(ops: ModuleType) -> None:
    left = np.zeros((28, 28))
    left[:, :14] = 1
    assert segments(merge(ops, [(0.9, [-4, 0, 4, 4])], masks=[left])) == [[1, 10, 1, 8, 0, 0, 2, 4]]


def test_a_mask_without_a_pixel_at_the_threshold_is_dropped_and_takes_no_id(ops: ModuleType) -> None:
    merged = merge(ops, [(0.9, [0, 0, 8, 8]), (0.8, [2, 2, 4, 4])], masks=[ONES * 0.49, ONES])
    assert segments(merged) == [[1, 11, 1, 4, 2, 2, 4, 4]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_probability_that_is_not_finite_counts_as_zero(ops: ModuleType, value: float) -> None:
    # Over 5 pixels, the third is sampled half way between cells 13 and 14.
    ones, zeros = np.ones((28, 28)), np.zeros((28, 28))
    ones[:, 14] = zeros[:, 14] = value
    merged = merge(ops, [(0.9, [0, 0, 5, 5])], masks=[ones], mask_threshold=0.51)
    assert drawing(merged)[:5] == ["11.11..."] * 5
    assert segments(merge(ops, [(0.9, [0, 0, 5, 5])], masks=[ones])) == [[1, 10, 1, 25, 0, 0, 5, 5]]
    assert segments(merge(ops, [(0.9, [0, 0, 5, 5])], masks=[zeros])) == []


def test_an_instance_without_a_free_pixel_is_dropped_even_at_an_overlap_threshold_of_one(ops: ModuleType) -> None:
    instances = [(0.9, [0, 0, 4, 4]), (0.8, [1, 1, 3, 3]), (0.7, [0, 0, 5, 4])]
    merged = merge(ops, instances, overlap_threshold=1.0)
    assert segments(merged) == [[1, 10, 1, 16, 0, 0, 4, 4], [2, 12, 1, 4, 4, 0, 5, 4]]


def test_a_stuff_limit_of_zero_makes_no_empty_segments(ops: ModuleType) -> None:
    merged = merge(ops, [(0.9, [0, 0, 4, 8])], HALVES, stuff_area_limit=0)
    assert [row[:4] for row in segments(merged)] == [[1, 10, 1, 32], [2, 2, 0, 32]]


def test_one_channel_makes_no_stuff(ops: ModuleType) -> None:
    merged = merge(ops, [(0.9, [0, 0, 4, 4])])
    assert drawing(merged) == [*["1111...."] * 4, *["........"] * 4]
    assert merged.segments.shape == (1, 2, 8)


def test_padded_cells_weigh_on_the_border_of_the_valid_size(ops: ModuleType) -> None:
    # Stuff 2 has only the padded right cell; its logits reach to 0.375 of 1 in pixel 3, the last valid one.
    logits = [[[-9, -9]], [[0.3, 0.3]], [[0, 1]]]
    assert drawing(merge(ops, [], logits, input_hw=(4, 4), stuff_area_limit=0)) == ["1112"] * 4


@pytest.mark.parametrize(("value", "as_if"), [(math.nan, -1e30), (math.inf, 1e30), (-math.inf, -1e30), (3e38, 1e30)])
def test_logits_that_are_not_finite_or_huge_are_clamped(ops: ModuleType, value: float, as_if: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 6, 6))
    clamped = logits.copy()
    for place in rng.integers(0, (4, 6, 6), (12, 3)).tolist():
        logits[tuple(place)], clamped[tuple(place)] = value, as_if
    options: dict[str, Any] = {"input_hw": (21, 23), "output_hw": (30, 30), "stuff_area_limit": 0}
    assert_identical(merge(ops, [], logits, **options), merge(ops, [], clamped, **options))


# --- detectron2 -------------------------------------------------------------------------------------------------------


def golden_options(golden: Any) -> dict[str, Any]:
    return {
        "input_hw": tuple(golden["input_hw"].tolist()),
        "output_hw": tuple(golden["output_hw"].tolist()),
        "score_threshold": float(golden["instance_score_threshold"]),
        "overlap_threshold": float(golden["overlap_threshold"]),
        "stuff_area_limit": int(golden["stuff_area_limit"]),
    }


def assert_as_detectron2(
    merged: PanopticSegments, n: int, wanted: list[tuple[int, int, int]], panoptic: Any, undecided: Any
) -> None:
    """Segments are (id, category, is_thing) as wanted; the map is, but for pixels that rounding may decide."""
    rows = merged.segments[n, : merged.segment_count[n]]
    assert [tuple(row[:3]) for row in rows.tolist()] == wanted
    differs = merged.panoptic[n] != panoptic
    assert not (differs & ~undecided).any(), f"first at {np.argwhere(differs & ~undecided)[0]}"


@pytest.mark.parametrize("path", sorted((GOLDEN / "merge").glob("*.npz")), ids=lambda path: path.stem)
def test_golden_cases_merge_as_detectron2_merged_them(ops: ModuleType, path: Path) -> None:
    golden, options = np.load(path), golden_options(np.load(path))
    names = ("semantic_logits", "boxes", "scores", "classes", "mask_probs")
    logits, boxes, scores, classes, masks = (golden[name] for name in names)
    merged = ops.panoptic_merge(
        logits[None],
        boxes[None],
        scores[None],
        classes[None].astype(np.int32),
        np.array([len(scores)], np.int32),
        masks[None],
        **options,
    )
    undecided = oracles.Canvas(logits, boxes, scores, classes, masks, **options).undecided.numpy()
    assert undecided.mean() < 1e-3
    columns = (golden[name].astype(int).tolist() for name in ("seg_id", "seg_category", "seg_isthing"))
    assert_as_detectron2(merged, 0, list(zip(*columns, strict=True)), golden["panoptic"], undecided)


@pytest.mark.parametrize("name", ["r50_coffee", "r50_chelsea_rescaled", "r101_rocket"])
def test_masks_have_the_areas_that_detectron2_pastes(ops: ModuleType, name: str) -> None:
    golden, facts = np.load(GOLDEN / f"{name}.npz"), json.loads((GOLDEN / f"{name}.json").read_text())
    K, input_hw = len(golden["det_boxes"]), golden["image_bgr"].shape[:2]
    h, w = (side // 4 for side in golden["input_padded_hw"].tolist())
    merged = ops.panoptic_merge(  # every detection as an image of its own
        np.zeros((K, 1, h, w), np.float32),
        golden["det_boxes"][:, None],
        golden["det_scores"][:, None],
        golden["det_classes"][:, None].astype(np.int32),
        np.ones(K, np.int32),
        golden["det_masks"][:, None],
        input_hw=input_hw,
        output_hw=tuple(facts["output_hw"]),
        score_threshold=0.0,
        overlap_threshold=0.5,
        stuff_area_limit=0,
    )
    # Detections whose scaled box is empty are not in detectron2's list.
    sides = np.diff(golden["det_boxes"].reshape(K, 2, 2), axis=1).reshape(K, 2)
    areas = merged.segments[(sides > 0).all(axis=1), 0, 3]
    assert_allclose(areas, golden["inst_mask_area"], atol=2)  # two pixels may be decided by rounding
    assert (areas == golden["inst_mask_area"]).mean() > 0.9


@pytest.mark.parametrize("seed", range(6))
def test_merging_is_detectron2s(ops: ModuleType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, w = rng.integers(6, 14, 2).tolist()
    case = replace(
        network_cases(seed)[3],
        K=25,
        S=6,
        quarter_hw=(h, w),
        padding=(3, 1),
        output_hw=None if seed % 3 == 0 else tuple(rng.integers(20, 90, 2).tolist()),
        count="all",
        stuff_area_limit=25,
    )
    (logits, boxes, scores, classes, _, masks), options = case.arguments()
    merged = case.run(ops.panoptic_merge)
    for n in range(case.N):
        canvas = oracles.Canvas(logits[n], boxes[n], scores[n], classes[n], masks[n], **options)
        assert_as_detectron2(merged, n, canvas.segments, canvas.panoptic.numpy(), canvas.undecided.numpy())


# --- agreement and properties -----------------------------------------------------------------------------------------


@given(case=merge_cases)
def test_every_form_gives_the_references_segments(form: ModuleType, case: MergeCase) -> None:
    assert_identical(case.run(form.panoptic_merge), case.run(reference.panoptic_merge))


@pytest.mark.parametrize("seed", range(3))
def test_every_form_agrees_at_the_size_of_a_network(form: ModuleType, seed: int) -> None:
    case = network_cases(seed)[3]
    assert_identical(case.run(form.panoptic_merge), case.run(reference.panoptic_merge))


@given(case=merge_cases)
def test_segments_describe_the_map(case: MergeCase) -> None:
    merged = case.run(reference.panoptic_merge)
    for panoptic, rows, scores, count in zip(*merged, strict=True):
        assert_array_equal(np.unique(panoptic[panoptic > 0]), np.arange(1, count + 1))
        assert rows[:count, 0].tolist() == list(range(1, count + 1))
        assert not any(field[count:].any() for field in (rows, scores))
        things = rows[:count, 2]
        assert (np.diff(things) <= 0).all()
        thing_scores, stuff_scores = scores[:count][things == 1], scores[:count][things == 0]
        assert (thing_scores[1:] <= thing_scores[:-1]).all()  # no difference taken: scores may be infinite
        assert not stuff_scores.any()
        assert (np.diff(rows[:count][things == 0, 1]) > 0).all()
        for id, _, is_thing, area, x0, y0, x1, y1 in rows[:count].tolist():
            y, x = np.nonzero(panoptic == id)
            assert (area, x0, y0, x1, y1) == (len(x), x.min(), y.min(), x.max() + 1, y.max() + 1)
            assert is_thing or area >= max(1, case.stuff_area_limit)


@given(case=merge_cases)
def test_merging_does_not_depend_on_threads_or_batch(native: ModuleType, case: MergeCase) -> None:
    inputs, options = case.arguments()
    whole = native.panoptic_merge(*inputs, **options, threads=1)
    for threads in (2, 5):
        assert_identical(native.panoptic_merge(*inputs, **options, threads=threads), whole)
    for n in range(case.N):
        one = native.panoptic_merge(*(array[n : n + 1] for array in inputs), **options)
        assert_identical(one, PanopticSegments(*(field[n : n + 1] for field in whole)))


@given(case=merge_cases)
def test_the_order_of_the_instances_decides_nothing_but_ties(python_ops: ModuleType, case: MergeCase) -> None:
    case = replace(case, scores="distinct", count="all", poison_scores=())
    (logits, boxes, scores, classes, count, masks), options = case.arguments()
    flipped = (np.ascontiguousarray(array[:, ::-1]) for array in (boxes, scores, classes))
    got = python_ops.panoptic_merge(logits, *flipped, count, np.ascontiguousarray(masks[:, ::-1]), **options)
    assert_identical(got, python_ops.panoptic_merge(logits, boxes, scores, classes, count, masks, **options))


def test_inputs_may_be_read_only_and_stay_as_they_are(python_ops: ModuleType) -> None:
    case = network_cases(1)[3]
    inputs, options = case.arguments()
    for array in inputs:
        array.flags.writeable = False
    assert_identical(python_ops.panoptic_merge(*inputs, **options), case.run(reference.panoptic_merge))
