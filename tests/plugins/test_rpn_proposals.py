"""RpnProposals: hand-computed cases, an independent oracle, OPS.md section 6, and agreement of the forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from panrt.plugins import reference
from panrt.plugins.contract import Proposals
from support import oracles
from support.cases import RpnCase, network_cases, rpn_cases
from support.compare import assert_identical

NEVER = -math.inf  # a logit that makes an anchor no candidate


def propose(ops: ModuleType, logits: Sequence[Any], deltas: Sequence[Any] | None = None, **options: Any) -> Proposals:
    """Proposals of one image from nested lists, a level (A, H, W) and (4A, H, W); deltas are 0 where not given."""
    maps = [np.array(level, np.float32)[None] for level in logits]
    if deltas is None:
        codes = [np.zeros((1, 4 * m.shape[1], *m.shape[2:]), np.float32) for m in maps]
    else:
        codes = [np.array(level, np.float32)[None] for level in deltas]
    defaults: dict[str, Any] = {
        "strides": [8 << i for i in range(len(maps))],
        "anchor_sizes": [16.0] * len(maps),
        "aspect_ratios": [1.0] * maps[0].shape[1],
        "pre_nms_top_k": 1000,
        "post_nms_top_k": 6,
        "nms_threshold": 0.7,
        "input_hw": (64, 64),
    }
    proposals: Proposals = ops.rpn_proposals(maps, codes, **(defaults | options))
    return proposals


def rows(proposals: Proposals) -> list[list[float]]:
    """The real RoIs of the first image."""
    found: list[list[float]] = proposals.rois[0, : proposals.roi_count[0]].tolist()
    return found


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_anchors_of_a_2_by_2_level_are_centred_on_the_top_left_corner_of_their_cell(ops: ModuleType) -> None:
    # Two anchors a cell of 16 x 16 = 256 pixels: a square, and 8 wide and 32 high (ratio 4). Cells are 8 pixels.
    logits = [[[8, 7], [6, 5]], [[4, 3], [2, 1]]]
    got = propose(ops, [logits], aspect_ratios=[1.0, 4.0], nms_threshold=1.0, post_nms_top_k=8)
    assert rows(got) == [
        [0, 0, 8, 8],
        [0, 0, 16, 8],
        [0, 0, 8, 16],
        [0, 0, 16, 16],
        [0, 0, 4, 16],
        [4, 0, 12, 16],
        [0, 0, 4, 24],
        [4, 0, 12, 24],
    ]


def test_deltas_move_by_the_anchor_size_and_grow_exponentially(ops: ModuleType) -> None:
    # The anchor of cell (2, 2) is (8, 8, 24, 24): centre (16, 16), 16 x 16.
    logits = np.full((1, 3, 3), NEVER)
    logits[0, 2, 2] = 0
    deltas = np.zeros((4, 3, 3))
    deltas[:, 2, 2] = 0.5, -0.25, math.log(2), -math.log(2)
    got = rows(propose(ops, [logits], [deltas]))
    assert_allclose(got, [[24 - 16, 12 - 4, 24 + 16, 12 + 4]], rtol=1e-6)


def test_growth_is_limited_to_1000_over_16(ops: ModuleType) -> None:
    # Cell (0, 1000) of an 8-pixel grid, moved down by its size: centre (8000, 16). 16 * 62.5 = 1000 pixels wide.
    logits = np.full((1, 1, 1001), NEVER)
    logits[0, 0, 1000] = 0
    deltas = np.zeros((4, 1, 1001))
    deltas[2:, 0, 1000] = 9, -100
    deltas[1, 0, 1000] = 1
    got = propose(ops, [logits], [deltas], input_hw=(64, 16000))
    assert got.roi_count[0] == 0  # shrinking is not limited: exp(-100) * 16 pixels of height are none beside y = 16
    deltas[3, 0, 1000] = 0
    got = propose(ops, [logits], [deltas], input_hw=(64, 16000))
    assert_allclose(rows(got), [[7500, 8, 8500, 24]], rtol=1e-6)


def test_channel_4a_plus_j_is_delta_j_of_anchor_a(ops: ModuleType) -> None:
    logits = np.full((2, 5, 5), NEVER)
    logits[:, 4, 4] = 1, 2
    deltas = np.zeros((8, 5, 5))
    deltas[0, 4, 4] = 1 / 16  # dx of anchor 0: one pixel
    deltas[5, 4, 4] = 2 / 16  # dy of anchor 1: two pixels
    assert rows(propose(ops, [logits], [deltas])) == [[24, 26, 40, 42], [25, 24, 41, 40]]


def neighbours(first: float, second: float) -> list[list[list[float]]]:
    """Logits of two anchors whose boxes (0, 0, 16, 16) and (8, 0, 24, 16) overlap by exactly 1/3."""
    return [[[NEVER, NEVER, NEVER], [NEVER, first, second]]]


def test_nms_keeps_a_box_whose_iou_equals_the_threshold(ops: ModuleType) -> None:
    third = float(np.float32(1) / np.float32(3))
    below = float(np.nextafter(np.float32(third), np.float32(0)))
    assert rows(propose(ops, [neighbours(2, 1)], nms_threshold=third)) == [[0, 0, 16, 16], [8, 0, 24, 16]]
    assert rows(propose(ops, [neighbours(2, 1)], nms_threshold=below)) == [[0, 0, 16, 16]]
    assert rows(propose(ops, [neighbours(1, 2)], nms_threshold=below)) == [[8, 0, 24, 16]]


def test_thresholds_are_rounded_to_float32(ops: ModuleType) -> None:
    assert len(rows(propose(ops, [neighbours(2, 1)], nms_threshold=math.nextafter(1 / 3, 0)))) == 2


def test_a_suppressed_box_suppresses_nothing(ops: ModuleType) -> None:
    # Boxes 8 pixels apart: the first takes the second (1/3), which would have taken the third.
    logits = [[[NEVER] * 4, [NEVER, 3, 2, 1]]]
    assert rows(propose(ops, [logits], nms_threshold=0.3)) == [[0, 0, 16, 16], [16, 0, 32, 16]]


def test_levels_do_not_suppress_one_another(ops: ModuleType) -> None:
    # Cell (1, 1) of stride 8 with anchors of 16, and cell (0, 0) of stride 16 moved by half its size: the same box.
    moved = np.reshape([0.5, 0.5, 0, 0], (4, 1, 1))
    logits = [[[[NEVER, NEVER], [NEVER, 1]]], [[[2]]]]
    got = propose(ops, logits, [np.zeros((4, 2, 2)), moved], nms_threshold=0.0)
    assert rows(got) == [[0, 0, 16, 16], [0, 0, 16, 16]]


def test_ties_go_to_the_lower_level_and_then_to_the_lower_anchor(ops: ModuleType) -> None:
    levels = [np.zeros((1, 2, 2)), np.zeros((1, 1, 2))]
    levels[0][0, 0, 1] = -0.0  # equals +0
    got = propose(ops, levels, nms_threshold=1.0)
    assert rows(got) == [[0, 0, 8, 8], [0, 0, 16, 8], [0, 0, 8, 16], [0, 0, 16, 16], [0, 0, 8, 8], [8, 0, 24, 8]]
    got = propose(ops, levels, nms_threshold=1.0, pre_nms_top_k=1)
    assert rows(got) == [[0, 0, 8, 8], [0, 0, 8, 8]]


def test_anchors_are_numbered_by_row_then_column_then_anchor(ops: ModuleType) -> None:
    got = propose(ops, [np.zeros((2, 2, 2))], aspect_ratios=[1.0, 4.0], nms_threshold=1.0, post_nms_top_k=4)
    assert rows(got) == [[0, 0, 8, 8], [0, 0, 4, 16], [0, 0, 16, 8], [4, 0, 12, 16]]


def test_top_k_counts_per_level_before_nms_and_over_all_levels_after_it(ops: ModuleType) -> None:
    levels = [[[[4, 3, 2]]], [[[9, 8, 1]]]]
    got = propose(ops, levels, pre_nms_top_k=2, nms_threshold=1.0)
    assert rows(got) == [[0, 0, 8, 8], [8, 0, 24, 8], [0, 0, 8, 8], [0, 0, 16, 8]]
    got = propose(ops, levels, pre_nms_top_k=2, nms_threshold=1.0, post_nms_top_k=3)
    assert rows(got) == [[0, 0, 8, 8], [8, 0, 24, 8], [0, 0, 8, 8]]
    assert got.rois.shape == (1, 3, 4)


# --- OPS.md section 6, row by row -------------------------------------------------------------------------------------


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_no_candidates_and_take_no_place(ops: ModuleType, logit: float) -> None:
    nothing = propose(ops, [[[[logit, logit]]]])
    assert nothing.roi_count[0] == 0
    assert not nothing.rois.any()
    assert rows(propose(ops, [[[[logit, -1e30]]]], pre_nms_top_k=1)) == [[0, 0, 16, 8]]


def test_rows_beyond_the_candidates_are_zero(ops: ModuleType) -> None:
    got = propose(ops, [[[[1, 2]]]], post_nms_top_k=5, nms_threshold=1.0)
    assert got.roi_count.tolist() == [2]
    assert got.rois.tolist() == [[[0, 0, 16, 8], [0, 0, 8, 8], [0] * 4, [0] * 4, [0] * 4]]


@pytest.mark.parametrize(
    "delta",
    [(-9, 0, 0, 0), (9, 0, 0, 0), (0, -9, 0, 0), (0, 9, 0, 0), (0, 0, -200, 0), (0, 0, 0, -200)],
    ids=["left", "right", "above", "below", "no width", "no height"],
)
def test_a_proposal_that_clipping_empties_is_dropped_but_has_used_its_place(
    ops: ModuleType, delta: tuple[float, ...]
) -> None:
    deltas = np.zeros((4, 3, 3))
    deltas[:, 2, 2] = delta
    logits = np.arange(9).reshape(1, 3, 3)
    got = propose(ops, [logits], [deltas], pre_nms_top_k=2)
    assert rows(got) == [[0, 8, 16, 24]]


@pytest.mark.parametrize("delta", [math.nan, math.inf, -math.inf, 1e38])
def test_a_proposal_whose_deltas_overflow_is_dropped_but_has_used_its_place(ops: ModuleType, delta: float) -> None:
    deltas = np.zeros((4, 1, 2))
    deltas[0, 0, 0] = delta
    assert rows(propose(ops, [[[[2, 1]]]], [deltas])) == [[0, 0, 16, 8]]
    assert rows(propose(ops, [[[[2, 1]]]], [deltas], pre_nms_top_k=1)) == []


def test_an_infinite_size_delta_is_clamped_and_a_nan_one_is_not(ops: ModuleType) -> None:
    deltas = np.zeros((4, 1, 1))
    deltas[2:] = math.inf
    assert rows(propose(ops, [[[[0]]]], [deltas])) == [[0, 0, 64, 64]]
    deltas[2:] = math.nan
    assert rows(propose(ops, [[[[0]]]], [deltas])) == []


def test_boxes_clip_to_the_valid_size_not_to_the_padded_one(ops: ModuleType) -> None:
    logits = [[[NEVER, NEVER, NEVER], [NEVER, NEVER, NEVER], [NEVER, NEVER, 0]]]
    assert rows(propose(ops, [logits], input_hw=(19, 21))) == [[8, 8, 21, 19]]


# --- against an independent implementation ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_proposals_are_detectron2s(ops: ModuleType, seed: int) -> None:
    case = RpnCase(
        N=2,
        A=3,
        levels=((12, 9), (6, 5), (3, 3), (2, 2)),
        stride=4,
        anchor_size=4.5,
        scores="distinct",
        deltas="small",
        poison_logits=(),
        poison_deltas=(),
        valid=0.9,
        pre_nms_top_k=40,
        post_nms_top_k=70,
        nms_threshold=0.4,
        seed=seed,
    )
    inputs, options = case.arguments()
    got = case.run(ops.rpn_proposals)
    for n, wanted in enumerate(oracles.proposals(*inputs, **options)):
        assert got.roi_count[n] == len(wanted)
        assert_allclose(got.rois[n, : len(wanted)], wanted, atol=1e-4)


# --- agreement and properties -----------------------------------------------------------------------------------------


@given(case=rpn_cases)
def test_every_form_gives_the_references_proposals(form: ModuleType, case: RpnCase) -> None:
    assert_identical(case.run(form.rpn_proposals), case.run(reference.rpn_proposals))


@pytest.mark.parametrize("seed", range(3))
def test_every_form_agrees_at_the_size_of_a_network(form: ModuleType, seed: int) -> None:
    case = network_cases(seed)[0]
    assert_identical(case.run(form.rpn_proposals), case.run(reference.rpn_proposals))


@given(case=rpn_cases)
def test_proposals_lie_in_the_input_and_padding_is_zero(case: RpnCase) -> None:
    got, (height, width) = case.run(reference.rpn_proposals), case.arguments()[1]["input_hw"]
    for rois, count in zip(got.rois, got.roi_count, strict=True):
        x0, y0, x1, y1 = rois[:count].T
        assert ((x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)).all()
        assert not rois[count:].any()


@given(case=rpn_cases)
def test_proposals_do_not_depend_on_threads_or_batch(native: ModuleType, case: RpnCase) -> None:
    (logits, deltas), options = case.arguments()
    whole = native.rpn_proposals(logits, deltas, **options, threads=1)
    for threads in (2, 5):
        assert_identical(native.rpn_proposals(logits, deltas, **options, threads=threads), whole)
    for n in range(case.N):
        one = native.rpn_proposals([x[n : n + 1] for x in logits], [x[n : n + 1] for x in deltas], **options)
        assert_identical(one, Proposals(whole.rois[n : n + 1], whole.roi_count[n : n + 1]))


@given(case=rpn_cases)
def test_the_order_of_the_anchors_decides_nothing_but_ties(python_ops: ModuleType, case: RpnCase) -> None:
    case = replace(case, scores="equal", deltas="zero", nms_threshold=1.0, poison_logits=(), poison_deltas=())
    inputs, options = replace(case, pre_nms_top_k=1000, post_nms_top_k=1000).arguments()
    forward = python_ops.rpn_proposals(*inputs, **options)
    backward = python_ops.rpn_proposals(*inputs, **options | {"aspect_ratios": options["aspect_ratios"][::-1]})
    assert_array_equal(forward.roi_count, backward.roi_count)
    for a, b in zip(forward.rois, backward.rois, strict=True):
        assert_array_equal(sorted(a.tolist()), sorted(b.tolist()))


def test_inputs_may_be_read_only_and_stay_as_they_are(python_ops: ModuleType) -> None:
    case = network_cases(1)[0]
    (logits, deltas), options = case.arguments()
    for array in (*logits, *deltas):
        array.flags.writeable = False
    assert_identical(python_ops.rpn_proposals(logits, deltas, **options), case.run(reference.rpn_proposals))
