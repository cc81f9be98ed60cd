"""Sample frames from folders and clips, spread evenly; files that are not images are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from panrt.cli.frames import network_frames
from panrt.errors import ExportError
from panrt.export.frames import read_frames

DATA = Path(__file__).parents[1] / "data" / "tabletop"
PICTURES = sorted((DATA / "eval" / "images").iterdir())


def test_pictures_are_taken_evenly_from_a_folder() -> None:
    found = list(read_frames(DATA / "eval" / "images", limit=4))
    expected = [np.asarray(cv2.imread(str(PICTURES[index]))) for index in (0, 16, 32, 48)]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_frames_are_taken_evenly_from_a_clip() -> None:
    with av.open(str(DATA / "clip.mp4")) as container:
        every = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    found = list(read_frames(DATA / "clip.mp4", limit=5))
    assert all(np.array_equal(a, every[index]) for a, index in zip(found, (0, 40, 80, 120, 160), strict=True))


def test_a_picture_is_one_frame_and_a_short_folder_is_taken_whole(tmp_path: Path) -> None:
    for picture in PICTURES[:3]:
        shutil.copy(picture, tmp_path)
    (tmp_path / "notes.txt").write_text("not a picture")
    assert len(list(read_frames(PICTURES[0], limit=9))) == 1
    assert len(list(read_frames(tmp_path, limit=9))) == 3


def test_no_pictures_and_damaged_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no images; expected files that end in"):
        list(read_frames(tmp_path, limit=1))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PICTURES[0].read_bytes()[:100])
    with pytest.raises(ExportError, match=r"broken\.jpg: not an image that can be read: .* Remove it or give"):
        list(read_frames(tmp_path, limit=1))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(read_frames(tmp_path / "nowhere", limit=1))
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(ExportError, match=r"notes\.txt: neither an image nor a video"):
        list(read_frames(tmp_path / "notes.txt", limit=1))
    with pytest.raises(ExportError, match="limit: got 0"):
        list(read_frames(tmp_path, limit=0))


def test_a_frame_is_placed_as_a_session_places_it() -> None:
    (placed,) = network_frames(PICTURES[0], limit=1, input_hw=(128, 192), valid_hw=(128, 180), free=(1.4, 2, 3))
    original = np.asarray(cv2.imread(str(PICTURES[0])))  # 256 x 320, so 128 x 160 is left of it
    half = cv2.resize(original, (160, 128), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(placed[:, :160], half)
    assert (placed[:, 160:] == (1, 2, 3)).all()


def test_pictures_come_upright_in_the_order_of_numbers_without_hidden_ones(tmp_path: Path) -> None:
    stored = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    exif = Image.Exif()
    exif[274] = 5  # mirrored at the diagonal
    for number in (1, 2, 10):
        Image.fromarray(stored[..., ::-1] + np.uint8(number)).save(tmp_path / f"{number}.png", exif=exif.tobytes())
    (tmp_path / "._1.png").write_bytes(b"\0\5\x16\7")
    found = list(read_frames(tmp_path, limit=9))
    assert [frame.shape for frame in found] == 3 * [(4, 2, 3)]
    expected = [stored.transpose(1, 0, 2) + np.uint8(number) for number in (1, 2, 10)]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ["\ud800.png", "a\0.png", "x" * 5000 + ".png"])
def test_a_name_that_no_file_has_is_an_error_of_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises((ExportError, FileNotFoundError)) as caught:
        list(read_frames(tmp_path / name, limit=1))
    assert str(caught.value).isprintable()
