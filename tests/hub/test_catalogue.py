"""The catalogue's figures are those of the networks, and its names lead to one model each."""

from __future__ import annotations

import json
import math
import re
from collections import Counter

import pytest

from data.golden import recipe
from panrt.engine.bundled import MODELS
from panrt.engine.named import expected_products
from panrt.errors import UnknownModelError
from panrt.hub import catalogue
from panrt.hub.catalogue import ENTRIES, Entry
from panrt.model.complexity import complexity
from panrt.model.config import CONFIGS, ResNetConfig, make_config

each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def test_every_name_leads_to_one_model() -> None:
    assert max(Counter(catalogue.names()).values()) == 1
    assert not set(catalogue.names()) & set(CONFIGS)  # which `panrt info` takes too
    assert tuple(MODELS) == catalogue.BUNDLED
    for entry in ENTRIES:
        assert all(catalogue.get(name) is entry for name in (entry.name, *entry.aliases))
    assert catalogue.get("coco").name == "panoptic_fpn_R_50_3x"
    assert catalogue.get("coco-large").name == "panoptic_fpn_R_101_3x"


@each
def test_path_names_the_model_and_the_hash(entry: Entry) -> None:
    pattern = rf"COCO-PanopticSegmentation/{entry.name}/\d{{9}}/model_final_{entry.md5_prefix}\.pkl"
    assert re.fullmatch(pattern, entry.path)
    assert re.fullmatch("[0-9a-f]{6}", entry.md5_prefix)


@each
def test_size_is_that_of_the_tensors(entry: Entry) -> None:
    trunk = make_config(entry.config).trunk
    assert isinstance(trunk, ResNetConfig)
    shapes = json.loads((recipe.HERE / f"state_dict_r{trunk.depth}.json").read_text())["shapes"]
    assert entry.size == 4 * sum(math.prod(shape) for shape in shapes.values())


@each
@pytest.mark.parametrize("size", [(320, 448), (384, 512), (800, 1088)])
def test_cost_is_that_of_the_network(entry: Entry, size: tuple[int, int]) -> None:
    counted = {
        row.part: row.multiply_adds for row in complexity(make_config(entry.config), height=size[0], width=size[1])
    }
    masks = counted.pop("mask head")
    detections = 100
    assert entry.cost.per_detection * detections == pytest.approx(masks, rel=0.01)
    without_masks = counted["total"] - masks
    assert expected_products(entry.cost._replace(per_detection=0), size) == pytest.approx(without_masks, rel=0.01)


@pytest.mark.parametrize(
    ("name", "near"),
    [("cocoo", "coco"), ("COCO", "coco"), ("panoptic_fpn_r_50_3x", "panoptic_fpn_R_50_3x"), ("tabeltop", "tabletop")],
)
def test_unknown_name_lists_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownModelError, match=rf"^'{name}': no model of that name; did you mean {near}"):
        catalogue.get(name)


def test_name_that_is_like_no_other_lists_all() -> None:
    with pytest.raises(UnknownModelError, match=r"models by name are tabletop, coco, panoptic_fpn_R_50_3x, coco-large"):
        catalogue.get("yolo11n-seg.pt")
