"""The argument structs of the C interface lie in memory as ctypes has them, which headers assert."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from panrt.plugins import cuda_api

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
LAYOUTS = (PLUGINS / "cuda" / "layout.h", PLUGINS / "include" / "panrt" / "ops.h")
STRUCTS = {
    name: struct
    for name, struct in vars(cuda_api).items()
    if isinstance(struct, type) and issubclass(struct, ctypes.Structure)
}


def asserted(struct: str) -> dict[str, int]:
    """Return the size of a struct, under "", and the offset of each member, as the headers assert them."""
    text = "".join(path.read_text() for path in LAYOUTS)
    sizes = re.findall(rf"sizeof\({struct}()\) ==\s+(\d+)", text)
    offsets = re.findall(rf"offsetof\({struct},\s+(\w+)\) ==\s+(\d+)", text)
    return {member: int(number) for member, number in [*sizes, *offsets]}


@pytest.mark.parametrize("name", STRUCTS)
def test_layout_equals_that_of_ctypes(name: str) -> None:
    struct = STRUCTS[name]
    members = {member: getattr(struct, member).offset for member, *_ in struct._fields_}
    expected = {"": ctypes.sizeof(struct)} | members
    assert asserted("PanrtStatus" if name == "Status" else name) == expected
