"""PanopticMerge on the simulated GPU: golden and chained overlaps, odd sizes, float16, sanitizers, refusals.

That the kernels give the reference's and detectron2's results is tested with the other forms in tests/plugins; here the
CPU kernels, which are tested against both there, say what is right.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panrt.plugins import native
from panrt.plugins.contract import PanopticSegments
from panrt.plugins.cuda_api import Code
from support.cases import MergeCase, merge_cases, network_cases
from support.compare import assert_identical
from tools import cuda_ops
from tools.hostcuda import LaunchError, SimulatedGpu

from .conftest import Gpus

GOLDEN = sorted((Path(__file__).parents[2] / "data" / "golden" / "merge").glob("*.npz"))
NETWORK = network_cases(0)[3]
SMALL = replace(NETWORK, N=1, K=4, S=4, quarter_hw=(12, 10), padding=(0, 0), output_hw=None, count="all")
needs_time = pytest.mark.skipif(os.environ.get("PANRT_TEST_PROFILE") != "full", reason="PANRT_TEST_PROFILE=full")


def check(case: MergeCase, gpu: SimulatedGpu, seed: int = 0) -> PanopticSegments:
    got = case.run(cuda_ops.panoptic_merge, gpu=gpu, order=("random", seed))
    assert_identical(got, case.run(native.panoptic_merge))
    return got


@settings(max_examples=settings().max_examples // 5)
@given(case=merge_cases)
def test_merging_is_right_in_any_order_of_threads_and_without_a_sanitizers_report(gpus: Gpus, case: MergeCase) -> None:
    check(case, gpus("asan"), case.seed)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_merges_are_the_cpu_kernels(gpus: Gpus, path: Path) -> None:
    golden = np.load(path)
    inputs = (
        golden["semantic_logits"][None],
        golden["boxes"][None],
        golden["scores"][None],
        golden["classes"][None].astype(np.int32),
        np.array([len(golden["scores"])], np.int32),
        golden["mask_probs"][None],
    )
    options: dict[str, Any] = {
        "input_hw": tuple(golden["input_hw"].tolist()),
        "output_hw": tuple(golden["output_hw"].tolist()),
        "score_threshold": float(golden["instance_score_threshold"]),
        "overlap_threshold": float(golden["overlap_threshold"]),
        "stuff_area_limit": int(golden["stuff_area_limit"]),
    }
    got = cuda_ops.panoptic_merge(*inputs, **options, gpu=gpus("plain"), order=("random", 3))
    assert_identical(got, native.panoptic_merge(*inputs, **options))


# --- Overlaps ---------------------------------------------------------------------------------------------------------


@settings(max_examples=settings().max_examples // 4)
@given(
    boxes=st.lists(
        st.tuples(st.integers(0, 90), st.integers(0, 50), st.integers(1, 28), st.integers(1, 28)), max_size=30
    ),
    overlap_threshold=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
    order=st.integers(0, 99),
)
def test_chains_of_overlaps_are_decided_as_one_after_another(
    gpus: Gpus, boxes: list[tuple[int, int, int, int]], overlap_threshold: float, order: int
) -> None:
    # Masks of ones over up to as many pixels as they have cells are just their boxes. The sequential rule in short:
    K, height, width = len(boxes), 60, 100
    owner = np.zeros((height, width), np.int32)
    for x, y, w, h in boxes:
        mask = np.zeros((height, width), bool)
        mask[y : y + h, x : x + w] = True
        free = mask & (owner == 0)
        taken = np.float32((mask.sum() - free.sum()) / mask.sum())
        if free.any() and not taken > np.float32(overlap_threshold):
            owner[free] = owner.max() + 1
    corners = [(x, y, min(x + w, width), min(y + h, height)) for x, y, w, h in boxes]
    got = cuda_ops.panoptic_merge(
        np.zeros((1, 1, 16, 26), np.float32),
        np.array(corners, np.float32).reshape(1, K, 4),
        np.linspace(1, 0.5, K, dtype=np.float32)[None],
        np.zeros((1, K), np.int32),
        np.array([K], np.int32),
        np.ones((1, K, 28, 28), np.float32),
        input_hw=(height, width),
        output_hw=(height, width),
        score_threshold=0.0,
        overlap_threshold=overlap_threshold,
        stuff_area_limit=0,
        gpu=gpus("plain"),
        order=("random", order),
    )
    assert (got.panoptic[0] == owner).all()


# --- Sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quarter_hw", "padding", "output_hw"),
    [
        ((1, 1), (3, 3), None),  # one pixel
        ((8, 8), (1, 0), None),  # 31 rows
        ((9, 9), (3, 3), None),  # 33 columns
        ((17, 140), (4, 3), None),  # more than a block's columns and rows
        ((16, 257), (0, 0), (7, 1025)),
        ((40, 160), (0, 0), (33, 31)),  # to a twentieth
        ((3, 300), (0, 0), (5, 9)),  # more cells a pixel than a block has room for, if pixels were not fewer
        ((2, 3), (1, 1), (65, 521)),  # and up, far
    ],
)
def test_merging_at_sizes_that_divide_no_block(
    gpus: Gpus, quarter_hw: tuple[int, int], padding: tuple[int, int], output_hw: tuple[int, int] | None
) -> None:
    case = replace(SMALL, quarter_hw=quarter_hw, padding=padding, output_hw=output_hw, stuff_area_limit=1)
    check(case, gpus("plain"))


@pytest.mark.parametrize("K", [0, 1, 200, 1100])
def test_merging_any_number_of_detections(gpus: Gpus, K: int) -> None:
    check(replace(SMALL, K=K, mask_hw=(2, 3), scores="tied"), gpus("plain"))


@pytest.mark.parametrize("S", [1, 2, 133, 256, 300, 1100])
def test_merging_any_number_of_channels(gpus: Gpus, S: int) -> None:
    check(replace(SMALL, S=S, stuff_area_limit=1), gpus("plain"))


@pytest.mark.parametrize("codes", [254, 255, 256, 257])
def test_labels_become_wider_where_a_byte_has_no_code_left(gpus: Gpus, codes: int) -> None:
    """Of K + S codes the last is that of the worst instance; the one after it means "several"."""
    check(replace(SMALL, S=9, K=codes - 9, mask_hw=(2, 3), count="all", boxes=("jitter",)), gpus("plain"))


@pytest.mark.parametrize("width", [1, 31, 32, 33, 63, 64, 65, 127, 511, 512, 513, 516, 545])
@pytest.mark.parametrize("height", [57, 58, 59, 118])
def test_merging_maps_that_end_within_a_run_or_a_block(gpus: Gpus, width: int, height: int) -> None:
    quarter = (-(-height // 4), -(-width // 4))
    check(replace(SMALL, quarter_hw=quarter, padding=(0, 0), output_hw=(height, width)), gpus("plain"))


def test_masks_too_large_for_shared_memory_are_sampled_where_they_are(gpus: Gpus) -> None:
    check(replace(SMALL, mask_hw=(40, 30)), gpus("plain"))


@needs_time
def test_merging_a_4k_frame_of_133_classes(gpus: Gpus) -> None:
    case = replace(NETWORK, N=1, K=100, S=54, quarter_hw=(135, 240), padding=(0, 0), output_hw=(2160, 3840))
    check(replace(case, count="all"), gpus("plain"))


# --- Types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poisons", [(), ("nan", "inf", "-inf"), ("huge", "-huge", "tiny", "-0")])
@pytest.mark.parametrize(("half_logits", "half_masks"), [(True, True), (True, False), (False, True)])
def test_float16_values_are_taken_as_they_are(
    gpus: Gpus, half_logits: bool, half_masks: bool, poisons: tuple[str, ...]
) -> None:
    with np.errstate(over="ignore"):  # the largest float32 becomes infinite
        (logits, boxes, scores, classes, count, masks), options = replace(
            SMALL, poison_logits=poisons, poison_masks=poisons
        ).arguments()
        logits = logits.astype(np.float16) if half_logits else logits
        masks = masks.astype(np.float16) if half_masks else masks
    got = cuda_ops.panoptic_merge(logits, boxes, scores, classes, count, masks, **options, gpu=gpus("asan"))
    wide = (logits.astype(np.float32), boxes, scores, classes, count, masks.astype(np.float32))
    assert_identical(got, native.panoptic_merge(*wide, **options))


# --- Launches, races, refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [0, 4])
def test_merging_takes_five_launches_whatever_there_is_to_merge(gpus: Gpus, K: int) -> None:
    gpu = gpus("plain")
    check(replace(SMALL, K=K), gpu)
    assert gpu.launches == 5


def test_merging_races_nowhere(gpus: Gpus) -> None:
    merged = check(replace(SMALL, boxes=("jitter",), stuff_area_limit=1), gpus("tsan"))
    assert merged.segment_count[0] > 1  # or there was little to race for


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        (
            {"S": 65530, "quarter_hw": (1, 1), "K": 7},
            Code.INVALID_ARGUMENT,
            "expected at most 65535 together, got 65537",
        ),
        ({"overlap_threshold": -0.5}, Code.INVALID_ARGUMENT, "overlap_threshold: expected 0 to 1"),
        ({"output_hw": (1, 40000)}, Code.INVALID_ARGUMENT, "output_width: expected 1 to 32768, got 40000"),
    ],
)
def test_merging_refuses_what_it_is_not_made_for(gpus: Gpus, changed: dict[str, Any], code: Code, message: str) -> None:
    with pytest.raises(LaunchError, match=message) as refused:
        replace(SMALL, **changed).run(cuda_ops.panoptic_merge, gpu=gpus("plain"))
    assert refused.value.code == code
