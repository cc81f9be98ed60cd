"""A toy world for training tests: coloured rectangles on two kinds of ground, 64 x 64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from panrt.model.data.classes import TABLETOP
from panrt.model.panoptic_map import PanopticMap, Segment
from panrt.model.training_data import TrainingSample

SIDE = 64
COLORS = np.array([[40, 40, 220], [40, 220, 40], [220, 40, 40]], np.uint8)


class Rectangles:
    """Sample i holds one to three rectangles of thing classes 0..2, drawn from seed i."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> TrainingSample:
        random = np.random.default_rng(index)
        image = np.full((SIDE, SIDE, 3), 128, np.uint8)
        semantic = np.full((SIDE, SIDE), 1, np.uint8)
        image[SIDE // 2 :], semantic[SIDE // 2 :] = 90, 2
        classes: list[int] = []
        masks: list[NDArray[np.bool_]] = []
        for _ in range(int(random.integers(1, 4))):
            kind = int(random.integers(3))
            (x, y), (width, height) = random.integers(0, SIDE - 24, 2), random.integers(12, 24, 2)
            inside = np.zeros((SIDE, SIDE), np.bool_)
            inside[y : y + height, x : x + width] = True
            image[inside], semantic[inside] = COLORS[kind], 0
            masks = [mask & ~inside for mask in masks] + [inside]  # the later one lies on top
            classes.append(kind)
        seen = [mask.any() for mask in masks]
        visible = np.array(masks)[seen]
        return TrainingSample(image, tight_boxes(visible), np.array(classes, np.int64)[seen], visible, semantic)


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(G, H, W) -> (G, 4)."""
    boxes = []
    for mask in masks:
        ys, xs = mask.nonzero()
        boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    return np.array(boxes, np.float32)


def truth(sample: TrainingSample) -> PanopticMap:
    """The panoptic annotation of a toy sample, with the category ids of the tabletop."""
    panoptic = sample.semantic.astype(np.int32)
    segments = [Segment(k, TABLETOP.stuff[k - 1].id) for k in (1, 2)]
    for k, (mask, kind) in enumerate(zip(sample.masks, sample.classes, strict=True), start=3):
        panoptic[mask] = k
        segments.append(Segment(k, TABLETOP.things[kind].id))
    return PanopticMap(panoptic, [s for s in segments if (panoptic == s.id).any()])
