"""No result depends on uninitialised memory: fresh NumPy arrays hold random bytes here, from two seeds."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import panrt
from panrt.plugins import native
from support.cases import Case, network_cases
from support.networks import frames

RPN, ALIGN, DETECTIONS, MERGE = network_cases(0)
EMPTY = np.empty


def check(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> None:
    """What `run` gives is the same whatever `np.empty` and `np.empty_like` give."""
    results = []
    for seed in (1, 2):
        dice = random.Random(seed)  # NumPy's would use np.empty

        def empty(shape: Any, dtype: Any = float, dice: random.Random = dice, **options: Any) -> NDArray[Any]:
            array: NDArray[Any] = EMPTY(shape, dtype, **options)
            array.reshape(-1).view(np.uint8)[...] = np.frombuffer(dice.randbytes(array.nbytes), np.uint8)
            return array

        with monkeypatch.context() as patch:
            patch.setattr(np, "empty", empty)
            patch.setattr(np, "empty_like", lambda array, empty=empty: empty(array.shape, array.dtype))
            results.append(run())
    np.testing.assert_equal(*results)


def test_the_check_finds_what_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        check(monkeypatch, lambda: np.empty(100, np.float32))


@pytest.mark.parametrize(
    ("op", "case"),
    [
        (native.rpn_proposals, RPN),
        (native.rpn_proposals, dataclasses.replace(RPN, levels=((2, 3),), post_nms_top_k=300)),
        (native.pyramid_roi_align, ALIGN),
        (native.box_detections, DETECTIONS),
        (native.box_detections, dataclasses.replace(DETECTIONS, max_detections=900)),
        (native.panoptic_merge, MERGE),
    ],
)
def test_an_op_writes_all_of_its_outputs(monkeypatch: pytest.MonkeyPatch, op: Callable[..., Any], case: Case) -> None:
    check(monkeypatch, lambda: case.run(op))


def test_pictures_are_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    (frame,) = frames(1)
    ids = np.arange(40 * 50, dtype=np.int32).reshape(40, 50) // 300
    colors = np.arange(24, dtype=np.uint8).reshape(8, 3)
    check(monkeypatch, lambda: native.overlay(frame, ids, colors, opacity=0.5, border=2))


def test_a_session_gives_the_same_on_any_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    (image,) = frames(1)

    def run() -> Any:
        with panrt.load("tabletop", backend="cpu", threads=1) as session:
            results = [session(image), session(image[:200, :180])]  # the second fills a part of the input alone
        return [(result.panoptic, result.segments) for result in results]

    check(monkeypatch, run)
