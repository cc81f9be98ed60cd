"""Draw docs/architecture.svg from the imports of the package: python tools/draw_architecture.py

A room is a package, or modules that belong together. An arrow says that a room imports another one; an arrow that
follows from others (cli to formats, by way of export) is left out. A room stands on a floor above all that it imports.
`tests/test_architecture.py` draws again and compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import grimp

TARGET = Path(__file__).parents[1] / "docs/architecture.svg"


class Room(NamedTuple):
    """Modules that are drawn as one box."""

    name: str
    purpose: str
    modules: tuple[str, ...]  # without "panrt."; each with all that is inside it
    left: int  # pixels
    width: int
    floor: int = 0  # from the ground


ENGINE = (300, 690)  # its left side and width
_SMALL = (
    "conversion",
    "frame",
    "slot",
    "uri",
    "clock",
    "threads",
    "forks",
    "preprocess",
    "pixel_formats",
    "nvtx_ranges",
)
FLOORS = {  # by their number, from the ground
    10: [
        Room("cli", "the commands", ("cli", "__main__"), 30, 640),
        Room("panrt", "the public names", ("",), 710, 280),
    ],
    9: [
        Room("predict", "images to results", ("engine.predict",), 600, 170),
    ],
    8: [
        Room("bench, doctor", "measure, explain", ("engine.bench", "engine.doctor"), 312, 136),
        Room("load", "file to session", ("engine.load", "engine.bundled", "engine.named"), 462, 106),
        Room("pipeline", "source to session to sinks", ("engine.pipeline",), 790, 180),
    ],
    7: [
        Room("export", "network to ONNX to engine", ("export",), 30, 240),
        Room("backends/tensorrt", "TensorRT and for RTX", ("engine.backends.tensorrt",), 315, 170),
        Room("backends/cpu", "ONNX Runtime, kernels", ("engine.backends.cpu",), 500, 170),
        Room("sinks, status", "where results go", ("engine.sinks", "engine.status"), 790, 180),
    ],
    6: [
        Room("session", "one for all backends", ("engine.session", "engine.backends"), 430, 310),
        Room("sources", "where frames come from", ("engine.sources",), 790, 180),
    ],
    5: [
        Room("model", "the network, training, metrics", ("model",), 30, 240),
        Room("results", "segments, overlay, tracks", ("engine.results",), 430, 310),
    ],
    4: [
        Room("frame, slot, ...", "frames, URIs, threads, clocks", tuple(f"engine.{name}" for name in _SMALL), 430, 540),
    ],
    3: [
        Room("formats, hub", "files that are read and written, checked; models by name", ("formats", "hub"), 30, 960),
    ],
    2: [
        Room("plugins", "the four ops in all their forms", ("plugins",), 30, 960),
    ],
    1: [
        Room("gpu", "which GPU there is, TensorRT's logger", ("gpu",), 30, 960),
    ],
    0: [
        Room("errors, files, version", "exceptions, complete files", ("errors", "files", "lazy", "version"), 30, 960),
    ],
}
ROOMS = tuple(room._replace(floor=floor) for floor, rooms in FLOORS.items() for room in rooms)
BY_NAME = (
    ("load", "backends/cpu"),
    ("load", "backends/tensorrt"),
)  # imported by a name that is not in an import statement
NOTES = (
    "An arrow: a room imports another. Arrows that follow from others are left out.",
    "Dashed: the backend is imported by name, when a file is opened.",
    "Only cli imports the engine; model and engine never meet.",
)
FLOOR_HEIGHT, ROOM_HEIGHT, WIDTH, TOP = 86, 50, 1020, 30
STYLE = """
svg { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.paper { fill: #ffffff; } .wing { fill: #f2f5f9; stroke: #c3ccd8; }
.room { fill: #ffffff; stroke: #44546a; stroke-width: 1.3; }
.name { fill: #16202c; font-size: 15px; font-weight: 600; } .purpose, .note { fill: #4b5a6b; font-size: 12px; }
.arrow { fill: none; stroke: #3b6fb6; stroke-width: 1.6; } .head { fill: #3b6fb6; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #10151b; } .wing { fill: #18202a; stroke: #3a4757; }
  .room { fill: #1f2935; stroke: #8ea2b8; }
  .name { fill: #eef3f8; } .purpose, .note { fill: #b4c1cf; }
  .arrow { stroke: #7fb0f0; } .head { fill: #7fb0f0; }
}
"""


def imports() -> dict[str, set[str]]:
    """Return which rooms each room imports, at the top of a module or later.

    Raises:
        ValueError: a module has no room, or a room imports one that is not on a lower floor.
    """
    graph = grimp.build_graph("panrt", cache_dir=None)
    homes = {module: _room(module) for module in graph.modules}
    found: dict[str, set[str]] = {room.name: set() for room in ROOMS}
    floors = {room.name: room.floor for room in ROOMS}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            here, there = homes[module], homes[imported]
            if here != there:
                found[here].add(there)
                if floors[here] <= floors[there] and (here, there) != ("cli", "panrt"):
                    raise ValueError(f"{module} imports {imported}: {here!r} is not on a floor above {there!r}.")
    return found


def _room(module: str) -> str:
    inside = module.removeprefix("panrt").removeprefix(".")
    homes = {name: room.name for room in ROOMS for name in room.modules}
    while inside not in homes:
        inside = inside.rpartition(".")[0]
        if inside in ("", "engine"):
            if module == "panrt.engine":
                return "frame, slot, ..."
            raise ValueError(f"{module}: belongs to no room; add it to FLOORS in {Path(__file__).name}.")
    return homes[inside]


def without_shortcuts(imports: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows that do not follow from others."""

    def reach(rooms: Iterable[str]) -> set[str]:
        return {room for first in rooms for room in {first, *reach(imports[first])}}

    return [
        (room, other)
        for room, others in imports.items()
        for other in sorted(others)
        if other not in {there for via in others - {other} for there in reach(imports[via])}
    ]


def draw() -> str:
    """Return the diagram as SVG."""
    rooms = {room.name: room for room in ROOMS}
    height = _top(0) + ROOM_HEIGHT + 24 + 18 * len(NOTES)
    arrows = [*without_shortcuts(imports()), *BY_NAME]
    wing = [room for room in ROOMS if any(name.startswith("engine.") for name in room.modules)]
    wing_top = _top(max(room.floor for room in wing)) - 14
    wing_height = _top(min(room.floor for room in wing)) + ROOM_HEIGHT + 14 - wing_top
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The rooms of PanRT and what they import</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0L10 5L0 10z"/></marker></defs>',
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<rect class="wing" x="{ENGINE[0]}" y="{wing_top}" width="{ENGINE[1]}" height="{wing_height}" rx="10"/>',
        _text(ENGINE[0] + 16, wing_top + wing_height - 36, "name", "engine", anchor="start"),
        _text(ENGINE[0] + 16, wing_top + wing_height - 18, "purpose", "the runtime", anchor="start"),
    ]
    starts = {room.name: _ports(room, [rooms[there] for here, there in arrows if here == room.name]) for room in ROOMS}
    ends = {room.name: _ports(room, [rooms[here] for here, there in arrows if there == room.name]) for room in ROOMS}
    for here, there in arrows:
        ports = starts[here][there], ends[there][here]
        lines.append(_arrow(rooms[here], rooms[there], ports, dashed=(here, there) in BY_NAME))
    for room in ROOMS:
        middle, top = room.left + room.width / 2, _top(room.floor)
        lines.append(
            f'<rect class="room" x="{room.left}" y="{top}" width="{room.width}" height="{ROOM_HEIGHT}" rx="6"/>'
        )
        lines.append(_text(middle, top + 21, "name", room.name))
        lines.append(_text(middle, top + 39, "purpose", room.purpose))
    for number, note in enumerate(NOTES):
        lines.append(_text(30, _top(0) + ROOM_HEIGHT + 24 + 18 * number, "note", note, anchor="start"))
    return "\n".join((*lines, "</svg>", ""))


def _top(floor: int) -> int:
    return TOP + FLOOR_HEIGHT * (max(room.floor for room in ROOMS) - floor)


def _ports(room: Room, others: list[Room]) -> dict[str, float]:
    """Return where, from the left, the arrows from or to other rooms meet a room: below or above those, and apart."""

    def wanted(other: Room) -> float:
        left, right = max(room.left, other.left), min(room.left + room.width, other.left + other.width)
        middle = (left + right) / 2 if left < right else other.left + other.width / 2
        return min(max(middle, room.left + 16), room.left + room.width - 16)

    ports: dict[str, float] = {}
    for other in sorted(others, key=lambda other: (wanted(other), other.left)):
        ports[other.name] = max(wanted(other), *(taken + 20 for taken in ports.values()), 0)
    return ports


def _arrow(importer: Room, imported: Room, ports: tuple[float, float], *, dashed: bool) -> str:
    start, end = ports
    if importer.floor == imported.floor:  # side by side
        path = f"M{importer.left + importer.width} {_top(importer.floor) + ROOM_HEIGHT // 2}H{imported.left - 1}"
    else:
        top, bottom = _top(importer.floor) + ROOM_HEIGHT, _top(imported.floor) - 1
        bend = 0 if start == end else min(bottom - top, 60) / 2 + 6
        path = f"M{start:g} {top}C{start:g} {top + bend:g} {end:g} {bottom - bend:g} {end:g} {bottom}"
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path class="arrow" d="{path}" marker-end="url(#head)"{dashes}/>'


def _text(x: float, y: float, kind: str, text: str, *, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
    sys.stdout.write(f"wrote {TARGET}\n")
