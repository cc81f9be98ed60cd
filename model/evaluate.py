"""Panoptic quality, mask AP and semantic IoU of a network on labelled images.

    quality = evaluate(model, labelled_images(dataset))
    train(..., evaluate=lambda model: headline(evaluate(model, labelled_images(dataset))))

Shapes: N images of a batch, H x W pixels, K detections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from panrt.model.custom_ops import PanopticSegments
from panrt.model.data.classes import ClassTable
from panrt.model.data.coco_panoptic import CocoPanoptic, check_masks, load_sample
from panrt.model.mask_ap import Detection, MaskAp, TrueInstance, mask_ap
from panrt.model.panoptic_fpn import Branches, PanopticFPN, merge
from panrt.model.panoptic_map import Category, PanopticMap, Segment, semantic_map
from panrt.model.panoptic_quality import PanopticQuality, PanopticStatistics, image_statistics, panoptic_quality
from panrt.model.semantic_iou import SemanticIou, confusion_matrix, semantic_iou
from panrt.model.training_data import resize_image
from panrt.plugins.merge_reference import paste_mask, scale_box

LabelledImage = tuple[NDArray[np.uint8], PanopticMap]  # (H, W, 3) BGR and its annotation (H, W)
METRICS = ("pq", "ap", "miou")
MASK_THRESHOLD = 0.5


class Measures(NamedTuple):
    """The requested metrics; None for the others."""

    pq: PanopticQuality | None
    ap: MaskAp | None  # of the detections before the merge; the truth is the things of the panoptic annotation
    miou: SemanticIou | None  # of the panoptic map, each pixel with its segment's category; void not counted


def evaluate(
    model: PanopticFPN,
    pairs: Iterable[LabelledImage],
    *,
    short_side: int | None = None,
    max_side: int = 1333,
    progress: Callable[[int], None] | None = None,
) -> PanopticQuality:
    """Return the panoptic quality alone; see `measure`."""
    quality = measure(model, pairs, metrics=("pq",), short_side=short_side, max_side=max_side, progress=progress).pq
    assert quality is not None
    return quality


def measure(
    model: PanopticFPN,
    pairs: Iterable[LabelledImage],
    *,
    metrics: Collection[str] = METRICS,
    short_side: int | None = None,
    max_side: int = 1333,
    progress: Callable[[int], None] | None = None,
) -> Measures:
    """Measure a network: segment each image once and compare with the truth, at the truth's size.

    Args:
        model: in eval mode; its class table must be that of the truth.
        pairs: consumed lazily.
        metrics: some of METRICS.
        short_side: shorter side of the images that the network sees; None: their own size.
        max_side: of an image that is resized, the longer side at most.
        progress: called with the number of images done after each.

    Raises:
        ValueError: no such metric, or the network has no instance branch to take the AP of.
        PanopticFormatError: an annotation contradicts itself or names an unknown category.
    """
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"metrics: got {unknown[0]!r}, expected some of {', '.join(METRICS)}.")
    if "ap" in metrics and model.instance is None:
        raise ValueError(f"metrics: {model.config.name} has no instance branch, so it has no mask AP.")
    classes = model.config.classes
    comparison = _Comparison(classes, metrics)

    def compared() -> Iterator[tuple[list[TrueInstance], list[Detection]]]:
        for done, (image, truth) in enumerate(pairs, start=1):
            found, branches = _segment(model, image, short_side, max_side, with_branches="ap" in metrics)
            comparison.add(truth, panoptic_map(found, classes))
            if branches is None:
                yield [], []
            else:
                yield _true_instances(truth, classes), _detections(branches, classes, truth.panoptic.shape)
            if progress is not None:
                progress(done)

    masks = None
    if "ap" in metrics:
        masks = mask_ap(compared(), [category.id for category in classes.things])
    else:
        for _ in compared():
            pass
    return comparison.measures(masks)


class _Comparison:
    """Counts over pairs of panoptic maps, from which the metrics other than mask AP follow."""

    def __init__(self, classes: ClassTable, metrics: Collection[str]) -> None:
        self.categories = categories_of(classes)
        self.metrics = metrics
        self.statistics = PanopticStatistics.empty(len(self.categories))
        self.confusion = np.zeros((len(self.categories), len(self.categories) + 1), np.int64)

    def add(self, truth: PanopticMap, predicted: PanopticMap) -> None:
        if "pq" in self.metrics:
            self.statistics += image_statistics(truth, predicted, self.categories)
        if "miou" in self.metrics:
            labels = (semantic_map(labelled, self.categories) for labelled in (truth, predicted))
            self.confusion += confusion_matrix(*labels, classes=len(self.categories), ignored=-1)

    def measures(self, masks: MaskAp | None) -> Measures:
        return Measures(
            pq=panoptic_quality(self.statistics, self.categories) if "pq" in self.metrics else None,
            ap=masks,
            miou=semantic_iou(self.confusion) if "miou" in self.metrics else None,
        )


class _Detected(NamedTuple):
    branches: Branches
    input_hw: tuple[int, int]  # of the image that the network saw


@torch.no_grad()
def _segment(
    model: PanopticFPN, image: NDArray[np.uint8], short_side: int | None, max_side: int, *, with_branches: bool
) -> tuple[PanopticSegments, _Detected | None]:
    output_hw = image.shape[0], image.shape[1]
    if short_side is not None:
        image = resize_image(image, short_side=short_side, max_side=max_side)
    batch = torch.from_numpy(np.ascontiguousarray(image))[None].to(model.pixel_mean.device)
    if not with_branches:
        return model(batch, output_hw=output_hw), None
    branches = model.branches(batch)
    found = merge(branches, config=model.config.merge, image=batch, output_hw=output_hw)
    return found, _Detected(branches, (image.shape[0], image.shape[1]))


def _true_instances(truth: PanopticMap, classes: ClassTable) -> list[TrueInstance]:
    things = classes.thing_index()
    count = sum(segment.category_id in things for segment in truth.segments)
    check_masks(count, truth.panoptic.shape, "ground truth")
    return [
        TrueInstance(np.equal(truth.panoptic, segment.id), segment.category_id, segment.is_crowd)
        for segment in truth.segments
        if segment.category_id in things
    ]


def _detections(detected: _Detected, classes: ClassTable, output_hw: tuple[int, ...]) -> list[Detection]:
    """Return the masks of one image as the merge receives them, before overlaps are resolved."""
    instances = detected.branches.instances
    assert instances is not None
    height, width = output_hw
    found = instances.detections
    boxes, scores, indices = (value[0].float().cpu().numpy() for value in found[:3])
    probs = instances.mask_probs[0].float().cpu().numpy()
    return [
        Detection(
            paste_mask(
                probs[k], scale_box(boxes[k], detected.input_hw, (height, width)), (height, width), MASK_THRESHOLD
            ),
            classes.things[int(indices[k])].id,
            float(scores[k]),
        )
        for k in range(int(found.count[0]))
    ]


def labelled_images(dataset: CocoPanoptic) -> Iterator[LabelledImage]:
    """Read the images of a COCO panoptic data set with their annotations, one at a time."""
    for record in dataset.records:
        sample = load_sample(record)
        segments = [Segment(s.id, s.category_id, s.area, s.is_crowd) for s in sample.segments]
        yield sample.image, PanopticMap(sample.panoptic, segments)


def panoptic_map(found: PanopticSegments, classes: ClassTable, *, image: int = 0) -> PanopticMap:
    """Return one image of the network's result, with the data set's category ids."""
    rows = found.segments[image, : int(found.segment_count[image])].tolist()
    segments = [
        Segment(identity, classes.category(category, is_thing=bool(is_thing)).id)
        for identity, category, is_thing, *_ in rows
    ]
    return PanopticMap(found.panoptic[image].cpu().numpy(), segments)


def categories_of(classes: ClassTable) -> tuple[Category, ...]:
    """Return the classes as the metrics number them, things first."""
    return tuple(Category(c.id, c.name, c.is_thing) for c in (*classes.things, *classes.stuff))


def headline(quality: PanopticQuality) -> dict[str, float]:
    """Return the figures that papers state, as fractions, without those of kinds that do not occur."""
    figures = {
        "PQ": quality.all.pq,
        "SQ": quality.all.sq,
        "RQ": quality.all.rq,
        "PQ_things": quality.things.pq,
        "PQ_stuff": quality.stuff.pq,
    }
    return {name: value for name, value in figures.items() if not math.isnan(value)}
