"""Images and panoptic ids of a scene.

Shapes: H x W pixels. An image is (H, W, 3) uint8 BGR, ids are (H, W) int32 with 0 where nothing was hit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.tabletop.opengl import create_context, mujoco
from examples.tabletop.scene import MAX_GEOMS, Scene

Image = NDArray[np.uint8]
Ids = NDArray[np.int32]
Depth = NDArray[np.float32]

AO_DIRECTIONS = 8  # around each pixel, at two distances each
TARGET_LEVEL = 0.54  # mean brightness that the exposure tends to
GAINS = (0.95, 1.6)  # its limits
KNEE = 0.72  # brighter values are compressed


class Camera(NamedTuple):
    """A camera that looks at a point; angles in degrees."""

    target: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float  # above the horizon
    fov: float  # vertical

    def position(self) -> NDArray[np.float64]:
        """The position of the camera, (3,) metres."""
        a, e = np.radians(self.azimuth), np.radians(self.elevation)
        sight = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), -np.sin(e)])
        return np.asarray(np.asarray(self.target) - self.distance * sight, np.float64)


class Renderer:
    """Draws one scene after another in one OpenGL context. Use it as a context manager, in one thread."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._gl = create_context(height, width)

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, *_: object) -> None:
        self._gl.free()

    @contextmanager
    def open(self, scene: Scene) -> "Iterator[View]":
        """The scene on the graphics side, for as long as the block lasts."""
        scene.model.vis.global_.offheight, scene.model.vis.global_.offwidth = self.height, self.width
        self.make_current()
        context = mujoco.MjrContext(scene.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        try:
            yield View(self, scene, context)
        finally:
            self.make_current()
            context.free()

    def make_current(self) -> None:
        """Take the thread's OpenGL back from another renderer."""
        self._gl.make_current()


class View:
    """One scene, ready to be seen from cameras."""

    def __init__(self, renderer: Renderer, scene: Scene, context: mujoco.MjrContext) -> None:
        self._renderer, self._shape = renderer, (renderer.height, renderer.width)
        self._rect = mujoco.MjrRect(0, 0, renderer.width, renderer.height)
        self._scene, self._context = scene, context
        self._drawn = mujoco.MjvScene(scene.model, MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self.data = mujoco.MjData(scene.model)
        mujoco.mj_forward(scene.model, self.data)

    def look(self, camera: Camera) -> tuple[Ids, Depth]:
        """Panoptic ids at pixel centres, without anti-aliasing, and the distance along the optical axis in metres."""
        model = self._scene.model
        model.vis.global_.fovy = camera.fov
        free = mujoco.MjvCamera()
        free.type = mujoco.mjtCamera.mjCAMERA_FREE
        free.lookat[:] = camera.target
        free.distance, free.azimuth, free.elevation = camera.distance, camera.azimuth, -camera.elevation
        mujoco.mjv_updateScene(model, self.data, self._option, None, free, mujoco.mjtCatBit.mjCAT_ALL, self._drawn)
        pixels, depth = self._read(segment=True)
        code = pixels.astype(np.int32)
        code = code[..., 0] + 256 * code[..., 1] + 65536 * code[..., 2]
        ids = np.zeros(self._drawn.ngeom + 1, np.int32)
        for geom in self._drawn.geoms[: self._drawn.ngeom]:
            if geom.segid >= 0:
                ids[geom.segid + 1] = self._scene.geom_id[geom.objid]
        near, far = model.vis.map.znear * model.stat.extent, model.vis.map.zfar * model.stat.extent
        metres = near * far / (near + depth.astype(np.float64) * (far - near))  # the buffer holds 0 at far, 1 at near
        return ids[code], metres.astype(np.float32)

    def picture(self, camera: Camera, depth: Depth, rng: np.random.Generator | None) -> Image:
        """Return the image of the last `look`, with contact shadows, a tone curve and, given `rng`, sensor noise."""
        pixels, _ = self._read(segment=False)
        light = pixels.astype(np.float32) / 255
        light *= ambient_occlusion(depth, camera.fov)[..., None]
        return expose(light.astype(np.float32), self._scene.grade, rng)

    def move(
        self, name: str, position: tuple[float, float, float], quaternion: tuple[float, float, float, float]
    ) -> None:
        """Put a mocap body somewhere."""
        index = self._scene.model.body(name).mocapid[0]
        self.data.mocap_pos[index], self.data.mocap_quat[index] = position, quaternion
        mujoco.mj_forward(self._scene.model, self.data)

    def _read(self, *, segment: bool) -> tuple[Image, Depth]:
        self._renderer.make_current()
        flags = self._drawn.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = segment
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = not segment
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        pixels = np.empty((*self._shape, 3), np.uint8)
        depth = np.empty(self._shape, np.float32)
        mujoco.mjr_render(self._rect, self._drawn, self._context)
        mujoco.mjr_readPixels(pixels, depth if segment else None, self._rect, self._context)
        return np.ascontiguousarray(pixels[::-1]), np.ascontiguousarray(depth[::-1])


def ambient_occlusion(depth: Depth, fov: float, *, radius: float = 0.09, strength: float = 0.75) -> Depth:
    """Return the ambient light that reaches each pixel, 0..1, estimated from the depth map alone.

    Horizon samples after the usual screen-space scheme: for points around the pixel, the cosine between the surface
    normal and the direction to the point counts, faded out with distance.
    """
    height, width = depth.shape
    focal = np.float32(height / 2 / np.tan(np.radians(fov) / 2))
    column, row = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    ray = np.stack([(column - (width - 1) / 2) / focal, (row - (height - 1) / 2) / focal, np.ones_like(depth)], -1)
    point = ray * depth[..., None]
    normal = _normals(point)
    reach = radius * focal / depth  # pixels
    total = np.zeros_like(depth)
    for i in range(AO_DIRECTIONS):
        angle = 2 * np.pi * i / AO_DIRECTIONS
        for share in (0.3, 0.8):
            x = column + reach * np.float32(share * np.cos(angle + share))
            y = row + reach * np.float32(share * np.sin(angle + share))
            other = cv2.remap(point, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            offset = other - point
            distance = np.sqrt(np.einsum("hwc,hwc->hw", offset, offset)) + np.float32(1e-6)
            cosine = np.einsum("hwc,hwc->hw", offset, normal) / distance
            fade = np.clip(1 - distance / (1.6 * radius), 0, 1)
            total += np.clip(cosine - 0.12, 0, 1) * fade
    open_share = 1 - strength * np.clip(total * (2.4 / (2 * AO_DIRECTIONS)), 0, 1)
    return np.asarray(cv2.bilateralFilter(open_share.astype(np.float32), 5, 0.25, 2.0), np.float32)


def _normals(point: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normals (H, W, 3) towards the camera, from the nearer neighbour on each side so that edges stay sharp."""
    right, down = np.diff(point, axis=1, append=point[:, -1:]), np.diff(point, axis=0, append=point[-1:])
    left, up = np.roll(right, 1, axis=1), np.roll(down, 1, axis=0)
    dx = np.where((np.abs(right[..., 2:]) < np.abs(left[..., 2:])), right, left)
    dy = np.where((np.abs(down[..., 2:]) < np.abs(up[..., 2:])), down, up)
    normal = np.cross(dy, dx)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + np.float32(1e-12)
    return normal.astype(np.float32)


def expose(light: NDArray[np.float32], grade: tuple[float, float, float], rng: np.random.Generator | None) -> Image:
    """White balance, exposure with a soft shoulder, corner fall-off and sensor noise; RGB 0..1 to BGR uint8."""
    height, width = light.shape[:2]
    gain = np.clip(
        (TARGET_LEVEL / max(float(light.mean()), 1e-3)) ** 0.6, *GAINS
    )  # automatic exposure, not quite complete
    light = light * (np.asarray(grade, np.float32) * np.float32(gain))
    light = np.where(light > KNEE, KNEE + (1 - KNEE) * np.tanh((light - KNEE) / (1 - KNEE)), light).astype(np.float32)
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32), indexing="ij"
    )
    light *= (1 - np.float32(0.05) * (x * x + y * y))[..., None]
    if rng is not None:
        noise = rng.standard_normal((height, width, 3), np.float32)
        light += np.float32(0.006) * (noise + noise.mean(-1, keepdims=True)) * np.sqrt(np.clip(light, 0.05, 1))
    return np.ascontiguousarray(np.round(np.clip(light[..., ::-1], 0, 1) * 255).astype(np.uint8))
