"""`panrt eval`: panoptic quality, mask AP and semantic IoU of a model, or of predictions on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panrt.cli.support import (
    Chosen,
    ClassesOption,
    ConfOption,
    DeviceOption,
    HeightOption,
    JsonOption,
    MinStuffOption,
    OverlapOption,
    Report,
    WidthOption,
    choose_device,
    chosen_size,
    chosen_thresholds,
    progress_bar,
)

if TYPE_CHECKING:
    from panrt.model.mask_ap import MaskAp
    from panrt.model.panoptic_map import Category
    from panrt.model.panoptic_quality import PanopticQuality
    from panrt.model.semantic_iou import SemanticIou


def evaluate(
    truth: Annotated[Path, typer.Option(help="Ground truth: a COCO panoptic JSON.")],
    labels: Annotated[
        Path | None, typer.Option(help="Its label maps; default: the folder of the JSON's name without .json.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="A .safetensors, .onnx or .plan file, or a name of 'panrt models'; run on --images."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The images of the ground truth.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Instead of a model: predictions as such a JSON.")] = None,
    prediction_labels: Annotated[
        Path | None, typer.Option(help="Their label maps; default: the folder of the JSON's name without .json.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Any of pq, ap and miou, separated by commas. Mask AP needs scores, hence a model.")
    ] = "pq",
    per_class: Annotated[bool, typer.Option("--per-class", help="Add a row for each class.")] = False,
    short_side: Annotated[
        int | None,
        typer.Option(min=32, help="Resize images to this shorter side (800 on COCO); default: their own size."),
    ] = None,
    max_side: Annotated[int, typer.Option(min=32, help="Longest side of a resized image.")] = 1333,
    device: DeviceOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    conf: ConfOption = None,
    overlap: OverlapOption = None,
    min_stuff: MinStuffOption = None,
    classes: ClassesOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that compare --predictions.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Compare a model or predictions with a ground truth.

    Figures are in percent, in JSON they are fractions.
    """
    chosen = _metrics(metrics)
    size = chosen_size(height, width)
    settings = chosen_thresholds(conf, overlap, min_stuff, classes)
    _check_options(model, predictions, size, settings)
    if model is not None:
        if images is None:
            raise ValueError("--model needs --images, the folder of the images.")
        if model.suffix in (".onnx", ".plan"):
            if short_side is not None or device is not None:
                raise ValueError(f"{model}: has a fixed size and device; leave --short-side and --device out.")
            results = _of_session(model, size, settings, truth, images, labels, chosen)
        else:
            results = _of_model(model, truth, images, labels, chosen, short_side, max_side, device)
    else:
        assert predictions is not None
        results = _of_folders(predictions, prediction_labels, truth, labels, chosen, workers)
    report = Report(as_json=as_json)
    for text in results.tables(per_class=per_class):
        report.table(text)
    report.end(results.to_json())


def _check_options(model: Path | None, predictions: Path | None, size: tuple[int, int] | None, chosen: Chosen) -> None:
    """Raise ValueError for options that do not go together."""
    if chosen != Chosen(thresholds=None, classes=None) and (model is None or model.suffix not in (".onnx", ".plan")):
        raise ValueError("--conf, --overlap, --min-stuff and --classes are for an .onnx or .plan file; leave them out.")
    if size is not None and (model is None or model.suffix != ".onnx"):
        raise ValueError("--height and --width are for an .onnx file whose input size is open; leave them out.")
    if (model is None) == (predictions is None):
        raise ValueError("give one of --model (with --images) and --predictions.")


def _metrics(text: str) -> tuple[str, ...]:
    known = ("pq", "ap", "miou")
    chosen = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"--metrics: got {unknown[0]!r}, expected some of {', '.join(known)} with commas between.")
    return chosen


class Results:
    """The requested measures."""

    def __init__(
        self,
        categories: tuple[Category, ...],
        *,
        pq: PanopticQuality | None,
        ap: MaskAp | None,
        miou: SemanticIou | None,
    ) -> None:
        self.categories = categories
        self.pq = pq
        self.ap = ap
        self.miou = miou

    def tables(self, *, per_class: bool) -> list[str]:
        """Return aligned text, one table per measure."""
        from panrt.model.metric_table import percent, text_table

        names = [category.name for category in self.categories]
        tables = []
        if self.pq is not None:
            tables.append(self.pq.table(per_category=per_class))
        if self.ap is not None:
            tables.append(self.ap.table())
            if per_class:
                by_id = {category.id: category.name for category in self.categories}
                rows = [(by_id[i], percent(ap)) for i, ap in self.ap.per_category.items()]
                tables.append(text_table(("", "AP"), rows))
        if self.miou is not None and per_class:
            tables.append(self.miou.table(names))
        elif self.miou is not None:
            means = (self.miou.miou, self.miou.fwiou, self.miou.pixel_accuracy)
            header = ("", "mIoU", "fwIoU", "pixel accuracy")
            tables.append(text_table(header, [("Pixels", *map(percent, means))]))
        return tables

    def to_json(self) -> dict[str, Any]:
        """Return plain data by metric."""
        measured = {"pq": self.pq, "ap": self.ap, "miou": self.miou}
        facts: dict[str, Any] = {name: value.to_json() for name, value in measured.items() if value is not None}
        if self.miou is not None:
            facts["miou"]["classes"] = [category.name for category in self.categories]
        return facts


def _of_model(
    path: Path,
    truth: Path,
    images: Path,
    labels: Path | None,
    metrics: tuple[str, ...],
    short_side: int | None,
    max_side: int,
    device: str | None,
) -> Results:
    from panrt.model.checkpoints import load
    from panrt.model.data.coco_panoptic import read_coco_panoptic
    from panrt.model.evaluate import categories_of, labelled_images, measure
    from panrt.model.training_data import check_classes

    dataset = read_coco_panoptic(truth, images=images, labels=labels)
    network = load(path).to(choose_device(device))
    classes = network.config.classes
    check_classes(dataset.classes, classes)
    with progress_bar("evaluate") as show:
        measured = measure(
            network,
            labelled_images(dataset),
            metrics=metrics,
            short_side=short_side,
            max_side=max_side,
            progress=lambda done: show(done, len(dataset.records)),
        )
    return Results(categories_of(classes), pq=measured.pq, ap=measured.ap, miou=measured.miou)


def _of_session(
    path: Path,
    size: tuple[int, int] | None,
    settings: Chosen,
    truth: Path,
    images: Path,
    labels: Path | None,
    metrics: tuple[str, ...],
) -> Results:
    """Measure in the runtime: images are fitted into the file's input, maps compared at the images' original size."""
    import numpy as np

    import panrt
    from panrt.model.data.coco_panoptic import load_sample, read_coco_panoptic
    from panrt.model.panoptic_map import Category, PanopticMap, Segment, semantic_map
    from panrt.model.panoptic_quality import PanopticStatistics, image_statistics, panoptic_quality
    from panrt.model.semantic_iou import confusion_matrix, semantic_iou

    if "ap" in metrics:
        raise ValueError(f"--metrics: ap is taken before the merge, which is inside {path}; evaluate the .safetensors.")
    dataset = read_coco_panoptic(truth, images=images, labels=labels)
    with panrt.load(path, input_hw=size, **settings) as session, progress_bar("evaluate") as show:
        categories = tuple(Category(c.id, c.name, c.is_thing) for c in (*session.model.things, *session.model.stuff))
        statistics = PanopticStatistics.empty(len(categories))
        confusion = np.zeros((len(categories), len(categories) + 1), np.int64)
        for done, record in enumerate(dataset.records, start=1):
            sample = load_sample(record)
            found = session(sample.image)
            segments = [Segment(s.id, s.category_id, s.area, s.is_crowd) for s in sample.segments]
            expected = PanopticMap(sample.panoptic, segments)
            predicted = PanopticMap(found.ids(), [Segment(s.id, s.category_id) for s in found.segments])
            statistics += image_statistics(expected, predicted, categories)
            classes = (semantic_map(labelled, categories) for labelled in (expected, predicted))
            confusion += confusion_matrix(*classes, classes=len(categories), ignored=-1)
            show(done, len(dataset.records))
    return Results(
        categories,
        pq=panoptic_quality(statistics, categories) if "pq" in metrics else None,
        ap=None,
        miou=semantic_iou(confusion) if "miou" in metrics else None,
    )


def _of_folders(
    predictions: Path,
    prediction_labels: Path | None,
    truth: Path,
    labels: Path | None,
    metrics: tuple[str, ...],
    workers: int,
) -> Results:
    from panrt.model import semantic_iou
    from panrt.model.panoptic_folders import evaluate_folders, pair_annotations, read_map
    from panrt.model.panoptic_map import semantic_map

    if "ap" in metrics:
        raise ValueError("--metrics: ap ranks by score, and panoptic predictions have none; evaluate a --model.")
    categories, pairs = pair_annotations(truth, predictions, truth_folder=labels, prediction_folder=prediction_labels)
    quality = classes = None
    if "pq" in metrics:
        with progress_bar("compare") as show:
            quality = evaluate_folders(
                truth,
                predictions,
                truth_folder=labels,
                prediction_folder=prediction_labels,
                workers=workers,
                progress=show,
            )
    if "miou" in metrics:
        maps = ([semantic_map(read_map(annotation), categories) for annotation in pair] for pair in pairs)
        classes = semantic_iou.evaluate(
            ((true_classes, found) for true_classes, found in maps), classes=len(categories), ignored=-1
        )
    return Results(categories, pq=quality, ap=None, miou=classes)
