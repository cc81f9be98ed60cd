"""The examples of docs/results.md run, and each takes at most five lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask
import pytest

import panrt
from panrt.engine.sources.pattern import pattern
from tools.null_session import NullSession

TEXT = (Path(__file__).parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def names() -> dict[str, Any]:
    """What an example finds: modules, a frame, and its result, whose map is half as large."""
    frame = pattern(3, (48, 64))
    small = NullSession()(frame[::2, ::2])
    result = small.resized((48, 64))
    modules = {"cv2": cv2, "json": json, "pycocotools": pycocotools, "panrt": panrt}
    return modules | {"frame": frame, "result": result, "session": NullSession()}


def test_the_document_has_examples() -> None:
    assert len(EXAMPLES) >= 7


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.splitlines()[0][:40])
def test_an_example_runs_and_has_at_most_five_lines(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(code.splitlines()) <= 5
    monkeypatch.chdir(tmp_path)
    found = names()
    (tmp_path / "photos").mkdir()
    cv2.imwrite("photos/photo.png", found["frame"])
    exec(compile(code, "docs/results.md", "exec"), found)
    if "mask" in found:
        assert found["mask"].shape == found["frame"].shape[:2]
    if "thumbnail" in found:
        assert found["thumbnail"].shape == (120, 160, 3)
    if "free" in found:
        np.testing.assert_array_equal(found["free"], found["result"].semantic() == 2)
    for file in tmp_path.glob("*.png"):
        assert cv2.imread(str(file)) is not None
