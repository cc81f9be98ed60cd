"""The generator of the tabletop. These tests draw: they need MuJoCo and an OpenGL (the error names the packages)."""

import hashlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from examples.tabletop import dataset, meshes, opengl
from examples.tabletop.clip import read_clip
from examples.tabletop.opengl import mujoco
from examples.tabletop.props import MAKERS
from examples.tabletop.render import Camera, Renderer
from examples.tabletop.scene import Scene, build_scene
from examples.tabletop.views import clip_path
from panrt.model.data.coco_panoptic import load_sample, read_coco_panoptic

SMALL: dict[str, Any] = {"hw": (96, 128)}
SCENES = 4


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [build_scene(np.random.default_rng([seed, 0])) for seed in range(SCENES)]


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer(96, 128) as renderer:
        yield renderer


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_seed_gives_the_same_bytes_in_another_process_and_with_more_workers(tmp_path: Path) -> None:
    dataset.generate_images(tmp_path / "here", count=3, seed=5, views=2, **SMALL)
    script = "import sys; from pathlib import Path; from examples.tabletop import dataset; "
    script += "dataset.generate_images(Path(sys.argv[1]), count=3, seed=5, views=2, hw=(96, 128), workers=2)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "there")], check=True)
    here = digests(tmp_path / "here")
    assert len(here) == 7
    assert here == digests(tmp_path / "there")


def test_ids_and_depth_are_those_of_rays_through_the_pixel_centres(scenes: list[Scene], renderer: Renderer) -> None:
    for scene in scenes[:2]:
        camera = Camera((0.0, 0.0, scene.room.table_height), 1.0, 130.0, 32.0, 50.0)
        with renderer.open(scene) as view:
            ids, depth = view.look(camera)
            origin = camera.position()
            ahead = np.asarray(camera.target) - origin
            ahead /= np.linalg.norm(ahead)
            right = np.cross(ahead, [0, 0, 1.0])
            right /= np.linalg.norm(right)
            down = np.cross(ahead, right)
            height, width = ids.shape
            focal = height / 2 / np.tan(np.radians(camera.fov) / 2)
            wrong = 0
            pixels = list(itertools.product(range(2, height, 5), range(2, width, 5)))
            for row, column in pixels:
                ray = ahead + (column + 0.5 - width / 2) / focal * right + (row + 0.5 - height / 2) / focal * down
                length = np.linalg.norm(ray)
                geom = np.zeros(1, np.int32)
                distance = mujoco.mj_ray(scene.model, view.data, origin, ray / length, None, 1, -1, geom)
                if ids[row, column] != scene.geom_id[geom[0]]:
                    wrong += 1  # a silhouette runs through the pixel centre
                elif ids[row, column] > len(scene.placed):  # things have fine meshes, their depth steps at every facet
                    assert_allclose(depth[row, column], distance / length, rtol=2e-3, atol=2e-3)
            assert wrong <= len(pixels) // 100


def test_the_committed_split_is_what_the_code_draws() -> None:
    folder = Path(__file__).parents[1] / "data" / "tabletop" / "eval"
    records = read_coco_panoptic(folder / "panoptic.json", images=folder / "images").records
    with Renderer(256, 320) as renderer:
        for index in (0, 40):
            committed = load_sample(records[index])
            (frame,) = dataset.render_scene(renderer, dataset.EVAL_SEEDS[index], range(1))
            assert (frame.ids == committed.panoptic).mean() > 0.995  # another driver may settle a silhouette otherwise
            difference = cv2.absdiff(frame.image, committed.image)
            assert difference.mean() < 4  # JPEG


def test_every_visible_id_has_a_category_and_nothing_is_void(scenes: list[Scene], renderer: Renderer) -> None:
    for scene in scenes:
        with renderer.open(scene) as view:
            for azimuth in (0.0, 100.0, 200.0):
                ids, _ = view.look(Camera((0.0, 0.0, 0.6), 0.8, azimuth, 25.0, 50.0))
                assert set(np.unique(ids).tolist()) <= set(scene.categories)


def test_things_stand_on_something_and_not_in_one_another(scenes: list[Scene]) -> None:
    for scene in scenes:
        for item in scene.placed:
            below = [o for o in scene.placed if (o.x, o.y) == (item.x, item.y) and o.z < item.z]
            floors = {0.0, scene.room.rug_height, scene.room.table_height} | {o.z + o.prop.height for o in below}
            assert item.z in floors
            bottom = min(float(part.mesh.vertices[:, 2].min()) for part in item.prop.parts)
            assert -1e-6 <= bottom <= 1.5e-3
        for a, b in itertools.combinations(scene.placed, 2):
            if a.z == b.z:
                one, other = (cv2.convexHull(o.polygon().astype(np.float32)) for o in (a, b))
                assert cv2.intersectConvexConvex(one, other)[0] < 1e-9


@pytest.mark.parametrize("name", MAKERS)
def test_a_thing_stays_within_its_footprint_and_height(name: str) -> None:
    for seed in range(12):
        prop = MAKERS[name](np.random.default_rng(seed))
        vertices = np.concatenate([part.mesh.vertices for part in prop.parts])
        antenna = 0.05 if name == "rover" else 0.004
        assert_allclose(vertices[:, 2].max(), prop.height, atol=antenna)
        overhang = 0.2 * prop.height if name == "ball" else 0.006  # balls may touch, though not at the table
        outline = prop.footprint.astype(np.float32)
        for x, y in vertices[:, :2].astype(float):
            assert cv2.pointPolygonTest(outline, (x, y), True) > -overhang


def signed_volume(mesh: meshes.Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize(
    ("mesh", "volume"),
    [
        (meshes.sphere(0.5), np.pi / 6),
        (meshes.lathe(meshes.sharp((0, 0), (2, 0), (2, 3), (0, 3))), 12 * np.pi),
        (meshes.lathe(meshes.sharp((0, 0), (2, 0), (0, 3))), 4 * np.pi),
        (meshes.rounded_box((1.0, 2.0, 3.0), 1e-4), 6.0),
        (meshes.moved(meshes.rounded_box((1.0, 2.0, 3.0), 1e-4, atlas=True), (4, 5, 6), yaw=1.0, swap="xzy"), 6.0),
    ],
)
def test_meshes_are_closed_and_face_outwards(mesh: meshes.Mesh, volume: float) -> None:
    assert_allclose(signed_volume(mesh), volume, rtol=0.01)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    facing = np.cross(b - a, c - a)
    for corner in range(3):
        assert (np.einsum("ij,ij->i", facing, mesh.normals[mesh.faces[:, corner]]) > 0).all()
    assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-9)


def test_a_generated_split_is_what_the_reader_expects(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = dataset.generate(
        "eval", tmp_path, count=2, seed=77, progress=lambda done, total: seen.append((done, total)), **SMALL
    )
    data = read_coco_panoptic(path, images=tmp_path / "images")
    assert seen == [(1, 2), (2, 2)]
    assert len(data.records) == 2
    for record in data.records:
        sample = load_sample(record)
        assert sample.image.shape == (96, 128, 3)
        assert {segment.id: segment.area for segment in sample.segments} == dict(
            zip(*(a.tolist() for a in np.unique(sample.panoptic, return_counts=True)), strict=True)
        )


def test_a_clip_reads_back_with_its_ids_and_moving_things(tmp_path: Path) -> None:
    path = dataset.generate_clip(tmp_path, frames=6, seed=1, **SMALL)
    clip = read_clip(path)
    assert clip.frames.shape == (6, 96, 128, 3)
    assert clip.ids.shape == (6, 96, 128)
    scene = build_scene(np.random.default_rng([dataset.CLIP_SEEDS[1], 0]), roaming=True)
    assert {s.id: s.category_id for s in clip.segments}.items() <= scene.categories.items()
    _, poses = clip_path(np.random.default_rng([dataset.CLIP_SEEDS[1], 1]), scene, 6)
    for name in ("rover", "ball"):
        assert len({pose[name].position for pose in poses}) >= 4
    (tmp_path / "clip_ids.npz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"clip_ids\.npz: missing; a clip is clip\.json, clip\.mp4 and clip_ids\.npz"
    ):
        read_clip(path)


def test_the_ball_rolls_without_slipping(renderer: Renderer) -> None:
    scene = build_scene(np.random.default_rng([dataset.CLIP_SEEDS[1], 0]), roaming=True)
    _, poses = clip_path(np.random.default_rng([dataset.CLIP_SEEDS[1], 1]), scene, 2000)
    radius = scene.placed[-1].prop.height / 2
    with renderer.open(scene) as view:
        body = scene.model.body("ball").id
        centres, rotations = [], []
        for pose in (poses[500], poses[501]):
            view.move("ball", pose["ball"].position, pose["ball"].quaternion)
            rotation = view.data.xmat[body].reshape(3, 3).copy()
            rotations.append(rotation)
            centres.append(view.data.xpos[body] + rotation @ [0, 0, radius])
    assert_allclose([c[2] for c in centres], scene.room.table_height + radius, atol=1e-9)
    lowest = rotations[0].T @ [0, 0, -radius]  # the point of the ball that touches the table now
    slip = (centres[1] + rotations[1] @ lowest) - (centres[0] + rotations[0] @ lowest)
    assert np.linalg.norm(slip) < 0.02 * np.linalg.norm(centres[1] - centres[0])


def test_training_evaluation_and_clips_share_no_seed() -> None:
    ranges = (dataset.TRAIN_SEEDS, dataset.EVAL_SEEDS, dataset.CLIP_SEEDS)
    for a, b in itertools.combinations(ranges, 2):
        assert a.stop <= b.start or b.stop <= a.start


def test_arguments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split: expected one of train, eval, got 'test'"):
        dataset.generate("test", tmp_path, count=1)
    with pytest.raises(ValueError, match=r"seed: train has scenes 0\.\.999999, 8 images from seed 999999 would need"):
        dataset.generate("train", tmp_path, count=8, seed=999_999)
    with pytest.raises(ValueError, match="width: expected a positive multiple of 32, got 100"):
        dataset.generate("train", tmp_path, count=1, hw=(256, 100))
    with pytest.raises(ValueError, match="count: expected 1 or more, got 0"):
        dataset.generate("train", tmp_path, count=0)
    with pytest.raises(ValueError, match=r"clips have scenes 0\.\.999999, got -1"):
        dataset.generate_clip(tmp_path, frames=1, seed=-1)
    (tmp_path / "panoptic.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"panoptic\.json: exists; choose another folder"):
        dataset.generate("train", tmp_path, count=1)
    (tmp_path / "clip.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"clip\.json: exists; choose another folder"):
        dataset.generate_clip(tmp_path, frames=1)


def test_a_machine_without_opengl_is_told_which_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise ImportError("Cannot initialize a EGL device display.")

    monkeypatch.setattr(opengl.mujoco, "GLContext", refuse)
    with pytest.raises(ImportError, match="apt-get install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"):
        opengl.create_context(32, 32)


def test_a_scene_opened_again_gives_the_same_picture(renderer: Renderer, scenes: list[Scene]) -> None:
    camera = Camera((0.0, 0.0, 0.6), 1.1, 40.0, 20.0, 45.0)
    pictures = []
    for _ in range(2):
        with renderer.open(scenes[0]) as view:
            _, depth = view.look(camera)
            pictures.append(view.picture(camera, depth, np.random.default_rng(3)))
    assert_array_equal(pictures[0], pictures[1])
    assert pictures[0].std() > 20
