"""Results in pixels of their frames, against an oracle that asks for every pixel where its centre lies.

Shapes: H x W pixels of the frame, h x w of the map.
"""

from __future__ import annotations

import math
import sys
import types
from fractions import Fraction
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from panrt.engine.frame import Frame
from panrt.engine.preprocess import place
from panrt.engine.results import frame_pixels, rle
from panrt.engine.results.frame_pixels import frame_edges, map_pixels
from panrt.engine.results.result import PanopticResult, Timings, panoptic_result
from panrt.engine.results.segment import Segment
from panrt.engine.results.tracking import Tracker
from panrt.errors import FrameError
from panrt.formats.metadata import Category
from panrt.plugins.contract import PanopticSegments
from support.supervision import Detections
from tools import model_files

# pycocotools 2.0.11 and NumPy 2
OLD_ARRAYS = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
CUP, TABLE = Category(11, "cup", True, (200, 30, 30)), Category(21, "table", False, (90, 60, 30))
SIDES = st.integers(1, 40)
SIZES = st.tuples(SIDES, SIDES)


class Case(NamedTuple):
    """A result, and what a program that looks at every pixel finds."""

    result: PanopticResult
    frame: NDArray[np.uint8]  # (H, W, 3)
    ids: NDArray[np.int32]  # (H, W)


def pixel_under(centre: int, frame_length: int, length: int) -> int:
    """The map's pixel under the centre of a pixel of the frame, in exact arithmetic."""
    return math.floor((centre + Fraction(1, 2)) * length / frame_length)


def ids_by_pixel(panoptic: NDArray[np.int32], hw: tuple[int, int]) -> NDArray[np.int32]:
    rows = [pixel_under(y, hw[0], panoptic.shape[0]) for y in range(hw[0])]
    columns = [pixel_under(x, hw[1], panoptic.shape[1]) for x in range(hw[1])]
    return np.array([[panoptic[y, x] for x in columns] for y in rows], np.int32)


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def merged(panoptic: NDArray[np.int32], *, stuff: int) -> PanopticSegments:
    """What PanopticMerge gives for a map whose ids up to `stuff` are stuff, the others things of two classes."""
    numbers = [number for number in np.unique(panoptic).tolist() if number]
    rows = np.zeros((1, max(len(numbers), 1), 8), np.int32)
    for row, number in zip(rows[0], numbers, strict=False):
        mask = panoptic == number
        is_thing = number > stuff
        row[:] = number, number % 2 if is_thing else number, is_thing, mask.sum(), *tight_box(mask)
    scores = np.where(rows[..., 2] > 0, np.float32(0.5), np.float32(0))
    return PanopticSegments(panoptic[None], rows, scores, np.array([len(numbers)], np.int32))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Frames in inputs of all kinds: fitting, letterboxed, smaller, larger; maps of the input's size or another."""
    frame_hw, valid_hw = draw(SIZES), draw(SIZES)
    output_hw = draw(st.sampled_from([valid_hw, draw(SIZES)]))
    map_hw = place(frame_hw, valid_hw, output_hw).map_hw
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    blocks = rng.integers(0, 6, (draw(st.integers(1, 8)), draw(st.integers(1, 8))))
    whole = np.asarray(cv2.resize(blocks.astype(np.uint8), output_hw[::-1], interpolation=cv2.INTER_NEAREST), np.int32)
    model = model_files.make(
        things=(CUP, Category(12, "ball", True, (30, 30, 200))),
        stuff=(TABLE, Category(22, "wall", False, (90, 60, 30))),
        input_hw=(64, 64),
        valid_hw=valid_hw,
        output_hw=output_hw,
    )
    image = rng.integers(0, 256, (*frame_hw, 3), np.uint8)
    frame = Frame(image, index=3, captured_at=1.5, source="desk", file_name="desk 7.jpg")
    result = panoptic_result(model, merged(whole, stuff=2), 0, frame=frame, map_hw=map_hw)
    return Case(result, image, ids_by_pixel(result.panoptic, frame_hw))


# the mapping


@given(SIDES, SIDES)
def test_pixels_of_an_axis_are_those_under_their_centres_and_edges_are_the_inverse(length: int, frame: int) -> None:
    found, edges = map_pixels(length, frame).tolist(), frame_edges(length, frame).tolist()
    assert found == [pixel_under(pixel, frame, length) for pixel in range(frame)]
    assert [edges[pixel] <= at < edges[pixel + 1] for at, pixel in enumerate(found)] == [True] * frame
    assert (edges[0], edges[-1], edges) == (0, frame, sorted(edges))


@given(SIZES, SIZES, SIZES)
def test_the_map_is_where_preprocessing_places_the_frame(
    frame_hw: tuple[int, int], valid_hw: tuple[int, int], output_hw: tuple[int, int]
) -> None:
    """A frame's pixel is at (i + 1/2) content / frame in the input, and from there at output / valid in the map."""
    for output in (valid_hw, output_hw):
        placement = place(frame_hw, valid_hw, output)
        for frame, valid, out, content, shown in zip(
            frame_hw, valid_hw, output, placement.content_hw, placement.map_hw, strict=True
        ):
            for pixel in range(frame):
                exact = (pixel + Fraction(1, 2)) * content / frame * out / valid
                stretched = (pixel + Fraction(1, 2)) * shown / frame
                assert stretched == exact or out != valid
                assert abs(stretched - exact) <= max(Fraction(1, 2), 1 - Fraction(content * out, valid))


# what a result says of its frame


@given(cases())
def test_masks_boxes_and_areas_are_those_of_the_frame_s_pixels(case: Case) -> None:
    result, ids = case.result, case.ids
    assert result.frame_hw == ids.shape
    np.testing.assert_array_equal(result.ids(), ids)
    assert [segment.id for segment in result.segments] == sorted(set(np.unique(ids).tolist()) - {0})
    for segment, mask in zip(result.segments, result.masks(), strict=True):
        np.testing.assert_array_equal(mask, ids == segment.id)
        np.testing.assert_array_equal(result.mask(segment), mask)
        assert (segment.area, segment.box) == (int(mask.sum()), tight_box(mask))
        of_map = next(one for one in result.map_segments if one.id == segment.id)
        assert segment._replace(area=of_map.area, box=of_map.box) == of_map


@given(cases())
def test_classes_are_those_of_the_frame_s_pixels(case: Case) -> None:
    category = {segment.id: segment.category_id for segment in case.result.map_segments} | {0: -1}
    expected = np.vectorize(category.__getitem__, otypes=[np.int32])(case.ids)
    np.testing.assert_array_equal(case.result.semantic(), expected)
    np.testing.assert_array_equal(case.result.semantic(void=0), np.where(expected < 0, 0, expected))
    np.testing.assert_array_equal(case.result.where("cup", 21), (expected == 11) | (expected == 21))


@given(cases())
def test_crops_are_the_frame_in_the_box(case: Case) -> None:
    for segment in case.result.segments:
        x0, y0, x1, y1 = tight_box(case.ids == segment.id)
        np.testing.assert_array_equal(case.result.crop(case.frame, segment), case.frame[y0:y1, x0:x1])
        cut = case.result.crop(case.frame, segment.id, background=(1, 2, 3))
        inside = (case.ids == segment.id)[y0:y1, x0:x1]
        np.testing.assert_array_equal(cut, np.where(inside[..., None], case.frame[y0:y1, x0:x1], (1, 2, 3)))


@OLD_ARRAYS
@given(cases())
def test_run_lengths_are_those_that_pycocotools_decodes_and_writes(case: Case) -> None:
    found = case.result.to_json(rle=True)
    assert (found["height"], found["width"], found["map_height"], found["map_width"]) == (
        *case.ids.shape,
        *case.result.panoptic.shape,
    )
    for segment in found["segments"]:
        mask = case.ids == segment["id"]
        np.testing.assert_array_equal(coco_masks.decode(segment["rle"]), mask)
        assert segment["rle"]["counts"].encode() == coco_masks.encode(np.asfortranarray(mask))["counts"]
        assert coco_masks.area(segment["rle"]) == segment["area"]


@given(cases())
def test_coco_has_the_frame_s_size_ids_and_the_name_of_its_file(case: Case) -> None:
    annotation, png = case.result.to_coco()
    np.testing.assert_array_equal(png[..., ::-1].astype(np.int64) @ [1, 256, 256**2], case.ids)
    assert (annotation["image_id"], annotation["file_name"]) == (3, "desk 7.png")
    for info in annotation["segments_info"]:
        x0, y0, x1, y1 = tight_box(case.ids == info["id"])
        assert info["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert info["area"] == (case.ids == info["id"]).sum()
    assert {info["id"] for info in annotation["segments_info"]} == set(np.unique(case.ids).tolist()) - {0}


@given(cases())
def test_supervision_gets_masks_and_boxes_of_the_frame(case: Case) -> None:
    module = types.ModuleType("supervision")
    module.Detections = Detections  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "supervision", module)
        found: Any = case.result.to_supervision()
    assert len(found.xyxy) == len(case.result.segments)
    for box, mask, number in zip(found.xyxy, found.mask, found.tracker_id, strict=True):
        np.testing.assert_array_equal(mask, case.ids == number)
        assert tuple(box) == tight_box(mask)


@given(cases(), SIZES)
def test_a_resized_result_is_that_of_a_frame_of_another_size(case: Case, hw: tuple[int, int]) -> None:
    resized = case.result.resized(hw)
    assert (resized.frame_hw, resized.panoptic is case.result.panoptic) == (hw, True)
    np.testing.assert_array_equal(resized.ids(), ids_by_pixel(case.result.panoptic, hw))
    assert case.result.frame_hw == case.ids.shape


@given(cases())
def test_masks_are_where_the_overlay_is_coloured(case: Case) -> None:
    black = np.zeros_like(case.frame)
    colors = {segment.id: (segment.id, 200, 100) for segment in case.result.map_segments}
    painted = PanopticResult(case.result.panoptic, case.result.map_segments, Timings(0, 0, 0), colors=colors)
    image = painted.overlay(black, opacity=1.0, border=False, labels=False)
    np.testing.assert_array_equal(image[..., 2], case.ids)


def test_nothing_is_computed_for_a_frame_that_nobody_asks_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session, a tracker, an overlay and a repr leave a result's frame alone."""
    called: list[str] = []
    for name in ("frame_segments", "resize_ids", "part_of", "mask_of", "relabelled", "map_pixels", "frame_edges"):
        monkeypatch.setattr(frame_pixels, name, lambda *_, name=name, **__: called.append(name))
    panoptic = np.array([[1, 2], [2, 2]], np.int32)
    model = model_files.make(things=(CUP,), stuff=(TABLE,), input_hw=(32, 32), valid_hw=(2, 2), output_hw=(2, 2))
    frame = Frame(np.zeros((20, 30, 3), np.uint8))
    found = panoptic_result(model, merged(panoptic, stuff=1), 0, frame=frame, map_hw=(2, 2))
    tracked = Tracker(model.categories).update(found)
    tracked.overlay(frame.image)
    assert (repr(tracked), tracked.frame_hw, called) == (repr(found), (20, 30), [])


# limits and errors


def two_segments(**fields: Any) -> PanopticResult:
    segments = (
        Segment(1, 11, "cup", True, 0.5, 3, (0, 0, 2, 2)),
        Segment(2, 21, "table", False, 0.0, 13, (0, 0, 4, 4)),
    )
    panoptic = np.array([[1, 1, 2, 2], [1, 2, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]], np.int32)
    return PanopticResult(panoptic, segments, Timings(0, 0, 0), **fields)


def test_a_result_without_a_frame_s_size_is_in_pixels_of_its_map() -> None:
    assert (two_segments().frame_hw, two_segments().segments) == ((4, 4), two_segments().map_segments)


def test_a_segment_that_a_small_frame_does_not_show_is_not_among_its_segments() -> None:
    small = two_segments(frame_hw=(1, 1))
    assert [segment.name for segment in small.segments] == ["table"]
    assert (small.segments[0].box, small.segments[0].area, small.masks().shape) == ((0, 0, 1, 1), 1, (1, 1, 1))
    assert not small.mask(1).any()
    with pytest.raises(ValueError, match="segment 1: the result has none of this id in its frame; its ids are 2"):
        small.crop(np.zeros((1, 1, 3), np.uint8), 1)


def test_a_result_is_described_in_a_line() -> None:
    assert repr(two_segments(frame_hw=(8, 9))) == "PanopticResult(frame 8x9, map 4x4, 2 segments: 1 cup, table)"
    empty = PanopticResult(np.zeros((2, 3), np.int32), (), Timings(0, 0, 0))
    assert repr(empty) == "PanopticResult(frame 2x3, map 2x3, 0 segments: none)"
    assert (len(empty.masks()), empty.semantic().tolist()) == (0, [[-1] * 3] * 2)


def test_errors_name_the_segment_the_class_and_the_size() -> None:
    result = two_segments(categories=(CUP, TABLE, Category(30, "lamp", True, (0, 0, 0))))
    assert not result.where("lamp").any()
    with pytest.raises(ValueError, match=r"class 'tabel': the model has none; did you mean table\?"):
        result.where("tabel")
    with pytest.raises(ValueError, match="class 5: the model has none; expected one of cup, table, lamp"):
        result.where(5)
    with pytest.raises(ValueError, match=r"segment 9: .* its ids are 1, 2"):
        result.mask(9)
    with pytest.raises(FrameError, match=r"crop: got a frame of 8x4, expected 4x4, .* result\.resized\(hw\)"):
        result.crop(np.zeros((8, 4, 3), np.uint8), 1)
    with pytest.raises(ValueError, match=r"resized: got \(0, 4\), expected a height and a width of at least 1"):
        result.resized((0, 4))


def test_an_id_that_no_colour_of_a_png_stands_for_is_an_error() -> None:
    far = Segment(1 << 24, 11, "cup", True, 0.5, 1, (0, 0, 1, 1))
    result = PanopticResult(np.full((1, 1), 1 << 24, np.int32), (far,), Timings(0, 0, 0))
    with pytest.raises(ValueError, match="to_coco: got the segment id 16777216, expected less than 16777216"):
        result.to_coco()


def test_long_runs_are_compressed_as_pycocotools_does() -> None:
    mask: NDArray[np.bool_] = np.zeros((3000, 4000), np.bool_)
    mask[1:, 0] = mask[:, 1500:1502] = mask[5, 3000] = True
    expected = coco_masks.encode(np.asfortranarray(mask))
    assert rle.encode(mask, place=(0, 0), hw=(3000, 4000)) == {
        "size": (3000, 4000),
        "counts": expected["counts"].decode(),
    }


def test_ids_of_any_size_have_their_class() -> None:
    far = 2**31 - 1
    segments = (
        Segment(far, 11, "cup", True, 0.5, 1, (0, 0, 1, 1)),
        Segment(5, 21, "table", False, 0.0, 1, (1, 0, 2, 1)),
    )
    result = PanopticResult(np.array([[far, 5, 7, 0, -3]], np.int32), segments, Timings(0, 0, 0))
    assert result.semantic().tolist() == [[11, 21, -1, -1, -1]]


def test_numbers_in_names_of_files_are_those_of_images() -> None:
    assert two_segments(file_name="000000000139.jpg").to_coco().annotation["image_id"] == 139
    assert two_segments(file_name="139.jpg").to_coco(image_id=0).annotation["image_id"] == 0
    assert two_segments(frame_index=4).to_coco().annotation["file_name"] == "000000000004.png"
