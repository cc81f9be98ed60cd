"""A stand-in for supervision, which is no dependency of the tests: the fields of its detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Detections:
    """As `supervision.Detections`."""

    xyxy: NDArray[Any]
    mask: NDArray[Any]
    confidence: NDArray[Any]
    class_id: NDArray[Any]
    tracker_id: NDArray[Any]
    data: dict[str, NDArray[Any]]

    @classmethod
    def empty(cls) -> Detections:
        """Of no segment."""
        none = np.zeros(0)
        return cls(np.zeros((0, 4)), np.zeros((0, 1, 1), np.bool_), none, none, none, {})
