"""Picture files: upright whatever their format, bounded by their headers, and named when they are something else."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from panrt.errors import ImageDeniedError, ImageFileError, ImageNotFoundError, PanrtError
from panrt.formats import image_files
from panrt.formats.image_files import read_header, read_image

# 2 x 3 blocks of 8 x 8 pixels, no two alike and none like its mirror image
COLORS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [128, 128, 128]]], np.uint8)
STORED = COLORS.repeat(8, axis=0).repeat(8, axis=1)  # RGB

# What to do with the stored picture, after the EXIF standard: where its row 0 and column 0 are when it is upright.
UPRIGHT = {
    1: lambda image: image,  # top, left
    2: lambda image: image[:, ::-1],  # top, right
    3: lambda image: image[::-1, ::-1],  # bottom, right
    4: lambda image: image[::-1],  # bottom, left
    5: lambda image: image.swapaxes(0, 1),  # left, top
    6: lambda image: np.rot90(image, -1),  # right, top: to be turned clockwise
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),  # right, bottom
    8: lambda image: np.rot90(image, 1),  # left, bottom
}
EXACT: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
}


def tiff(
    rgb: np.ndarray, *, order: str = "<", orientation: int | None = None, kind: int = 3, big: bool = False
) -> bytes:
    """A TIFF by hand: one strip, not compressed."""
    height, width = rgb.shape[:2]
    fields = [(256, 3, width), (257, 3, height), (259, 3, 1), (262, 3, 2), (277, 3, 3), (278, 3, height)]
    if orientation is not None:
        fields.append((274, kind, orientation))
    head, entry = (16 + 8 + 20 * (len(fields) + 3) + 8, "Q") if big else (8 + 2 + 12 * (len(fields) + 3) + 4, "I")
    fields += [(258, 3, 8), (273, 4, head), (279, 4, rgb.size)]
    size = 8 if big else 4
    directory = struct.pack(f"{order}{'Q' if big else 'H'}", len(fields))
    for tag, form, value in sorted(fields):
        packed = struct.pack(f"{order}{'H' if form == 3 else 'I'}", value).ljust(size, b"\0")
        count = 3 if tag == 258 and big else 1  # three shorts fit a field of BigTIFF alone
        packed = struct.pack(f"{order}3H", 8, 8, 8).ljust(size, b"\0") if count == 3 else packed
        directory += struct.pack(f"{order}HH{entry}", tag, form, count) + packed
    directory += bytes(size)
    mark = b"II" if order == "<" else b"MM"
    start = struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    return mark + start + directory + rgb.tobytes()


def encoded(form: str, orientation: int | None, rgb: np.ndarray = STORED) -> bytes:
    if form == "TIFF":
        return tiff(rgb, orientation=orientation)
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, form, exif=exif.tobytes(), **EXACT[form])
    return file.getvalue()


def write(folder: Path, data: bytes) -> Path:
    path = folder / "picture"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", EXACT)
def test_a_picture_comes_upright_in_every_format(form: str, orientation: int, tmp_path: Path) -> None:
    path = write(tmp_path, encoded(form, orientation))
    found = read_image(path)
    expected = UPRIGHT[orientation](STORED)[..., ::-1]
    assert found.shape == expected.shape
    assert found.flags.c_contiguous
    # JPEG is not exact; a mirrored block would be off by 127 at the least
    assert np.abs(found.astype(int) - expected).max() <= (20 if form == "JPEG" else 0)
    header = read_header(path.read_bytes(), path)
    assert (header.orientation, header.upright_hw) == (orientation, expected.shape[:2])
    assert (header.height, header.width) == STORED.shape[:2]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pillow_turns_pictures_alike(form: str, orientation: int, tmp_path: Path) -> None:
    path = write(tmp_path, encoded(form, orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[..., ::-1]
    assert np.abs(read_image(path).astype(int) - expected).max() <= 20


@pytest.mark.parametrize("kind", [3, 4], ids=["short", "long"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big-endian"])
def test_the_orientation_of_a_tiff_is_read_in_any_layout(order: str, big: bool, kind: int, tmp_path: Path) -> None:
    path = write(tmp_path, tiff(STORED, order=order, orientation=6, kind=kind, big=big))
    assert_array_equal(read_image(path), UPRIGHT[6](STORED)[..., ::-1])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [None, 0, 9, 65535])
def test_an_orientation_that_makes_no_sense_is_none(form: str, orientation: int | None, tmp_path: Path) -> None:
    found = read_image(write(tmp_path, encoded(form, orientation)))
    assert np.abs(found.astype(int) - STORED[..., ::-1]).max() <= 20


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tif", ".bmp", ".ppm"])
@given(height=st.integers(1, 300), width=st.integers(1, 300))
@settings(max_examples=10)
def test_headers_tell_the_size(extension: str, height: int, width: int) -> None:
    data = cv2.imencode(extension, np.zeros((height, width, 3), np.uint8))[1].tobytes()
    header = read_header(data, Path("a"))
    assert (header.height, header.width, header.orientation) == (height, width, 1)


def test_pictures_of_all_kinds_become_bgr_of_8_bits(tmp_path: Path) -> None:
    grey = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    bgr = grey[..., None].repeat(3, axis=2)
    alpha = np.dstack([bgr, np.full((8, 8), 9, np.uint8)])
    for image in (grey, grey.astype(np.uint16) * 257, bgr, bgr.astype(np.uint16) * 257, alpha):
        assert_array_equal(read_image(write(tmp_path, cv2.imencode(".png", image)[1].tobytes())), bgr)
    palette, cmyk = io.BytesIO(), io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG")
    assert_array_equal(read_image(write(tmp_path, palette.getvalue())), bgr)
    Image.fromarray(STORED).convert("CMYK").save(cmyk, "JPEG", quality=100)
    assert np.abs(read_image(write(tmp_path, cmyk.getvalue())).astype(int) - STORED[..., ::-1]).max() <= 20


# Too large, damaged, something else ----------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BOMBS = {
    "png": png_header(40_000, 40_000),
    "png of a long side": png_header(2**20 + 1, 1),
    "png of the longest sides": png_header(2**31 - 1, 2**31 - 1),
    "jpeg": b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65500, 65500) + bytes(9) + b"\xff\xda\0\x02\xff\xd9",
    "bmp": b"BM" + bytes(12) + struct.pack("<Iii", 40, 40_000, -40_000) + bytes(20),
    "ppm": b"P6\n# a comment\n40000 40000\n255\n",
    "tiff": tiff(STORED).replace(struct.pack("<HHIHH", 257, 3, 1, 16, 0), struct.pack("<HHII", 257, 4, 1, 2**31)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_picture_that_is_too_large_is_not_decoded(bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    path = write(tmp_path, BOMBS[bomb])
    with pytest.raises(
        ImageFileError, match=rf"^{path}: has \d+ x \d+ \(W x H\) pixels, expected at most 268435456 pixels"
    ):
        read_image(path)


def test_a_large_file_is_read_no_further_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_BYTES", 100)
    path = write(tmp_path, encoded("PNG", 1))
    with pytest.raises(ImageFileError, match="has more than 100 bytes"):
        read_image(path)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tif", ".bmp", ".ppm"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.98])
def test_a_picture_that_is_cut_short_is_no_picture(extension: str, part: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(extension, noise)[1].tobytes()
    with pytest.raises(ImageFileError, match="picture"):
        read_image(write(tmp_path, data[: int(len(data) * part)]))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_an_animation_is_no_picture(form: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (10, 100, 200)]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageFileError, match=r"an animation of 3 frames, expected an image; convert it to a video"):
        read_image(write(tmp_path, file.getvalue()))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\x76\x2f\x31\x01" + bytes(20), "OpenEXR"),
        (b"8BPS" + bytes(20), "Photoshop"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\0\x05\x16\x07\0\2\0\0", "a metadata file of macOS"),
        (b"some text", "expected JPEG, PNG, WebP, TIFF, BMP or PNM"),
        (b"", "the file is empty"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(data: bytes, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, data)
    with pytest.raises(ImageFileError, match=said) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")


@given(data=st.data())
@settings(max_examples=300)
def test_a_spoiled_header_is_one_typed_line(data: st.DataObject) -> None:
    spoiled = bytearray(
        encoded(data.draw(st.sampled_from([*EXACT])), data.draw(st.sampled_from([1, 6])), STORED[:8, :8])
    )
    for _ in range(data.draw(st.integers(1, 6))):
        spoiled[data.draw(st.integers(0, min(len(spoiled), 200) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(spoiled)))
    problem = ""
    try:
        header = read_header(bytes(spoiled[:length]), Path("a\nb.png"))
    except PanrtError as error:
        problem = str(error)
    if problem:
        assert problem.startswith("a\\nb.png: ")
        assert "\n" not in problem
    else:
        assert min(header.width, header.height) > 0
        assert header.orientation in UPRIGHT


def test_a_pipe_a_folder_and_a_device_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, Path("/dev/zero")):
        with pytest.raises(ImageFileError, match="is a folder, a pipe or a device, expected a file"):
            read_image(path)


def test_a_file_that_is_not_there_or_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere")
    for name in ("none.png", "gone.png", "a\0b.png", "\ud800.png"):
        with pytest.raises(ImageNotFoundError, match="no such file") as caught:
            read_image(tmp_path / name)
        assert isinstance(caught.value, FileNotFoundError)
        str(caught.value).encode()  # no half of a surrogate pair
    with pytest.raises(ImageFileError, match="cannot be read"):
        read_image(tmp_path / ("x" * 5000))

    def deny(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(ImageDeniedError, match="may not be read by this user"):
        read_image(tmp_path / "a.png")


# Order ---------------------------------------------------------------------------------------------------------------


def order(*names: str) -> list[str]:
    return [str(path) for path in image_files.in_natural_order(map(Path, names))]


@pytest.mark.parametrize(
    "expected",
    [
        ["1.jpg", "2.jpg", "10.jpg", "11.jpg"],
        ["a.jpg", "a1.jpg", "a2.JPG", "A10.jpg", "b1.jpg"],
        ["frame_9_b.png", "frame_10_a.png", "frame_10_b.png"],
        ["01.png", "1.png", "001x.png", "2.png", "010.png"],
        ["2/10.jpg", "10/1.jpg", "10/2.jpg"],
        ["٢.png", "٣.png", "١٠.png"],
        ["x²a.png", "x²b.png"],
        ["1" * 200 + ".png", "2" * 200 + ".png", "1" * 201 + ".png"],
        ["A.png", "a.png", "B.png"],
    ],
)
def test_numbered_names_come_as_people_count(expected: list[str]) -> None:
    assert order(*reversed(expected)) == order(*expected) == expected


@given(st.lists(st.text(alphabet="aAbB01٢_.", min_size=1, max_size=6), unique=True))
def test_the_order_does_not_depend_on_how_names_are_listed(names: list[str]) -> None:
    names = [name for name in names if str(Path(name)) == name]
    assert order(*names) == order(*reversed(names)) == order(*sorted(names))


@given(st.lists(st.integers(0, 10**8), unique=True))
def test_padded_numbers_keep_the_order_of_plain_sorting(numbers: list[int]) -> None:
    names = [f"{number:09d}.png" for number in numbers]
    assert order(*names) == sorted(names)
    assert order(*[f"{number}.png" for number in numbers]) == [f"{number}.png" for number in sorted(numbers)]


def test_a_folder_holds_no_hidden_files_and_no_folders(tmp_path: Path) -> None:
    for name in ("10.jpg", "9.PNG", "._9.png", ".hidden.jpg", "notes.txt", "noext", "8.Tif"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "11.jpg").symlink_to("nowhere")
    assert [path.name for path in image_files.images_in(tmp_path)] == ["8.Tif", "9.PNG", "10.jpg", "11.jpg"]
