"""The network's segments reach the metric with the data set's ids; importing the metric does not import PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from panrt.errors import PanopticFormatError
from panrt.model import build, panoptic_quality
from panrt.model.config import MergeConfig
from panrt.model.custom_ops import Detections, PanopticSegments
from panrt.model.data.classes import TABLETOP
from panrt.model.data.coco_panoptic import read_coco_panoptic
from panrt.model.evaluate import categories_of, evaluate, headline, labelled_images, measure, panoptic_map
from panrt.model.panoptic_fpn import Branches, Instances
from panrt.model.panoptic_map import Category, PanopticMap, Segment, semantic_map
from panrt.model.training_data import TrainingSample
from toy_rectangles import SIDE, Rectangles, truth

TABLETOP_EVAL = Path(__file__).parents[1] / "data" / "tabletop" / "eval"


def as_found(expected: PanopticMap) -> PanopticSegments:
    """What a perfect network would say."""
    index, channel = TABLETOP.thing_index(), TABLETOP.semantic_index()
    rows = torch.zeros(1, 20, 8, dtype=torch.int32)
    for k, segment in enumerate(expected.segments):
        is_thing = segment.category_id in index
        category = index[segment.category_id] if is_thing else channel[segment.category_id]
        rows[0, k, :3] = torch.tensor([segment.id, category, int(is_thing)])
    panoptic = torch.from_numpy(np.asarray(expected.panoptic))[None]
    return PanopticSegments(panoptic, rows, torch.zeros(1, 20), torch.tensor([len(expected.segments)]))


def test_a_perfect_network_has_a_quality_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [Rectangles(4)[i] for i in range(4)]
    answers = iter([as_found(truth(sample)) for sample in samples])
    model = build("panoptic_fpn_lite").eval()
    monkeypatch.setattr(model, "forward", lambda image, output_hw: next(answers))
    figures = headline(evaluate(model, ((sample.image_bgr, truth(sample)) for sample in samples)))
    assert figures == {"PQ": 1, "SQ": 1, "RQ": 1, "PQ_things": 1, "PQ_stuff": 1}


def test_category_ids_are_the_data_sets() -> None:
    expected = truth(Rectangles(1)[0])
    found = panoptic_map(as_found(expected), TABLETOP)
    assert [(s.id, s.category_id) for s in found.segments] == [(s.id, s.category_id) for s in expected.segments]


def certain(sample: TrainingSample, *, scale: int) -> Branches:
    """Stages of a network that sees the sample `scale` times as large, knows its boxes and calls all else stuff 1."""
    count = len(sample.boxes)
    boxes = torch.from_numpy(sample.boxes)[None] * scale
    scores = torch.linspace(0.9, 0.8, count)[None]
    classes = torch.from_numpy(sample.classes)[None].int()
    detections = Detections(boxes, scores, classes, torch.tensor([count], dtype=torch.int32))
    nothing: Any = None
    instances = Instances(nothing, nothing, nothing, detections, torch.ones(1, count, 28, 28))
    semantic_logits = torch.zeros(1, TABLETOP.semantic_channels, scale * SIDE // 4, scale * SIDE // 4)
    semantic_logits[:, 1] = 1
    return Branches((), semantic_logits, instances)


@pytest.mark.parametrize("scale", [1, 2], ids=["at its own size", "resized"])
def test_known_boxes_give_known_measures(monkeypatch: pytest.MonkeyPatch, scale: int) -> None:
    sample = next(s for s in map(Rectangles(20).__getitem__, range(20)) if len(s.boxes) == 1)
    expected = truth(sample)
    model = build("panoptic_fpn_lite", merge=MergeConfig(stuff_area_limit=1)).eval()
    seen = []

    def branches(image: torch.Tensor) -> Branches:
        seen.append(tuple(image.shape))
        return certain(sample, scale=scale)

    monkeypatch.setattr(model, "branches", branches)
    sides: dict[str, Any] = {} if scale == 1 else {"short_side": 1000, "max_side": scale * SIDE}
    measured = measure(model, [(sample.image_bgr, expected)], **sides)
    assert seen == [(1, scale * SIDE, scale * SIDE, 3)]
    assert measured.pq is not None
    assert measured.ap is not None
    assert measured.miou is not None
    assert measured.pq.things.pq == 1
    assert measured.ap.ap == pytest.approx(1)
    # stuff 1 is right where it is and wrong where stuff 2 is
    upper, lower = (int((sample.semantic == k).sum()) for k in (1, 2))
    ious = dict(zip([c.id for c in categories_of(TABLETOP)], measured.miou.per_class, strict=True))
    assert ious[TABLETOP.stuff[0].id] == upper / (upper + lower)
    assert ious[TABLETOP.stuff[1].id] == 0
    assert measured.miou.miou == pytest.approx((1 + upper / (upper + lower) + 0) / 3)


def test_a_measure_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'map', expected some of pq, ap, miou"):
        measure(build("panoptic_fpn_lite"), [], metrics=["map"])
    with pytest.raises(ValueError, match="panoptic_fpn_lite has no instance branch, so it has no mask AP"):
        measure(build("panoptic_fpn_lite", instance=None), [], metrics=["ap"])


def test_a_semantic_map_tells_each_pixels_category() -> None:
    categories = [Category(7, "a", True), Category(3, "b", False)]
    labelled = PanopticMap(np.array([[0, 5, 5], [6, 0, 6]]), [Segment(5, 3), Segment(6, 7)])
    assert semantic_map(labelled, categories).tolist() == [[-1, 1, 1], [0, -1, 0]]
    with pytest.raises(PanopticFormatError, match=r"ids 6 have pixels but no segment"):
        semantic_map(labelled._replace(segments=[Segment(5, 3)]), categories)
    with pytest.raises(PanopticFormatError, match="segment 6: category 9 is unknown"):
        semantic_map(labelled._replace(segments=[Segment(5, 3), Segment(6, 9)]), categories)


def test_a_fresh_network_is_measured_as_it_is() -> None:
    sample = Rectangles(1)[0]
    torch.manual_seed(0)
    figures = headline(evaluate(build("panoptic_fpn_lite").eval(), [(sample.image_bgr, truth(sample))]))
    assert 0 <= figures["PQ"] < 0.5


def test_the_truth_of_a_data_set_agrees_with_itself() -> None:
    dataset = read_coco_panoptic(TABLETOP_EVAL / "panoptic.json", images=TABLETOP_EVAL / "images")
    few = dataset._replace(records=dataset.records[:3])
    categories = [Category(c.id, c.name, c.is_thing) for c in (*TABLETOP.things, *TABLETOP.stuff)]
    pairs = [(truth, truth) for _, truth in labelled_images(few)]
    assert panoptic_quality.evaluate(pairs, categories).all.pq == 1


def test_metrics_and_class_tables_do_without_pytorch() -> None:
    modules = "panrt.model.panoptic_quality, panrt.model.data.classes"
    program = f"import {modules}, sys; assert 'torch' not in sys.modules; import panrt.model; panrt.model.build"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
