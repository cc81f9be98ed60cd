"""Panoptic quality of predictions on disk, in the COCO panoptic format.

Shapes: H, W image size. A set is a JSON file and a folder of PNG files, by default the JSON's path without its suffix.

A PNG is 8-bit RGB and holds the segment id R + 256 G + 65536 B; 0 is void. Read from the ground truth are `categories`
and `annotations`, from the predictions the `annotations`, whose segments need an id and a category_id only: their areas
are counted in the map. `panrt.model.data.panoptic_json` has the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from panrt.errors import PanopticFormatError
from panrt.formats.records import legible, shown
from panrt.model.data.panoptic_json import PanopticJson, check_folder, read_panoptic_png, within
from panrt.model.panoptic_map import Category, PanopticMap, Segment
from panrt.model.panoptic_quality import PanopticQuality, PanopticStatistics, image_statistics, panoptic_quality
from panrt.model.worker_processes import worker_processes

__all__ = [
    "Annotation",
    "PanopticSet",
    "evaluate_folders",
    "pair_annotations",
    "read_ground_truth",
    "read_map",
    "read_panoptic_png",
    "read_predictions",
]


class Annotation(NamedTuple):
    """The panoptic annotation of one image."""

    image_id: int | str
    folder: Path
    file_name: str  # of the PNG in the folder
    segments: tuple[Segment, ...]

    @property
    def png(self) -> Path:
        """The label map."""
        return self.folder / self.file_name


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
    """Compute the panoptic quality of predictions against the ground truth, both in the COCO panoptic format.

    Every image of the ground truth needs a prediction; predictions for other images are ignored.

    Args:
        truth_json: ground truth, with the categories.
        prediction_json: predictions.
        truth_folder: the PNGs of the ground truth; default: `truth_json` without its suffix.
        prediction_folder: the predicted PNGs; default: `prediction_json` without its suffix.
        workers: processes. Each takes a moment to start, so more than one is for large sets at most; measure it.
        progress: called in the caller's thread with (images done, images in all) after every image.

    Raises:
        PanopticNotFoundError: a JSON file, a folder or a PNG is not there.
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
            pool = stack.enter_context(worker_processes(workers))
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
    """Return the categories, and each image's annotation and prediction; arguments and errors as `evaluate_folders`."""
    categories, truths = read_ground_truth(truth_json, truth_folder)
    _, predicted = read_predictions(prediction_json, prediction_folder)
    predictions = {annotation.image_id: annotation for annotation in predicted}
    if missing := [truth.image_id for truth in truths if truth.image_id not in predictions]:
        raise PanopticFormatError(
            f"{legible(prediction_json)}: no prediction for {len(missing)} of {len(truths)} images, first "
            f"{shown(missing[0])}; add an annotation for every image of the ground truth, without segments where "
            "nothing was found."
        )
    return categories, [(truth, predictions[truth.image_id]) for truth in truths]


def read_map(annotation: Annotation) -> PanopticMap:
    """Read the map of an annotation with its segments; errors as `read_panoptic_png`."""
    return PanopticMap(read_panoptic_png(within(annotation.folder, annotation.file_name)), annotation.segments)


def _file_statistics(pair: tuple[Annotation, Annotation], *, categories: tuple[Category, ...]) -> PanopticStatistics:
    truth, prediction = pair
    true_map, predicted_map = map(read_map, pair)
    try:
        return image_statistics(true_map, predicted_map, categories)
    except PanopticFormatError as error:
        raise PanopticFormatError(f"image {shown(truth.image_id)}, {legible(prediction.png)}: {error}") from error


def read_ground_truth(path: Path | str, folder: Path | str | None = None) -> PanopticSet:
    """Read the categories and annotations of a ground truth.

    Args:
        path: the JSON file.
        folder: of the PNGs; default: `path` without its suffix.

    Raises:
        PanopticNotFoundError: the file or the folder is not there.
        PanopticFormatError: a field is missing or of another type, or an id is listed twice.
    """
    content = PanopticJson(path)
    categories = tuple(Category(c.id, c.name, c.is_thing) for c in content.categories())
    return PanopticSet(categories, _annotations(content, folder, of_truth=True))


def read_predictions(path: Path | str, folder: Path | str | None = None) -> PanopticSet:
    """Read the annotations of predictions, without categories; see `read_ground_truth`."""
    return PanopticSet((), _annotations(PanopticJson(path), folder, of_truth=False))


def _annotations(content: PanopticJson, folder: Path | str | None, *, of_truth: bool) -> tuple[Annotation, ...]:
    folder = content.path.with_suffix("") if folder is None else Path(folder)
    annotations = content.annotations(of_truth=of_truth)
    check_folder(folder, "label maps", content.path)
    return tuple(Annotation(a.image_id, folder, a.file_name, a.segments) for a in annotations)
