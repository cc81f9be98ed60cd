"""A session without a network, whose frames take only the runtime's own time.

Its map is made from the frame, so that a result shows which frame it is of: pixels whose blue is above 90 are the thing
(id 1), the others the stuff (id 2).
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from panrt.engine.backends.session_base import SessionBase
from panrt.engine.frame import Frame
from panrt.engine.results.result import PanopticResult, Timings
from panrt.engine.results.segment import Segment
from panrt.formats.metadata import Category, ModelFile
from tools import model_files

THING, STUFF = Category(1, "bright", True, (230, 60, 40)), Category(2, "dark", False, (40, 90, 160))
BLUE = 90


def map_of(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The panoptic map, (H, W), that the session gives to a frame."""
    ids: NDArray[np.int32] = (image[..., 0] <= BLUE).astype(np.int32) + 1
    return ids


def model_file(batch: int = 1) -> ModelFile:
    """Return the metadata that a file of this session would have."""
    return model_files.make(
        name="null",
        things=(THING,),
        stuff=(STUFF,),
        batch=batch,
        input_hw=(32, 32),  # it takes frames of any size
        valid_hw=None,
        output_hw=None,
        precision="fp32",
    )


class NullSession(SessionBase[float]):
    """Takes `seconds` for a submission, one after the other as a device would."""

    def __init__(self, *, seconds: float = 0.0, batch: int = 1, capacity: int = 1, fixed_map: bool = False) -> None:
        super().__init__(name="null", capacity=capacity, batch=batch, model=model_file(batch))
        self.backend = "cpu"
        self.stages: dict[str, float] = {}
        self.batches: list[int] = []  # how many frames each submission held
        self._seconds = seconds
        self._busy_until = 0.0
        self._fixed_map = fixed_map
        self._last: NDArray[np.int32] | None = None

    def _begin(self, frames: tuple[Frame, ...]) -> float:
        self.batches.append(len(frames))
        self._busy_until = max(self._busy_until, time.monotonic()) + self._seconds
        return self._busy_until

    def _finish(self, work: float, frames: tuple[Frame, ...]) -> tuple[PanopticResult, ...]:
        wait = work - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        return tuple(self._result(frame) for frame in frames)

    def _free(self) -> None:
        """Nothing is held."""

    def _result(self, frame: Frame) -> PanopticResult:
        ids = self._last
        if ids is None or not self._fixed_map:
            ids = self._last = map_of(frame.image)
        height, width = ids.shape
        box = 0, 0, width, height
        segments = tuple(
            Segment(number, c.id, c.name, c.is_thing, float(c.is_thing), area, box)
            for number, c in enumerate((THING, STUFF), start=1)
            if (area := int(np.count_nonzero(ids == number)))
        )
        return PanopticResult(
            ids,
            segments,
            Timings(0.0, self._seconds, 0.0),
            frame.index,
            frame.captured_at,
            frame.media_time,
            frame.source,
            {1: THING.color, 2: STUFF.color},
            frame_hw=frame.hw,
            categories=self.model.categories,
            file_name=frame.file_name,
        )
