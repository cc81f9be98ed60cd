"""Write the tabletop as a COCO panoptic data set, or as a clip.

A data set folder holds `images/*.jpg`, `panoptic/*.png` (id = R + 256 G + 65536 B) and `panoptic.json`. The same seed
gives the same bytes, whatever the number of workers.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from examples.tabletop.classes import CLASSES
from examples.tabletop.render import Ids, Image, Renderer
from examples.tabletop.scene import Scene, build_scene
from examples.tabletop.views import choose_view, clip_path
from panrt.model.worker_processes import worker_processes

TRAIN_SEEDS = range(1_000_000)
EVAL_SEEDS = range(1_000_000, 2_000_000)  # never trained on
CLIP_SEEDS = range(2_000_000, 3_000_000)  # never trained on

HW = (256, 320)  # height and width of the images
VIEWS_PER_SCENE = 4
JPEG_QUALITY = 92
FRAMES_PER_SECOND = 25

Progress = Callable[[int, int], None]  # frames done, frames in all


class Frame(NamedTuple):
    """One labelled image."""

    image: Image  # (H, W, 3) BGR
    ids: Ids  # (H, W), 0 is void
    categories: dict[int, int]  # panoptic id -> category id


def render_scene(renderer: Renderer, seed: int, views: range) -> Iterator[Frame]:
    """Draw the given views of the scene of one seed. View v does not depend on the others."""
    scene = build_scene(np.random.default_rng([seed, 0]))
    with renderer.open(scene) as view:
        for index in views:
            rng = np.random.default_rng([seed, 1 + index])
            camera, ids, depth = choose_view(rng, scene, view)
            yield Frame(view.picture(camera, depth, rng), ids, scene.categories)


def generate(
    split: str,
    out: Path,
    *,
    count: int,
    seed: int = 0,
    hw: tuple[int, int] = HW,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Generate the split "train" (four views of each scene) or "eval" (one view of each), from seeds of its own.

    Args:
        split: "train" or "eval".
        out: folder of the data set; must not contain one yet.
        count: number of images.
        seed: first scene, counted from the start of the split's seeds.
        hw: height and width of the images, multiples of 32.
        workers: processes that draw.
        progress: called after each image.

    Returns:
        the JSON file.

    Raises:
        ValueError: an argument is invalid, or the seeds exceed the split's range.
    """
    ranges = {"train": (TRAIN_SEEDS, VIEWS_PER_SCENE), "eval": (EVAL_SEEDS, 1)}
    if split not in ranges:
        raise ValueError(f"split: expected one of {', '.join(ranges)}, got {split!r}")
    seeds, views = ranges[split]
    last = seed + (count - 1) // views
    if not (seed >= 0 and last < len(seeds)):
        raise ValueError(
            f"seed: {split} has scenes 0..{len(seeds) - 1}, {count} images from seed {seed} would need {seed}..{last}"
        )
    return generate_images(out, count=count, seed=seeds[seed], hw=hw, views=views, workers=workers, progress=progress)


def generate_images(
    out: Path,
    *,
    count: int,
    seed: int,
    hw: tuple[int, int] = HW,
    views: int = VIEWS_PER_SCENE,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write `count` images of the scenes `seed`, `seed + 1`, ..., `views` of each, as a COCO panoptic data set.

    Returns:
        the JSON file.

    Raises:
        ValueError: an argument does not fit.
        FileExistsError: `out` already holds a data set.
    """
    _check(count=count, views=views, workers=workers)
    _check_size(hw)
    target = out / "panoptic.json"
    if target.exists():
        raise FileExistsError(f"{target}: exists; choose another folder or delete this one")
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "panoptic").mkdir(exist_ok=True)
    jobs = [
        _Job(out, seed + scene, range(min(views, count - scene * views)), scene * views, hw)
        for scene in range(-(-count // views))
    ]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for written in _run(jobs, workers):
        for image, annotation in written:
            images.append(image)
            annotations.append(annotation)
            if progress is not None:
                progress(len(images), count)
    record = {
        "info": _info(f"Tabletop: {count} images, scenes {seed}..{seed + len(jobs) - 1}, {views} view(s) each"),
        "licenses": _LICENSES,
        "images": images,
        "annotations": annotations,
        "categories": _categories(),
    }
    target.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    return target


def generate_clip(
    out: Path,
    *,
    frames: int,
    seed: int = 0,
    hw: tuple[int, int] = HW,
    quality: int = 23,
    name: str = "clip",
    progress: Progress | None = None,
) -> Path:
    """Write a clip of one scene with a moving camera, a driving rover and a rolling ball; ids stay the same over time.

    Args:
        out: folder; the clip is `name`.json, `name`.mp4 and `name`_ids.npz (see `clip.read_clip`).
        frames: length, at 25 frames per second.
        seed: scene, counted from the start of `CLIP_SEEDS`.
        hw: height and width of the images, multiples of 32.
        quality: H.264 constant rate factor, lower is better.
        name: of the files.
        progress: called after each frame.

    Returns:
        the JSON file.

    Raises:
        ValueError: an argument does not fit.
        FileExistsError: `out` already holds a clip of that name.
    """
    _check(frames=frames)
    _check_size(hw)
    if not 0 <= seed < len(CLIP_SEEDS):
        raise ValueError(f"seed: clips have scenes 0..{len(CLIP_SEEDS) - 1}, got {seed}")
    target = out / f"{name}.json"
    if target.exists():
        raise FileExistsError(f"{target}: exists; choose another folder or delete this one")
    out.mkdir(parents=True, exist_ok=True)
    scene = build_scene(np.random.default_rng([CLIP_SEEDS[seed], 0]), roaming=True)
    labels = np.empty((frames, *hw), np.uint8)
    with _video(target.with_suffix(".mp4"), hw, quality) as write:
        for index, frame in enumerate(_film(scene, frames, seed, hw)):
            labels[index] = frame.ids
            write(frame.image)
            if progress is not None:
                progress(index + 1, frames)
    np.savez_compressed(target.with_name(f"{name}_ids.npz"), ids=labels)
    seen = set(np.unique(labels).tolist())
    record = {
        "info": _info(f"Tabletop clip: {frames} frames, scene {CLIP_SEEDS[seed]}"),
        "licenses": _LICENSES,
        "frames_per_second": FRAMES_PER_SECOND,
        "height": hw[0],
        "width": hw[1],
        "segments": [{"id": i, "category_id": category} for i, category in scene.categories.items() if i in seen],
        "categories": _categories(),
    }
    target.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    return target


@contextmanager
def _video(path: Path, hw: tuple[int, int], quality: int) -> Iterator[Callable[[Image], None]]:
    """An H.264 file; call the given function with each frame."""
    with av.open(str(path), "w") as container:  # noqa: TID251
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.height, stream.width, stream.pix_fmt = *hw, "yuv420p"
        stream.options = {"crf": str(quality), "preset": "veryslow", "threads": "1"}
        yield lambda image: container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())


class _Job(NamedTuple):
    """One scene for a worker."""

    out: Path
    seed: int
    views: range
    first_id: int
    hw: tuple[int, int]


def _run(jobs: list[_Job], workers: int) -> Iterator[list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Do the jobs, results in order. Each worker process has an OpenGL context."""
    if workers == 1:
        with Renderer(*jobs[0].hw) as renderer:
            for job in jobs:
                yield _write_scene(renderer, job)
        return
    with worker_processes(workers) as pool:
        yield from pool.map(_write_scene_alone, jobs)


def _write_scene_alone(job: _Job) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    with Renderer(*job.hw) as renderer:
        return _write_scene(renderer, job)


def _write_scene(renderer: Renderer, job: _Job) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Write the images and label maps of a scene; return their `images` and `annotations` entries."""
    entries = []
    for offset, frame in enumerate(render_scene(renderer, job.seed, job.views)):
        image_id = job.first_id + offset + 1
        stem = f"{image_id:06d}"
        _write(job.out / "images" / f"{stem}.jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        coded = np.stack([frame.ids >> 16, frame.ids >> 8 & 255, frame.ids & 255], -1).astype(np.uint8)  # BGR
        _write(job.out / "panoptic" / f"{stem}.png", coded, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        image = {"id": image_id, "file_name": f"{stem}.jpg", "height": job.hw[0], "width": job.hw[1], "license": 1,
                 "seed": job.seed, "view": job.views[offset]}  # fmt: skip
        entries.append((image, {"image_id": image_id, "file_name": f"{stem}.png", "segments_info": _segments(frame)}))
    return entries


def _segments(frame: Frame) -> list[dict[str, Any]]:
    segments = []
    for i in np.unique(frame.ids).tolist():
        if i == 0:
            continue
        mask = frame.ids == i
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
        segments.append(
            {"id": i, "category_id": frame.categories[i], "area": int(mask.sum()), "bbox": box, "iscrowd": 0}
        )
    return segments


def _film(scene: Scene, frames: int, seed: int, hw: tuple[int, int]) -> Iterator[Frame]:
    cameras, poses = clip_path(np.random.default_rng([CLIP_SEEDS[seed], 1]), scene, frames)
    with Renderer(*hw) as renderer, renderer.open(scene) as view:
        for camera, moved in zip(cameras, poses, strict=True):
            for name, pose in moved.items():
                view.move(name, pose.position, pose.quaternion)
            ids, depth = view.look(camera)
            yield Frame(view.picture(camera, depth, None), ids, scene.categories)


def _write(path: Path, image: Image, options: list[int]) -> None:
    if not cv2.imwrite(str(path), image, options):
        raise OSError(f"{path}: could not be written")


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: expected 1 or more, got {value}")


def _check_size(hw: tuple[int, int]) -> None:
    for name, value in zip(("height", "width"), hw, strict=True):
        if value < 32 or value % 32:
            raise ValueError(f"{name}: expected a positive multiple of 32, got {value}")


def _info(description: str) -> dict[str, Any]:
    return {
        "description": description + ". Simulated; every mesh, texture and label is drawn by PanRT's own code.",
        "version": "1.0",
        "contributor": "the PanRT authors",
    }


_LICENSES = [{"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}]


def _categories() -> list[dict[str, Any]]:
    return [{"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)} for c in CLASSES]
