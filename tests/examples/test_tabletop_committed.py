"""The committed evaluation split and clip of the tabletop: they need neither MuJoCo nor PyTorch."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from examples.tabletop.classes import CLASSES
from examples.tabletop.clip import Clip, read_clip
from panrt.model.data.classes import TABLETOP
from panrt.model.data.coco_panoptic import (
    CocoPanoptic,
    Sample,
    derive_targets,
    load_sample,
    read_coco_panoptic,
    tight_boxes,
)

DATA = Path(__file__).parents[1] / "data" / "tabletop"


@pytest.fixture(scope="module")
def content() -> Any:
    return json.loads((DATA / "eval" / "panoptic.json").read_text())


@pytest.fixture(scope="module")
def split() -> CocoPanoptic:
    return read_coco_panoptic(DATA / "eval" / "panoptic.json", images=DATA / "eval" / "images")


@pytest.fixture(scope="module")
def samples(split: CocoPanoptic) -> list[Sample]:
    return [load_sample(record) for record in split.records]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(DATA / "clip.json")


def test_the_split_has_the_classes_of_the_table(split: CocoPanoptic) -> None:
    assert split.classes == TABLETOP
    assert [c.id for c in CLASSES] == list(range(1, len(CLASSES) + 1))


def test_areas_and_boxes_are_those_of_the_label_maps(content: Any, samples: list[Sample]) -> None:
    for annotation, sample in zip(content["annotations"], samples, strict=True):
        masks = np.stack([sample.panoptic == info["id"] for info in annotation["segments_info"]])
        assert masks.sum((1, 2)).tolist() == [info["area"] for info in annotation["segments_info"]]
        x, y, w, h = np.array([info["bbox"] for info in annotation["segments_info"]]).T
        assert_array_equal(tight_boxes(masks), np.stack([x, y, x + w, y + h], -1))


def test_every_pixel_is_labelled(samples: list[Sample]) -> None:
    for sample in samples:
        assert sample.panoptic.min() > 0
        assert sample.image.shape == (256, 320, 3)


def test_every_class_is_seen_often_enough_to_be_measured(content: Any) -> None:
    names = {c["id"]: c["name"] for c in content["categories"]}
    seen = Counter(names[info["category_id"]] for a in content["annotations"] for info in a["segments_info"])
    assert len(content["images"]) == 64
    assert set(seen) == {c.name for c in CLASSES}
    assert min(seen.values()) >= 25


def test_the_scenes_are_of_the_evaluation_seeds(content: Any) -> None:
    seeds = [image["seed"] for image in content["images"]]
    assert len(set(seeds)) == 64
    assert all(1_000_000 <= seed < 2_000_000 for seed in seeds)  # dataset.EVAL_SEEDS


def test_targets_of_the_split_are_consistent(split: CocoPanoptic, samples: list[Sample]) -> None:
    for sample in samples:
        targets = derive_targets(sample, split.classes)
        assert_array_equal(targets.masks.any(0), targets.semantic == 0)
        assert targets.semantic.max() < split.classes.semantic_channels


def test_the_committed_files_are_small() -> None:
    size = {path: path.stat().st_size for path in DATA.rglob("*") if path.is_file()}
    assert sum(n for path, n in size.items() if "eval" in path.parts) < 2_000_000
    assert sum(n for path, n in size.items() if "eval" not in path.parts) < 1_000_000


def test_the_clip_has_ids_that_leave_and_come_back(clip: Clip) -> None:
    assert clip.frames.shape == (200, 256, 320, 3)
    assert clip.ids.min() > 0
    assert {s.category_id for s in clip.segments} == {c.id for c in CLASSES}
    returning = 0
    for segment in clip.segments:
        seen = (clip.ids == segment.id).any((1, 2))
        steps = np.diff(seen.astype(np.int8))
        returning += bool((steps == -1).any() and (steps[np.argmax(steps == -1) :] == 1).any())
    assert returning >= 3


def test_pictures_and_ids_of_the_clip_are_of_the_same_instant(clip: Clip) -> None:
    gray = clip.frames.astype(np.float32).mean(-1)
    edges = np.abs(np.diff(gray, axis=2))
    outlines = clip.ids[:, :, 1:] != clip.ids[:, :, :-1]

    def contrast(shift: int) -> float:
        return float(edges[5 + shift : 195 + shift][outlines[5:195]].mean())

    assert contrast(0) > 1.2 * max(contrast(shift) for shift in (-3, -2, 2, 3))
    assert contrast(0) > max(contrast(-1), contrast(1))
