"""The first use of `coco`, from the download of a file like detectron2's to a map that is detectron2's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import panrt
from data.golden import recipe
from panrt.hub import catalogue
from support.hub_server import Hub, md5_prefix, zoo_pickle

pytestmark = pytest.mark.slow
HW = (320, 480)


@pytest.fixture
def weights_of_the_golden_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """They stand for those of `coco`, whose MD5 is another."""
    content = zoo_pickle(recipe.state_dict(50))
    coco = catalogue.get("coco")._replace(md5_prefix=md5_prefix(content))
    monkeypatch.setattr(catalogue, "ENTRIES", (coco, *catalogue.ENTRIES[1:]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return content


def categories(panoptic: np.ndarray[Any, Any], segments: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """The class of each pixel: 0 void, positive for a thing, negative for stuff of 4096 pixels or more."""
    table = np.zeros(panoptic.max() + 1, np.int64)
    for segment in segments:
        is_large = np.count_nonzero(panoptic == segment["id"]) >= 4096
        table[segment["id"]] = segment["class"] + 1 if segment["is_thing"] else -segment["class"] * is_large
    return np.asarray(table[panoptic])


def test_model_by_name_segments_as_detectron2_does(
    weights_of_the_golden_cases: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = np.load(recipe.HERE / "r50_coffee.npz")
    described = json.loads((recipe.HERE / "r50_coffee.json").read_text())["segments_info"]
    with Hub(weights_of_the_golden_cases).running() as hub:
        monkeypatch.setenv("PANRT_HUB", hub.address)
        hub.plays = [lambda request: hub.serve(request, until=100_000_000)]
        with panrt.load("coco", input_hw=HW, threads=2) as session:
            found = session(golden["image_bgr"])
            things = [category.id for category in session.model.things]
            stuff = [category.id for category in session.model.stuff]
        assert [request.start for request in hub.requests] == [0, 100_000_000]
    ours = [
        {
            "id": segment.id,
            "is_thing": segment.is_thing,
            "class": things.index(segment.category_id) if segment.is_thing else stuff.index(segment.category_id) + 1,
        }
        for segment in found.segments
    ]
    theirs = [{"id": s["id"], "is_thing": s["isthing"], "class": s["category_id"]} for s in described]
    expected = categories(golden["panoptic"].astype(np.int64), theirs)
    assert len({s["class"] for s in theirs}) > 3
    # Rounding of another order of sums moves single pixels at borders.
    assert np.mean(categories(found.panoptic, ours) == expected) > 0.999
