"""Panoptic quality of predictions on disk, in the COCO panoptic format.

Shapes: H, W image size. A set is a JSON file and a folder of PNG files, by default the JSON's path without its suffix.

A PNG is 8-bit RGB and holds the segment id R + 256 G + 65536 B; 0 is void. Read from the ground truth are `categories`
(id, name, isthing) and `annotations` (image_id, file_name, segments_info of id, category_id, area, iscrowd), from the
predictions the `annotations`, whose segments need an id and a category_id only: their areas are counted in the map.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from panrt.model.panoptic_map import Category, PanopticFormatError, PanopticMap, Segment
from panrt.model.panoptic_quality import PanopticQuality, PanopticStatistics, image_statistics, panoptic_quality

Record = Mapping[str, object]
T = TypeVar("T")


class Annotation(NamedTuple):
    """The panoptic annotation of one image."""

    image_id: int | str
    png: Path
    segments: tuple[Segment, ...]


class PanopticSet(NamedTuple):
    """The contents of a COCO panoptic JSON file."""

    categories: tuple[Category, ...]  # empty for predictions
    annotations: tuple[Annotation, ...]


def evaluate_folders(
    truth_json: Path | str,
    prediction_json: Path | str,
    *,
    truth_folder: Path | str | None = None,
    prediction_folder: Path | str | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> PanopticQuality:
    """Panoptic quality of a set of predictions against the ground truth, both in the COCO panoptic format.

    Every image of the ground truth needs a prediction; predictions for other images are not looked at.

    Args:
        truth_json: ground truth, with the categories.
        prediction_json: predictions.
        truth_folder: the PNGs of the ground truth; default: `truth_json` without its suffix.
        prediction_folder: the predicted PNGs; default: `prediction_json` without its suffix.
        workers: processes. Each takes a moment to start, so more than one is for large sets at most; measure it.
        progress: called in the caller's thread with (images done, images in all) after every image.

    Raises:
        FileNotFoundError: a JSON file, a folder or a PNG is not there.
        PanopticFormatError: a file is not in the format, an image has no prediction, or map and segments do not agree.
    """
    categories, pairs = pair_annotations(
        truth_json, prediction_json, truth_folder=truth_folder, prediction_folder=prediction_folder
    )
    judge = partial(_file_statistics, categories=categories)
    total = PanopticStatistics.empty(len(categories))
    with ExitStack() as stack:
        results: Iterator[PanopticStatistics] = map(judge, pairs)
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
            results = pool.map(judge, pairs, chunksize=16)
        for done, statistics in enumerate(results, start=1):
            total += statistics
            if progress is not None:
                progress(done, len(pairs))
    return panoptic_quality(total, categories)


def pair_annotations(
    truth_json: Path | str,
    prediction_json: Path | str,
    *,
    truth_folder: Path | str | None = None,
    prediction_folder: Path | str | None = None,
) -> tuple[tuple[Category, ...], list[tuple[Annotation, Annotation]]]:
    """The categories, and each image's annotation with its prediction; arguments and errors as `evaluate_folders`."""
    categories, truths = read_ground_truth(truth_json, truth_folder)
    _, predicted = read_predictions(prediction_json, prediction_folder)
    predictions = {annotation.image_id: annotation for annotation in predicted}
    if missing := [truth.image_id for truth in truths if truth.image_id not in predictions]:
        raise PanopticFormatError(
            f"{prediction_json}: no prediction for {len(missing)} of {len(truths)} images, first {missing[0]!r}; "
            "add an annotation for every image of the ground truth, without segments where nothing was found."
        )
    return categories, [(truth, predictions[truth.image_id]) for truth in truths]


def read_map(annotation: Annotation) -> PanopticMap:
    """The map of an annotation with its segments; errors as `read_panoptic_png`."""
    return PanopticMap(read_panoptic_png(annotation.png), annotation.segments)


def _file_statistics(pair: tuple[Annotation, Annotation], *, categories: tuple[Category, ...]) -> PanopticStatistics:
    truth, prediction = pair
    true_map, predicted_map = map(read_map, pair)
    try:
        return image_statistics(true_map, predicted_map, categories)
    except PanopticFormatError as error:
        raise PanopticFormatError(f"image {truth.image_id!r}, {prediction.png}: {error}") from error


def read_ground_truth(path: Path | str, folder: Path | str | None = None) -> PanopticSet:
    """Read the categories and annotations of a ground truth.

    Args:
        path: the JSON file.
        folder: of the PNGs; default: `path` without its suffix.

    Raises:
        FileNotFoundError: the file or the folder is not there.
        PanopticFormatError: a field is missing or of another type, or an id is listed twice.
    """
    root = _read_json(path)
    categories = tuple(
        Category(node.get("id", int), node.get("name", str), node.get("isthing", int) == 1)
        for node in root.children("categories")
    )
    _check_unique([category.id for category in categories], root.where, "category")
    return PanopticSet(categories, _annotations(root, path, folder, _true_segment))


def read_predictions(path: Path | str, folder: Path | str | None = None) -> PanopticSet:
    """Read the annotations of predictions, without categories; see `read_ground_truth`."""
    return PanopticSet((), _annotations(_read_json(path), path, folder, _predicted_segment))


def read_panoptic_png(path: Path | str) -> npt.NDArray[np.uint32]:
    """Decode a panoptic PNG to its (H, W) segment ids.

    Raises:
        FileNotFoundError: there is no such file.
        PanopticFormatError: it is no readable PNG, or not an 8-bit RGB one.
    """
    data = np.fromfile(path, dtype=np.uint8)
    bgr = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if bgr is None:
        raise PanopticFormatError(f"{path}: not a PNG, or a damaged one ({data.size} bytes); write it again.")
    channels = bgr.shape[2] if bgr.ndim == 3 else 1
    if bgr.dtype != np.uint8 or channels != 3:
        raise PanopticFormatError(
            f"{path}: expected an 8-bit RGB PNG, id = R + 256 G + 65536 B, got {channels} channels of {bgr.dtype}."
        )
    rgba = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGBA)
    ids: npt.NDArray[np.uint32] = rgba.view(np.uint32)[..., 0] & np.uint32(0xFFFFFF)  # R is the lowest byte
    return ids


class _Node(NamedTuple):
    """A JSON object that knows where it stands, for errors."""

    where: str
    fields: Mapping[str, object]

    def get(self, name: str, kind: type[T]) -> T:
        value = self.fields.get(name)
        if not isinstance(value, kind):
            found = "nothing" if name not in self.fields else repr(value)
            raise PanopticFormatError(f"{self.where}: {name}: expected {kind.__name__}, got {found}.")
        return value

    def children(self, name: str) -> Iterator[_Node]:
        for i, child in enumerate(self.get(name, list)):
            where = f"{self.where}: {name}[{i}]"
            if not isinstance(child, dict):
                raise PanopticFormatError(f"{where}: expected an object, got {child!r}.")
            yield _Node(where, child)


def _read_json(path: Path | str) -> _Node:
    with open(path, encoding="utf-8") as file:
        try:
            root = json.load(file)
        except ValueError as error:
            raise PanopticFormatError(f"{path}: not JSON ({error}).") from error
    if not isinstance(root, dict):
        raise PanopticFormatError(f"{path}: expected an object with annotations, got {type(root).__name__}.")
    return _Node(str(path), root)


def _annotations(
    root: _Node, path: Path | str, folder: Path | str | None, segment: Callable[[_Node], Segment]
) -> tuple[Annotation, ...]:
    folder = Path(path).with_suffix("") if folder is None else Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: the folder with the PNGs of {path} is not there; give its path.")
    annotations = tuple(
        Annotation(
            _image_id(node), folder / node.get("file_name", str), tuple(map(segment, node.children("segments_info")))
        )
        for node in root.children("annotations")
    )
    _check_unique([annotation.image_id for annotation in annotations], root.where, "image")
    return annotations


def _image_id(node: _Node) -> int | str:
    """COCO counts its images, Cityscapes names them."""
    image_id = node.get("image_id", object)
    if not isinstance(image_id, (int, str)):
        raise PanopticFormatError(f"{node.where}: image_id: expected int or str, got {image_id!r}.")
    return image_id


def _true_segment(node: _Node) -> Segment:
    return Segment(
        node.get("id", int), node.get("category_id", int), node.get("area", int), node.get("iscrowd", int) == 1
    )


def _predicted_segment(node: _Node) -> Segment:
    return Segment(node.get("id", int), node.get("category_id", int))


def _check_unique(ids: Sequence[int | str], where: str, what: str) -> None:
    if repeated := [i for i, count in Counter(ids).items() if count > 1]:
        raise PanopticFormatError(
            f"{where}: {what} {repeated[0]!r} is listed {ids.count(repeated[0])} times, not once."
        )
