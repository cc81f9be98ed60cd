"""A room with a table, laid out at random and compiled for MuJoCo.

Coordinates are metres with z up; the middle of the table stands over the origin and the floor is z = 0.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from examples.tabletop import textures as tx
from examples.tabletop.classes import CATEGORY_ID
from examples.tabletop.meshes import Floats, Mesh, lathe, moved, rounded_box
from examples.tabletop.opengl import mujoco
from examples.tabletop.props import GLOSSY, MAKERS, MATTE, SATIN, Finish, Part, Prop, circle, rectangle
from examples.tabletop.textures import Rng, Texture

MAX_GEOMS = 1000
FLAT = ("wall", "rug")  # cast no shadow: too thin for the shadow map, which would speckle them
KEY_SAMPLES = 3  # directions that share the key light: their shadows overlap to a soft edge
ROLL_WIDTH = 0.2  # metres along one edge of the table that stay free when a ball rolls there


class Placed(NamedTuple):
    """A prop in the scene."""

    prop: Prop
    x: float
    y: float
    z: float
    yaw: float  # radians

    def polygon(self) -> Floats:
        """The footprint (n, 2) where it stands."""
        return _turned(self.prop.footprint, self.x, self.y, self.yaw)


class Room(NamedTuple):
    """The bounds of cameras and moving things."""

    x: tuple[float, float]  # the walls
    y: tuple[float, float]
    table: Floats  # (n, 2) outline of the table top
    table_height: float
    legs: tuple[Floats, ...]  # outlines on the floor
    rug: Floats  # (n, 2)
    rug_height: float


class Scene(NamedTuple):
    """A compiled scene. Instance ids count the placed things from 1; ids of stuff follow them."""

    model: mujoco.MjModel
    room: Room
    placed: tuple[Placed, ...]
    geom_id: NDArray[np.int32]  # (geoms,) panoptic id of each geom
    categories: dict[int, int]  # panoptic id -> category id
    grade: tuple[float, float, float]  # gain of red, green and blue: the white balance of the camera


def build_scene(rng: Rng, *, roaming: bool = False) -> Scene:
    """Lay out and compile one scene.

    Args:
        rng: the only source of randomness.
        roaming: add a rover and a ball that can be moved (mocap bodies "rover" and "ball") and keep the others off the
            floor.
    """
    spec = mujoco.MjSpec()
    draw = _Drawing(spec)
    room = _build_room(rng, draw, near=not roaming and rng.random() < 0.45)
    lane = rectangle(2 * ROLL_WIDTH, 4.0) + np.array([room.table[:, 0].max(), 0.0])
    keep_free = [lane] if roaming else []
    placed = _lay_table(rng, room, keep_free) + ([] if roaming else _lay_floor(rng, room))
    movers: list[Placed] = []
    if roaming:
        movers = [Placed(MAKERS[name](rng), 0.0, 0.0, 0.0, 0.0) for name in ("rover", "ball")]
    for i, item in enumerate(placed + movers, start=1):
        moves = i > len(placed)
        body = spec.worldbody.add_body(
            name=item.prop.name if moves else f"{item.prop.name}{i}",
            pos=[item.x, item.y, item.z],
            quat=_yaw(item.yaw),
            mocap=moves,
        )
        for part in item.prop.parts:
            draw.part(body, part, i)
    stuff = {name: len(placed) + len(movers) + 1 + i for i, name in enumerate(("floor", "wall", "table", "rug"))}
    _light(rng, spec)
    model = spec.compile()
    ids = np.zeros(model.ngeom, np.int32)
    for i, owner in enumerate(draw.owners):
        ids[model.geom(f"geom{i}").id] = stuff[owner] if isinstance(owner, str) else owner
    categories = {i: CATEGORY_ID[item.prop.name] for i, item in enumerate(placed + movers, start=1)}
    categories |= {i: CATEGORY_ID[name] for name, i in stuff.items()}
    warm = float(rng.normal(0, 0.025))
    grade = (1 + warm, 1.0, 1 - warm)
    return Scene(model, room, tuple(placed + movers), ids, categories, grade)


class _Drawing:
    """Adds textured parts to a spec, each geom named by its number here, and remembers what each belongs to."""

    def __init__(self, spec: mujoco.MjSpec) -> None:
        self.spec = spec
        self.owners: list[int | str] = []  # a panoptic id, or the name of stuff
        self._textures: dict[tuple[int, Finish], str] = {}
        self._kept: list[Texture] = []  # keeps id() of every texture unique

    def part(self, body: mujoco.MjsBody, part: Part, owner: int | str) -> None:
        name = f"mesh{len(self.owners)}"
        mesh = part.mesh
        flipped = np.stack([mesh.texcoords[:, 0], 1 - mesh.texcoords[:, 1]], -1)  # MuJoCo's v runs down the image
        self.spec.add_mesh(
            name=name,
            uservert=mesh.vertices.astype(np.float32).ravel(),
            usernormal=mesh.normals.astype(np.float32).ravel(),
            usertexcoord=flipped.astype(np.float32).ravel(),
            userface=mesh.faces.ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        body.add_geom(
            name=f"geom{len(self.owners)}",
            type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, material=self.material(part.texture, part.finish),
            contype=0, conaffinity=0, castshadow=owner not in FLAT,
        )  # fmt: skip
        self.owners.append(owner)

    def plane(self, half: tuple[float, float], pos: tuple[float, float, float], quat: tuple[float, float, float, float],
              material: str, owner: str) -> None:  # fmt: skip
        self.spec.worldbody.add_geom(
            name=f"geom{len(self.owners)}",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[*half, 1.0],
            pos=pos,
            quat=quat,
            material=material,
            contype=0,
            conaffinity=0,
            castshadow=False,
        )
        self.owners.append(owner)

    def material(self, texture: Texture, finish: Finish, repeat: tuple[float, float] | None = None) -> str:
        """A material with this texture; `repeat` lays it in repeats per metre instead of once."""
        key = (id(texture), finish)
        if key in self._textures:
            return self._textures[key]
        self._kept.append(texture)
        name = f"material{len(self._textures)}"
        pixels = np.round(np.clip(texture, 0, 1) * 255).astype(np.uint8)
        image = self.spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, nchannel=3)
        image.height, image.width = pixels.shape[:2]
        image.data = pixels.tobytes()
        material = self.spec.add_material(
            name=name, specular=finish.specular, shininess=finish.shininess, emission=finish.emission,
            texrepeat=repeat or (1, 1), texuniform=repeat is not None,
        )  # fmt: skip
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
        self._textures[key] = name
        return name


def _build_room(rng: Rng, draw: _Drawing, *, near: bool) -> Room:
    """Floor, walls with skirting, window and painting, rug and table; the table stands near one wall or free."""
    world = draw.spec.worldbody
    x = (-float(rng.uniform(0.75, 1.0) if near else rng.uniform(1.5, 2.3)), float(rng.uniform(1.7, 2.4)))
    y = (-float(rng.uniform(1.5, 2.2)), float(rng.uniform(1.5, 2.2)))
    top = 2.5
    floor, per_metre = _floor(rng)
    centre, half = ((x[0] + x[1]) / 2, (y[0] + y[1]) / 2), ((x[1] - x[0]) / 2, (y[1] - y[0]) / 2)
    draw.plane(half, (*centre, 0.0), (1, 0, 0, 0), draw.material(floor, SATIN, (per_metre, per_metre)), "floor")
    paints = [_wall(rng)] * 4
    if rng.random() < 0.35:
        paints[int(rng.integers(4))] = _wall(rng)
    skirting = tx.plain(tx.pick(rng, tx.palette("f2efe8 e6e0d4 8a6a48 d9d4c8")))
    s = float(np.sqrt(0.5))
    sides = (
        ((x[0], centre[1]), (half[1], 0.0), (0.5, 0.5, 0.5, 0.5)),
        ((x[1], centre[1]), (half[1], np.pi), (0.5, 0.5, -0.5, -0.5)),
        ((centre[0], y[0]), (half[0], np.pi / 2), (0.0, 0.0, s, s)),
        ((centre[0], y[1]), (half[0], -np.pi / 2), (s, s, 0.0, 0.0)),
    )
    for (at, (reach, facing), quat), (paint, repeats) in zip(sides, paints, strict=True):
        draw.plane((reach, top / 2), (*at, top / 2), quat, draw.material(paint, MATTE, (repeats, repeats)), "wall")
        inward = (float(np.cos(facing)), float(np.sin(facing)))
        board = rounded_box((0.016, 2 * reach - 0.02, 0.08), 0.004)
        draw.part(
            world,
            Part(
                moved(board, (at[0] + inward[0] * 0.008, at[1] + inward[1] * 0.008, 0.04), yaw=facing), skirting, SATIN
            ),
            "wall",
        )
        for offset in (-0.5, 0.5):
            if rng.random() < 0.42:
                shift = offset * reach + float(rng.uniform(-0.15, 0.15)) * reach
                spot = (at[0] - inward[1] * shift, at[1] + inward[0] * shift)
                _hang(rng, draw, spot, facing, inward)
    draw.plane(half, (*centre, top), (0.0, 1.0, 0.0, 0.0), draw.material(tx.plain(tx.rgb("f0eee8")), MATTE), "wall")
    rug, rug_height = _rug(rng, draw, x, y)
    table, height, legs = _table(rng, draw)
    return Room(x, y, table, height, legs, rug, rug_height)


def _floor(rng: Rng) -> tuple[Texture, float]:
    """A floor and how often its texture repeats in a metre."""
    kind = int(rng.integers(7))
    if kind <= 2:
        return tx.planks(rng, tx.pick(rng, tx.WOODS)), float(rng.uniform(0.9, 1.4))
    if kind == 3:
        color = tx.pick(rng, tx.palette("d9d2c5 b9b4aa c4a484 8f9491 e6e2da a5816b"))
        return tx.tiles(rng, color, tx.rgb("8d877d")), float(rng.uniform(0.7, 1.2))
    if kind == 4:
        light = tx.pick(rng, tx.palette("e9e4d8 d9d4c4 f0ece2"))
        dark = tx.pick(rng, tx.palette("3b4148 5b3d30 4d5a52 8c8478"))
        return tx.checker(rng, light, dark), float(rng.uniform(0.7, 1.1))
    if kind == 5:
        return tx.carpet(rng, tx.pick(rng, tx.palette("8f8a80 6f7a80 a39a86 5f6a5c 7c6a68 9aa0a6"))), 3.5
    return tx.concrete(rng, tx.pick(rng, tx.palette("a9a8a4 8f8e8a bdb8ae"))), 0.6


def _wall(rng: Rng) -> tuple[Texture, float]:
    kind = rng.random()
    if kind < 0.58:
        return tx.plaster(rng, tx.pick(rng, tx.WALLS)), 0.8
    if kind < 0.78:
        return tx.wallpaper(rng, tx.pick(rng, tx.WALLS)), float(rng.uniform(1.2, 2.2))
    brick = tx.pick(rng, tx.palette("9c5a44 a86b52 8a4a3a cfc4b4 e6e1d8"))
    return tx.bricks(rng, brick, tx.rgb("b5aca0")), float(rng.uniform(1.3, 1.7))


def _hang(rng: Rng, draw: _Drawing, spot: tuple[float, float], facing: float, inward: tuple[float, float]) -> None:
    """A painting or a window on a wall."""
    light = rng.random() < 0.4
    width, height = (0.8, 0.9) if light else (float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.25, 0.42)))
    z = 1.4 if light else float(rng.uniform(1.1, 1.4))
    frame = tx.plain(tx.rgb("efece4") if light else tx.pick(rng, tx.palette("2a2420 6b4226 c9a66b e9e4da")))
    at = (spot[0] + inward[0] * 0.012, spot[1] + inward[1] * 0.012, z)
    panel = (spot[0] + inward[0] * 0.0165, spot[1] + inward[1] * 0.0165, z)
    draw.part(
        draw.spec.worldbody,
        Part(moved(rounded_box((0.022, width + 0.05, height + 0.05), 0.005), at, yaw=facing), frame, SATIN),
        "wall",
    )
    finish = Finish(0.1, 0.2, 0.55) if light else MATTE
    sheet = moved(rounded_box((0.02, width, height), 0.002), panel, yaw=facing)
    draw.part(draw.spec.worldbody, Part(sheet, tx.window(rng) if light else tx.painting(rng), finish), "wall")


def _rug(rng: Rng, draw: _Drawing, x: tuple[float, float], y: tuple[float, float]) -> tuple[Floats, float]:
    height = float(rng.uniform(0.007, 0.014))
    round_one = rng.random() < 0.25
    width, depth = float(rng.uniform(1.5, 2.3)), float(rng.uniform(1.1, 1.7))
    low_x, high_x = x[0] + 0.1, x[1] - 0.1
    low_y, high_y = y[0] + 0.1, y[1] - 0.1
    if round_one:
        radius = min(float(rng.uniform(0.7, 1.0)), (high_x - low_x) / 2, (high_y - low_y) / 2)
        width = depth = 2 * radius
        disc = lathe(
            [
                [(radius, 0.0), (radius, height * 0.6), (radius - 0.004, height)],
                [(radius - 0.004, height), (0.0, height)],
            ],
            segments=72,
        )
        # Seen from above the weave lies flat, not round the axis.
        flat = np.clip(disc.vertices[:, :2] / (2 * radius) + 0.5, 0, 1)
        mesh, outline, yaw = disc._replace(texcoords=flat), circle(radius, 32), 0.0
        weave = _round_rug(rng)
    else:
        width, depth = min(width, high_x - low_x), min(depth, high_y - low_y)
        yaw = 0.0 if rng.random() < 0.8 else float(rng.uniform(-0.12, 0.12))
        mesh = moved(rounded_box((width, depth, height * 2), height * 0.6, subdivisions=6), (0, 0, 0))
        outline, weave = rectangle(width, depth), tx.rug(rng)
    cx = float(np.clip(rng.uniform(-0.2, 0.8), low_x + width / 2, high_x - width / 2))
    cy = float(np.clip(rng.uniform(-0.6, 0.6), low_y + depth / 2, high_y - depth / 2))
    draw.part(draw.spec.worldbody, Part(moved(mesh, (cx, cy, 0.0), yaw=yaw), weave, MATTE), "rug")
    return _turned(outline, cx, cy, yaw), height


def _round_rug(rng: Rng) -> Texture:
    """Rings of colour, woven."""
    colors = [tx.pick(rng, tx.RUGS) for _ in range(3)]
    y, x = np.indices((384, 384)).astype(np.float32)
    radius = np.hypot(x - 191.5, y - 191.5) / 192
    out = tx.plain(colors[0], (384, 384))
    for i in range(int(rng.integers(1, 5))):
        edge, span = float(rng.uniform(0.15, 0.9)), float(rng.uniform(0.03, 0.12))
        out = tx.mix(out, colors[1 + i % 2], (np.abs(radius - edge) < span).astype(np.float32))
    return tx.shade((1, 1, 1), 0.1 * tx.noise(rng, (384, 384), (180, 180))) * out


def _table(rng: Rng, draw: _Drawing) -> tuple[Floats, float, tuple[Floats, ...]]:
    height, thick = float(rng.uniform(0.5, 0.76)), float(rng.uniform(0.025, 0.045))
    kind = rng.random()
    if kind < 0.68:
        surface = tx.wood(rng, tx.pick(rng, tx.WOODS), 384)
        finish = SATIN
    elif kind < 0.86:
        surface = tx.plaster(rng, tx.pick(rng, tx.palette("f0eee9 e3e0da d7d2c8 4b4f54 9fb0a8 31343a")))
        finish = GLOSSY if rng.random() < 0.3 else SATIN
    else:
        surface = tx.concrete(rng, tx.pick(rng, tx.palette("d8d6d2 8d8c88 4a4a4c b9b0a2")), 384)
        finish = SATIN
    leg = surface if rng.random() < 0.6 else tx.plain(tx.pick(rng, tx.palette("2a2a2c e9e6df 6f6f72 4f3a28")))
    world = draw.spec.worldbody
    legs: list[Floats] = []
    if rng.random() < 0.25:
        radius = float(rng.uniform(0.42, 0.56))
        low, edge = height - thick, radius - 0.006
        rim = [(0.0, low), (radius - 0.01, low), (radius, low + 0.008), (radius, height - 0.008), (edge, height)]
        top = lathe([rim, [(edge, height), (radius * 0.5, height), (0.0, height)]], segments=72)
        flat = np.clip(top.vertices[:, :2] / (2 * radius) + 0.5, 0, 1)
        draw.part(world, Part(top._replace(texcoords=flat), surface, finish), "table")
        foot = lathe([[(0.24, 0), (0.24, 0.02), (0.05, 0.05), (0.04, 0.12), (0.04, low - 0.05), (0.09, low)]])
        draw.part(world, Part(foot, leg, finish), "table")
        return circle(radius, 40), height, (circle(0.26),)
    width, depth = float(rng.uniform(0.75, 1.0)), float(rng.uniform(1.0, 1.4))
    top = moved(rounded_box((width, depth, thick), min(0.008, thick / 3), subdivisions=8), (0, 0, height - thick / 2))
    draw.part(world, Part(top, surface, finish), "table")
    side = float(rng.uniform(0.04, 0.06))
    round_leg = rng.random() < 0.4
    length = height - thick
    for sx in (-1, 1):
        for sy in (-1, 1):
            at = (sx * (width / 2 - side), sy * (depth / 2 - side))
            mesh: Mesh = (
                moved(lathe([[(side * 0.32, 0.0), (side * 0.5, length)]], segments=20), (*at, 0.0))
                if round_leg
                else moved(rounded_box((side, side, length), 0.004), (*at, length / 2))
            )
            draw.part(world, Part(mesh, leg, finish), "table")
            legs.append(_turned(rectangle(side, side), *at, 0.0))
    if rng.random() < 0.6:  # apron
        for sx in (-1, 1):
            bar = rounded_box((0.02, depth - 2.4 * side, 0.07), 0.003)
            draw.part(world, Part(moved(bar, (sx * (width / 2 - side), 0, length - 0.035)), leg, finish), "table")
        for sy in (-1, 1):
            bar = rounded_box((width - 2.4 * side, 0.02, 0.07), 0.003)
            draw.part(world, Part(moved(bar, (0, sy * (depth / 2 - side), length - 0.035)), leg, finish), "table")
    return rectangle(width, depth), height, tuple(legs)


def _lay_table(rng: Rng, room: Room, keep_free: list[Floats]) -> list[Placed]:
    """Things on the table, close enough to hide one another in part; some stand on a book or a box."""
    wanted = int(rng.integers(6, 14))
    names = list(rng.choice(["mug", "bottle", "can", "bowl", "book", "box", "ball", "rover"], wanted,
                            p=[0.15, 0.13, 0.13, 0.14, 0.13, 0.14, 0.13, 0.05]))  # fmt: skip
    centre = rng.uniform(-0.12, 0.12, 2)
    spread = float(rng.uniform(0.16, 0.34))
    placed: list[Placed] = []
    for name in names:
        prop = MAKERS[str(name)](rng)
        stacked = _stack(rng, prop, placed) if rng.random() < 0.35 else None
        if stacked is not None:
            placed.append(stacked)
            continue
        for _ in range(30):
            x, y = (float(v) for v in centre + rng.normal(0, spread, 2))
            item = Placed(prop, x, y, room.table_height, _heading(rng, prop))
            polygon = item.polygon()
            standing = [other.polygon() for other in placed if other.z == room.table_height]
            if _inside(polygon * 1.04, room.table) and not any(
                _overlap(polygon, other) for other in standing + keep_free
            ):
                placed.append(item)
                break
    return placed


def _stack(rng: Rng, prop: Prop, placed: list[Placed]) -> Placed | None:
    """Place a thing on top of something flat and free, if there is any."""
    if prop.name in ("ball", "rover", "bottle"):
        return None
    for below in placed:
        carries = any((other.x, other.y) == (below.x, below.y) and other.z > below.z for other in placed)
        if below.prop.flat_top is None or carries:
            continue
        item = Placed(prop, below.x, below.y, below.z + below.prop.height, below.yaw + float(rng.normal(0, 0.25)))
        if _inside(item.polygon(), _turned(below.prop.flat_top, below.x, below.y, below.yaw)):
            return item
    return None


def _lay_floor(rng: Rng, room: Room) -> list[Placed]:
    """A rover most of the time, often a ball, and sometimes what fell off the table."""
    chances = (
        ("rover", 0.8), ("ball", 0.55), ("box", 0.3), ("book", 0.15), ("bottle", 0.12), ("rover", 0.2), ("can", 0.1),
    )  # fmt: skip
    names = [name for name, chance in chances if rng.random() < chance]
    low, high = (room.x[0] + 0.05, room.y[0] + 0.05), (room.x[1] - 0.05, room.y[1] - 0.05)
    walls = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    placed: list[Placed] = []
    for name in names:
        prop = MAKERS[name](rng)
        for _ in range(30):
            x, y = (float(v) for v in rng.uniform(low, high))
            item = Placed(prop, x, y, 0.0, _heading(rng, prop))
            polygon = item.polygon()
            on_rug = _inside(polygon, room.rug)
            clear = (
                _inside(polygon, walls)
                and (on_rug or not _overlap(polygon, room.rug))
                and not any(_overlap(polygon, leg) for leg in room.legs)
                and not any(_overlap(polygon, other.polygon()) for other in placed)
                and np.hypot(x, y) < 1.7
            )
            if clear:
                placed.append(item._replace(z=room.rug_height if on_rug else 0.0))
                break
    return placed


def _heading(rng: Rng, prop: Prop) -> float:
    """Flat-sided things mostly stand nearly square to the table."""
    if prop.name in ("book", "box") and rng.random() < 0.5:
        return float(rng.integers(4)) * np.pi / 2 + float(rng.normal(0, 0.12))
    return float(rng.uniform(0, 2 * np.pi))


def _light(rng: Rng, spec: mujoco.MjSpec) -> None:
    """A key light from above with soft shadows, a dim fill from the other side, and a lamp that falls off."""
    visual = spec.visual
    visual.quality.shadowsize = 2048
    visual.quality.offsamples = 4
    visual.quality.numquads = 10
    visual.map.znear, visual.map.zfar = 0.02, 12.0  # times extent, which is 1 m
    visual.map.shadowclip = 1.6  # half the side of the shadow map: the table and what lies round it
    spec.stat.extent = 1.0
    spec.stat.center = [0, 0, 0.6]
    warmth = float(rng.uniform(-0.06, 0.08))
    tint = np.array([1 + warmth, 1.0, 1 - 1.3 * warmth])
    ambient = float(rng.uniform(0.34, 0.46))
    visual.headlight.ambient = list(ambient * (2 - tint))
    visual.headlight.diffuse = [0.06, 0.06, 0.06]
    visual.headlight.specular = [0.0, 0.0, 0.0]
    azimuth, elevation = float(rng.uniform(0, 2 * np.pi)), float(np.radians(rng.uniform(40, 75)))
    strength, softness = float(rng.uniform(0.42, 0.6)), float(rng.uniform(0.012, 0.035))
    towards = _direction(azimuth, elevation)
    side = np.cross(towards, [0, 0, 1.0])
    side /= np.linalg.norm(side)
    other = np.cross(side, towards)
    for i in range(KEY_SAMPLES):
        angle = 2 * np.pi * (i + 0.25) / KEY_SAMPLES
        ray = towards + softness * (np.cos(angle) * side + np.sin(angle) * other)
        ray /= np.linalg.norm(ray)
        spec.worldbody.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=True, dir=list(-ray), pos=list(2.0 * ray),
            diffuse=list(strength / KEY_SAMPLES * tint), specular=list(0.9 / KEY_SAMPLES * tint), ambient=[0, 0, 0],
        )  # fmt: skip
    fill = _direction(azimuth + np.pi + float(rng.uniform(-0.7, 0.7)), float(np.radians(rng.uniform(15, 45))))
    spec.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, pos=list(2.0 * fill), dir=list(-fill), castshadow=False,
        diffuse=list(float(rng.uniform(0.08, 0.18)) * (2 - tint)), specular=[0.08, 0.08, 0.08], ambient=[0, 0, 0],
    )  # fmt: skip
    lamp = float(rng.uniform(0.1, 0.3))
    spec.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_POINT, castshadow=False, pos=[*rng.uniform(-1, 1, 2), 1.9],
        diffuse=[lamp * 1.1, lamp, lamp * 0.85], specular=[0.15, 0.15, 0.14], ambient=[0, 0, 0],
        attenuation=[0.5, 0.1, 0.35],
    )  # fmt: skip


def _direction(azimuth: float, elevation: float) -> Floats:
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])


def _yaw(angle: float) -> list[float]:
    return [float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2))]


def _turned(polygon: Floats, x: float, y: float, yaw: float) -> Floats:
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    return np.asarray(polygon @ turn + [x, y], np.float64)


def _overlap(a: Floats, b: Floats) -> bool:
    """Return whether two convex polygons overlap (separating axes)."""
    for polygon in (a, b):
        edge = np.roll(polygon, -1, axis=0) - polygon
        normal = np.stack([edge[:, 1], -edge[:, 0]], -1)
        first, second = a @ normal.T, b @ normal.T
        if np.any((first.max(0) < second.min(0)) | (second.max(0) < first.min(0))):
            return False
    return True


def _inside(inner: Floats, outer: Floats) -> bool:
    """Return whether every corner of `inner` lies in the convex, counter-clockwise polygon `outer`."""
    edge = np.roll(outer, -1, axis=0) - outer
    offset = inner[:, None] - outer[None]
    return bool(np.all(edge[None, :, 0] * offset[..., 1] - edge[None, :, 1] * offset[..., 0] >= 0))
