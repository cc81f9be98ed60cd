"""Class tables against facts about the data sets."""

from __future__ import annotations

import pytest

from panrt.model.data.classes import CITYSCAPES, COCO, TABLETOP, ClassTable


def test_coco_has_80_things_and_53_stuff_classes() -> None:
    assert (len(COCO.things), len(COCO.stuff), COCO.semantic_channels) == (80, 53, 54)
    assert COCO.things[0] == (1, "person", True, (220, 20, 60))
    assert COCO.things[79] == (90, "toothbrush", True, (191, 162, 208))
    assert COCO.stuff[0] == (92, "banner", False, (255, 255, 128))
    assert COCO.stuff[52] == (200, "rug-merged", False, (250, 141, 255))


def test_cityscapes_has_8_things_and_11_stuff_classes_by_label_id() -> None:
    assert [c.id for c in CITYSCAPES.things] == [24, 25, 26, 27, 28, 31, 32, 33]
    assert [c.name for c in CITYSCAPES.stuff][:3] == ["road", "sidewalk", "building"]
    assert len(CITYSCAPES.stuff) == 11


@pytest.mark.parametrize("table", [COCO, CITYSCAPES, TABLETOP], ids=["coco", "cityscapes", "tabletop"])
def test_ids_names_and_colours_are_unique_and_ascending(table: ClassTable) -> None:
    everything = (*table.things, *table.stuff)
    assert len({c.id for c in everything}) == len(everything)
    assert len({c.name for c in everything}) == len(everything)
    assert all(0 <= value <= 255 for c in everything for value in c.color)
    for part in (table.things, table.stuff):
        assert [c.id for c in part] == sorted(c.id for c in part)


def test_things_share_semantic_channel_0() -> None:
    channels = COCO.semantic_index()
    assert all(channels[c.id] == 0 for c in COCO.things)
    assert [channels[c.id] for c in COCO.stuff] == list(range(1, 54))
    assert COCO.thing_index()[90] == 79


def test_a_row_of_the_merge_finds_its_category() -> None:
    assert COCO.category(79, is_thing=True).name == "toothbrush"
    assert COCO.category(53, is_thing=False).name == "rug-merged"
