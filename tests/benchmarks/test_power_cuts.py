"""Recordings survive kills of their process."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.power_cuts import measure
from support.networks import exported


def test_recordings_survive_kills_at_any_moment(tmp_path: Path) -> None:
    """A few; `python -m benchmarks.power_cuts` does many, and holds them to the time that may be missing."""
    model = exported(tmp_path / "model.onnx")
    (tmp_path / "out").mkdir()
    report = measure(3, tmp_path / "out", model=str(model), longest=2.0, latest=math.inf)
    assert report.faults == []
    assert report.frames["jsonl"] > 0
