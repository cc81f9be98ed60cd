"""Thresholds and classes drawn at random, the same for a seed every time."""

from __future__ import annotations

import numpy as np

from panrt.formats.metadata import ModelFile
from panrt.formats.thresholds import Thresholds


def random_thresholds(seed: int) -> Thresholds:
    """Return thresholds, of which some are left to the file and some are at the end of their range."""
    rng = np.random.default_rng(seed)

    def share(*special: float) -> float | None:
        usual = rng.uniform(0, 1)
        choices: list[float | None] = [None, usual, usual, usual, float(rng.choice([*special]))]
        return choices[rng.integers(len(choices))]

    areas = [
        None,
        int(rng.integers(0, 200)),
        int(rng.integers(0, 20_000)),
        0,
        int(rng.choice([1, 2**24 + 1, 2**31 - 1])),
    ]
    return Thresholds(
        detection_score=share(0.0, 0.05, 1.0),
        detection_nms=share(0.0, 0.5, 1.0),
        instance_score=share(0.0, 0.9995, 1.0),
        instance_overlap=share(0.0, 0.5, 1.0),
        stuff_area=areas[rng.integers(len(areas))],
        mask=share(1e-6, 0.5, 1.0),
    )


def random_classes(file: ModelFile, seed: int) -> list[str] | None:
    """Return names of some classes of a file; for every other seed None, which is all."""
    rng = np.random.default_rng(seed)
    names = [category.name for category in (*file.things, *file.stuff)]
    return None if seed % 2 == 0 else [name for name in names if rng.random() < 0.5]
