"""Triangle meshes made of profiles, paths and boxes.

Shapes: V vertices, F triangles. Lengths are metres, z is up. Texture coordinates run 0..1, u to the right and v upwards
    as seen
from outside. Vertices on a seam or a sharp edge are repeated, because each has one normal and one texture coordinate.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Mesh(NamedTuple):
    """A triangle mesh, counter-clockwise seen from outside."""

    vertices: Floats  # (V, 3)
    normals: Floats  # (V, 3), unit
    texcoords: Floats  # (V, 2)
    faces: NDArray[np.int32]  # (F, 3)


def lathe(strips: Sequence[Sequence[tuple[float, float]]], *, segments: int = 56) -> Mesh:
    """Turn a profile about the z axis.

    Args:
        strips: pieces of the profile as (radius, z) points, walked so that the outside lies to the right (upwards on
            the outer wall, downwards on an inner one). Normals are smooth within a strip and sharp between strips. v is
            the length along all strips, so that a label painted between two heights lands there.
        segments: facets around the axis.
    """
    lengths = [np.r_[0.0, np.hypot(*np.diff(np.asarray(strip), axis=0).T).cumsum()] for strip in strips]
    total = sum(float(length[-1]) for length in lengths)
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    parts = []
    start = 0.0
    for strip, length in zip(strips, lengths, strict=True):
        profile = np.asarray(strip, np.float64)
        tangent = np.gradient(profile, axis=0)
        tangent /= np.maximum(np.hypot(*tangent.T), 1e-12)[:, None]
        normal = np.stack([tangent[:, 1], -tangent[:, 0]], -1)  # the profile's right-hand side
        k = len(profile)
        vertices = np.concatenate(
            [profile[:, None, :1] * circle[None], np.broadcast_to(profile[:, None, 1:], (k, segments + 1, 1))], -1
        )
        normals = np.concatenate(
            [normal[:, None, :1] * circle[None], np.broadcast_to(normal[:, None, 1:], (k, segments + 1, 1))], -1
        )
        u = np.broadcast_to(angle[None] / (2 * np.pi), (k, segments + 1))
        v = np.broadcast_to(((start + length) / total)[:, None], (k, segments + 1))
        parts.append(_grid(vertices, normals, np.stack([u, v], -1)))
        start += float(length[-1])
    return merge(parts)


def sharp(*points: tuple[float, float]) -> list[list[tuple[float, float]]]:
    """Strips for `lathe` with an edge at every one of these (radius, z) points."""
    return [[first, second] for first, second in itertools.pairwise(points)]


def tube(
    path: Floats, radius: float, *, across: tuple[float, float, float], segments: int = 12, flatten: float = 1.0
) -> Mesh:
    """A round bar along a flat curve, open at both ends.

    Args:
        path: (n, 3) points of the curve.
        radius: of the bar.
        across: the normal of the plane the curve lies in; `flatten` scales the bar along it.
        segments: facets around the bar.
        flatten: width over height of the bar's section.
    """
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.broadcast_to(np.asarray(across, np.float64), path.shape)
    up = np.cross(side, tangent)
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    ring = np.cos(angle)[None, :, None] * up[:, None] + np.sin(angle)[None, :, None] * side[:, None] * flatten
    vertices = path[:, None] + radius * ring
    normals = ring / np.linalg.norm(ring, axis=-1, keepdims=True)
    u, v = np.meshgrid(angle / (2 * np.pi), np.linspace(0.0, 1.0, len(path)))
    return _grid(vertices, normals, np.stack([u, v], -1))


def rounded_box(size: tuple[float, float, float], radius: float, *, atlas: bool = False, subdivisions: int = 1) -> Mesh:
    """A box of full edge lengths `size` about the origin, its edges rounded.

    Args:
        size: (x, y, z) edge lengths.
        radius: of the edges, below half the shortest edge.
        atlas: the six faces take their own cell of a texture that is 3 cells wide and 2 high: +x, -x, +y on the lower
            row of v, -y, +z, -z on the upper one. Otherwise each face shows the whole texture.
        subdivisions: of the flat part of a face; lighting is computed at vertices.
    """
    half = np.asarray(size, np.float64) / 2
    inner = half - radius
    corner = radius * (1 - np.cos(np.linspace(0.0, np.pi / 2, 4)))
    parts = []
    for face in range(6):
        axis, sign = face // 2, 1.0 - 2.0 * (face % 2)
        right, up = {0: (1, 2), 1: (0, 2), 2: (0, 1)}[axis]
        flip = {0: sign, 1: -sign, 2: sign}[axis]  # so that u runs to the right seen from outside
        s, t = (
            np.concatenate(
                [-half[a] + corner[:-1], np.linspace(-inner[a], inner[a], subdivisions + 1), half[a] - corner[-2::-1]]
            )
            for a in (right, up)
        )
        point = np.zeros((len(t), len(s), 3))
        point[..., right] = s[None] * flip
        point[..., up] = t[:, None]
        point[..., axis] = sign * half[axis]
        core = np.clip(point, -inner, inner)
        normals = point - core
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        vertices = core + radius * normals
        u, v = np.meshgrid((s + half[right]) / (2 * half[right]), (t + half[up]) / (2 * half[up]))
        uv = np.stack([u, v], -1)
        if atlas:
            uv = (0.01 + 0.98 * uv + np.array([face % 3, face // 3])) / np.array([3.0, 2.0])
        parts.append(_grid(vertices, normals, uv))
    return merge(parts)


def sphere(radius: float, *, rings: int = 32) -> Mesh:
    """A ball about the origin; its seam runs from pole to pole."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, rings)
    return lathe([[(radius * float(np.cos(a)), radius * float(np.sin(a))) for a in angle]])


def merge(parts: Sequence[Mesh]) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.texcoords for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]).astype(np.int32),
    )


def moved(mesh: Mesh, offset: tuple[float, float, float], *, yaw: float = 0.0, swap: str = "xyz") -> Mesh:
    """Turn by `yaw` radians about z, then move; `swap="xzy"` first lays the z axis along -y (a wheel from a lathe)."""
    vertices, normals = mesh.vertices, mesh.normals
    if swap == "xzy":
        lay = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        vertices, normals = vertices @ lay.T, normals @ lay.T
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return mesh._replace(vertices=vertices @ turn.T + np.asarray(offset), normals=normals @ turn.T)


def _grid(vertices: Floats, normals: Floats, texcoords: Floats) -> Mesh:
    """Triangles over a (rows, columns) grid whose columns run to the right and rows upwards, seen from outside."""
    rows, columns = vertices.shape[:2]
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    vertices, normals, texcoords = vertices.reshape(-1, 3), normals.reshape(-1, 3), texcoords.reshape(-1, 2)
    p, q, r = (vertices[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(q - p, r - p), axis=1)
    return Mesh(vertices, normals, texcoords, faces[area > 1e-12])  # a pole has triangles without an area
