"""Random ground truths and predictions for the panoptic metrics."""

from __future__ import annotations

import numpy as np

from panrt.model.panoptic_map import Category, PanopticMap, Segment

THING, OTHER_THING, STUFF, ABSENT = 1, 2, 7, 9
CATEGORIES = (
    Category(THING, "cup", is_thing=True),
    Category(OTHER_THING, "box", is_thing=True),
    Category(STUFF, "floor", is_thing=False),
    Category(ABSENT, "wall", is_thing=False),
)


def random_pair(rng: np.random.Generator, height: int, width: int) -> tuple[PanopticMap, PanopticMap]:
    """Rectangles of 24-bit ids over void; crowds, moved, lost and invented segments, wrong categories."""
    truth = np.zeros((height, width), np.int64)
    for segment_id in rng.choice(1 << 24, size=rng.integers(1, 9), replace=False):
        y, x = rng.integers(height), rng.integers(width)
        truth[y : y + rng.integers(1, height), x : x + rng.integers(1, width)] = segment_id
    prediction = np.roll(truth, rng.integers(-2, 3, size=2), axis=(0, 1))
    prediction[:2, : rng.integers(1, width)] = 1
    categories = (THING, OTHER_THING, STUFF)
    category = {int(i): int(rng.choice(categories)) for i in np.unique(truth) if i}
    predicted_segments = []
    for segment_id in np.unique(prediction).tolist():
        if rng.random() < 0.15:
            prediction[prediction == segment_id] = 0
        elif segment_id:
            same = segment_id in category and rng.random() < 0.8
            predicted_segments.append(
                Segment(segment_id, category[segment_id] if same else int(rng.choice(categories)))
            )
    truth_segments = [
        Segment(i, c, area=int((truth == i).sum()), is_crowd=bool(rng.random() < 0.3)) for i, c in category.items()
    ]
    rng.shuffle(truth_segments)
    return PanopticMap(truth, truth_segments), PanopticMap(prediction, predicted_segments)
