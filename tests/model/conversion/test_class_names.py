"""Names of classes are read in the forms that people have them, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from panrt.errors import ConfigFileError
from panrt.model.conversion.class_names import class_table, read_names
from panrt.model.data.classes import CITYSCAPES, COCO, ClassTable

NAMES = ["cup", "plate", "floor", "wall", "sky"]  # 2 things, 3 stuff


def written(folder: Path, content: Any, name: str = "names.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def shown(table: ClassTable) -> tuple[list[str], list[str]]:
    return [category.name for category in table.things], [category.name for category in table.stuff]


@pytest.mark.parametrize(
    "content",
    [
        "cup\nplate\n\n floor \nwall\r\nsky",
        "\ufeffcup\nplate\nthings\nfloor\nwall\nsky\n",
        json.dumps(NAMES),
        NAMES,
        [*NAMES[:2], "things", *NAMES[2:]],
        {str(index): name for index, name in enumerate(NAMES)},
        {"10": "wall", "2": "plate", "11": "sky", "1": "cup", "9": "floor"},
        {"thing_classes": NAMES[:2], "stuff_classes": NAMES[2:], "json_file": "x"},
        {"thing_classes": NAMES[:2], "stuff_classes": ["things", *NAMES[2:]]},
    ],
)
@pytest.mark.parametrize("suffix", ["txt", "json"])
def test_every_form_gives_the_same_names(tmp_path: Path, content: Any, suffix: str) -> None:
    if suffix == "json" and isinstance(content, str) and not content.startswith("["):
        return
    table = read_names(written(tmp_path, content, f"names.{suffix}"), things=2, stuff=3)
    assert shown(table) == (NAMES[:2], NAMES[2:])
    assert [category.id for category in table.things + table.stuff] == [1, 2, 3, 4, 5]
    assert [category.is_thing for category in table.things + table.stuff] == [True, True, False, False, False]
    assert len({category.color for category in table.things + table.stuff}) == 5


def test_coco_categories_keep_ids_and_colours(tmp_path: Path) -> None:
    listed = [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
        for c in COCO.things + COCO.stuff
    ]
    for content in (listed, {"categories": listed, "images": [], "annotations": []}):
        assert read_names(written(tmp_path, content), things=80, stuff=53) == COCO


def test_categories_of_instances_are_things(tmp_path: Path) -> None:
    content = {"categories": [{"id": 3, "name": "cup", "supercategory": "x"}, {"id": 7, "name": "plate"}]}
    table = read_names(written(tmp_path, content), things=2, stuff=0)
    assert [(c.id, c.name, c.is_thing) for c in table.things] == [(3, "cup", True), (7, "plate", True)]


@pytest.mark.parametrize("known", [COCO, CITYSCAPES])
def test_the_names_of_a_known_data_set_have_its_ids_and_colours(tmp_path: Path, known: ClassTable) -> None:
    names = [category.name for category in known.things + known.stuff]
    path = written(tmp_path, names)
    assert read_names(path, things=len(known.things), stuff=len(known.stuff)) == known


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NAMES[:4], "4 names for 2 things and 3 stuff, expected 5"),
        ([*NAMES, "x"], "6 names for 2 things and 3 stuff"),
        ({"thing_classes": NAMES[:1], "stuff_classes": NAMES[2:]}, "thing_classes: 1 names, expected 2"),
        ({"thing_classes": NAMES[:2]}, "stuff_classes: 0 names, expected 3"),
        ({"thing_classes": 5}, "thing_classes: got 5, expected a list of names"),
        ({"a": "cup"}, "got 'a' as an id, expected a whole number"),
        ({"9" * 10: "cup"}, "as an id"),
        ([1, 2, 3, 4, 5], "names: got 1, expected a name on one line"),
        (["a", "b", "", "d", "e"], "names: got '', expected a name"),
        (["a", "b\nc", "c", "d", "e"], "expected a name on one line"),
        ([{"id": 1, "name": "cup"}], "1 things and 0 stuff, but the network has 2 things and 3 stuff"),
        ([{"id": "x", "name": "cup"}], r"categories\[0\]\.id: got 'x'"),
        ([{"id": 1, "name": "cup", "isthing": 2}], r"categories\[0\]\.isthing: got 2, expected 0 or 1"),
        ([{"id": 1, "name": "cup", "color": [1, 2]}], r"categories\[0\]\.color: got \[1, 2\]"),
        ([{"id": 1, "name": "cup", "color": [1, 2, 256]}], r"categories\[0\]\.color"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "an id is listed twice"),
        ([{"id": 1}], r"categories\[0\]: got None, expected a name"),
        ("[1,", "invalid JSON"),
        ("[" * 100_000, "invalid JSON"),
        ('{"1": "a", "1": "b"}', "repeated name '1'"),
        ("5", "got 5, expected a list of names"),
    ],
)
def test_other_names_are_an_error_that_says_what_is_expected(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ConfigFileError, match=rf"names\.json: .*{message}"):
        read_names(written(tmp_path, content), things=2, stuff=3)


def test_numbers_of_classes_without_names_are_numbered() -> None:
    notes: list[str] = []
    table = class_table(2, 1, data_sets=(), notes=notes)
    assert shown(table) == (["thing 0", "thing 1"], ["stuff 1"])
    assert notes == ["names of 2 things and 1 stuff are not known, so they are numbered; give --names to name them"]


def test_as_many_classes_as_coco_has_are_cocos() -> None:
    notes: list[str] = []
    assert class_table(80, 53, data_sets=["coco_2017_train_panoptic_separated"], notes=notes) == COCO
    assert class_table(80, 53, data_sets=(), notes=notes) == COCO
    assert class_table(80, 0, data_sets=(), notes=notes) == ClassTable(COCO.things, ())
    assert class_table(0, 53, data_sets=(), notes=notes) == ClassTable((), COCO.stuff)
    assert notes == []
