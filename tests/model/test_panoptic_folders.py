"""Panoptic quality of COCO panoptic folders: equal to hotcoco's, and clear about what is wrong with a file."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import hotcoco.panoptic
import numpy as np
import pytest
from numpy.typing import NDArray

from panrt.errors import PanopticFormatError
from panrt.model.panoptic_folders import evaluate_folders, read_panoptic_png
from panrt.model.panoptic_map import PanopticMap
from panrt.model.panoptic_quality import evaluate
from support.panoptic_maps import CATEGORIES, random_pair

Pairs = list[tuple[PanopticMap, PanopticMap]]

Folders = tuple[Path, Path]  # of the ground truth and of the prediction


def make_pairs(seed: int, images: int = 12) -> Pairs:
    rng = np.random.default_rng(seed)
    return [random_pair(rng, 24, 32) for _ in range(images)]


def write_png(path: Path, ids: np.ndarray) -> None:
    bgr = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype(np.uint8)
    assert cv2.imwrite(str(path), bgr)


def write_folders(folder: Path, pairs: Pairs) -> tuple[Path, Path]:
    categories = [{"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": [0, 0, 0]} for c in CATEGORIES]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 24, "width": 32} for i in range(len(pairs))]
    paths = folder / "truth.json", folder / "prediction.json"
    for path, maps in zip(paths, zip(*pairs, strict=True), strict=True):
        path.with_suffix("").mkdir()
        annotations = []
        for i, (ids, segments) in enumerate(maps):
            write_png(path.with_suffix("") / f"{i}.png", ids)
            infos = [{"id": s.id, "category_id": s.category_id} for s in segments]
            if path.stem == "truth":
                infos = [
                    {**info, "area": s.area, "iscrowd": int(s.is_crowd)}
                    for info, s in zip(infos, segments, strict=True)
                ]
            annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": infos})
        path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return paths


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_folders(tmp_path, make_pairs(0, images=3))


@pytest.mark.parametrize("seed", range(20))
def test_quality_equals_that_of_hotcoco(tmp_path: Path, seed: int) -> None:
    """hotcoco is an independent implementation of the whole definition, crowds and void included."""
    truth, prediction = write_folders(tmp_path, make_pairs(seed))
    own = evaluate_folders(truth, prediction)
    with contextlib.redirect_stdout(io.StringIO()):
        peer = hotcoco.panoptic.pq_compute(truth, prediction)
    for name, average in (("All", own.all), ("Things", own.things), ("Stuff", own.stuff)):
        expected = [peer[name][key] for key in ("pq", "sq", "rq", "n")]
        assert list(average) == pytest.approx(expected, rel=0, abs=1e-9)
    for quality in own.per_category:
        expected = peer["per_class"][quality.category.id]
        counts = quality.tp, quality.fp, quality.fn
        assert counts == (expected["tp"], expected["fp"], expected["fn"])
        if any(counts):
            qualities = [expected[key] for key in ("pq", "sq", "rq")]
            assert list(quality[1:4]) == pytest.approx(qualities, rel=0, abs=1e-9)


def test_folders_and_streams_and_any_number_of_workers_agree(tmp_path: Path) -> None:
    pairs = make_pairs(1, images=20)
    truth, prediction = write_folders(tmp_path, pairs)
    progress: list[tuple[int, int]] = []
    alone = evaluate_folders(truth, prediction, progress=lambda done, total: progress.append((done, total)))
    shared = evaluate_folders(truth, prediction, workers=2)
    assert alone.to_json() == shared.to_json() == evaluate(pairs, CATEGORIES).to_json()
    assert progress == [(i, 20) for i in range(1, 21)]


def test_images_without_a_ground_truth_are_not_looked_at(folders: Folders) -> None:
    truth, prediction = folders
    edit(
        prediction, lambda root: root["annotations"].append({"image_id": 9, "file_name": "9.png", "segments_info": []})
    )
    assert evaluate_folders(truth, prediction).images == 3


def test_folders_may_have_names_of_their_own(folders: Folders) -> None:
    truth, prediction = folders
    elsewhere = truth.parent / "elsewhere"
    truth.with_suffix("").rename(elsewhere)
    assert evaluate_folders(truth, prediction, truth_folder=elsewhere).images == 3


def test_ids_are_little_endian_rgb(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.array([[0, 1, 256, 65536, 0xFFFFFF]]))
    assert read_panoptic_png(tmp_path / "a.png").tolist() == [[0, 1, 256, 65536, 0xFFFFFF]]
    assert np.asarray(cv2.imread(str(tmp_path / "a.png")))[0, 1].tolist() == [
        0,
        0,
        1,
    ]  # red, last in OpenCV's order, is lowest


def edit(path: Path, change: Callable[[Any], object]) -> None:
    root = json.loads(path.read_text())
    change(root)
    path.write_text(json.dumps(root))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "prediction",
            lambda r: r["annotations"].pop(1),
            "prediction.json: no prediction for 1 of 3 images, first 1; add",
        ),
        ("prediction", lambda r: r["annotations"].append(r["annotations"][0]), "image 0 is listed more than once"),
        ("prediction", lambda r: r.pop("annotations"), "prediction.json: this is a list of images without annotations"),
        (
            "prediction",
            lambda r: r["annotations"][1].update(segments_info=[{"id": 4}]),
            r"annotations\[1\]\.segments_info\[0\]: category_id: expected a whole number from 0 to \d+, got nothing",
        ),
        (
            "prediction",
            lambda r: r["annotations"][2].update(image_id=None),
            "image_id: expected a whole number or a name, got None",
        ),
        ("prediction", lambda r: r["annotations"][2].update(segments_info=[3]), "expected an object, got 3"),
        (
            "prediction",
            lambda r: r["annotations"][2].update(segments_info=[]),
            r"image 2, .*2.png: prediction: ids .* are in the map but not among the segments",
        ),
        ("truth", lambda r: r.pop("categories"), "truth.json: categories: expected a list of objects, got nothing"),
        ("truth", lambda r: r["categories"].append(r["categories"][0]), "category 1 is listed more than once"),
        (
            "truth",
            lambda r: r["annotations"][0]["segments_info"][0].update(area="9"),
            r"annotations\[0\]\.segments_info\[0\]: area: expected a number of pixels, got '9'",
        ),
        (
            "truth",
            lambda r: r["annotations"][0]["segments_info"][0].update(iscrowd="no"),
            "iscrowd: expected 0 or 1, got 'no'",
        ),
    ],
)
def test_a_faulty_json_is_an_error_that_names_the_place(
    folders: Folders, name: str, change: Callable[[Any], object], message: str
) -> None:
    edit(folders[0].with_stem(name), change)
    with pytest.raises(PanopticFormatError, match=message):
        evaluate_folders(*folders)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_file_that_is_no_panoptic_json_is_an_error(folders: Folders, text: str) -> None:
    folders[1].write_text(text)
    with pytest.raises(PanopticFormatError, match=r"prediction\.json: (invalid JSON|this is a list)"):
        evaluate_folders(*folders)


def test_what_is_not_there_is_named(folders: Folders) -> None:
    truth, prediction = folders
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        evaluate_folders(truth.with_name("nothing.json"), prediction)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; expected the label maps of truth\.json"):
        evaluate_folders(truth, prediction, truth_folder=truth.with_name("nowhere"))
    (prediction.with_suffix("") / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png"):
        evaluate_folders(truth, prediction)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_prediction_of_another_size_is_an_error_that_names_the_image(folders: Folders, workers: int) -> None:
    write_png(folders[1].with_suffix("") / "1.png", np.zeros((24, 31), np.int32))
    with pytest.raises(PanopticFormatError, match=r"image 1, .*1\.png: prediction: expected the size .*\(24, 31\)"):
        evaluate_folders(*folders, workers=workers)


@pytest.mark.parametrize(
    "damage", [lambda png: b"", lambda png: png[: len(png) // 2], lambda png: png[8:], lambda png: png[:-12]]
)
def test_a_damaged_png_is_an_error(folders: Folders, damage: Callable[[bytes], bytes]) -> None:
    path = folders[1].with_suffix("") / "1.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PanopticFormatError, match=r"1\.png: (not an image that|the file is empty|.* truncated)"):
        evaluate_folders(*folders)


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        (np.zeros((4, 4), np.uint8), "a PNG of 8 bits, grey"),
        (np.zeros((4, 4), np.uint16), "a PNG of 16 bits, grey"),
        (np.zeros((4, 4, 4), np.uint8), "transparent pixels"),
    ],
)
def test_a_png_that_is_not_rgb_is_an_error(tmp_path: Path, pixels: NDArray[Any], found: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    with pytest.raises(PanopticFormatError, match=f"expected an 8-bit RGB PNG, .* got {found}"):
        read_panoptic_png(tmp_path / "a.png")
