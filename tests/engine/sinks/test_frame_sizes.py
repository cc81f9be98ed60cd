"""What recordings and shared memory say of a frame whose map has another size, and of the file it was read from."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

import panrt
from panrt.engine.results.result import PanopticResult, Timings
from panrt.engine.results.segment import Segment
from panrt.engine.sinks import Context, Item, SharedMemoryError, SharedMemoryReader, UnknownSinkError, open_sink
from panrt.engine.sinks.coco import CocoWriter
from panrt.engine.sinks.shared_memory import SharedMemoryWriter, memory_path
from panrt.engine.sinks.sink import Writer
from tools.null_session import NullSession, model_file

# a map of 2 x 3 of a frame of 4 x 9: thing 1 at the upper left, stuff 2 elsewhere
MAP = np.array([[1, 2, 2], [2, 2, 2]], np.int32)
SEGMENTS = (
    Segment(1, 1, "bright", True, 0.5, 1, (0, 0, 1, 1)),
    Segment(2, 2, "dark", False, 0.0, 5, (0, 0, 3, 2)),
)
FRAME_HW = 4, 9
THING_BOX = [0, 0, 3, 2]
IDS = MAP.repeat(2, axis=0).repeat(3, axis=1)


def item(file_name: str = "", *, index: int = 7) -> Item:
    frame = panrt.Frame(np.zeros((*FRAME_HW, 3), np.uint8), index, time.monotonic(), 0.5, "desk", file_name=file_name)
    result = PanopticResult(
        MAP, SEGMENTS, Timings(0, 0, 0), index, frame.captured_at, 0.5, "desk", frame_hw=FRAME_HW, file_name=file_name
    )
    return Item(frame, result)


def written(target: str, *items: Item) -> None:
    session = NullSession()
    sink = open_sink(target)
    writer: Writer = sink.spec.open(Context(session.model, lambda: pytest.fail("no status is needed")))
    for each in items:
        writer.write(each)
    writer.close()


def mask_of(rle: dict[str, object]) -> NDArray[np.uint8]:
    mask: NDArray[np.uint8] = coco_masks.decode(rle)
    return mask


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_json_lines_are_in_pixels_of_the_frame_and_say_both_sizes_and_both_clocks(tmp_path: Path) -> None:
    before = time.time()
    written(f"{tmp_path}/plain.jsonl", item())
    written(f"{tmp_path}/masks.jsonl?masks=rle", item("a.jpg"))
    plain, masks = (json.loads((tmp_path / name).read_text()) for name in ("plain.jsonl", "masks.jsonl"))
    assert (plain["version"], plain["height"], plain["width"]) == (2, *FRAME_HW)
    assert (plain["map_height"], plain["map_width"], plain["file_name"], masks["file_name"]) == (2, 3, "", "a.jpg")
    assert plain["segments"][0] == SEGMENTS[0]._replace(area=6)._asdict() | {"box": THING_BOX}
    assert abs(plain["captured_at_epoch"] - before) < 3600
    for segment in masks["segments"]:
        np.testing.assert_array_equal(mask_of(segment["rle"]), segment["id"] == IDS)


def test_a_form_of_masks_that_is_unknown_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownSinkError, match="masks: got 'png', expected none or rle"):
        written(f"{tmp_path}/out.jsonl?masks=png", item())


def test_a_frame_without_a_known_time_has_none_since_1970() -> None:
    assert PanopticResult(MAP, SEGMENTS, Timings(0, 0, 0)).to_json()["captured_at_epoch"] is None


def test_maps_are_written_as_the_network_gave_them_beside_boxes_of_the_frame(tmp_path: Path) -> None:
    written(f"npy://{tmp_path}", item())
    row = json.loads((tmp_path / "results.jsonl").read_text())
    np.testing.assert_array_equal(np.load(tmp_path / row["file"]), MAP)
    assert (row["height"], row["width"], row["map_height"], row["map_width"]) == (*FRAME_HW, *MAP.shape)
    assert row["segments"][0]["box"] == THING_BOX


def test_coco_images_have_the_frame_s_size_and_keep_names_and_numbers_of_files(tmp_path: Path) -> None:
    names = ["street 1.jpg", "000000000139.jpg", "", "2.png", "street 1.png", "000139.jpg", "", "000001.jpg", ".jpg"]
    written(f"coco://{tmp_path}", *map(item, names))
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert content["info"]["schema"] == 2
    found = [(each["id"], each["file_name"]) for each in content["images"]]
    pngs = [each["file_name"] for each in content["annotations"]]
    assert found[:4] == [(1, "street 1.jpg"), (139, "000000000139.jpg"), (2, "000002.png"), (3, "2.png")]
    assert pngs[:4] == ["street 1.png", "000000000139.png", "000002.png", "2.png"]
    assert [name for _, name in found] == [name or png for name, png in zip(names, pngs, strict=True)]
    assert len({number for number, _ in found}) == len(set(pngs)) == len(names)
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        png = np.asarray(cv2.imread(str(tmp_path / "panoptic" / annotation["file_name"])))
        np.testing.assert_array_equal(png[..., 2], IDS)
        assert (image["height"], image["width"], image["map_height"], image["map_width"]) == (*FRAME_HW, *MAP.shape)
        assert annotation["image_id"] == image["id"]
        assert annotation["segments_info"][0]["bbox"] == THING_BOX
        assert abs(image["captured_at_epoch"] - time.time()) < 3600


def test_an_interrupted_folder_keeps_the_names_of_files(tmp_path: Path) -> None:
    writer = CocoWriter(tmp_path, model_file())
    writer.write(item("street.jpg"))
    assert writer._journal is not None
    os.close(writer._journal.descriptor)  # as the system does when the process is gone
    writer._journal.descriptor = -1
    CocoWriter(tmp_path, model_file()).close()
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert [each["file_name"] for each in content["annotations"]] == ["street.png"]


def test_shared_memory_gives_a_reader_the_result_in_pixels_of_the_frame() -> None:
    name = f"test-sizes-{os.getpid()}-{time.monotonic_ns()}"
    sent = item("a.jpg")
    writer = SharedMemoryWriter(name)
    writer.write(sent)
    with SharedMemoryReader(name) as reader:
        found = reader.read(0.0)
    text = memory_path(name).read_bytes()
    writer.close()
    assert found is not None
    assert (found.frame_hw, found.map_hw, found.file_name) == (FRAME_HW, MAP.shape, "a.jpg")
    assert (found.segments, found.map_segments) == (sent.result.segments, SEGMENTS)
    np.testing.assert_array_equal(found.mask(1), IDS == 1)
    assert b'"captured_at_epoch":' in text


@pytest.mark.parametrize("size", ["[4]", "[-1, 9]", "[4, 2.5]", "[100000, 100000]", "null"])
def test_a_size_that_no_frame_has_is_damage(size: str) -> None:
    name = f"test-damage-{os.getpid()}-{time.monotonic_ns()}"
    writer = SharedMemoryWriter(name)
    writer.write(item())
    path = memory_path(name)
    old = f'"frame_hw":[{FRAME_HW[0]},{FRAME_HW[1]}],"segments":'.encode()
    new = f'"frame_hw":{size},"segments":'.encode()
    data = path.read_bytes()
    at = data.index(old)
    length_at = data.rindex(b"{", 0, at) - 4
    length = int.from_bytes(data[length_at : length_at + 4], "little")
    text = data[length_at + 4 : length_at + 4 + length].replace(old, new)
    rest = data[length_at + 4 + length :][: MAP.nbytes]
    damaged = len(text).to_bytes(4, "little") + text + rest
    with path.open("r+b") as file:
        file.seek(length_at)
        file.write(damaged)
    with SharedMemoryReader(name) as reader, pytest.raises(SharedMemoryError, match="expected the fields of a result"):
        reader.read(0.0)
    writer.close()
