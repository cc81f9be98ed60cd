"""Pictures through the folder source and clips through the video source, changed at the level of their containers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import av
import cv2
import numpy as np

from fuzz import mutate
from fuzz.target import Files, Target, require
from panrt.engine.sources import SourceOptions, open_source

SECONDS = 30.0  # that a source may be silent before this gives up on it

# Pictures -------------------------------------------------------------------------------------------------------------


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF that holds an orientation alone."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHIHH", 0x112, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 1) + entry + struct.pack(f"{order}I", 0)


def _encode(suffix: str, image: Any, *options: int) -> bytes:
    done, content = cv2.imencode(suffix, image, options)
    assert done
    return content.tobytes()


def jpeg_with_exif(jpeg: bytes, content: bytes) -> bytes:
    """A JPEG with a segment of EXIF after its start."""
    body = b"Exif\0\0" + content
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@lru_cache
def pictures() -> tuple[Files, ...]:
    """Of every suffix that the folder source takes."""
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(image, (28, 18), interpolation=cv2.INTER_CUBIC), np.uint8)
    alpha = np.dstack([image, image[..., :1]])
    deep = image.astype(np.uint16) * 257
    jpeg = _encode(".jpg", image)
    contents = {
        "a.jpg": jpeg,
        "b.jpg": jpeg_with_exif(jpeg, exif(6)),
        "c.jpg": jpeg_with_exif(_encode(".jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), exif(5, ">")),
        "a.png": _encode(".png", alpha),
        "b.png": _encode(".png", deep[..., 0]),
        "a.webp": _encode(".webp", image),
        "a.bmp": _encode(".bmp", image),
        "a.tiff": _encode(".tiff", image, cv2.IMWRITE_TIFF_COMPRESSION, 5),
        "b.tif": _encode(".tiff", deep, cv2.IMWRITE_TIFF_COMPRESSION, 1),
        "a.ppm": _encode(".ppm", image),
        "a.pgm": _encode(".pgm", image[..., 0]),
    }
    return tuple({f"pictures/{name}": content} for name, content in contents.items())


def spoil_picture(rng: Random, old: bytes) -> bytes:
    """A picture with a segment or chunk changed; sums are made right again, so that the change is looked at."""
    if rng.random() < 0.3:
        return mutate.data(rng, old)
    if old.startswith(b"\xff\xd8"):
        return _spoil_jpeg(rng, old)
    if old.startswith(b"\x89PNG"):
        return _spoil_png(rng, old)
    if old.startswith((b"II*\0", b"MM\0*")):
        return _spoil_tiff(rng, old)
    if old.startswith(b"RIFF"):
        return _spoil_riff(rng, old)
    return _spoil_header(rng, old)


def _spoil_jpeg(rng: Random, old: bytes) -> bytes:
    segments, at = [], 2
    while at + 4 <= len(old) and old[at + 1] != 0xDA:
        size = 2 + struct.unpack_from(">H", old, at + 2)[0]
        segments.append(old[at : at + size])
        at += size
    rest = old[at:]

    def change(segment: bytes) -> bytes:
        if segment[1] == 0xE1 and rng.random() < 0.5:
            body = b"Exif\0\0" + mutate.data(rng, exif(rng.randrange(10), rng.choice("<>")), most=2)
        elif segment[1] in (0xC0, 0xC2) and rng.random() < 0.6:  # the size of the picture
            body = segment[4:5] + mutate.packed(rng, ">H") + mutate.packed(rng, ">H") + segment[9:]
        else:
            body = mutate.data(rng, segment[4:], most=2)
        return segment[:2] + struct.pack(">H", min(len(body) + 2, 65535)) + body

    segments = mutate.pieces(rng, segments, change)
    return old[:2] + b"".join(segments) + (rest if rng.random() < 0.8 else mutate.data(rng, rest))


def _spoil_png(rng: Random, old: bytes) -> bytes:
    chunks, at = [], 8
    while at + 12 <= len(old):
        size = struct.unpack_from(">I", old, at)[0]
        chunks.append((old[at + 4 : at + 8], old[at + 8 : at + 8 + size]))
        at += 12 + size
    extra = [
        (b"eXIf", exif(rng.randrange(10))),
        (b"tRNS", bytes(6)),
        (b"acTL", bytes(8)),
        (b"zTXt", b"a\0\0" + b"x" * 9),
    ]
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(extra))

    def change(chunk: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        name, body = chunk
        if name == b"IHDR" and rng.random() < 0.7:
            sizes = mutate.packed(rng, ">I") + mutate.packed(rng, ">I") if rng.random() < 0.5 else body[:8]
            return name, sizes + bytes(rng.choice((body[8 + i], rng.randrange(17))) for i in range(5))
        if name == b"IDAT" and rng.random() < 0.5:
            pixels = zlib.decompress(body)
            return name, zlib.compress(mutate.data(rng, pixels) if rng.random() < 0.9 else bytes(1 << 22))
        return (
            (mutate.data(rng, name, most=1)[:4].ljust(4, b"x"), body)
            if rng.random() < 0.2
            else (name, mutate.data(rng, body))
        )

    packed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in mutate.pieces(rng, chunks, change)
    ]
    return old[:8] + b"".join(packed)


def _spoil_tiff(rng: Random, old: bytes) -> bytes:
    """One entry of the directory."""
    order = "<" if old.startswith(b"II") else ">"
    (at,) = struct.unpack_from(f"{order}I", old, 4)
    (count,) = struct.unpack_from(f"{order}H", old, at)
    new = bytearray(old)
    for _ in range(rng.choice((1, 1, 2))):
        entry = at + 2 + 12 * rng.randrange(count)
        place, form = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")))
        packed = mutate.packed(rng, order + form)
        new[entry + place : entry + place + len(packed)] = packed
    return bytes(new)


def _spoil_header(rng: Random, old: bytes) -> bytes:
    """Numbers in the first bytes, where formats without chunks have their sizes."""
    new = bytearray(old)
    for _ in range(rng.choice((1, 1, 2))):
        at, packed = rng.randrange(min(54, len(new))), mutate.packed(rng, rng.choice(("<I", "<H", ">H")))
        if new.startswith(b"P"):
            packed = str(mutate.integer(rng)).encode()
        new[at : at + len(packed)] = packed
    return bytes(new)


def _spoil_riff(rng: Random, old: bytes) -> bytes:
    chunks = _riff(old[12:])

    def change(chunk: bytes) -> bytes:
        if rng.random() < 0.3:
            return chunk[:4] + mutate.packed(rng, "<I") + chunk[8:]
        if chunk[:4] == b"LIST":
            inner: list[bytes] = mutate.pieces(rng, _riff(chunk[12:]), change)
            body = b"".join(inner)
            return chunk[:4] + struct.pack("<I", len(body) + 4) + chunk[8:12] + body
        body = mutate.data(rng, chunk[8:], most=2)
        return chunk[:4] + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    changed: list[bytes] = mutate.pieces(rng, chunks, change)
    body = b"".join(changed)
    return old[:4] + struct.pack("<I", len(body) + 4) + old[8:12] + body


def _riff(content: bytes) -> list[bytes]:
    chunks, at = [], 0
    while at + 8 <= len(content):
        size = struct.unpack_from("<I", content, at + 4)[0]
        end = at + 8 + size + size % 2
        chunks.append(content[at:end])
        at = end
    return chunks


def mutate_pictures(rng: Random, files: Files) -> Files:
    new = {name: spoil_picture(rng, content) for name, content in files.items()}
    if rng.random() < 0.05:  # another suffix than the content's
        (content,) = new.values()
        new = {f"pictures/x{rng.choice(('.jpg', '.png', '.webp', '.tiff', '.bmp', '.ppm'))}": content}
    return new


def check_pictures(folder: Path) -> None:
    check_source(str(folder / "pictures"))


# Clips ----------------------------------------------------------------------------------------------------------------


def clip(form: str, codec: str, *, pixels: str = "yuv420p", frames: int = 6, **options: Any) -> bytes:
    """A moving square, encoded."""
    file = io.BytesIO()
    with av.open(file, "w", format=form, options={key: str(value) for key, value in options.items()}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixels
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "g": "3", "threads": "1"}
        for index in range(frames):
            image = np.full((32, 48, 3), 60, np.uint8)
            image[8:20, 4 * index : 4 * index + 12] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(stream.encode(None))
    return file.getvalue()


_FORMATS: dict[str, Callable[[], bytes]] = {
    "clip.mp4": lambda: clip("mp4", "libx264"),
    "parts.mp4": lambda: clip("mp4", "libx264", movflags="frag_keyframe+empty_moov"),
    "clip.mov": lambda: clip("mov", "mjpeg", pixels="yuvj420p"),
    "clip.mkv": lambda: clip("matroska", "mpeg4"),
    "clip.webm": lambda: clip("matroska", "libx264"),
    "clip.avi": lambda: clip("avi", "mpeg4"),
    "grey.avi": lambda: clip("avi", "mjpeg", pixels="yuvj420p"),
    "clip.ts": lambda: clip("mpegts", "libx264"),
    "clip.mpg": lambda: clip("mpegts", "mpeg2video"),
}
# What makes FFmpeg look elsewhere: lists of other files and streams, under the name of a clip.
PLAYLISTS = (
    b"ffconcat version 1.0\nfile canary.mp4\n",
    b"ffconcat version 1.0\nfile ../canary.mp4\n",
    b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ncanary.mp4\n#EXT-X-ENDLIST\n",
    b"#EXTM3U\n#EXT-X-TARGETDURATION:1\nfile:///etc/hostname\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    b"v=0\no=- 0 0 IN IP4 0.0.0.0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 40000 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    b"<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><Period><BaseURL>canary.mp4</BaseURL></Period></MPD>",
    b"rtsp://127.0.0.1:9/a\n",
)


@lru_cache
def clips() -> tuple[Files, ...]:
    made = [{name: encode()} for name, encode in _FORMATS.items()]
    return (*made, *({"list.mp4": content} for content in PLAYLISTS[:1]))


def mutate_clips(rng: Random, files: Files) -> Files:
    ((name, old),) = files.items()
    if name == "list.mp4" or rng.random() < 0.01:
        name = f"list{rng.choice(('.mp4', '.ts', '.mkv', '.avi', '.mpg'))}"
        content = rng.choice(PLAYLISTS)
        return {name: content if rng.random() < 0.7 else mutate.data(rng, content, tokens=PLAYLISTS)}
    return {name: spoil_clip(rng, old)}


def spoil_clip(rng: Random, old: bytes) -> bytes:
    """A clip with a box, an element, a chunk or a packet changed."""
    if rng.random() < 0.25:
        return mutate.data(rng, old)
    if old.startswith(b"RIFF"):
        return _spoil_riff(rng, old)
    if old.startswith(b"\x1aE\xdf\xa3"):
        return b"".join(_spoil_level(rng, _elements(old), _ebml))
    if len(old) % 188 == 0 and old[:1] == b"G":
        return b"".join(_spoil_packets(rng, old))
    return b"".join(_spoil_level(rng, _boxes(old), _box))


def _spoil_packets(rng: Random, old: bytes) -> list[bytes]:
    packets = [old[at : at + 188] for at in range(0, len(old), 188)]
    for _ in range(rng.choice((1, 1, 3))):
        packets = mutate.pieces(rng, packets, lambda packet: mutate.data(rng, packet, most=2)[:188].ljust(188, b"\xff"))
    return packets


Pack = Callable[[bytes, bytes], bytes]  # a head and a body to a whole


def _spoil_level(rng: Random, level: Sequence[tuple[bytes, bytes]], pack: Pack) -> list[bytes]:
    """Some (head, body) with one of them changed, or what is inside of it."""

    def change(piece: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        head, body = piece
        inner = (_boxes if pack is _box else _elements)(body) if _has_inner(head) else []
        if inner and rng.random() < 0.85:
            lead = body[: len(body) - sum(len(pack(*piece)) for piece in inner)]
            return head, lead + b"".join(_spoil_level(rng, inner, pack))
        if rng.random() < 0.15:
            return mutate.data(rng, head, most=1)[: len(head)].ljust(len(head), b"x"), body
        return head, mutate.data(rng, body, most=2)

    made = []
    for head, body in mutate.pieces(rng, level, change):
        whole = pack(head, body)
        if rng.random() < 0.01:
            whole = mutate.packed(rng, ">I") + whole[4:]
        made.append(whole)
    return made


_INNER = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex", b"udta", b"dinf"}
_INNER_EBML = {
    b"\x18S\x80g",
    b"\x16T\xaek",
    b"\xae",
    b"\xe0",
    b"\x1fC\xb6u",
    b"\x15I\xa9f",
    b"\x1cS\xbbk",
    b"\xbb",
    b"\xa0",
}


def _has_inner(head: bytes) -> bool:
    return head in _INNER or head in _INNER_EBML


def _boxes(content: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at + 8 <= len(content):
        size = struct.unpack_from(">I", content, at)[0]
        if size < 8 or at + size > len(content):
            return []
        found.append((content[at + 4 : at + 8], content[at + 8 : at + size]))
        at += size
    return found if at == len(content) else []


def _box(head: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + head + body


def _elements(content: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(content):
        width = 9 - content[at].bit_length()
        start = at + width
        if width > 4 or start >= len(content):
            return []
        size_width = 9 - content[start].bit_length()
        if size_width > 8:
            return []
        size = int.from_bytes(content[start : start + size_width], "big") & ((1 << 7 * size_width) - 1)
        body = start + size_width
        size = len(content) - body if size == (1 << 7 * size_width) - 1 else size  # of unknown size
        found.append((content[at:start], content[body : body + size]))
        at = body + size
    return found


def _ebml(head: bytes, body: bytes) -> bytes:
    return head + (len(body) | 1 << 56).to_bytes(8, "big") + body


def check_clip(folder: Path) -> None:
    (path,) = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("canary"))
    check_source(str(path))
    check_source(str(path), pixel_format="nv12")


def check_source(uri: str, *, counts: list[int] | None = None, **options: Any) -> None:
    """Every frame of a source, and why it ended; how many there were is put in `counts`."""
    count = 0
    options = {"timeout": 1.0, "reconnect": False, "policy": "block", **options}
    with open_source(uri, options=SourceOptions(**options)) as source:
        silent = 0.0
        while not source.exhausted and count < 200:
            frame = source.take(0.5)
            if frame is None:
                silent += 0.5
                require(silent < SECONDS, "a source gives frames or ends")
                continue
            silent = 0.0
            require(frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous, "a frame is contiguous bytes")
            require(frame.image.size > 0 and min(frame.hw) > 0, "a frame has pixels")
            require(frame.index == count, "frames are counted")
            count += 1
        status = source.status
    require(status.captured >= count, "what was taken was captured")
    if counts is not None:
        counts.append(count)
    if source.error is not None:
        raise source.error


TARGETS = (
    Target(name="pictures", seeds=pictures, mutate=mutate_pictures, check=check_pictures, short=400),
    Target(name="clips", seeds=clips, mutate=mutate_clips, check=check_clip, short=200),
)
