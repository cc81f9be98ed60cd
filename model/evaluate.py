"""Panoptic quality of a network on labelled images.

    quality = evaluate(model, labelled_images(dataset))
    train(..., evaluate=lambda model: headline(evaluate(model, labelled_images(dataset))))

Shapes: N images of a batch, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from panrt.model import panoptic_quality
from panrt.model.data.classes import ClassTable
from panrt.model.data.coco_panoptic import CocoPanoptic, load_sample
from panrt.model.irregular import PanopticSegments
from panrt.model.panoptic_fpn import PanopticFPN
from panrt.model.panoptic_map import Category, PanopticMap, Segment
from panrt.model.panoptic_quality import PanopticQuality


def evaluate(model: PanopticFPN, pairs: Iterable[tuple[NDArray[np.uint8], PanopticMap]]) -> PanopticQuality:
    """Segment each image at its own size and compare with the truth.

    Args:
        model: in eval mode; its class table must be that of the truth.
        pairs: images (H, W, 3) BGR and their annotations (H, W), consumed lazily.

    Raises:
        PanopticFormatError: an annotation contradicts itself or names an unknown category.
    """
    classes = model.config.classes
    categories = [Category(c.id, c.name, c.is_thing) for c in (*classes.things, *classes.stuff)]
    device = model.pixel_mean.device

    def compared() -> Iterator[tuple[PanopticMap, PanopticMap]]:
        for image, truth in pairs:
            found = model(torch.from_numpy(np.ascontiguousarray(image))[None].to(device))
            yield truth, panoptic_map(found, classes)

    return panoptic_quality.evaluate(compared(), categories)


def labelled_images(dataset: CocoPanoptic) -> Iterator[tuple[NDArray[np.uint8], PanopticMap]]:
    """The images of a data set in the COCO panoptic format with their annotations, one read at a time."""
    for record in dataset.records:
        sample = load_sample(record)
        segments = [Segment(s.id, s.category_id, s.area, s.is_crowd) for s in sample.segments]
        yield sample.image, PanopticMap(sample.panoptic, segments)


def panoptic_map(found: PanopticSegments, classes: ClassTable, *, image: int = 0) -> PanopticMap:
    """One image of what the network found, with the data set's category ids."""
    rows = found.segments[image, : int(found.segment_count[image])].tolist()
    segments = [
        Segment(identity, classes.category(category, is_thing=bool(is_thing)).id)
        for identity, category, is_thing, *_ in rows
    ]
    return PanopticMap(found.panoptic[image].cpu().numpy(), segments)


def headline(quality: PanopticQuality) -> dict[str, float]:
    """The figures that papers print, as fractions; those of kinds of which nothing occurs are left out."""
    figures = {
        "PQ": quality.all.pq,
        "SQ": quality.all.sq,
        "RQ": quality.all.rq,
        "PQ_things": quality.things.pq,
        "PQ_stuff": quality.stuff.pq,
    }
    return {name: value for name, value in figures.items() if not math.isnan(value)}
