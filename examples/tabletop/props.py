"""The things of the tabletop, each made of textured meshes.

A prop stands at the origin on the plane z = 0, its front towards -y. Lengths are metres.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from examples.tabletop import textures as tx
from examples.tabletop.meshes import Floats, Mesh, lathe, moved, rounded_box, sharp, sphere, tube
from examples.tabletop.textures import Rng, Texture


class Finish(NamedTuple):
    """The reflection of a surface."""

    specular: float
    shininess: float
    emission: float = 0.0


MATTE = Finish(0.05, 0.1)
SATIN = Finish(0.3, 0.35)
GLOSSY = Finish(0.9, 0.7)
METAL = Finish(0.8, 0.55)


class Part(NamedTuple):
    """One mesh with its texture."""

    mesh: Mesh
    texture: Texture
    finish: Finish


class Prop(NamedTuple):
    """A thing before it is placed."""

    name: str
    parts: tuple[Part, ...]
    footprint: Floats  # (n, 2) convex, counter-clockwise
    height: float
    flat_top: Floats | None  # (n, 2) convex area that carries another thing


def circle(radius: float, corners: int = 10) -> Floats:
    """A polygon around a circle."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.asarray(np.stack([np.cos(angle), np.sin(angle)], -1) * (radius / np.cos(np.pi / corners)), np.float64)


def rectangle(width: float, depth: float) -> Floats:
    """A rectangle about the origin, `width` along x and `depth` along y."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    return np.asarray(corners * (width / 2, depth / 2), np.float64)


def mug(rng: Rng) -> Prop:
    radius, height = float(rng.uniform(0.036, 0.047)), float(rng.uniform(0.075, 0.11))
    flare, wall = float(rng.uniform(-0.12, 0.1)), 0.0035
    z = np.linspace(0.0, 1.0, 9)
    outer = radius * (1 + flare * (z - 0.5)) * (1 - 0.12 * np.maximum(0, 0.2 - z) / 0.2)
    side = [(float(r), float(0.002 + (height - 0.002) * t)) for r, t in zip(outer, z, strict=True)]
    inside = [(r - wall, max(h, 0.006)) for r, h in reversed(side)]
    color = tx.pick(rng, tx.GLAZES)
    glaze = tx.glaze(rng, color)
    inner_tone = tx.plain(tx.pick(rng, tx.PAPERS) if rng.random() < 0.6 else color)
    shell = lathe([[(0.0, 0.0), (side[0][0] - 0.002, 0.0), side[0]], side])
    rim = lathe([[side[-1], (side[-1][0] - wall / 2, height + 0.0012), inside[0]], inside, [inside[-1], (0.0, 0.006)]])
    span, reach, end = float(rng.uniform(0.5, 0.62)) * height, float(rng.uniform(0.026, 0.034)), 0.58 * np.pi
    angle = np.linspace(-end, end, 18)
    rise = height * 0.5 + span / 2 * np.sin(angle) / np.sin(end)
    chord = (
        np.interp(rise[[0, -1]], [h for _, h in side], [r for r, _ in side]) - wall * 0.5
    )  # both ends stop within the wall
    out = np.linspace(chord[0], chord[1], 18) + reach * (np.cos(angle) - np.cos(end)) / (1 - np.cos(end))
    handle = np.stack([out, np.zeros(18), rise], -1)
    bar = tube(handle, float(rng.uniform(0.0042, 0.0056)), across=(0, 1, 0), flatten=1.4)
    finish = GLOSSY if rng.random() < 0.7 else SATIN
    parts = [Part(shell, glaze, finish), Part(rim, inner_tone, finish), Part(bar, tx.plain(color), finish)]
    if rng.random() < 0.5:
        level = height * float(rng.uniform(0.6, 0.85))
        drink = lathe(
            [[(float(np.interp(level, [h for _, h in side], [r for r, _ in side])) - wall, level), (0.0, level)]]
        )
        parts.append(Part(drink, tx.plain(tx.rgb(str(rng.choice(["3b2417", "5a3a22", "8a4b1f", "c9a36b"])))), GLOSSY))
    body = max(side[0][0], side[-1][0])
    around = np.concatenate([circle(body), [[out.max() + 0.006, -0.008], [out.max() + 0.006, 0.008]]])
    return Prop("mug", tuple(parts), _hull(around), height, None)


def bottle(rng: Rng) -> Prop:
    kind = int(rng.integers(4))
    radius = float(rng.uniform(0.029, 0.039)) * (1.12 if kind == 3 else 1)
    height = float(rng.uniform((0.19, 0.25, 0.16, 0.14)[kind], (0.25, 0.31, 0.2, 0.18)[kind]))
    neck = (0.36, 0.36, 0.42, 0.5)[kind] * radius
    shoulder = (0.62, 0.6, 0.68, 0.62)[kind] * height
    mouth = height - (0.022, 0.028, 0.03, 0.02)[kind]
    t = np.linspace(0.0, 1.0, 10)
    curve = radius + (neck - radius) * (3 * t**2 - 2 * t**3 if kind != 2 else t**0.8)
    rise = shoulder + (0.78 * (mouth - shoulder)) * t
    shell = lathe([
        [(0.0, 0.0), (radius - 0.006, 0.0), (radius - 0.002, 0.002), (radius, 0.006)],
        [(radius, 0.006), (radius, shoulder * 0.5), (radius, shoulder)],
        [(float(r), float(h)) for r, h in zip(curve, rise, strict=True)],
        [(neck, float(rise[-1])), (neck, mouth)],
    ])  # fmt: skip
    tone = tx.pick(
        rng, tx.palette("1e3d2b 2d4a22 5b3a1e 7a4a21 dfe7e8 c9dadf 24445c efe9dc 8c1c13 d9a441 f3f3f0 3b5d50")
    )
    skin = tx.shade(tone, 0.02 * tx.noise(rng, (256, 256), (16, 2)))
    low, high = float(rng.uniform(0.2, 0.3)), float(rng.uniform(0.75, 0.95))
    ratio = _strip_range(shell, 0.006 + low * (shoulder - 0.006), 0.006 + high * (shoulder - 0.006))
    top, bottom = round((1 - ratio[1]) * 256), round((1 - ratio[0]) * 256)
    skin[top:bottom] = cv2.resize(tx.label(rng), (256, bottom - top), interpolation=cv2.INTER_AREA)
    lid = neck * 1.18
    grip = float(rng.uniform(0.1, 0.4))
    cap = lathe(
        [
            *sharp((lid, mouth - 0.002), (lid, height - 0.002)),
            [(lid, height - 0.002), (lid - 0.002, height), (0, height)],
        ]
    )
    cap_tone = tx.plain(tx.pick(rng, tx.LABELS if rng.random() < 0.6 else tx.GLAZES), (16, 128))
    cap_tone[:, ::4] *= 1 - grip
    parts = (Part(shell, skin, GLOSSY), Part(cap, cap_tone, SATIN))
    if rng.random() < 0.18:
        return _lying("bottle", parts, radius, height)
    return Prop("bottle", parts, circle(radius), height, None)


def can(rng: Rng) -> Prop:
    radius, height = ((0.033, 0.118), (0.0375, 0.108), (0.043, 0.062), (0.05, 0.13))[int(rng.integers(4))]
    radius, height = radius * float(rng.uniform(0.95, 1.05)), height * float(rng.uniform(0.94, 1.05))
    soda = height > 0.11 and radius < 0.04
    taper = 0.005 if soda else 0.0
    wall = lathe([[(radius, 0.006 + taper / 2), (radius, height / 2), (radius, height - 0.006 - taper)]])
    edge, rim = radius - taper, height - 0.0035
    foot = lathe([*sharp((0, 0), (edge, 0)), [(edge, 0), (edge, 0.003), (radius, 0.006 + taper / 2)]])
    shoulder = [(radius, height - 0.006 - taper), (edge, height - 0.003), (edge, height)]
    lid = lathe([shoulder, *sharp((edge, height), (edge - 0.002, height), (edge - 0.003, rim), (0, rim))])
    steel = tx.shade((0.74, 0.75, 0.77), 0.05 * tx.noise(rng, (64, 128), (32, 2)))
    parts = [Part(wall, tx.label(rng), METAL if soda else SATIN), Part(foot, steel, METAL), Part(lid, steel, METAL)]
    if soda or rng.random() < 0.4:
        ring = 2 * np.pi * np.linspace(0, 1, 17)
        tab = np.stack([0.009 * np.cos(ring) + 0.008, 0.007 * np.sin(ring), np.full(17, height - 0.0025)], -1)
        parts.append(Part(tube(tab, 0.0016, across=(0, 0, 1), segments=6), tx.plain((0.6, 0.61, 0.63)), METAL))
    if rng.random() < 0.15:
        return _lying("can", tuple(parts), radius, height)
    return Prop("can", tuple(parts), circle(radius), height, circle(radius * 0.9))


def bowl(rng: Rng) -> Prop:
    radius, depth = float(rng.uniform(0.06, 0.098)), float(rng.uniform(0.5, 0.72))
    height = radius * depth + 0.008
    power, wall = float(rng.uniform(1.7, 2.6)), 0.004
    t = np.linspace(0.42, 1.0, 12)
    outer = [(float(radius * s), float(0.008 + (height - 0.008) * ((s - 0.42) / 0.58) ** power)) for s in t]
    inner = [(0.0, 0.012), *((r - wall, h + 0.004) for r, h in outer[:-1]), (outer[-1][0] - wall, height)]
    color = tx.pick(rng, tx.GLAZES)
    foot = outer[0][0] - 0.003
    shell = lathe([[(0.0, 0.002), (foot - 0.004, 0.0), (foot, 0.0)], [(foot, 0.0), outer[0]], outer])
    inside = lathe([[outer[-1], (outer[-1][0] - wall / 2, height + 0.0015), inner[-1]], inner[::-1]])
    finish = GLOSSY if rng.random() < 0.6 else SATIN
    inner_color = color if rng.random() < 0.5 else tx.pick(rng, tx.PAPERS)
    parts = [Part(shell, tx.glaze(rng, color), finish), Part(inside, tx.glaze(rng, inner_color), finish)]
    if rng.random() < 0.3:  # filled
        level = 0.008 + (height - 0.008) * float(rng.uniform(0.45, 0.7))
        at = float(np.interp(level, [h for _, h in inner], [r for r, _ in inner]))
        tone = tx.rgb(str(rng.choice(["a63d2f", "d8a13a", "efe6d2", "5c7a3a", "7b4b2a"])))
        content = tx.shade(tone, 0.18 * tx.noise(rng, (96, 96), (40, 24)))
        parts.append(Part(lathe([[(at, level), (at * 0.5, level + 0.004), (0.0, level + 0.006)]]), content, MATTE))
    return Prop("bowl", tuple(parts), circle(radius), height, None)


def book(rng: Rng) -> Prop:
    width, depth = float(rng.uniform(0.105, 0.165)), float(rng.uniform(1.28, 1.5))
    depth *= width
    height = float(rng.uniform(0.014, 0.042))
    board = 0.0028
    color = tx.pick(rng, tx.COVERS)
    cloth = tx.plain(color)
    front = tx.cover(rng, color)
    spine_print = tx.shade(color, 0.04 * tx.noise(rng, (48, 256), (24, 128)))
    ink = tx.pick(rng, tx.PAPERS) if sum(color) < 1.6 else tx.rgb("222222")
    tx.fill(spine_print, ink, (0.05, 0, 0.065, 1))
    tx.fill(spine_print, ink, (0.935, 0, 0.95, 1))
    tx.write(spine_print, tx.word(rng), ink, (0.12, 0.2, 0.88, 0.8))
    plate = rounded_box((width, depth, board), 0.0009)
    spine = rounded_box((board, depth, height), 0.0009)
    block = rounded_box((width - 0.004, depth - 0.007, height - 2 * board), 0.0005)
    parts = (
        Part(moved(plate, (0, 0, height - board / 2)), front, SATIN),
        Part(moved(plate, (0, 0, board / 2)), cloth, SATIN),
        Part(moved(spine, (-width / 2 + board / 2, 0, height / 2)), spine_print, SATIN),
        Part(moved(block, (-0.001, 0, height / 2)), tx.pages(rng), MATTE),
    )
    if rng.random() < 0.12:  # standing on its lower edge
        stand = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        upright = tuple(
            part._replace(
                mesh=part.mesh._replace(
                    vertices=part.mesh.vertices @ stand.T + [0, height / 2, depth / 2],
                    normals=part.mesh.normals @ stand.T,
                )
            )
            for part in parts
        )
        return Prop("book", upright, rectangle(width, height), depth, None)
    return Prop("book", parts, rectangle(width, depth), height, rectangle(width * 0.95, depth * 0.95))


def box(rng: Rng) -> Prop:
    if rng.random() < 0.5:  # upright packaging
        size = (float(rng.uniform(0.06, 0.15)), float(rng.uniform(0.04, 0.07)), float(rng.uniform(0.12, 0.22)))
    else:
        size = (float(rng.uniform(0.09, 0.2)), float(rng.uniform(0.08, 0.15)), float(rng.uniform(0.05, 0.12)))
    mesh = moved(rounded_box(size, 0.0018, atlas=True), (0, 0, size[2] / 2))
    top = rectangle(size[0] * 0.95, size[1] * 0.95) if size[2] < 0.13 else None
    return Prop(
        "box", (Part(mesh, tx.carton(rng), MATTE if rng.random() < 0.5 else SATIN),), rectangle(*size[:2]), size[2], top
    )


def ball(rng: Rng) -> Prop:
    radius = float(rng.choice([rng.uniform(0.03, 0.04), rng.uniform(0.04, 0.075)]))
    tilt, turn = float(rng.uniform(0, np.pi)), float(rng.uniform(0, 2 * np.pi))
    mesh = sphere(radius)
    roll = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    mesh = moved(
        mesh._replace(vertices=mesh.vertices @ roll.T, normals=mesh.normals @ roll.T), (0, 0, radius), yaw=turn
    )
    return Prop(
        "ball",
        (Part(mesh, tx.ball(rng), SATIN if rng.random() < 0.5 else GLOSSY),),
        circle(radius * 0.8),
        2 * radius,
        None,
    )


def rover(rng: Rng) -> Prop:
    length, width = float(rng.uniform(0.16, 0.22)), float(rng.uniform(0.1, 0.13))
    axles = (-0.36, 0.0, 0.36) if rng.random() < 0.4 else (-0.34, 0.34)
    wheel = min(float(rng.uniform(0.024, 0.031)), 0.36 * length / 2.05)  # three of them fit
    deck, mast = wheel * 1.1 + 0.038, float(rng.uniform(0.03, 0.075))
    front = 0.26 * length
    color, accent = tx.pick_two(rng, tx.LABELS)
    paint = tx.shade(color, 0.02 * tx.noise(rng, (96, 96), (32, 32)))
    tx.fill(paint, accent, (0, 0.42, 1, 0.58))
    trim, dark, grey = tx.plain(accent), tx.plain(tx.rgb("23252a")), tx.plain(tx.rgb("8d939a"))
    tread = tx.plain(tx.rgb("2a2a2c"), (16, 128))
    tread[:, ::8] *= 0.55

    hull = moved(rounded_box((length, width * 0.74, 0.04), 0.008), (0, 0, wheel * 0.9 + 0.018))
    plate = moved(rounded_box((length * 0.82, width * 0.66, 0.008), 0.003), (0, 0, deck))
    bumper = moved(rounded_box((0.012, width * 0.8, 0.016), 0.004), (length / 2, 0, wheel * 0.9 + 0.012))
    lidar = lathe([*sharp((0.024, 0), (0.024, 0.02)), [(0.024, 0.02), (0.02, 0.024), (0, 0.025)]], segments=32)
    post = lathe(sharp((0.005, 0), (0.005, mast)), segments=16)
    head = moved(rounded_box((0.026, 0.056, 0.026), 0.006), (front, 0, deck + mast + 0.012))
    parts = [
        Part(hull, paint, SATIN),
        Part(plate, dark, MATTE),
        Part(bumper, dark, MATTE),
        Part(moved(lidar, (-0.2 * length, 0, deck + 0.003)), dark, GLOSSY),
        Part(moved(post, (front, 0, deck + 0.003)), grey, METAL),
        Part(head, trim, SATIN),
    ]
    flank = [(wheel * 0.6, -0.012), (wheel * 0.86, -0.0125), (wheel, -0.009)]
    rubber = flank + [(r, -z) for r, z in reversed(flank)]
    tire = lathe(
        [*sharp((0, -0.012), (wheel * 0.6, -0.012)), rubber, *sharp((wheel * 0.6, 0.012), (0, 0.012))], segments=28
    )
    cap = [(wheel * 0.56, 0.0135), (wheel * 0.25, 0.0145), (0.0, 0.0145)]
    hub = lathe(
        [[(r, -z) for r, z in reversed(cap)], *sharp((wheel * 0.56, -0.0135), (wheel * 0.56, 0.0135)), cap], segments=20
    )
    for x in axles:
        for side in (-1, 1):
            place = (x * length, side * width * 0.43, wheel)
            parts += [
                Part(moved(tire, place, swap="xzy"), tread, MATTE),
                Part(moved(hub, place, swap="xzy"), trim, METAL),
            ]
    eye = lathe([*sharp((0.0075, 0), (0.0075, 0.005)), [(0.0075, 0.005), (0, 0.006)]], segments=16)
    forwards = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    eye = eye._replace(vertices=eye.vertices @ forwards.T, normals=eye.normals @ forwards.T)
    glass = tx.plain(tx.rgb("0d1420"))
    parts += [Part(moved(eye, (front + 0.0125, y, deck + mast + 0.013)), glass, GLOSSY) for y in (-0.014, 0.014)]
    if rng.random() < 0.6:
        antenna = lathe(
            [*sharp((0.0014, 0), (0.0014, 0.08)), [(0.0014, 0.08), (0.003, 0.083), (0, 0.086)]], segments=10
        )
        parts.append(Part(moved(antenna, (-0.42 * length, 0.25 * width, wheel + 0.02)), dark, MATTE))
    return Prop("rover", tuple(parts), rectangle(length + 0.03, width + 0.03), deck + mast + 0.026, None)


MAKERS: dict[str, Callable[[Rng], Prop]] = {
    "mug": mug, "bottle": bottle, "can": can, "bowl": bowl, "book": book, "box": box, "ball": ball, "rover": rover,
}  # fmt: skip


def _lying(name: str, parts: tuple[Part, ...], radius: float, length: float) -> Prop:
    """The same thing on its side."""
    laid = tuple(part._replace(mesh=moved(part.mesh, (0, length / 2, radius), swap="xzy")) for part in parts)
    return Prop(name, laid, rectangle(2 * radius, length), 2 * radius, None)


def _strip_range(mesh: Mesh, low: float, high: float) -> tuple[float, float]:
    """The v of two heights on the straight side of a lathe."""
    order = np.argsort(mesh.vertices[:, 2], kind="stable")
    z, v = mesh.vertices[order, 2], mesh.texcoords[order, 1]
    return float(np.interp(low, z, v)), float(np.interp(high, z, v))


def _hull(points: Floats) -> Floats:
    hull = np.asarray(cv2.convexHull(points.astype(np.float32)), np.float64).reshape(-1, 2)
    area = float(np.sum(hull[:, 0] * np.roll(hull[:, 1], -1) - hull[:, 1] * np.roll(hull[:, 0], -1)))
    return hull if area > 0 else hull[::-1]
