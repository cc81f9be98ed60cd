"""The classes of the tabletop, from the table that PanRT provides for its bundled model.

Category ids are contiguous: things 1..T, then stuff T+1..T+S; 0 is void.
"""

from panrt.formats.metadata import Category
from panrt.model.data.classes import TABLETOP

CLASSES: tuple[Category, ...] = TABLETOP.things + TABLETOP.stuff
CATEGORY_ID: dict[str, int] = {category.name: category.id for category in CLASSES}
