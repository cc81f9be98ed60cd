"""COCO panoptic data sets: a JSON, its label maps and its pictures, as evaluation, training and `convert` read them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np

from fuzz import mutate
from fuzz.target import Files, Target, printable, require
from fuzz.targets.media import spoil_picture
from panrt.model.data.coco_panoptic import derive_targets, load_sample, read_classes, read_coco_panoptic
from panrt.model.panoptic_folders import evaluate_folders

H, W = 12, 16


def _encode(suffix: str, image: Any) -> bytes:
    done, content = cv2.imencode(suffix, image)
    assert done
    return content.tobytes()


@lru_cache
def data_sets() -> tuple[Files, ...]:
    """Two pictures with a thing, a crowd and stuff, as COCO has them and as Cityscapes has them."""
    ids = np.zeros((H, W), np.int32)
    ids[:4], ids[4:8, :8], ids[8:, 8:] = 70001, 300, 7
    png = np.stack([ids >> 16, ids >> 8, ids], axis=-1).astype(np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    segments = [
        {"id": 70001, "category_id": 21, "area": 64, "bbox": [0, 0, 16, 4], "iscrowd": 0},
        {"id": 300, "category_id": 1, "area": 32, "bbox": [0, 4, 8, 4], "iscrowd": 0},
        {"id": 7, "category_id": 1, "area": 32, "bbox": [8, 8, 8, 4], "iscrowd": 1},
    ]
    categories = [
        {"id": 1, "name": "person", "isthing": 1, "color": [220, 20, 60], "supercategory": "person"},
        {"id": 21, "name": "road", "isthing": 0, "color": [128, 64, 128]},
    ]
    made = []
    for names in ((1, 2), ("ulm_0_1", "ulm_0_2")):
        annotations = [{"image_id": i, "file_name": f"{i}.png", "segments_info": segments} for i in names]
        images = [{"id": i, "file_name": f"{i}.jpg", "height": H, "width": W} for i in names]
        content = {"images": images, "annotations": annotations, "categories": categories}
        files = {"truth.json": json.dumps(content).encode()}
        for name in names:
            files[f"truth/{name}.png"] = _encode(".png", png)
            files[f"images/{name}.jpg"] = _encode(".jpg", image)
        made.append(files)
    return tuple(made)


def mutate_data_set(rng: Random, files: Files) -> Files:
    if rng.random() < 0.25:
        name = rng.choice([name for name in files if name != "truth.json"])
        return {**files, name: spoil_picture(rng, files[name])}
    return {**files, "truth.json": mutate.json_text(rng, files["truth.json"].decode())}


def check_data_set(folder: Path) -> None:
    """Evaluate it against itself, and load every picture for training; both readers have their say."""
    problems: list[Exception] = []
    for read in (_evaluate, _train):
        try:
            read(folder)
        except Exception as error:
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else _worst(problems)


def _worst(problems: list[Exception]) -> Exception:
    from panrt.errors import PanrtError  # noqa: PLC0415

    return next((error for error in problems if not isinstance(error, (PanrtError, OSError))), problems[0])


def _evaluate(folder: Path) -> None:
    quality = evaluate_folders(folder / "truth.json", folder / "truth.json")
    require(0 <= quality.all.pq <= 1 or bool(np.isnan(quality.all.pq)), "a quality is a share")


def _train(folder: Path) -> None:
    data = read_coco_panoptic(folder / "truth.json", images=folder / "images")
    for record in data.records:
        sample = load_sample(record)
        targets = derive_targets(sample, data.classes)
        require(bool(np.isfinite(targets.boxes).all()), "boxes are numbers")
        require(len(targets.boxes) == len(targets.classes) == len(targets.masks), "each object has all its targets")


def class_files() -> tuple[Files, ...]:
    return tuple({"classes.json": files["truth.json"]} for files in data_sets())


def mutate_classes(rng: Random, files: Files) -> Files:
    return {"classes.json": mutate.json_text(rng, files["classes.json"].decode())}


def check_classes(folder: Path) -> None:
    """As `panrt convert --classes` reads it."""
    table = read_classes(folder / "classes.json")
    for category in (*table.things, *table.stuff):
        require(printable(category.name), "names of classes can be printed")
        require(all(0 <= channel <= 255 for channel in category.color), "colours are bytes")


TARGETS = (
    Target(name="coco", seeds=data_sets, mutate=mutate_data_set, check=check_data_set, short=250, refusals=(OSError,)),
    Target(
        name="classes", seeds=class_files, mutate=mutate_classes, check=check_classes, short=300, refusals=(OSError,)
    ),
)
