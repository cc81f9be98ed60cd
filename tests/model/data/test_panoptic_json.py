"""JSON of real data sets: which fields may be missing or differ, and which errors name the place."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from panrt.errors import PanopticFormatError, PanopticNotFoundError, PanrtError
from panrt.model.data import coco_panoptic, panoptic_json
from panrt.model.data.classes import made_up_colors
from panrt.model.data.coco_panoptic import CocoPanoptic, derive_targets, load_sample, read_classes, read_coco_panoptic
from panrt.model.data.panoptic_json import read_panoptic_png
from panrt.model.panoptic_folders import evaluate_folders
from panrt.model.panoptic_map import areas, runs

# Two pictures of 4 x 6 with a car (70000) and the road (7), the second upside down
PANOPTIC = np.full((4, 6), 7, np.int32)
PANOPTIC[0, :2] = 70000
CONTENT: dict[str, Any] = {
    "info": {"year": 2017},
    "licenses": [],
    "categories": [
        {"id": 7, "name": "road", "isthing": 0, "color": [128, 64, 128], "supercategory": "ground"},
        {"id": 26, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    ],
    "images": [
        {"id": 2, "file_name": "2.png", "height": 4, "width": 6, "license": 1},
        {"id": 1, "file_name": "1.png", "height": 4, "width": 6},
    ],
    "annotations": [
        {
            "image_id": number,
            "file_name": f"{number}.png",
            "segments_info": [
                {"id": 70000, "category_id": 26, "area": 2, "bbox": [0, 0, 2, 1], "iscrowd": 0},
                {"id": 7, "category_id": 7, "area": 22, "bbox": [0, 0, 6, 4], "iscrowd": 0},
            ],
        }
        for number in (1, 2)
    ],
}


def write_ids(path: Path, ids: np.ndarray) -> None:
    cv2.imwrite(str(path), np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "panoptic").mkdir()
    for number, ids in ((1, PANOPTIC), (2, PANOPTIC[::-1])):
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), np.full((4, 6, 3), 100 * number, np.uint8))
        write_ids(tmp_path / f"panoptic/{number}.png", ids)
    return tmp_path


def read(folder: Path, content: Any = CONTENT, *, prefix: str = "") -> CocoPanoptic:
    path = folder / "panoptic.json"
    path.write_text(prefix + (content if isinstance(content, str) else json.dumps(content)), encoding="utf-8")
    return read_coco_panoptic(path, images=folder / "images")


def changed(change: Callable[[Any], object]) -> Any:
    content = copy.deepcopy(CONTENT)
    change(content)
    return content


def each_segment(change: Callable[[dict[str, Any]], object]) -> Any:
    return changed(lambda c: [change(s) for a in c["annotations"] for s in a["segments_info"]])


# Accepted ------------------------------------------------------------------------------------------------------------

SAME: dict[str, Any] = {
    "floats": changed(
        lambda c: (
            c["categories"][0].update(id=7.0, isthing=0.0, color=[128.0, 64.0, 128.0]),
            c["images"][0].update(id=2.0, height=4.0, width=6.0),
            c["annotations"][1].update(image_id=2.0),
            c["annotations"][0]["segments_info"][0].update(id=70000.0, category_id=26.0, area=2.0, iscrowd=0.0),
        )
    ),
    "truth values": changed(lambda c: [k.update(isthing=bool(k["isthing"])) for k in c["categories"]]),
    "no area": each_segment(lambda s: s.pop("area")),
    "null area": each_segment(lambda s: s.update(area=None)),
    "the area of a polygon": each_segment(lambda s: s.update(area=s["area"] + 0.37)),
    "no bbox": each_segment(lambda s: s.pop("bbox")),
    "no iscrowd": each_segment(lambda s: s.pop("iscrowd")),
    "no file names of label maps": changed(lambda c: [a.pop("file_name") for a in c["annotations"]]),
    "no sizes": changed(lambda c: [(i.pop("height"), i.pop("width")) for i in c["images"]]),
    "unsorted": changed(lambda c: c["images"].reverse()),
    "other fields": each_segment(lambda s: s.update(counts="x", attributes={"a": [1]}, score=float(1))),
    "an image without labels": changed(lambda c: c["images"].append({"id": 9, "file_name": "9.jpg"})),
}


@pytest.mark.parametrize("name", SAME)
def test_a_data_set_written_otherwise_is_the_same(name: str, folder: Path) -> None:
    expected, found = read(folder), read(folder, SAME[name])
    assert found.classes == expected.classes
    for one, other in zip(expected.records, found.records, strict=True):
        a, b = load_sample(one), load_sample(other)
        assert_array_equal(a.image, b.image)
        assert_array_equal(a.panoptic, b.panoptic)
        assert a.segments == b.segments
    truth = folder / "truth.json"
    truth.write_text(json.dumps(SAME[name]))
    quality = evaluate_folders(truth, truth, truth_folder=folder / "panoptic", prediction_folder=folder / "panoptic")
    assert (quality.images, quality.all.pq) == (2, 1.0)


def test_a_byte_order_mark_is_no_matter(folder: Path) -> None:
    assert read(folder, prefix="\ufeff") == read(folder)
    path = folder / "panoptic.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(CONTENT).encode())
    assert evaluate_folders(path, path).all.pq == 1.0
    assert read_classes(path) == read(folder).classes


def test_missing_colours_are_made_up_alike_each_time(folder: Path) -> None:
    content = changed(lambda c: c["categories"][0].pop("color"))
    (road,), (again,) = read(folder, content).classes.stuff, read(folder, content).classes.stuff
    assert road == again
    assert road.color not in ((0, 0, 0), (0, 0, 142))
    content["categories"].reverse()
    assert read(folder, content).classes.stuff == (road,)
    assert read(folder).classes.stuff[0].color == (128, 64, 128)


@pytest.mark.parametrize("ids", [range(200), range(1000, 1500, 3), range(5_000)])
def test_made_up_colours_differ(ids: range) -> None:
    taken = [made_up_colors([ids[0]])[ids[0]]]
    colors = made_up_colors(list(ids), taken)
    assert list(colors) == list(ids)
    assert all(0 <= channel <= 255 for color in colors.values() for channel in color)
    assert all(max(color) > 60 for color in colors.values())
    if len(ids) < 1000:
        assert len({*colors.values(), *taken}) == len(ids) + 1


def test_cocos_own_list_of_categories_gives_classes(folder: Path) -> None:
    path = folder / "panoptic_coco_categories.json"
    path.write_text(json.dumps(CONTENT["categories"]))
    assert read_classes(path) == read(folder).classes


# Refused -------------------------------------------------------------------------------------------------------------

INSTANCE = {"id": 1, "image_id": 1, "category_id": 26, "bbox": [0, 0, 2, 1], "area": 2, "iscrowd": 0}
PLAIN_CATEGORIES = [{"id": 26, "name": "car", "supercategory": "vehicle"}]
OF_ANOTHER_KIND: dict[str, tuple[Any, str]] = {
    "instances": (
        {
            **CONTENT,
            "categories": PLAIN_CATEGORIES,
            "annotations": [{**INSTANCE, "segmentation": [[0, 0, 1, 1, 2, 2]]}],
        },
        r"an instance JSON \(its annotations have segmentation\)",
    ),
    "boxes": ({**CONTENT, "categories": PLAIN_CATEGORIES, "annotations": [INSTANCE]}, "a detection JSON"),
    "key points": ({**CONTENT, "annotations": [{**INSTANCE, "segmentation": [], "keypoints": []}]}, "a keypoint JSON"),
    "captions": (
        {"images": CONTENT["images"], "annotations": [{"id": 1, "image_id": 1, "caption": "a car"}]},
        "a caption JSON",
    ),
    "results": ([{**INSTANCE, "score": 0.5, "segmentation": {"size": [4, 6], "counts": "x"}}], "a list of detections"),
    "bare annotations": (CONTENT["annotations"], "a bare list of annotations"),
    "a test set": (
        {"images": CONTENT["images"], "categories": PLAIN_CATEGORIES},
        "a list of images without annotations",
    ),
    "labelme": ({"shapes": [], "imagePath": "a.jpg"}, "an annotation of labelme"),
    "a list": ([1, 2], "a list, not an object with annotations"),
}


@pytest.mark.parametrize("name", OF_ANOTHER_KIND)
def test_a_json_of_another_kind_is_called_by_its_name(name: str, folder: Path) -> None:
    content, said = OF_ANOTHER_KIND[name]
    needed = rf"panoptic\.json: this is {said}.*; needed is a panoptic JSON, whose annotations have segments_info"
    with pytest.raises(PanopticFormatError, match=needed):
        read(folder, content)
    with pytest.raises(PanopticFormatError, match=needed):
        evaluate_folders(folder / "panoptic.json", folder / "panoptic.json")
    truth = folder / "truth.json"
    truth.write_text(json.dumps(CONTENT))
    if name not in ("a test set", "labelme"):
        with pytest.raises(PanopticFormatError, match=needed):
            evaluate_folders(truth, folder / "panoptic.json", truth_folder=folder / "panoptic")


def test_classes_of_an_instance_json_lack_what_tells_things_from_stuff(folder: Path) -> None:
    path = folder / "instances.json"
    path.write_text(json.dumps(OF_ANOTHER_KIND["instances"][0]))
    with pytest.raises(PanopticFormatError, match=r"instances\.json: this is an instance JSON"):
        read_classes(path)
    path.write_text(json.dumps({"categories": PLAIN_CATEGORIES}))
    with pytest.raises(PanopticFormatError, match=r"categories do not state which are things \(isthing\)"):
        read_classes(path)


def first(part: str, /, **fields: object) -> Any:
    if part == "segments_info":
        return changed(lambda c: c["annotations"][0]["segments_info"][0].update(fields))
    return changed(lambda c: c[part][0].update(fields))


REFUSED: dict[str, tuple[Any, str]] = {
    "deep": ("[" * 100_000, "nested too deeply"),
    "NaN": (each_segment(lambda s: s.update(area=float("nan"))), "NaN is not a JSON number"),
    "not whole": (first("segments_info", id=7.5), r"segments_info\[0\]: id: expected a whole number .*, got 7\.5"),
    "huge": (first("segments_info", category_id=10**400), "category_id: expected a whole number"),
    "a truth value": (first("segments_info", id=True), "id: expected a whole number .*, got True"),
    "text": (first("segments_info", id="7"), "id: expected a whole number .*, got '7'"),
    "an id that no PNG holds": (first("segments_info", id=2**24), "from 1 to 16777215, got 16777216"),
    "a negative area": (first("segments_info", area=-1), "area: expected a number of pixels, got -1"),
    "a crowd of two": (first("segments_info", iscrowd=2), "iscrowd: expected 0 or 1, got 2"),
    "a list for a crowd": (first("segments_info", iscrowd=[0]), "iscrowd: expected 0 or 1"),
    "no category": (first("segments_info", category_id=None), "category_id: expected a whole number"),
    "an annotation twice": (changed(lambda c: c["annotations"][1].update(image_id=1)), "image 1 is listed more than"),
    "an image twice": (first("images", id=1), r"images\[1\]: image 1 is listed twice"),
    "an id of another type": (first("annotations", image_id="1"), "image_id '1' is not among the images .*written"),
    "no annotations": (changed(lambda c: c.update(annotations=[])), "there are none, expected one for each image"),
    "annotations that are no objects": (changed(lambda c: c.update(annotations=[1])), "expected an object, got 1"),
    "a size that is a list": (first("images", height=[1]), r"height: expected a whole number .*, got \[1\]"),
    "a colour of truth values": (first("categories", color=[True, 0, 0]), r"color: expected \[R, G, B\] of 0\.\.255"),
    "a colour in text": (first("categories", color="#804080"), r"color: expected \[R, G, B\] of 0\.\.255"),
    "a name that is drawn badly": (first("categories", name="\ud800"), "name: expected a name of one line"),
    "a name with an escape": (first("categories", name="\x1b[2Jcar"), "name: expected a name of one line"),
    "a name of a megabyte": (first("categories", name="x" * 10**6), "name: expected a name of one line"),
    "no name": (first("categories", name=""), "name: expected a name of one line"),
    **{
        f"{part} {name}": (first(part, file_name=name), "file_name: (got .*expected a path within|expected a name of)")
        for part in ("images", "annotations")
        for name in ("../../etc/passwd", "/etc/passwd", "a/../../b.png", "a\0.png", "", ".", "..")
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_do_is_one_line_that_names_file_and_field(name: str, folder: Path) -> None:
    content, said = REFUSED[name]
    with pytest.raises(PanopticFormatError, match=said) as caught:
        read(folder, content)
    text = str(caught.value)
    assert text.startswith(f"{folder / 'panoptic.json'}: ")
    assert text.isprintable()
    assert len(text) < 1000


def test_json_lines_are_told_what_they_are(folder: Path) -> None:
    path = folder / "results.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(PanopticFormatError, match=r"JSON lines are not a panoptic JSON; .*coco://DIR"):
        read_coco_panoptic(path, images=folder)


def test_many_entries_take_time_in_proportion(folder: Path) -> None:
    """A quadratic check takes minutes for these."""
    many = [{"id": i, "name": "a", "isthing": 1} for i in range(20_000)]
    assert (
        len(read(folder, {**CONTENT, "categories": [*CONTENT["categories"][:1], *many[8:]]}).classes.things) == 19_992
    )
    segments = [{"id": i + 1, "category_id": 26, "area": 1} for i in range(30_000)]
    content = changed(lambda c: c["annotations"][0].update(segments_info=segments))
    with pytest.raises(
        PanopticFormatError, match=r"ids 1, 2, 3, 4, 5, 6, 8, 9 and 29991 more of the JSON have no pixel"
    ):
        load_sample(read(folder, content).records[0])


PATHS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2**65)
    | st.floats()
    | st.sampled_from(["", "x", "../x", "a\0", "\ud800", 10**400, "1.png"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "area"]), inner, max_size=2),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_a_field_with_anything_in_it_is_read_or_refused(data: st.DataObject, folder: Path) -> None:
    content = copy.deepcopy(CONTENT)
    node: Any = content
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if isinstance(node[key], (dict, list)) and node[key] and data.draw(st.integers(0, 4)):
            node = node[key]
            continue
        if data.draw(st.booleans()):
            node[key] = data.draw(PATHS)
        else:
            del node[key]
        break
    problem = ""
    try:
        dataset = read(folder, content)
        for record in dataset.records:
            derive_targets(load_sample(record), dataset.classes)
    except PanrtError as error:
        problem = str(error)
    assert problem.isprintable()
    assert len(problem) < 2000


# Files that a JSON names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["images", "panoptic"])
def test_a_link_out_of_the_folder_is_not_followed(part: str, folder: Path) -> None:
    target = folder / part / "1.png"
    target.rename(folder / "outside.png")
    target.symlink_to(folder / "outside.png")
    with pytest.raises(PanopticFormatError, match=r"1\.png: is a link to .*outside\.png, outside of its folder"):
        load_sample(read(folder).records[0])


def test_links_within_a_folder_and_a_folder_that_is_a_link_are_followed(folder: Path) -> None:
    for part in ("images", "panoptic"):
        (folder / part / "1.png").rename(folder / part / "real.png")
        (folder / part / "1.png").symlink_to("real.png")
        (folder / part).rename(folder / f"{part}_elsewhere")
        (folder / part).symlink_to(f"{part}_elsewhere")
    assert load_sample(read(folder).records[0]).image.shape == (4, 6, 3)


@pytest.mark.parametrize("part", ["images", "panoptic"])
def test_a_pipe_in_place_of_a_picture_is_not_waited_for(part: str, folder: Path) -> None:
    (folder / part / "1.png").unlink()
    os.mkfifo(folder / part / "1.png")
    with pytest.raises(PanopticFormatError, match=r"1\.png: is a folder, a pipe or a device"):
        load_sample(read(folder).records[0])


def test_files_that_a_json_names_and_that_are_missing_are_reported(folder: Path) -> None:
    (folder / "images/1.png").unlink()
    (folder / "images/1.png").symlink_to("nowhere.png")
    with pytest.raises(PanopticNotFoundError, match=r"1\.png: no such file; the JSON names it") as caught:
        load_sample(read(folder).records[0])
    assert isinstance(caught.value, FileNotFoundError)


# Orientation ---------------------------------------------------------------------------------------------------------

STORED = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def write_turned(folder: Path, orientation: int) -> np.ndarray:
    """Picture 1 with an orientation, and what Pillow shows of it."""
    exif = Image.Exif()
    exif[274] = orientation
    path = folder / "images/1.png"
    Image.fromarray(STORED).save(path, exif=exif.tobytes())
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image))[..., ::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_and_its_labels_are_as_they_are_drawn(orientation: int, folder: Path) -> None:
    upright = write_turned(folder, orientation)
    height, width = upright.shape[:2]
    ids = np.full((height, width), 7, np.int32)
    ids[0, :2] = 70000
    write_ids(folder / "panoptic/1.png", ids)
    sample = load_sample(read(folder, changed(lambda c: c["images"][1].update(height=height, width=width))).records[0])
    assert_array_equal(sample.image, upright)
    assert_array_equal(sample.panoptic, ids)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("content", [CONTENT, SAME["no sizes"]], ids=["sizes", "no sizes"])
def test_labels_of_the_unturned_picture_are_told_by_its_orientation(
    content: Any, orientation: int, folder: Path
) -> None:
    write_turned(folder, orientation)
    said = rf"1\.png: is 6x4 .* 4x6, which is the size before its EXIF orientation \({orientation}\) turns it.*exiftool"
    with pytest.raises(PanopticFormatError, match=said):
        load_sample(read(folder, content).records[0])


def test_a_picture_of_another_size_is_not_blamed_on_its_orientation(folder: Path) -> None:
    write_turned(folder, 6)
    content = changed(lambda c: c["images"][1].update(height=5))
    with pytest.raises(PanopticFormatError, match=r"is 6x4 .* 5x6; images and JSON are of different versions"):
        load_sample(read(folder, content).records[0])


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_orientation_does_not_turn_a_label_map(orientation: int, folder: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    rgb = np.stack([PANOPTIC & 255, PANOPTIC >> 8 & 255, PANOPTIC >> 16], -1).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "panoptic/1.png", exif=exif.tobytes())
    assert_array_equal(read_panoptic_png(folder / "panoptic/1.png"), PANOPTIC)


# Label maps ----------------------------------------------------------------------------------------------------------


def test_a_label_map_with_a_palette_or_opaque_alpha_holds_the_same_ids(folder: Path) -> None:
    path = folder / "a.png"
    with Image.open(folder / "panoptic/1.png") as image:
        rgb = image.convert("RGB")
    rgb.quantize(256).save(path)  # without loss: it has two colours
    with Image.open(path) as image:
        assert image.mode == "P"
    assert_array_equal(read_panoptic_png(path), PANOPTIC)
    rgb.convert("RGBA").save(path)
    assert_array_equal(read_panoptic_png(path), PANOPTIC)


@pytest.mark.parametrize(
    ("mode", "form", "said"),
    [
        ("L", "PNG", "got a PNG of 8 bits, grey;"),
        ("LA", "PNG", "got a PNG of 8 bits, grey with alpha;"),
        ("1", "PNG", "got a PNG of 1 bits, grey;"),
        ("RGB", "JPEG", "got a JPEG file;"),
        ("RGB", "TIFF", "got a TIFF file;"),
        ("RGB", "BMP", "got a BMP file;"),
    ],
)
def test_a_label_map_that_cannot_hold_ids_is_refused_by_its_kind(mode: str, form: str, said: str, folder: Path) -> None:
    path = folder / "a.png"
    Image.fromarray(STORED).convert(mode).save(path, form)
    with pytest.raises(PanopticFormatError, match=f"expected an 8-bit RGB PNG, id = R .*, {said}"):
        read_panoptic_png(path)


def test_a_label_map_of_16_bits_or_with_transparent_pixels_is_refused(folder: Path) -> None:
    path = folder / "a.png"
    cv2.imwrite(str(path), STORED.astype(np.uint16))
    with pytest.raises(PanopticFormatError, match="got a PNG of 16 bits, RGB"):
        read_panoptic_png(path)
    cv2.imwrite(str(path), np.dstack([STORED, np.full((4, 6), 254, np.uint8)]))
    with pytest.raises(PanopticFormatError, match="got transparent pixels"):
        read_panoptic_png(path)


def test_a_label_map_that_is_too_large_is_not_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panoptic_json, "MAX_LABEL_PIXELS", 23)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PanopticFormatError, match=r"has 6 x 4 \(W x H\) pixels, expected at most 23 pixels"):
        read_panoptic_png(folder / "panoptic/1.png")


def test_masks_that_would_take_too_much_memory_are_not_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_panoptic, "MAX_MASK_BYTES", 23)
    dataset = read(folder)
    with pytest.raises(PanopticFormatError, match=r"^a\.png: the masks of 1 things at 4x6 \(H x W\) take more than"):
        derive_targets(load_sample(dataset.records[0]), dataset.classes, name="a.png")


@given(st.integers(0, 8), st.integers(1, 8), st.data())
def test_runs_and_areas_are_those_of_numpy(height: int, width: int, data: st.DataObject) -> None:
    ids = np.array(data.draw(st.lists(st.integers(0, 3), min_size=height * width, max_size=height * width)), np.int32)
    ids = ids.reshape(height, width)
    values, lengths = runs(ids)
    assert_array_equal(np.repeat(values, lengths), ids.ravel())
    assert (lengths > 0).all()
    assert (values[1:] != values[:-1]).all()
    assert areas(ids) == dict(zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True))
