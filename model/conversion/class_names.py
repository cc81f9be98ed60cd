"""Names of classes for networks whose weights have only numbers of them.

A file of names is one of: a text with a name on each line; a JSON list of names, or an object {id: name}; a dump of
detectron2's MetadataCatalog, i.e. an object with `thing_classes` and `stuff_classes`; COCO's categories, as a list or
in any of COCO's JSONs. Lists begin with the things.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from panrt.errors import ConfigFileError
from panrt.formats import records
from panrt.formats.metadata import Category
from panrt.model.conversion.yaml_files import read_text
from panrt.model.data.classes import CITYSCAPES, COCO, ClassTable, made_up_colors

_MERGED = ("things", "thing", "other")  # how channel 0 of the semantic branch is called among the stuff
_COCO_PREFIX = "coco_2017_"
_MOST_BYTES = 2**29  # COCO's panoptic_train2017.json has 360 MB


def class_table(things: int, stuff: int, *, data_sets: Sequence[str], notes: list[str]) -> ClassTable:
    """Return classes for these numbers of things and stuff: COCO's if they are as many, else numbered ones.

    Args:
        things: C.
        stuff: S - 1.
        data_sets: that the network was trained on, by detectron2's names.
        notes: a line is added if the names are not known from the data sets.
    """
    whole = ClassTable(COCO.things if things else (), COCO.stuff if stuff else ())
    if (things, stuff) == (len(whole.things), len(whole.stuff)):
        if data_sets and not any(name.startswith(_COCO_PREFIX) for name in data_sets):
            notes.append(
                f"{_counts(things, stuff)} are taken for COCO's, but the data set is {records.names(data_sets)}; "
                "give --names if they are others"
            )
        return whole
    notes.append(f"names of {_counts(things, stuff)} are not known, so they are numbered; give --names to name them")
    named = [f"thing {index}" for index in range(things)], [f"stuff {index + 1}" for index in range(stuff)]
    return table_of(*named)


def read_names(path: Path, *, things: int, stuff: int) -> ClassTable:
    """Read names of classes and check that they are as many as the network's.

    Args:
        path: of a text or JSON file, as described above.
        things: C, the network's thing classes.
        stuff: S - 1, its stuff classes.

    Returns:
        The classes, with the ids and colours of the file, or of COCO or Cityscapes if these are their names; others
        are numbered from 1 and get made-up colours.

    Raises:
        ConfigFileError: the file cannot be read, is in no known form, or has other numbers of names.
        OSError: from the file system.
    """
    text = read_text(path, most=_MOST_BYTES)
    if path.suffix.lower() != ".json" and not text.lstrip().startswith(("[", "{")):
        return _split([line.strip() for line in text.splitlines() if line.strip()], things, stuff, path)
    content = records.parse(
        text, source=str(path), error=ConfigFileError, cure="expected names of classes", unique=True
    )
    if isinstance(content, dict) and ("thing_classes" in content or "stuff_classes" in content):
        return _from_catalog(content, things, stuff, path)
    if isinstance(content, dict) and isinstance(content.get("categories"), list):
        content = content["categories"]
    if isinstance(content, list) and content and all(isinstance(item, dict) for item in content):
        return _from_categories(content, things, stuff, path)
    if isinstance(content, dict):
        return _from_ids(content, things, stuff, path)
    if isinstance(content, list):
        return _split(content, things, stuff, path)
    raise ConfigFileError(
        f"{path}: got {records.shown(content)}, expected a list of names, an object {{id: name}}, one with "
        "thing_classes and stuff_classes, or COCO's categories."
    )


def table_of(things: Sequence[str], stuff: Sequence[str]) -> ClassTable:
    """Return classes of these names; COCO's and Cityscapes' have their ids and colours, others are numbered from 1."""
    for known in (COCO, CITYSCAPES):
        if list(things) == [c.name for c in known.things] and list(stuff) == [c.name for c in known.stuff]:
            return known
        if not stuff and list(things) == [c.name for c in known.things]:
            return ClassTable(known.things, ())
    ids = range(1, len(things) + len(stuff) + 1)
    colors = made_up_colors(ids)
    named = [
        Category(number, name, number <= len(things), colors[number])
        for number, name in zip(ids, [*things, *stuff], strict=True)
    ]
    return ClassTable(tuple(named[: len(things)]), tuple(named[len(things) :]))


# Forms of files -------------------------------------------------------------------------------------------------------


def _split(names: Sequence[object], things: int, stuff: int, path: Path) -> ClassTable:
    """A list: the things, then the stuff, perhaps with the name of channel 0 before it."""
    checked = _checked(names, path)
    if len(checked) == things + stuff + 1 and stuff and checked[things].lower() in _MERGED:
        del checked[things]
    if len(checked) != things + stuff:
        raise ConfigFileError(
            f"{path}: {len(checked)} names for {_counts(things, stuff)}, expected {things + stuff}: the things first."
        )
    return table_of(checked[:things], checked[things:])


def _from_catalog(content: Mapping[str, Any], things: int, stuff: int, path: Path) -> ClassTable:
    names = {}
    for kind, count in (("thing", things), ("stuff", stuff)):
        field = f"{kind}_classes"
        listed = content.get(field, [])
        if not isinstance(listed, list):
            raise ConfigFileError(f"{path}: {field}: got {records.shown(listed)}, expected a list of names.")
        names[kind] = _checked(listed, path, field)
        if kind == "stuff" and len(names[kind]) == count + 1 and names[kind][0].lower() in _MERGED:
            del names[kind][0]
        if len(names[kind]) != count:
            raise ConfigFileError(
                f"{path}: {field}: {len(names[kind])} names, expected {count}, as the network has "
                f"{_counts(things, stuff)}."
            )
    return table_of(names["thing"], names["stuff"])


def _from_ids(content: Mapping[str, Any], things: int, stuff: int, path: Path) -> ClassTable:
    """{id: name}, in the order of the ids."""
    ids = []
    for key in content:
        if not key.isascii() or not key.isdigit() or len(key) > 9:
            raise ConfigFileError(f"{path}: got {records.shown(key)} as an id, expected a whole number.")
        ids.append(int(key))
    names = [name for _, name in sorted(zip(ids, content.values(), strict=True), key=lambda pair: pair[0])]
    return _split(names, things, stuff, path)


def _from_categories(entries: Sequence[Mapping[str, Any]], things: int, stuff: int, path: Path) -> ClassTable:
    """COCO's categories; those of instance annotations do not say `isthing`, and are things."""
    categories: list[tuple[int, str, bool, tuple[int, int, int] | None]] = []
    for index, entry in enumerate(entries):
        where = f"categories[{index}]"
        number, flag = records.whole(entry.get("id")), entry.get("isthing", 1)
        if number is None or not 0 <= number < 2**31:
            raise ConfigFileError(f"{path}: {where}.id: got {records.shown(entry.get('id'))}, expected a whole number.")
        if flag not in (0, 1):
            raise ConfigFileError(f"{path}: {where}.isthing: got {records.shown(flag)}, expected 0 or 1.")
        (name,) = _checked([entry.get("name")], path, where)
        categories.append((number, name, bool(flag), _color(entry.get("color"), f"{path}: {where}.color")))
    ids = [number for number, *_ in categories]
    if len(set(ids)) != len(ids):
        raise ConfigFileError(f"{path}: an id is listed twice among the categories.")
    colors = [color for *_, color in categories if color is not None]
    made_up = made_up_colors([number for number, _, _, color in categories if color is None], colors)
    table = [Category(number, name, flag, color or made_up[number]) for number, name, flag, color in categories]
    found = ClassTable(tuple(c for c in table if c.is_thing), tuple(c for c in table if not c.is_thing))
    if (len(found.things), len(found.stuff)) != (things, stuff):
        raise ConfigFileError(
            f"{path}: {_counts(len(found.things), len(found.stuff))}, but the network has {_counts(things, stuff)}."
        )
    return found


def _color(value: object, where: str) -> tuple[int, int, int] | None:
    if value is None:
        return None
    parts = [records.whole(part) for part in value] if isinstance(value, list) and len(value) == 3 else [None]
    found = [part for part in parts if part is not None and 0 <= part <= 255]
    if len(found) != 3:
        raise ConfigFileError(f"{where}: got {records.shown(value)}, expected three numbers from 0 to 255.")
    return found[0], found[1], found[2]


def _checked(names: Iterable[object], path: Path, field: str = "names") -> list[str]:
    checked = []
    for name in names:
        text = records.line(name, longest=200)
        if text is None or not text.strip():
            raise ConfigFileError(f"{path}: {field}: got {records.shown(name)}, expected a name on one line.")
        checked.append(text.strip())
    return checked


def _counts(things: int, stuff: int) -> str:
    return f"{things} things and {stuff} stuff"
