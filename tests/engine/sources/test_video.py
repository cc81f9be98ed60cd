"""Video as people have it: orientations, clocks, hostile sizes, cut files, lists of files, any names and texts."""

from __future__ import annotations

import itertools
import os
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from panrt.engine.pixel_formats import bgr
from panrt.engine.sources import (
    SourceError,
    SourceNotFoundError,
    SourceOptions,
    SourceRefusedError,
    SourceTimeoutError,
    SourceUndecodableError,
    open_source,
)
from panrt.engine.sources.local_file import missing_bytes
from panrt.engine.sources.pattern import pattern
from panrt.engine.sources.video import Pace, display_matrix, orientation
from tools.streams import CLIP, drain, free_port, http_server, turned

ONE = 1 << 16
AXES = [(ONE, 0, 0, ONE), (0, ONE, ONE, 0)]
# The eight ways in which an image can lie on its axes: (a, b, c, d) of a display matrix.
MATRICES = [(a * i, b * i, c * j, d * j) for (a, b, c, d), i, j in itertools.product(AXES, (1, -1), (1, -1))]


def encode(path: Path, images: list[NDArray[np.uint8]], codec: str, *, pixels: str = "yuv420p", **options: str) -> Path:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def moving(count: int) -> list[NDArray[np.uint8]]:
    return [pattern(index, (48, 64)) for index in range(count)]


def served(path: Path) -> Callable[[BaseHTTPRequestHandler], None]:
    """What answers every request with a file."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(path.stat().st_size))
        handler.end_headers()
        handler.wfile.write(path.read_bytes())

    return answer


# orientation


def corners(image: NDArray[np.uint8]) -> dict[tuple[int, int], int]:
    """How bright the quarters of an image are, by the signs of x and y from its middle."""
    height, width = image.shape[:2]
    return {
        (x, y): int(image[height // 4 if y < 0 else -height // 4, width // 4 if x < 0 else -width // 4].mean())
        for x, y in itertools.product((-1, 1), (-1, 1))
    }


@pytest.fixture(scope="module")
def quadrants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 64 x 32 pixels, its quarters of four brightnesses."""
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32], image[:16, 32:], image[16:, :32], image[16:, 32:] = 20, 90, 160, 230
    return encode(tmp_path_factory.mktemp("turned") / "plain.mp4", 2 * [image], "libx264", pixels="yuv420p")


def as_shown(stored: dict[tuple[int, int], int], matrix: tuple[int, int, int, int]) -> dict[tuple[int, int], int]:
    """Where a display matrix puts the corners: (x, y) at (ax + cy, bx + dy)."""
    a, b, c, d = (value // ONE for value in matrix)
    return {(a * x + c * y, b * x + d * y): level for (x, y), level in stored.items()}


def test_reading_the_display_matrix_holds_no_frame() -> None:
    """A circle of references would keep the pixels of each frame until Python looks for circles."""
    with av.open(str(CLIP)) as container:
        frame = next(container.decode(video=0))
        before = sys.getrefcount(frame)
        display_matrix(frame)
        assert sys.getrefcount(frame) == before


@pytest.mark.parametrize("pixel_format", ["bgr8", "nv12"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_a_video_is_shown_as_its_display_matrix_says(
    quadrants: Path, tmp_path: Path, matrix: tuple[int, int, int, int], pixel_format: str
) -> None:
    path = turned(quadrants, tmp_path / "turned.mp4", matrix)
    with open_source(path, options=SourceOptions(pixel_format=pixel_format)) as source:  # type: ignore[arg-type]
        frame = drain(source)[0]
    assert frame.hw == ((32, 64) if matrix[0] else (64, 32))
    found, wanted = corners(bgr(frame)), as_shown({(-1, -1): 20, (1, -1): 90, (-1, 1): 160, (1, 1): 230}, matrix)
    assert all(abs(found[corner] - wanted[corner]) < 20 for corner in wanted)


def test_a_mirrored_video_is_mirrored_from_a_server_too(quadrants: Path, tmp_path: Path) -> None:
    path = turned(quadrants, tmp_path / "turned.mp4", (-ONE, 0, 0, ONE))
    with open_source(path) as source:
        wanted = drain(source)[0].image
    with http_server(served(path)) as port, open_source(f"HTTP://127.0.0.1:{port}/turned.mp4") as source:
        found = drain(source)[0].image
    assert np.array_equal(found, wanted)


def test_a_matrix_that_is_no_right_angle_gives_what_comes_nearest() -> None:
    assert orientation([50000, 42000, 0, -42000, 50000, 0, 0, 0, 1 << 30]) == orientation([1, 0, 0, 0, 1, 0, 0, 0, 1])
    assert orientation([0] * 9) == orientation([])


# clocks


def test_a_pace_follows_the_clock_and_jumps_with_none() -> None:
    pace = Pace()
    moments = [pace.moment(at) for at in (-2.0, -1.5, None, -1.0, 90_000.0, 90_000.5, 3.0, 3.0)]
    assert moments == [0.0, 0.5, 0.5, 1.0, 1.5, 2.0, 2.5, 2.5]


@pytest.mark.parametrize(
    ("name", "codec", "has_clock"),
    [("a.h264", "libx264", False), ("a.mjpeg", "mjpeg", False), ("a.ts", "libx264", True), ("a.mkv", "mjpeg", True)],
)
def test_a_stream_without_time_stamps_has_no_media_time(name: str, codec: str, has_clock: bool, tmp_path: Path) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encode(tmp_path / name, moving(12), codec, pixels=pixels)
    with http_server(served(path)) as port:
        options = SourceOptions(policy="block", reconnect=False)
        with open_source(f"http://127.0.0.1:{port}/live", options=options) as source:
            times = [frame.media_time for frame in drain(source)]
    assert len(times) >= 10
    assert [time is not None for time in times] == len(times) * [has_clock]


# files that lie


def test_a_file_of_edit_lists_and_dropped_frames_is_whole(tmp_path: Path) -> None:
    """A file that declares more frames than it shows: the count in the index of an AVI is raised."""
    path = encode(tmp_path / "a.avi", moving(10), "mpeg4")
    data = bytearray(path.read_bytes())
    at = data.index(b"avih") + 8 + 16
    assert struct.unpack_from("<I", data, at)[0] == 10
    struct.pack_into("<I", data, at, 444)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 444)
    path.write_bytes(data)
    with open_source(path) as source:
        assert len(drain(source)) == 10
    assert source.error is None


CONTAINERS = [
    ("a.mp4", "mpeg4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    ("a.mov", "png", {}),
    ("a.mkv", "mpeg4", {}),
    ("a.avi", "mpeg4", {}),
    ("a.ts", "mpeg2video", {}),
]


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS)
def test_bytes_that_are_missing_are_counted(name: str, codec: str, options: dict[str, str], tmp_path: Path) -> None:
    path = encode(tmp_path / name, moving(40), codec, pixels="rgb24" if codec == "png" else "yuv420p", **options)
    whole = path.read_bytes()
    with path.open("rb") as file:
        assert missing_bytes(file, len(whole)) == 0
    with open_source(path) as source:
        assert len(drain(source)) == 40
    assert source.error is None
    for size in (len(whole) * 3 // 4 + 5, len(whole) // 2 + 3):
        path.write_bytes(whole[:size])
        with path.open("rb") as file:
            assert missing_bytes(file, size) > 0
    with open_source(path) as source:
        drain(source)
    assert isinstance(source.error, SourceUndecodableError)
    assert "truncated" in str(source.error)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 400, b"RIFF", b"\x1aE\xdf\xa3", b"\x1aE\xdf\xa3\x01", bytes(4) + b"ftyp"]
)
def test_what_says_nothing_of_its_size_misses_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with (tmp_path / "a").open("rb") as file:
        assert missing_bytes(file, len(content)) == 0


def test_the_clips_after_a_damaged_one_play_and_the_error_is_raised_at_the_end(tmp_path: Path) -> None:
    for name in "abc":
        encode(tmp_path / f"{name}.mkv", moving(6), "mpeg4")
    cut = (tmp_path / "b.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(cut[:-150])  # past the key frame, whose size depends on how many threads encode it
    (tmp_path / "d.mp4").write_bytes(b"nothing")
    with open_source(str(tmp_path / "*.m*")) as source:
        frames = drain(source)
    assert 12 < len(frames) < 18
    assert "b.mkv: the file is truncated" in str(source.error)
    assert source.status.damaged == 2
    with open_source(str(tmp_path / "b.mkv"), options=SourceOptions(loop=True)) as source:
        assert len(drain(source, most=20)) == 20


def sized(path: Path, start: bytes, offset: int, layout: str) -> Path:
    """The same file with images that declare 65500 x 65500 pixels."""
    data = bytearray(path.read_bytes())
    at = data.find(start)
    while at >= 0:
        struct.pack_into(layout, data, at + offset, 65500, 65500)
        at = data.find(start, at + 1)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("codec", "pixels", "start", "offset", "layout"),
    [
        ("mjpeg", "yuvj420p", b"\xff\xc0", 5, ">HH"),
        ("png", "rgb24", b"IHDR", 4, ">II"),
        ("rawvideo", "bgr24", b"strf", 12, "<ii"),
        ("mpeg4", "yuv420p", b"strf", 12, "<ii"),
    ],
)
def test_a_video_that_declares_a_huge_size_is_refused_with_the_limit(
    codec: str, pixels: str, start: bytes, offset: int, layout: str, tmp_path: Path
) -> None:
    path = sized(encode(tmp_path / "a.avi", moving(3), codec, pixels=pixels), start, offset, layout)
    with open_source(path) as source:
        frames = drain(source)
    assert all(frame.hw == (48, 64) for frame in frames)  # a decoder may know better than the container
    if not frames:
        assert isinstance(source.error, SourceUndecodableError)
        assert "35,389,440 pixels" in str(source.error)


def test_a_list_of_other_files_reaches_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "other.ts", moving(5), "mpeg2video")
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        handler.send_error(404)

    with http_server(answer) as port:
        segments = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
        contents = {
            "a.m3u8": segments.format("other.ts"),
            "b.mp4": segments.format(f"http://127.0.0.1:{port}/b.ts"),
            "c.mp4": "ffconcat version 1.0\nfile other.ts\n",
            "d.sdp": "v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        }
        for name, content in contents.items():
            Path(name).write_text(content)
        names = ["concat:other.ts", "subfile,,start,0,end,0,,:other.ts", "file:other.ts", f"http:127.0.0.1:{port}/x"]
        for name in (*contents, *names, "pipe:0", "data:,x", "lavfi:testsrc", "async:other.ts"):
            with open_source(name) as source:
                assert drain(source) == []
            assert isinstance(source.error, SourceUndecodableError if name in contents else SourceNotFoundError), name
    assert asked == []


def test_a_play_list_from_a_server_reaches_no_local_file(tmp_path: Path) -> None:
    secret = encode(tmp_path / "secret.ts", moving(5), "mpeg2video")
    play_list = tmp_path / "list.m3u8"
    play_list.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n")
    with http_server(served(play_list)) as port:
        for name in ("live", "live.m3u8"):
            options = SourceOptions(timeout=2.0, reconnect=False)
            with open_source(f"http://127.0.0.1:{port}/{name}", options=options) as source:
                assert drain(source) == []
            assert isinstance(source.error, SourceError)


def test_a_named_pipe_is_read_as_it_comes_and_one_without_a_writer_is_a_time_out(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.ts", moving(20), "mpeg2video").read_bytes()
    pipe = tmp_path / "pipe.ts"
    os.mkfifo(pipe)
    with open_source(pipe, options=SourceOptions(timeout=0.2)) as source:
        assert drain(source) == []
    assert isinstance(source.error, SourceTimeoutError)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    with open_source(pipe) as source:
        assert len(drain(source)) == 20
    writer.join()
    assert source.error is None


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file(name: str) -> None:
    with open_source(name) as source:
        assert drain(source) == []
    assert "neither a file nor a named pipe" in str(source.error)


# texts


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mp4", "mpeg4"), ("a.mkv", "mpeg4")])
def test_a_title_that_is_not_utf_8_stops_nothing(name: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QQQQQQ"
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for image in moving(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    assert b"QQQQQQ" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"QQQQQQ", "Küche1".encode("latin-1")))
    with open_source(path) as source:
        assert len(drain(source)) == 5
    assert source.error is None


def test_no_error_of_a_stream_shows_its_login() -> None:
    login = "Zq%23Zq"
    uris = [f"{scheme}://admin:{login}@127.0.0.1:{free_port()}/x?password=Zq" for scheme in ("rtsp", "http")]
    for uri in uris:
        with open_source(uri, options=SourceOptions(timeout=1.0)) as source:
            drain(source)
        assert isinstance(source.error, SourceRefusedError)
        told = [repr(source.spec), repr(source.status), source.name, source._thread.name]
        told += traceback.format_exception(source.error)
        assert not [line for line in told if "Zq" in line]


# files on disk whose names look like something else


@pytest.mark.parametrize(
    "name",
    [
        "2026-11-30T14:20:59.mp4",
        "a#b?c%41 é.mp4",
        "-x.mp4",
        "http:x.mp4",
        "weird[1].mp4",
        "a@b:c.mp4",
        "two\nlines.mp4",
    ],
)
def test_a_file_is_read_whatever_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).symlink_to(CLIP)
    for given in (name, Path(name), tmp_path / name, f"./{name}"):
        with open_source(given) as source:
            assert len(drain(source, most=2)) == 2
        assert "\n" not in source.name
