"""The reader of COCO panoptic data sets, on data sets of a few pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from panrt.formats.metadata import Category
from panrt.model.data.classes import VOID, ClassTable
from panrt.model.data.coco_panoptic import (
    Sample,
    Segment,
    derive_targets,
    load_sample,
    read_coco_panoptic,
)

CATEGORIES = [
    {"id": 7, "name": "road", "isthing": 0, "color": [128, 64, 128]},
    {"id": 26, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    {"id": 11, "name": "wall", "isthing": 0, "color": [102, 102, 156]},
    {"id": 24, "name": "person", "isthing": 1, "color": [220, 20, 60]},
]
CLASSES = ClassTable(
    things=(Category(26, "car", True, (0, 0, 142)), Category(24, "person", True, (220, 20, 60))),
    stuff=(Category(7, "road", False, (128, 64, 128)), Category(11, "wall", False, (102, 102, 156))),
)
# A car (70000), a person (300), a crowd of persons (9), wall (11), road (7) and void.
PANOPTIC = np.array(
    [
        [11, 11, 11, 11, 0, 0],
        [11, 70000, 70000, 11, 9, 9],
        [7, 70000, 70000, 300, 9, 7],
        [7, 7, 7, 300, 7, 7],
    ],
    np.int32,
)
SEGMENTS = [
    {"id": 70000, "category_id": 26, "area": 4, "bbox": [1, 1, 2, 2], "iscrowd": 0},
    {"id": 300, "category_id": 24, "area": 2, "bbox": [3, 2, 1, 2], "iscrowd": 0},
    {"id": 9, "category_id": 24, "area": 3, "bbox": [4, 1, 2, 2], "iscrowd": 1},
    {"id": 11, "category_id": 11, "area": 6, "bbox": [0, 0, 4, 2]},
    {"id": 7, "category_id": 7, "area": 7, "bbox": [0, 2, 6, 2]},
]


class DataSet:
    """A data set of one picture on disk; `content` may be spoiled before `write`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
        self.panoptic = PANOPTIC
        self.content: Any = {
            "images": [{"id": 1, "file_name": "1.png", "height": 4, "width": 6}],
            "annotations": [
                {"image_id": 1, "file_name": "1_ids.png", "segments_info": json.loads(json.dumps(SEGMENTS))}
            ],
            "categories": json.loads(json.dumps(CATEGORIES)),
        }

    def write(self, *, image: str = "images/1.png") -> Path:
        (self.folder / image).parent.mkdir(parents=True)
        (self.folder / "panoptic").mkdir()
        ids = self.panoptic
        cv2.imwrite(str(self.folder / image), self.image)
        cv2.imwrite(
            str(self.folder / "panoptic/1_ids.png"),
            np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1).astype(np.uint8),
        )
        path = self.folder / "panoptic.json"
        path.write_text(json.dumps(self.content))
        return path

    def load(self) -> Sample:
        data = read_coco_panoptic(self.write(), images=self.folder / "images")
        return load_sample(data.records[0])


@pytest.fixture
def data_set(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path)


def test_classes_are_numbered_in_the_order_of_the_categories(data_set: DataSet) -> None:
    classes = read_coco_panoptic(data_set.write(), images=data_set.folder / "images").classes
    assert classes == CLASSES
    assert classes.thing_index() == {26: 0, 24: 1}
    assert classes.semantic_index() == {26: 0, 24: 0, 7: 1, 11: 2}
    assert classes.semantic_channels == 3


def test_a_picture_and_its_ids_are_read_exactly(data_set: DataSet) -> None:
    sample = data_set.load()
    assert_array_equal(sample.image, data_set.image)
    assert_array_equal(sample.panoptic, PANOPTIC)
    assert sample.panoptic.dtype == np.int32
    assert sample.segments[2] == Segment(id=9, category_id=24, is_crowd=True, area=3)


def test_targets_are_the_ones_drawn_by_hand(data_set: DataSet) -> None:
    targets = derive_targets(data_set.load(), CLASSES)
    assert_array_equal(targets.boxes, [[1, 1, 3, 3], [3, 2, 4, 4]])
    assert_array_equal(targets.classes, [0, 1])
    assert_array_equal(targets.masks, [PANOPTIC == 70000, PANOPTIC == 300])
    assert_array_equal(
        targets.semantic,
        [[2, 2, 2, 2, VOID, VOID], [2, 0, 0, 2, 0, 0], [1, 0, 0, 0, 0, 1], [1, 1, 1, 0, 1, 1]],
    )
    found = [array.dtype.name for array in (targets.boxes, targets.classes, targets.masks, targets.semantic)]
    assert found == ["float32", "int64", "bool", "uint8"]


def test_a_picture_without_instances_has_targets_of_length_zero() -> None:
    sample = Sample(np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 7, np.int32), (Segment(7, 7, False, 24),))
    targets = derive_targets(sample, CLASSES)
    assert targets.boxes.shape == (0, 4)
    assert targets.classes.shape == (0,)
    assert targets.masks.shape == (0, 4, 6)
    assert (targets.semantic == 1).all()


@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 6)))
def test_targets_divide_the_picture(panoptic: np.ndarray[Any, np.dtype[np.int32]]) -> None:
    kinds = {1: (26, False), 2: (26, False), 3: (24, False), 4: (24, True), 5: (7, False), 6: (11, False)}
    segments = tuple(
        Segment(i, *kinds[i], int((panoptic == i).sum())) for i in sorted(set(panoptic.ravel().tolist()) - {0})
    )
    targets = derive_targets(Sample(np.zeros((*panoptic.shape, 3), np.uint8), panoptic, segments), CLASSES)
    assert (targets.masks.sum(0) <= 1).all()
    assert_array_equal(targets.masks.any(0), np.isin(panoptic, (1, 2, 3)))
    assert_array_equal(targets.semantic == 0, np.isin(panoptic, (1, 2, 3, 4)))
    assert_array_equal(targets.semantic == VOID, panoptic == 0)
    for mask, (x0, y0, x1, y1) in zip(targets.masks, targets.boxes.astype(int), strict=True):
        assert mask.sum() == mask[y0:y1, x0:x1].sum()
        assert mask[y0].any()
        assert mask[y1 - 1].any()
        assert mask[:, x0].any()
        assert mask[:, x1 - 1].any()


def test_cityscapes_pictures_are_found_in_the_folders_of_their_cities(data_set: DataSet) -> None:
    name = "ulm_000000_000019"
    data_set.content["images"][0] |= {"id": name, "file_name": f"{name}_gtFine_leftImg8bit.png"}
    data_set.content["annotations"][0]["image_id"] = name
    path = data_set.write(image=f"val/ulm/{name}_leftImg8bit.png")
    record = read_coco_panoptic(path, images=data_set.folder / "val").records[0]
    assert_array_equal(load_sample(record).image, data_set.image)


def segment(d: DataSet, index: int) -> Any:
    return d.content["annotations"][0]["segments_info"][index]


SPOILED: dict[str, tuple[Callable[[DataSet], Any], str]] = {
    "category_unknown": (
        lambda d: segment(d, 1).update(category_id=99),
        r"annotations\[0\]\.segments_info\[1\]: category_id 99 is not among the categories",
    ),
    "segment_twice": (
        lambda d: segment(d, 1).update(id=70000),
        r"segments_info\[1\]: id 70000: another segment of the image has it too",
    ),
    "segment_is_void": (
        lambda d: segment(d, 0).update(id=0),
        "id: expected a whole number from 1 to 16777215, got 0",
    ),
    "field_missing": (
        lambda d: d.content["images"][0].pop("file_name"),
        "file_name: expected a name of one line, got nothing",
    ),
    "field_of_wrong_type": (
        lambda d: d.content["images"][0].update(height="4"),
        "height: expected a whole number from 1 to 1048576, got '4'",
    ),
    "image_missing": (
        lambda d: d.content.update(images=[]),
        "image_id 1 is not among the images",
    ),
    "categories_missing": (
        lambda d: d.content.pop("categories"),
        "categories: expected a list of objects, got nothing; needed is a panoptic JSON",
    ),
    "not_an_object": (
        lambda d: setattr(d, "content", [1]),
        r"panoptic\.json: this is a list, not an object with annotations; needed is",
    ),
    "color_out_of_range": (
        lambda d: d.content["categories"][0].update(color=[1, 2, 256]),
        r"color: expected \[R, G, B\]",
    ),
    "category_twice": (
        lambda d: d.content["categories"][0].update(id=26),
        "categories: category 26 is listed more than once",
    ),
    "id_not_in_the_json": (
        lambda d: d.content["annotations"][0]["segments_info"].pop(1),
        "ids 300 are not in the JSON",
    ),
    "id_not_in_the_png": (
        lambda d: setattr(d, "panoptic", np.where(PANOPTIC == 300, 0, PANOPTIC)),
        "ids 300 of the JSON have no pixel",
    ),
    "picture_of_other_size": (
        lambda d: setattr(d, "image", d.image[:3]),
        r"1\.png: is 3x6 \(H x W\), the JSON says 4x6",
    ),
    "labels_of_other_size": (
        lambda d: setattr(d, "panoptic", PANOPTIC[:, :5]),
        r"1_ids\.png: is 4x5 \(H x W\), the JSON says 4x6",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_data_set_that_does_not_fit_is_refused_by_name(data_set: DataSet, case: str) -> None:
    spoil, message = SPOILED[case]
    spoil(data_set)
    with pytest.raises(ValueError, match=message):
        data_set.load()


def test_a_missing_file_or_folder_is_named(data_set: DataSet) -> None:
    path = data_set.write()
    images = data_set.folder / "images"
    with pytest.raises(FileNotFoundError, match=r"other\.json: no such file; expected a COCO panoptic JSON"):
        read_coco_panoptic(data_set.folder / "other.json", images=images)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; expected the images of panoptic\.json"):
        read_coco_panoptic(path, images=data_set.folder / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"label maps of panoptic\.json there\. Name the folder"):
        read_coco_panoptic(path, images=images, labels=data_set.folder / "nowhere")
    record = read_coco_panoptic(path, images=images).records[0]
    record.label_path.unlink()
    with pytest.raises(FileNotFoundError, match=r"1_ids\.png: no such file; the JSON names it"):
        load_sample(record)


def test_a_broken_file_is_named(data_set: DataSet) -> None:
    path = data_set.write()
    record = read_coco_panoptic(path, images=data_set.folder / "images").records[0]
    record.image_path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1\.png: not an image that can be read: expected JPEG, PNG"):
        load_sample(record)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"panoptic\.json: invalid JSON"):
        read_coco_panoptic(path, images=data_set.folder / "images")
