"""RpnProposals and BoxDetections on the simulated GPU: odd sizes, extreme counts, sanitizers, refusals.

That the kernels give the reference's results, ties included, is tested with the other forms in tests/plugins; here the
CPU kernels, which are tested against it there, say what is right.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from panrt.plugins import native
from panrt.plugins.cuda_api import Code
from support.cases import DetectionCase, RpnCase, detection_cases, network_cases, rpn_cases
from support.compare import assert_identical
from tools import cuda_ops
from tools.hostcuda import Flavour, LaunchError, SimulatedGpu

from .conftest import Gpus

RPN, _ROIS, DETECTIONS, _MERGE = network_cases(0)
SMALL_RPN = replace(RPN, N=1, A=1, levels=((3, 5),), pre_nms_top_k=40, post_nms_top_k=30)


def check_rpn(case: RpnCase, gpu: SimulatedGpu, seed: int = 0) -> None:
    got = case.run(cuda_ops.rpn_proposals, gpu=gpu, order=("random", seed))
    assert_identical(got, case.run(native.rpn_proposals))


def check_detections(case: DetectionCase, gpu: SimulatedGpu, seed: int = 0) -> None:
    got = case.run(cuda_ops.box_detections, gpu=gpu, order=("random", seed))
    assert_identical(got, case.run(native.box_detections))


# --- RpnProposals -----------------------------------------------------------------------------------------------------


@settings(max_examples=settings().max_examples // 5)
@given(case=rpn_cases)
def test_proposals_are_right_in_any_order_of_threads_and_without_a_sanitizers_report(gpus: Gpus, case: RpnCase) -> None:
    check_rpn(case, gpus("asan"), case.seed)


@pytest.mark.parametrize("scores", ["distinct", "tied", "equal"])
@pytest.mark.parametrize(("level", "k"), [((1, 1), 1), ((1, 31), 31), ((3, 11), 32), ((25, 41), 33), ((91, 91), 257)])
def test_proposals_of_sizes_that_divide_no_block(gpus: Gpus, level: tuple[int, int], k: int, scores: str) -> None:
    check_rpn(
        replace(SMALL_RPN, levels=(level, (1, 2)), scores=scores, pre_nms_top_k=k, post_nms_top_k=k), gpus("plain")
    )


def test_candidates_too_many_for_shared_memory_are_sorted_and_kept_as_well(gpus: Gpus) -> None:
    case = replace(SMALL_RPN, levels=((50, 50), (1, 1)), pre_nms_top_k=2500, post_nms_top_k=20000, nms_threshold=0.9)
    check_rpn(case, gpus("plain"))


def test_proposals_take_five_launches(gpus: Gpus) -> None:
    gpu = gpus("plain")
    for case in (SMALL_RPN, replace(SMALL_RPN, poison_logits=("nan",), scores="equal")):
        check_rpn(case, gpu)
        assert gpu.launches == 5


def test_proposals_race_nowhere(gpus: Gpus) -> None:
    check_rpn(SMALL_RPN, gpus("tsan"))


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        (
            {"levels": ((200, 200),), "pre_nms_top_k": 20000},
            Code.INVALID_ARGUMENT,
            "pre_nms_top_k: expected at most 16384 .*, got 20000",
        ),
        ({"nms_threshold": 1.5}, Code.INVALID_ARGUMENT, "nms_threshold: expected 0 to 1, got 1.5"),
    ],
)
def test_proposals_refuse_what_they_are_not_made_for(
    gpus: Gpus, changed: dict[str, Any], code: Code, message: str
) -> None:
    case = replace(SMALL_RPN, **changed)
    with pytest.raises(LaunchError, match=message) as refused:
        case.run(cuda_ops.rpn_proposals, gpu=gpus("plain"))
    assert refused.value.code == code


# --- BoxDetections ----------------------------------------------------------------------------------------------------


@settings(max_examples=settings().max_examples // 5)
@given(case=detection_cases)
def test_detections_are_right_in_any_order_of_threads_and_without_a_sanitizers_report(
    gpus: Gpus, case: DetectionCase
) -> None:
    check_detections(case, gpus("asan"), case.seed)


@pytest.mark.parametrize("R", [0, 1, 31, 33, 1025])
@pytest.mark.parametrize("C", [1, 33, 133])
def test_detections_of_sizes_that_divide_no_block(gpus: Gpus, R: int, C: int) -> None:
    check_detections(replace(DETECTIONS, N=1, R=R, C=C, count="all"), gpus("plain"))


@pytest.mark.parametrize("scores", ["distinct", "equal"])
@pytest.mark.parametrize("nms_threshold", [0.0, 0.5, 1.0])
def test_any_number_of_candidates_is_right_round_by_round(gpus: Gpus, scores: str, nms_threshold: float) -> None:
    # 3000 candidates in rounds of 256; with a threshold of 1 the first 700 are kept, with 0 few of each class.
    case = replace(DETECTIONS, N=1, R=150, C=20, count="all", scores=scores, score_threshold=-1.0, max_detections=700)
    check_detections(replace(case, nms_threshold=nms_threshold), gpus("plain"))


def test_detections_take_two_launches_whatever_they_find(gpus: Gpus) -> None:
    gpu = gpus("plain")
    for score_threshold in (0.05, 1.0):
        check_detections(replace(DETECTIONS, N=1, R=40, score_threshold=score_threshold), gpu)
        assert gpu.launches == 2


@pytest.mark.parametrize("count", [0, 40])
def test_detections_race_nowhere(gpus: Gpus, count: int) -> None:
    check_detections(replace(DETECTIONS, N=1, R=count, C=5, max_detections=20), gpus("tsan"))


@pytest.mark.parametrize("flavour", ["plain", "asan"])
def test_detections_refuse_a_score_threshold_that_is_no_number(gpus: Gpus, flavour: Flavour) -> None:
    with pytest.raises(LaunchError, match=r"score_threshold: expected .*, got nan") as refused:
        replace(DETECTIONS, score_threshold=np.nan).run(cuda_ops.box_detections, gpu=gpus(flavour))
    assert refused.value.code == Code.INVALID_ARGUMENT
