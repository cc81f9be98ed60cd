"""The network's segments reach the metric with the data set's ids; importing the metric does not import PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from panrt.model import build, panoptic_quality
from panrt.model.data.classes import TABLETOP
from panrt.model.data.coco_panoptic import read_coco_panoptic
from panrt.model.evaluate import evaluate, headline, labelled_images, panoptic_map
from panrt.model.irregular import PanopticSegments
from panrt.model.panoptic_map import Category, PanopticMap
from toy_rectangles import Rectangles, truth

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
