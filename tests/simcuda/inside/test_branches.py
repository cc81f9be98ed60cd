"""Networks without one of the branches have fewer rows of segments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from panrt.errors import EngineError
from panrt.formats.metadata import Category
from panrt.formats.thresholds import DETECTION
from panrt.formats.thresholds import STUFF as STUFF_LIMITS
from tools.simcuda.fake_tensorrt import PATTERN_ROWS
from tools.simcuda.sessions import MODEL, check, open_session, picture, tensors

SHELF = Category(10, "shelf", False, (9, 9, 9))
INSTANCES = dataclasses.replace(  # all stuff is one channel: as many detections as the pattern has rows, and one
    MODEL, stuff=(*MODEL.stuff, SHELF), thresholds=MODEL.thresholds._replace(max_detections=PATTERN_ROWS - 1)
)
STUFF = dataclasses.replace(  # no detections, whatever the thresholds say: all of the pattern's rows are channels
    MODEL,
    stuff=(*MODEL.stuff, *(SHELF._replace(id=10 + i, name=f"shelf {i}") for i in range(PATTERN_ROWS - 2))),
    thresholds=MODEL.thresholds._replace(max_detections=100),
)


def test_an_engine_without_stuff_is_opened(tmp_path: Path) -> None:
    one_channel = [(name, [1] if name == STUFF_LIMITS else shape, *rest) for name, shape, *rest in tensors(MODEL)]
    with open_session(tmp_path, INSTANCES, tensors=one_channel) as session:
        check(session(picture(0)), picture(0))


def test_an_engine_without_things_is_opened(tmp_path: Path) -> None:
    without = [
        (name, [PATTERN_ROWS] if name == STUFF_LIMITS else shape, *rest)
        for name, shape, *rest in tensors(MODEL)
        if name != DETECTION
    ]
    with open_session(tmp_path, STUFF, tensors=without) as session:
        check(session(picture(0)), picture(0))


def test_any_other_number_of_rows_is_refused(tmp_path: Path) -> None:
    rows = PATTERN_ROWS + 1
    changed = [
        (name, [rows if size == PATTERN_ROWS else size for size in shape], *rest)
        for name, shape, *rest in tensors(MODEL)
    ]
    with pytest.raises(
        EngineError, match=r"output 'segments' \(1, 6, 8\) int32 is expected, the engine has .* \(1, 7, 8\)"
    ):
        open_session(tmp_path, tensors=changed)


def test_scores_have_as_many_rows_as_segments(tmp_path: Path) -> None:
    changed = [(name, [1, 5] if name == "segment_scores" else shape, *rest) for name, shape, *rest in tensors(MODEL)]
    with pytest.raises(EngineError, match=r"output 'segment_scores' \(1, 6\) float32 is expected"):
        open_session(tmp_path, INSTANCES, tensors=changed)
