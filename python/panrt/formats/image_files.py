"""Image files: the only place where PanRT reads them, and the order in which it reads a folder.

Images are returned upright, by their EXIF orientation. Nothing is decoded before the header has given the size, so that
a small file cannot take much memory. Headers are parsed here and not by OpenCV, whose versions differ in which formats
they rotate, which animations they decode and which truncated files they accept.

Shapes: H x W pixels of an upright image.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from panrt.errors import ImageDeniedError, ImageFileError, ImageNotFoundError
from panrt.formats.records import legible

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

MAX_PIXELS = 2**28  # 16384 x 16384: 800 MB once decoded
MAX_SIDE = 2**20  # OpenCV's limit
MAX_BYTES = 2**30
_MAX_CHUNKS = 2**20  # of a PNG or WebP that are parsed; a large image has 10,000
_MAX_FIELDS = 2**12  # of a TIFF directory


class Header(NamedTuple):
    """The header of an image."""

    format: str  # "JPEG", "PNG", ...
    width: int  # as stored, before rotation
    height: int
    orientation: int = 1  # of EXIF, 1..8
    frames: int = 1  # of an animation
    complete: bool = True  # as far as the header shows
    bit_depth: int = 0  # PNG only
    color_type: int = 0  # PNG only: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha
    orientation_at: int | None = None  # TIFF only: offset of an orientation other than 1
    upright_tag: bytes = b""  # the bytes of orientation 1

    @property
    def upright_hw(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image, upright.

    Grey images get three equal channels, CMYK is converted, 16 bits become 8, transparency is dropped.

    Returns:
        (H, W, 3) BGR.

    Raises:
        ImageFileError: it is not an image that PanRT reads; the message says what it is and how to fix it.
        ImageNotFoundError, ImageDeniedError: it does not exist, or may not be read.
    """
    return decode_image(read_file(path), path)


def decode_image(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the image of a file's content, as `read_image` does; `path` is for messages.

    Raises:
        ImageFileError: it is not an image that PanRT reads; the message says what it is and how to fix it.
    """
    header = read_header(data, path)
    check_size(header, path, most=MAX_PIXELS)
    if header.orientation_at is not None:  # OpenCV always rotates a TIFF, whatever the flags
        rest = header.orientation_at + len(header.upright_tag)
        data = data[: header.orientation_at] + header.upright_tag + data[rest:]
    return _turned(decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, path), header.orientation)


def read_file(path: Path) -> bytes:
    """Read a complete regular file of at most MAX_BYTES; never wait for pipes and devices.

    Raises:
        ImageFileError: it is empty, too large, or not a regular file.
        ImageNotFoundError, ImageDeniedError: it does not exist, or may not be read.
    """
    name = legible(path)
    try:
        data = _read_regular(path)
    except FileNotFoundError as error:
        raise ImageNotFoundError(f"{name}: no such file.") from error
    except PermissionError as error:
        raise ImageDeniedError(f"{name}: may not be read by this user.") from error
    except OSError as error:
        raise ImageFileError(f"{name}: cannot be read ({error.strerror}).") from error
    except ValueError as error:  # a NUL, or characters that cannot be encoded
        raise ImageNotFoundError(f"{name}: no such file; not a valid file name.") from error
    if data is None:
        raise ImageFileError(f"{name}: is a folder, a pipe or a device, expected a file.")
    if len(data) > MAX_BYTES:
        raise ImageFileError(f"{name}: has more than {MAX_BYTES} bytes, the limit; save it smaller.")
    if not data:
        raise ImageFileError(f"{name}: the file is empty.")
    return data


def _read_regular(path: Path) -> bytes | None:
    """Return the file, or its first MAX_BYTES + 1 bytes; None if it is not a regular file."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would block
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read(MAX_BYTES + 1)


def read_header(data: bytes, path: Path) -> Header:
    """Parse the header of an image; `path` is for messages.

    Raises:
        ImageFileError: it has none of the formats that PanRT reads, is an animation, or is truncated.
    """
    name = legible(path)
    for magic, read in _READERS:
        if re.match(magic, data, re.DOTALL):
            try:
                header = read(data)
            except (struct.error, IndexError):
                header = None
            if header is None or header.width < 1 or header.height < 1:
                raise ImageFileError(f"{name}: not an image that can be read: damaged before its size.")
            break
    else:
        raise ImageFileError(f"{name}: not an image that can be read: {_what_else(data)}.")
    if not header.complete:
        raise ImageFileError(f"{name}: the image is truncated ({len(data)} bytes); copy it again.")
    if header.frames > 1:
        raise ImageFileError(
            f"{name}: an animation of {header.frames} frames, expected an image; convert it to a video such as .mp4."
        )
    return header


def check_size(header: Header, path: Path, *, most: int) -> None:
    """Check that an image is not too large to be decoded.

    Raises:
        ImageFileError: it has more than `most` pixels, or too long a side.
    """
    width, height = header.width, header.height
    if width * height > most or max(width, height) > MAX_SIDE:
        raise ImageFileError(
            f"{legible(path)}: has {width} x {height} (W x H) pixels, expected at most {most} pixels and sides of at "
            f"most {MAX_SIDE}. Make it smaller, or cut it into tiles."
        )


def decode(data: bytes | bytearray, flags: int, path: Path) -> NDArray[Any]:
    """Decode an image whose header was checked; `flags` are those of `cv2.imdecode`.

    Raises:
        ImageFileError: it is damaged, or OpenCV does not support it.
    """
    try:
        with _quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # its text names only OpenCV's source files
        image = None
    except MemoryError as error:
        raise ImageFileError(f"{legible(path)}: not enough memory to decode it.") from error
    if image is None:
        raise ImageFileError(f"{legible(path)}: not an image that OpenCV can read, or damaged.")
    return np.asarray(image)


def _turned(image: NDArray[Any], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation to a stored image."""
    if orientation >= 5:  # 5: mirrored at the main diagonal; 6, 7, 8: then left to right, both ways, top to bottom
        image = cv2.transpose(image)
    if orientation in (3, 7):
        image = cv2.flip(image, -1)
    elif orientation in (2, 6):
        image = cv2.flip(image, 1)
    elif orientation in (4, 8):
        image = cv2.flip(image, 0)
    return np.asarray(image, np.uint8)


# Headers --------------------------------------------------------------------------------------------------------------


def _jpeg(data: bytes) -> Header | None:
    size: tuple[int, int] | None = None
    orientation = 1
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            break
        marker = data[at + 1]
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # fill bytes, and markers without a body
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", body, 1)
            size = size or (height, width)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0") and orientation == 1:
            orientation = _exif_orientation(body[6:])
        elif marker in (0xDA, 0xD9):  # the image data; the header ends here
            break
        at += 2 + length
    if size is None:
        return None
    # within image data 0xFF is followed by 0, so that an end marker is unambiguous
    complete = at >= 0 and data.find(b"\xff\xd9", at) >= 0
    return Header("JPEG", size[1], size[0], orientation, complete=complete)


def _png(data: bytes) -> Header | None:
    if data[12:16] != b"IHDR":
        return None
    width, height, bit_depth, color_type = struct.unpack_from(">IIBB", data, 16)
    orientation, frames, complete = 1, 1, True
    at = 8
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        complete = at + 12 + length <= len(data)  # OpenCV allocates a chunk before it reads its content
        if kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length])
        elif kind == b"acTL":
            (frames,) = struct.unpack_from(">I", data, at + 8)
        elif kind == b"IEND":
            break
        at += 12 + length
    return Header("PNG", width, height, orientation, frames, complete, bit_depth=bit_depth, color_type=color_type)


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return Header("WebP", width, height)
    if kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X":
        return None
    width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    orientation, frames = 1, 0
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        frames += kind == b"ANMF"
        at += 8 + length + length % 2
    return Header("WebP", width, height, orientation, max(frames, 1))


def _tiff(data: bytes) -> Header | None:
    fields = _tiff_fields(data)
    if 256 not in fields or 257 not in fields:
        return None
    width, height = fields[256].value, fields[257].value
    for tag, side in ((322, width), (323, height)):  # tiles are decoded completely
        if tag in fields and fields[tag].value > max(side, 1024):
            return None
    tag_274 = fields.get(274)
    if tag_274 is None or tag_274.value == 1:
        return Header("TIFF", width, height)
    upright = struct.pack(tag_274.format, 1)
    return Header("TIFF", width, height, _valid(tag_274.value), orientation_at=tag_274.at, upright_tag=upright)


def _bmp(data: bytes) -> Header | None:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return Header("BMP", abs(width), abs(height))


def _pnm(data: bytes) -> Header | None:
    found = re.match(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s", data[:4096])
    return Header("PNM", int(found[1]), int(found[2])) if found else None


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation of an EXIF block, a TIFF without an image; 1 if it has no valid one."""
    if exif[:2] not in (b"II", b"MM"):
        return 1
    try:
        found = _tiff_fields(exif).get(274)
    except struct.error:
        return 1
    return _valid(found.value) if found else 1


class _Field(NamedTuple):
    value: int  # the first
    at: int  # offset in the file
    format: str  # of `struct`


def _tiff_fields(data: bytes) -> dict[int, _Field]:
    """Return the integer fields of a TIFF's first directory by their tags."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43  # BigTIFF, for files beyond 4 GB
    offset, entry, inline = ("Q", 20, 12) if big else ("I", 12, 8)
    (at,) = struct.unpack_from(f"{order}{offset}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)
    at += 8 if big else 2
    formats = {3: "H", 4: "I", 16: "Q"}
    fields: dict[int, _Field] = {}
    for start in range(at, min(at + entry * min(count, _MAX_FIELDS), len(data) - entry + 1), entry):
        tag, kind = struct.unpack_from(f"{order}HH", data, start)
        if kind in formats and tag not in fields:
            form = f"{order}{formats[kind]}"
            fields[tag] = _Field(struct.unpack_from(form, data, start + inline)[0], start + inline, form)
    return fields


def _valid(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


_READERS: tuple[tuple[bytes, Callable[[bytes], Header | None]], ...] = (
    (rb"\xff\xd8\xff", _jpeg),
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"RIFF....WEBP", _webp),
    (rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]", _tiff),
    (rb"BM", _bmp),
    (rb"P[1-6][\s#]", _pnm),
)

# Other formats that are found under the name of an image, and how to convert them.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (rb"....ftyp(?:hei|hev|mif1|msf1)", "HEIC, the format of phones; convert it to JPEG"),
    (rb"....ftypavi", "AVIF; convert it to JPEG or PNG"),
    (rb"....ftyp", "a video; rename it with a suffix such as .mp4"),
    (rb"GIF8[79]a", "GIF; convert it to PNG, or an animation to a video such as .mp4"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL; convert it to JPEG or PNG"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000; convert it to JPEG or PNG"),
    (rb"\x76\x2f\x31\x01", "OpenEXR; convert it to PNG"),
    (rb"8BPS", "Photoshop's format; save it as PNG"),
    (rb"%PDF", "a PDF document; save its pages as PNG"),
    (rb"\s*<(?i:svg|\?xml)", "SVG or XML; draw it as PNG"),
    (rb"\s*<(?i:!doctype|html)", "a web page, which a server sent instead of the image; download it again"),
    (rb"version https://git-lfs", "a pointer of Git LFS; fetch the file itself:  git lfs pull"),
    (rb"\0\x05\x16\x07", "a metadata file of macOS; use the file without the leading ._"),
)


def _what_else(data: bytes) -> str:
    for magic, what in _OTHERS:
        if re.match(magic, data[:64], re.DOTALL):
            return f"it is {what}"
    return "expected JPEG, PNG, WebP, TIFF, BMP or PNM"


# OpenCV's log --------------------------------------------------------------------------------------------------------

_log: Any = getattr(cv2.utils, "logging", cv2)  # its place depends on the version of OpenCV
_log_lock = threading.Lock()
_log_users = 0
_log_level = 0


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's log: the error of a damaged image names the file, which the log does not."""
    global _log_users, _log_level  # noqa: PLW0603  (the level is OpenCV's own global)
    with _log_lock:
        if _log_users == 0:
            _log_level = _log.getLogLevel()
            _log.setLogLevel(0)
        _log_users += 1
    try:
        yield
    finally:
        with _log_lock:
            _log_users -= 1
            if _log_users == 0:
                _log.setLogLevel(_log_level)


# Folders -------------------------------------------------------------------------------------------------------------


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order, without hidden files and folders.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if is_image_name(e.name) and not e.name.startswith(".") and not e.is_dir()]
    return in_natural_order(folder / name for name in names)


def is_image_name(name: str) -> bool:
    """Return whether a file name has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def in_natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sort paths by natural order (1, 2, 10) and without regard to case; ties by the exact name."""
    return sorted(paths, key=lambda path: ([_natural(part) for part in path.parts], str(path)))


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key in which a run of digits, of any script, is one number at the place of the digit 0."""
    key = []
    for run in re.findall(r"\d+|\D", text.casefold()):
        if run[0].isdecimal():
            digits = "".join(str(unicodedata.decimal(digit)) for digit in run).lstrip("0")
            key.append((ord("0"), len(digits), digits))
        else:
            key.append((ord(run), 0, ""))
    return key
