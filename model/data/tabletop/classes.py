"""The classes of the tabletop. Category ids are contiguous: things 1..T, then stuff T+1..T+S; 0 is void."""

from typing import NamedTuple


class TabletopClass(NamedTuple):
    """One class of the tabletop, in the words of a COCO `categories` entry."""

    category_id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int]  # RGB


_THINGS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("mug", (230, 97, 1)),
    ("bottle", (27, 120, 55)),
    ("can", (202, 0, 32)),
    ("bowl", (240, 180, 41)),
    ("book", (69, 117, 180)),
    ("box", (140, 81, 10)),
    ("ball", (197, 27, 125)),
    ("rover", (1, 133, 113)),
)
_STUFF: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("floor", (128, 115, 105)),
    ("wall", (199, 205, 214)),
    ("table", (191, 129, 45)),
    ("rug", (118, 42, 131)),
)

CLASSES: tuple[TabletopClass, ...] = tuple(
    TabletopClass(category_id, name, category_id <= len(_THINGS), color)
    for category_id, (name, color) in enumerate(_THINGS + _STUFF, start=1)
)
THING_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES if c.is_thing)
STUFF_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES if not c.is_thing)
CATEGORY_ID: dict[str, int] = {c.name: c.category_id for c in CLASSES}
