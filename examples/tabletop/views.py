"""Cameras: still views that show something, and a smooth path with moving things for a clip."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from examples.tabletop.render import Camera, Depth, Ids, View
from examples.tabletop.scene import Placed, Room, Scene
from examples.tabletop.textures import Rng

MIN_THINGS = 3
MIN_THING_SHARE = 40 / (256 * 320)  # of the image; smaller slivers cannot be recognised
MAX_THING_SHARE = 0.3
MAX_WALL_SHARE = 0.62
MIN_DISTANCE = 0.22  # metres from the camera to the nearest surface
_TRIES = 60


class Pose(NamedTuple):
    """The place of a moving thing."""

    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]  # w, x, y, z


def choose_view(rng: Rng, scene: Scene, view: View) -> tuple[Camera, Ids, Depth]:
    """A camera from which some things are seen, none as a sliver and none from too near.

    Elevations are 5 to 50 degrees. If no draw satisfies every wish, the one that breaks the fewest is returned.
    """
    best: tuple[int, Camera, Ids, Depth] | None = None
    for _ in range(_TRIES):
        camera = _draw_camera(rng, scene)
        if not _is_free(camera, scene.room):
            continue
        ids, depth = view.look(camera)
        faults = _faults(ids, depth, scene)
        if best is None or faults < best[0]:
            best = faults, camera, ids, depth
        if faults == 0:
            break
    if best is None:
        raise RuntimeError("no camera position is free in this scene; the room is too small for the table")
    return best[1:]


def _draw_camera(rng: Rng, scene: Scene) -> Camera:
    elevation = float(np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(5)), np.sin(np.radians(50))))))
    fov = float(rng.uniform(38, 56))
    azimuth = float(rng.uniform(0, 360))
    on_floor = [item for item in scene.placed if item.z < 0.1]
    if on_floor and rng.random() < 0.3:
        item = on_floor[int(rng.integers(len(on_floor)))]
        aside = rng.normal(0, 0.15, 2)
        target = (item.x + float(aside[0]), item.y + float(aside[1]), 0.15)
        return Camera(target, float(rng.uniform(0.8, 1.9)), azimuth, max(elevation, 12.0), fov)
    x, y = (float(v) for v in rng.normal(0, 0.12, 2))
    target = (x, y, scene.room.table_height + float(rng.uniform(-0.08, 0.08)))
    return Camera(target, float(rng.uniform(0.62, 1.5)), azimuth, elevation, fov)


def _is_free(camera: Camera, room: Room) -> bool:
    """Return whether the camera is inside the room and neither in nor under the table."""
    x, y, z = camera.position()
    inside = room.x[0] + 0.12 < x < room.x[1] - 0.12 and room.y[0] + 0.12 < y < room.y[1] - 0.12 and 0.1 < z < 2.2
    low, high = room.table.min(0) - 0.15, room.table.max(0) + 0.15
    at_table = bool(low[0] < x < high[0] and low[1] < y < high[1]) and z < room.table_height + 0.08
    return inside and not at_table


def _faults(ids: Ids, depth: Depth, scene: Scene) -> int:
    """Return the number of conditions that a view violates."""
    share = np.bincount(ids.ravel(), minlength=max(scene.categories) + 1) / ids.size
    things = share[1 : len(scene.placed) + 1]
    wall = share[len(scene.placed) + 2]
    slivers = int(((things > 0) & (things < MIN_THING_SHARE)).sum())
    return (
        slivers
        + 3 * max(0, MIN_THINGS - int((things > 0).sum()))
        + 2 * int(things.max() > MAX_THING_SHARE)
        + 2 * int(wall > MAX_WALL_SHARE)
        + 4 * int(depth.min() < MIN_DISTANCE)
    )


def clip_path(rng: Rng, scene: Scene, frames: int) -> tuple[list[Camera], list[dict[str, Pose]]]:
    """A camera that swings round the table and looks aside, while a rover circles and a ball rolls to and fro.

    The sweep makes things leave the image and return.
    """
    time = np.linspace(0.0, 1.0, frames)
    start, side = float(rng.uniform(0, 360)), float(rng.choice([-1, 1]))
    swing = side * float(rng.uniform(55, 75))
    azimuth = start + swing * (1 - np.cos(2 * np.pi * time))
    elevation = 29 - 11 * np.cos(2 * np.pi * time + 0.6)
    distance = 1.2 + 0.26 * np.cos(4 * np.pi * time)
    aside = 0.3 * np.sin(4 * np.pi * time)
    height = scene.room.table_height
    cameras = [
        Camera(
            (float(-np.sin(a) * s), float(np.cos(a) * s), height - 0.05 - 0.15 * abs(float(s))),
            float(d),
            float(np.degrees(a)),
            float(e),
            46.0,
        )
        for a, e, d, s in zip(np.radians(azimuth), elevation, distance, aside, strict=True)
    ]
    rover, ball = scene.placed[-2:]
    first = np.radians(start) + side * float(rng.uniform(0, 2 * np.pi))
    return cameras, [
        {"rover": _drive(first - side * 1.7 * np.pi * t, -side, rover, scene.room), "ball": _roll(t, ball, scene.room)}
        for t in time
    ]


def _drive(angle: float, direction: float, rover: Placed, room: Room) -> Pose:
    """Return a pose on the circle around the table, facing along it."""
    radius = float(np.hypot(*np.abs(room.table).max(0))) + 0.16
    x, y = radius * float(np.cos(angle)), radius * float(np.sin(angle))
    yaw = angle + direction * np.pi / 2
    on_rug = _cover(rover.prop.footprint + np.array([x, y]), room.rug)
    return Pose((x, y, room.rug_height * on_rug), (float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))))


def _roll(time: float, ball: Placed, room: Room) -> Pose:
    """Along the free edge of the table (see `scene.ROLL_WIDTH`), there and back, without slipping."""
    radius = ball.prop.height / 2
    x, reach = roll_line(room)
    y = reach * float(np.cos(2 * np.pi * time))
    turn = -y / radius  # about x
    half = turn / 2
    # The mesh stands on its origin, so the centre is put where a rotation about the contact would lift it.
    offset = np.array([0.0, -np.sin(turn) * radius, np.cos(turn) * radius])
    centre = np.array([x, y, room.table_height + radius])
    at = centre - offset
    return Pose((float(at[0]), float(at[1]), float(at[2])), (float(np.cos(half)), float(np.sin(half)), 0.0, 0.0))


def roll_line(room: Room) -> tuple[float, float]:
    """The x of the line the ball rolls on, and how far it goes to both sides."""
    high: NDArray[np.float64] = room.table.max(0)
    return float(high[0]) - 0.1, 0.55 * float(high[1])


def _cover(footprint: NDArray[np.float64], outline: NDArray[np.float64]) -> float:
    """Return how far a footprint is on a convex outline, 0..1, smoothly."""
    edge = np.roll(outline, -1, axis=0) - outline
    edge /= np.linalg.norm(edge, axis=1, keepdims=True)
    offset = footprint.mean(0) - outline
    inside = float((edge[:, 0] * offset[:, 1] - edge[:, 1] * offset[:, 0]).min())
    step = float(np.clip((inside + 0.12) / 0.12, 0, 1))  # wholly up when its middle crosses the edge
    return step * step * (3 - 2 * step)
