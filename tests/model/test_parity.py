"""A converted network with detectron2's weights computes what detectron2 computes, stage by stage.

The expected arrays come from detectron2 itself (`tests/data/golden/README.md`). Each stage has its own test, so that
the first one to fail names where the two part.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.golden import recipe
from panrt.model.conversion.convert import convert
from panrt.model.panoptic_fpn import Branches, merge
from panrt.model.weight_files import Weights

GOLDEN = Path(recipe.__file__).parent
CASES = ("r50_coffee", "r50_chelsea_rescaled", "r101_rocket")
MATCH_IOU = 0.999
MATCH_PIXELS = 0.005
MATCHED_SHARE = 0.99

Array = NDArray[Any]


class Run(NamedTuple):
    """One golden case: what detectron2 stored, and what our network computes from the same pixels and weights."""

    golden: dict[str, Array]
    facts: dict[str, Any]
    branches: Branches
    panoptic: Array
    segments: Array
    segment_scores: Array


# A configuration as people derive one from detectron2's.
CONFIG = """
_BASE_: Base-Panoptic-FPN.yaml
MODEL:
  RESNETS:
    DEPTH: {depth}
  PANOPTIC_FPN:
    COMBINE:
      INSTANCES_CONFIDENCE_THRESH: {instance_score_threshold}
      OVERLAP_THRESH: {overlap_threshold}
      STUFF_AREA_LIMIT: {stuff_area_limit}
"""


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(2)
    facts = json.loads((GOLDEN / f"{request.param}.json").read_text())
    golden = dict(np.load(GOLDEN / f"{request.param}.npz"))
    written = tmp_path_factory.mktemp("golden") / "config.yaml"
    written.write_text(CONFIG.format(**facts))
    tensors = {name: torch.from_numpy(array) for name, array in recipe.state_dict(facts["depth"]).items()}
    model = convert(Weights(tensors, author=""), Path("model_final.pth"), config=str(written)).model
    config = model.config
    image = torch.from_numpy(golden["image_bgr"])[None]
    with torch.inference_mode():
        branches = model.branches(image)
        merged = merge(branches, config=config.merge, image=image, output_hw=tuple(golden["out_hw"].tolist()))
    count = int(merged.segment_count[0])
    return Run(
        golden,
        facts,
        branches,
        merged.panoptic[0].numpy(),
        merged.segments[0, :count].numpy(),
        merged.segment_scores[0, :count].numpy(),
    )


def relative_error(found: Array, expected: Array) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def iou_matrix(a: Array, b: Array) -> Array:
    corner_low = np.maximum(a[:, None, :2], b[None, :, :2])
    corner_high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(corner_high - corner_low, 0, None).prod(-1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)
    return np.asarray(intersection / np.maximum(area_a[:, None] + area_b[None] - intersection, 1e-9))


def match(found: Array, expected: Array, agree: Array) -> list[tuple[int, int]]:
    """One-to-one pairs (found, expected) of boxes that agree and are the same, each with the nearest still free.

    The same are boxes with an IoU of at least MATCH_IOU. Clipping leaves slivers thinner than a pixel, whose IoU
    magnifies rounding: they are the same where all corners lie within MATCH_PIXELS.
    """
    iou = iou_matrix(found, expected)
    near = np.abs(found[:, None] - expected[None]).max(-1) <= MATCH_PIXELS
    candidates = np.where(agree & ((iou >= MATCH_IOU) | near), iou, -1.0)
    pairs = []
    for i in range(len(found)):
        j = int(candidates[i].argmax())
        if candidates[i, j] >= 0:
            pairs.append((i, j))
            candidates[:, j] = -1.0
    return pairs


def matched_detections(run: Run) -> list[tuple[int, int]]:
    assert run.branches.instances is not None
    detections, golden = run.branches.instances.detections, run.golden
    count = int(detections.count[0])
    same_class = detections.classes[0, :count].numpy()[:, None] == golden["det_classes"][None]
    near_score = np.abs(detections.scores[0, :count].numpy()[:, None] - golden["det_scores"][None]) <= 1e-4
    return match(detections.boxes[0, :count].numpy(), golden["det_boxes"], same_class & near_score)


@pytest.mark.parametrize("level", [2, 3, 4, 5, 6])
def test_features_are_detectron2s(run: Run, level: int) -> None:
    found = run.branches.pyramid[level - 2][0, run.facts["stored_feature_channels"]].numpy()
    assert relative_error(found, run.golden[f"feat_p{level}"]) <= 1e-3


def test_the_image_is_padded_as_in_detectron2(run: Run) -> None:
    assert [4 * side for side in run.branches.pyramid[0].shape[-2:]] == run.golden["input_padded_hw"].tolist()


def test_semantic_logits_are_detectron2s(run: Run) -> None:
    assert run.branches.semantic_logits is not None
    found = run.branches.semantic_logits[0, run.facts["stored_semantic_channels"]].numpy()
    assert relative_error(found, run.golden["sem_quarter"]) <= 1e-3


def test_proposals_are_detectron2s_in_the_same_order(run: Run) -> None:
    assert run.branches.instances is not None
    rois, count = run.branches.instances.proposals
    expected = run.golden["prop_boxes"]
    found = rois[0, : int(count[0])].numpy()
    assert len(found) == len(expected)
    pairs = match(found, expected, np.ones((len(found), len(expected)), bool))
    assert len(pairs) >= MATCHED_SHARE * len(expected)
    logits = run.golden["prop_logits"][[j for _, j in pairs]]
    assert (np.diff(logits) <= 1e-4).all()


def test_detections_are_detectron2s(run: Run) -> None:
    assert run.branches.instances is not None
    assert int(run.branches.instances.detections.count[0]) == len(run.golden["det_scores"])
    assert len(matched_detections(run)) >= MATCHED_SHARE * len(run.golden["det_scores"])


def test_masks_of_the_predicted_classes_are_detectron2s(run: Run) -> None:
    assert run.branches.instances is not None
    found, expected = np.array(matched_detections(run)).T
    masks = run.branches.instances.mask_probs[0].numpy()[found]
    error = np.abs(masks - run.golden["det_masks"][expected])
    # the golden mask logits reach +-40, so a relative 1e-4 of a logit is visible in a probability near 0.5
    assert error.max() <= 1e-2
    assert error.mean() <= 1e-4


def test_segments_are_detectron2s(run: Run) -> None:
    def key(category: int, is_thing: bool, score: float) -> tuple[bool, int, float]:
        return is_thing, category, score

    found = sorted(
        key(int(row[1]), bool(row[2]), float(score))
        for row, score in zip(run.segments, run.segment_scores, strict=True)
    )
    expected = sorted(
        key(info["category_id"], info["isthing"], info.get("score", 0.0)) for info in run.facts["segments_info"]
    )
    assert [segment[:2] for segment in found] == [segment[:2] for segment in expected]
    np.testing.assert_allclose([segment[2] for segment in found], [segment[2] for segment in expected], atol=1e-4)


def test_panoptic_pixels_are_detectron2s_after_matching_segments(run: Run) -> None:
    found, expected = run.panoptic, run.golden["panoptic"]
    assert found.shape == expected.shape
    kind = {int(row[0]): (int(row[1]), bool(row[2])) for row in run.segments} | {0: None}
    translated = np.zeros_like(found)
    used = {0}
    for info in run.facts["segments_info"]:
        ids, counts = np.unique(found[expected == info["id"]], return_counts=True)
        best = int(ids[counts.argmax()])
        assert kind[best] == (info["category_id"], info["isthing"])
        assert best not in used
        used.add(best)
        translated[found == best] = info["id"]
    translated[(found != 0) & (translated == 0)] = -1
    assert (translated == expected).mean() >= 0.995
