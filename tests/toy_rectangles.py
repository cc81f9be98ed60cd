"""A toy world for training tests: coloured rectangles on a striped ground, 64 x 64."""

from __future__ import annotations

import numpy as np

from panrt.model.data.classes import TABLETOP
from panrt.model.training_data import LabelledSegment, TrainingSample, from_panoptic

SIDE = 64
COLOURS = np.array([[40, 40, 220], [40, 220, 40], [220, 40, 40]], np.uint8)


class Rectangles:
    """Sample i holds one to three rectangles of thing classes 1..3, drawn from seed i."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reads = 0

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> TrainingSample:
        self.reads += 1
        random = np.random.default_rng(index)
        image = np.full((SIDE, SIDE, 3), 128, np.uint8)
        image[SIDE // 2 :] = 90
        panoptic = np.full((SIDE, SIDE), 1)
        panoptic[SIDE // 2 :] = 2
        segments = [LabelledSegment(1, 10), LabelledSegment(2, 9)]
        for k in range(int(random.integers(1, 4))):
            kind = int(random.integers(3))
            x, y = random.integers(0, SIDE - 24, 2)
            width, height = random.integers(12, 24, 2)
            image[y : y + height, x : x + width] = COLOURS[kind]
            panoptic[y : y + height, x : x + width] = 3 + k
            segments.append(LabelledSegment(3 + k, 1 + kind))
        present = [s for s in segments if (panoptic == s.id).any()]
        return from_panoptic(image, panoptic, present, TABLETOP)
