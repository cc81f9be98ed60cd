"""The content of a result, its serialised forms and its overlay."""

from __future__ import annotations

import sys
import types
from typing import Any

import cv2
import numpy as np
import pytest

from panrt.engine.frame import Frame
from panrt.engine.results.colors import segment_color
from panrt.engine.results.result import PanopticResult, panoptic_result
from panrt.engine.results.segment import Segment
from panrt.errors import FrameError
from panrt.formats.metadata import Category
from panrt.plugins import reference
from panrt.plugins.contract import PanopticSegments
from support.supervision import Detections
from tools import model_files

MODEL = model_files.make(
    things=(Category(11, "cup", True, (200, 30, 30)), Category(12, "ball", True, (30, 30, 200))),
    stuff=(Category(21, "table", False, (90, 60, 30)),),
    input_hw=(32, 32),
    valid_hw=(4, 6),
    output_hw=(4, 6),
)
#   a cup, a ball to its right, the table below
MAP = np.array([[1, 1, 0, 2, 2, 2], [1, 1, 0, 2, 2, 2], [3, 3, 3, 3, 3, 2], [3, 3, 3, 3, 3, 3]], np.int32)


def merged() -> PanopticSegments:
    segments = np.zeros((1, 5, 8), np.int32)
    segments[0, :3] = [[1, 0, 1, 4, 0, 0, 2, 2], [2, 1, 1, 7, 3, 0, 6, 3], [3, 1, 0, 11, 0, 2, 6, 4]]
    scores = np.array([[0.9, 0.75, 0, 0, 0]], np.float32)
    return PanopticSegments(MAP[None], segments, scores, np.array([3], np.int32))


def result(map_hw: tuple[int, int] = (4, 6)) -> PanopticResult:
    frame = Frame(np.zeros((4, 6, 3), np.uint8), index=5, captured_at=1.5, media_time=0.2, source="desk")
    return panoptic_result(MODEL, merged(), 0, frame=frame, map_hw=map_hw)


def test_a_result_names_its_segments_in_the_words_of_the_model() -> None:
    found = result()
    assert found.segments == (
        Segment(1, 11, "cup", True, float(np.float32(0.9)), 4, (0, 0, 2, 2)),
        Segment(2, 12, "ball", True, 0.75, 7, (3, 0, 6, 3)),
        Segment(3, 21, "table", False, 0.0, 11, (0, 2, 6, 4)),
    )
    assert (found.frame_index, found.captured_at, found.media_time, found.source) == (5, 1.5, 0.2, "desk")
    assert found.colors[3] == (90, 60, 30)


def test_segments_are_cropped_with_their_map() -> None:
    found = result(map_hw=(2, 5))
    np.testing.assert_array_equal(found.panoptic, MAP[:2, :5])
    assert [(s.id, s.area, s.box) for s in found.map_segments] == [(1, 4, (0, 0, 2, 2)), (2, 4, (3, 0, 5, 2))]
    assert set(found.colors) == {1, 2}
    taller = result(map_hw=(3, 6))
    assert [(s.area, s.box) for s in taller.map_segments] == [(4, (0, 0, 2, 2)), (7, (3, 0, 6, 3)), (5, (0, 2, 5, 3))]


def test_coco_gets_ids_as_colours_and_boxes_as_sizes() -> None:
    found = result()
    far = PanopticResult(np.where(MAP == 2, 70_000, MAP).astype(np.int32), found.segments, found.timings)
    annotation, png = far.to_coco(image_id=42)
    assert (annotation["image_id"], annotation["file_name"]) == (42, "000000000042.png")
    assert annotation["segments_info"][1] == {
        "id": 2, "category_id": 12, "isthing": 1, "area": 7, "bbox": [3, 0, 3, 3], "iscrowd": 0, "score": 0.75,
    }  # fmt: skip
    rgb = cv2.cvtColor(png, cv2.COLOR_BGR2RGB).astype(np.int64)
    np.testing.assert_array_equal(rgb @ [1, 256, 256**2], far.panoptic)
    assert found.to_coco(file_name="a.png").annotation["image_id"] == 5
    assert found.to_coco(file_name="a.png").annotation["file_name"] == "a.png"


def test_supervision_gets_boxes_masks_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("supervision")
    module.Detections = Detections  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    found: Any = result().to_supervision()
    assert found.xyxy.tolist() == [[0, 0, 2, 2], [3, 0, 6, 3], [0, 2, 6, 4]]
    np.testing.assert_array_equal(found.mask[1], MAP == 2)
    assert found.mask.dtype == np.bool_
    assert found.class_id.tolist() == [11, 12, 21]
    assert found.data["class_name"].tolist() == ["cup", "ball", "table"]
    assert (found.tracker_id.tolist(), found.confidence[1]) == ([1, 2, 3], 0.75)


def test_an_overlay_without_names_is_what_the_kernel_paints_with_the_colours_in_bgr() -> None:
    found = result()
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    colors = np.zeros((4, 3), np.uint8)
    for segment_id, rgb in found.colors.items():
        colors[segment_id] = rgb[::-1]
    expected = reference.overlay(frame, MAP, colors, opacity=0.3, border=1)
    np.testing.assert_array_equal(found.overlay(frame, opacity=0.3, labels=False), expected)
    plain = reference.overlay(frame, MAP, colors, opacity=0.3, border=0)
    np.testing.assert_array_equal(found.overlay(frame, opacity=0.3, labels=False, border=False), plain)


def test_names_are_written_over_their_segments_alone() -> None:
    frame = np.full((400, 600, 3), 90, np.uint8)
    found = result()
    bare, named = found.overlay(frame, labels=False), found.overlay(frame)
    changed = (bare != named).any(axis=2)
    shown = np.kron(MAP, np.ones((100, 100), int))
    assert all(changed[shown == segment.id].any() for segment in found.segments)
    assert not changed[shown == 0].any()
    assert changed.mean() < 0.15


def test_a_result_without_segments_leaves_the_frame_as_it_is() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    empty = PanopticResult(np.zeros((4, 6), np.int32), (), result().timings)
    np.testing.assert_array_equal(empty.overlay(frame), frame)
    with pytest.raises(FrameError, match="expected"):
        empty.overlay(frame[..., :2])


def test_things_of_one_class_differ_in_colour_and_an_id_keeps_its_own() -> None:
    shades = [segment_color((200, 30, 30), i, is_thing=True) for i in range(1, 20)]
    assert len(set(shades)) > 15
    assert shades == [segment_color((200, 30, 30), i, is_thing=True) for i in range(1, 20)]
    assert segment_color((1, 2, 3), 7, is_thing=False) == (1, 2, 3)
