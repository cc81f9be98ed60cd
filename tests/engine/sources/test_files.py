"""Files as sources: every frame is delivered, and every fault is reported."""

from __future__ import annotations

import json
import os
import struct
import wave
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from panrt.engine.sources import (
    Source,
    SourceDeniedError,
    SourceError,
    SourceNotFoundError,
    SourceOptions,
    SourceUndecodableError,
    State,
    open_source,
)
from panrt.engine.sources.files import select
from panrt.engine.sources.pattern import pattern
from tools.clock import ManualClock
from tools.streams import CLIP, IMAGES, bikes, drain, turned, wait_for


def reference(path: Path) -> list[NDArray[np.uint8]]:
    """Frames as OpenCV's own FFmpeg decodes them."""
    capture = cv2.VideoCapture(str(path))
    frames: list[NDArray[np.uint8]] = []
    while True:
        good, image = capture.read()
        if not good:
            capture.release()
            return frames
        frames.append(np.asarray(image, np.uint8))


def picture(path: Path, value: int) -> Path:
    """A picture of one grey value, which tells it from others."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((4, 6, 3), value, np.uint8))[1].tobytes())
    return path


def values(source: Source) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in drain(source)]


def encode(
    path: Path,
    images: list[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("which", ["clip", "bikes"])
def test_every_frame_of_a_video_comes_out_in_order(which: str) -> None:
    path = CLIP if which == "clip" else bikes()
    with open_source(path) as source:
        frames = drain(source)
    wanted = reference(path)
    assert len(frames) == len(wanted) == {"clip": 200, "bikes": 250}[which]
    for frame, image in zip(frames[::20], wanted[::20], strict=True):
        assert frame.image.shape == image.shape
        # Two builds of FFmpeg round colour differently, by a little; another frame is off by far more.
        assert np.abs(frame.image.astype(int) - image).mean() < 2
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert np.allclose(np.diff([frame.media_time for frame in frames]), 0.04, atol=1e-3)
    assert np.all(np.diff([frame.captured_at for frame in frames]) >= 0)
    status = source.status
    assert (status.state, status.reason, status.dropped) == (State.ENDED, "end of source", 0)
    assert [transition.state for transition in status.history] == [State.CONNECTING, State.LIVE, State.ENDED]


def test_block_never_drops_however_slow_the_reader() -> None:
    with open_source("test://32x32@max?frames=60") as source:
        frames = []
        while not source.exhausted:
            frame = source.take(1.0)
            if frame is not None:
                frames.append(frame)
                wait_for(lambda: source.status.waiting == 4 or source.status.state is State.ENDED)  # it is full
    assert [frame.index for frame in frames] == list(range(60))
    assert all(np.array_equal(frame.image, pattern(frame.index, (32, 32))) for frame in frames)


def test_a_file_under_latest_plays_at_its_own_speed() -> None:
    clock = ManualClock()
    with open_source(CLIP, options=SourceOptions(policy="latest", clock=clock)) as source:
        frames = [source.take(None)]
        for _ in range(3):
            clock.advance(1.0)
            frames.append(source.take())
    seconds = [frame.media_time for frame in frames if frame is not None and frame.media_time is not None]
    # 25 frames a second: the newest one is at most 0.04 s old.
    assert seconds == pytest.approx([0, 1, 2, 3], abs=0.041)
    assert source.status.dropped == source.status.captured - 4 >= 3 * 24


def test_a_file_that_loops_starts_again() -> None:
    with open_source(IMAGES / "000001.jpg", options=SourceOptions(loop=True)) as source:
        frames = drain(source, most=3)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert np.array_equal(frames[0].image, frames[2].image)


def test_pictures_of_a_folder_come_in_the_order_of_their_names() -> None:
    with open_source(IMAGES) as source:
        folder = drain(source)
    with open_source(f"{IMAGES}/00000[1-3].jpg") as source:
        glob = drain(source)
    assert (len(folder), len(glob)) == (64, 3)
    for frame, number in zip(glob, (1, 2, 3), strict=True):
        assert np.array_equal(frame.image, np.asarray(cv2.imread(str(IMAGES / f"{number:06d}.jpg"))))
    assert np.array_equal(folder[2].image, glob[2].image)


def test_a_folder_may_hold_pictures_of_any_size_and_kind(tmp_path: Path) -> None:
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    cv2.imwrite(str(tmp_path / "b.png"), grey.astype(np.uint16) * 256)
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((3, 1, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "d.png"), np.full((64, 48, 3), 200, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    with open_source(tmp_path) as source:
        images = [frame.image for frame in drain(source)]
    assert [image.shape for image in images] == [(5, 7, 3), (5, 7, 3), (3, 1, 3), (64, 48, 3)]
    assert all(np.array_equal(image, np.repeat(grey[..., None], 3, axis=2)) for image in images[:2])


def test_a_video_of_odd_size_and_one_in_grey_come_out_whole(tmp_path: Path) -> None:
    odd = [np.full((33, 47, 3), 40 * index, np.uint8) for index in range(4)]
    paths = [
        encode(tmp_path / "odd.mkv", odd, codec="ffv1", pixels="bgr0"),
        encode(tmp_path / "grey.mkv", odd, codec="ffv1", pixels="gray"),
    ]
    for path in paths:
        with open_source(path) as source:
            frames = drain(source)
        assert [frame.image.shape for frame in frames] == 4 * [(33, 47, 3)]
        assert all(np.abs(frame.image.astype(int) - image).max() <= 3 for frame, image in zip(frames, odd, strict=True))


def test_a_video_whose_size_changes_gives_frames_of_both_sizes(tmp_path: Path) -> None:
    parts = [encode(tmp_path / f"{size}.h264", 5 * [pattern(3, (size, size))]) for size in (64, 96)]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(f"file://{joined}") as source:
        shapes = [frame.image.shape for frame in drain(source)]
    assert shapes == 5 * [(64, 64, 3)] + 5 * [(96, 96, 3)]


def test_a_phone_video_comes_upright(tmp_path: Path) -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :16] = 255  # white at the left
    clockwise = (0, 1 << 16, -(1 << 16), 0)
    path = turned(encode(tmp_path / "plain.mp4", 3 * [image]), tmp_path / "clip.mp4", clockwise)
    with open_source(path) as source:
        upright = drain(source)[0].image
    assert upright.shape == (64, 32, 3)
    assert upright[:12].mean() > 240  # the left went to the top
    assert upright[20:].mean() < 15
    assert np.abs(upright.astype(int) - reference(path)[0]).mean() < 4  # OpenCV turns it too


def damaged(kind: str, folder: Path) -> Path:
    path = folder / {"picture": "a.png", "empty picture": "e.jpg"}.get(kind, "a.mp4")
    if kind == "audio":
        with wave.open(str(path), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(16000))
        return path
    whole = CLIP.read_bytes()
    contents = {
        "picture": b"\x89PNG\r\n\x1a\n but no more",
        "empty picture": b"",
        "empty": b"",
        "text": b"this is no video\n" * 200,
        "no index": whole[: len(whole) // 2],
    }
    path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("picture", "not an image that can be read: damaged before its size"),
        ("empty picture", "the file is empty"),
        ("empty", "the file is empty"),
        ("text", "not a video that FFmpeg can read, or damaged"),
        ("no index", "not a video that FFmpeg can read, or damaged|holds no frame|truncated"),
        ("audio", "expected video, found audio"),
    ],
)
def test_a_file_that_does_not_decode_is_named_with_what_is_wrong(kind: str, said: str, tmp_path: Path) -> None:
    path = damaged(kind, tmp_path)
    with open_source(path) as source:
        drain(source)
    assert isinstance(source.error, SourceUndecodableError)
    with pytest.raises(SourceError, match=said):
        raise source.error
    assert str(path) in str(source.error)
    assert source.status.state is State.ENDED
    assert source.status.reason == str(source.error)


def test_a_file_that_is_cut_short_gives_what_it_holds_and_then_says_so(tmp_path: Path) -> None:
    images = [pattern(index, (48, 64)) for index in range(100)]
    whole = encode(tmp_path / "whole.mp4", images, options={"movflags": "faststart"}).read_bytes()
    missing = len(whole) // 3
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[:-missing])
    with open_source(path) as source:
        frames = drain(source)
    assert 30 < len(frames) < 100
    assert isinstance(source.error, SourceUndecodableError)
    assert f"truncated: {missing:,} bytes that it declares are missing" in str(source.error)


def test_damage_inside_a_video_is_counted_and_the_rest_is_shown(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mov", [pattern(index, (64, 64)) for index in range(40)], codec="png", pixels="rgb24")
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data) - 1) if data[at : at + 4] == b"\x89PNG"]
    assert len(starts) == 40
    data[starts[9] : starts[9] + 200] = bytes(200)  # one picture's head
    path.write_bytes(data)
    with open_source(path) as source:
        frames = drain(source)
    assert len(frames) == 39
    assert source.status.damaged == 1
    assert source.error is None


@pytest.mark.parametrize("name", ["nope.mp4", "nope.png"])
def test_a_file_that_is_not_there_is_not_found(name: str, tmp_path: Path) -> None:
    with open_source(tmp_path / name) as source:
        assert drain(source) == []
    assert isinstance(source.error, SourceNotFoundError)
    assert isinstance(source.error, FileNotFoundError)
    assert str(source.error).endswith(f"{name}: no such file.")


# Folders and patterns as people have them ----------------------------------------------------------------------------


@pytest.mark.parametrize("pattern_of", ["{}", "{}/*.png", "{}/*"], ids=["folder", "pattern", "anything"])
def test_numbered_pictures_come_as_people_count(pattern_of: str, tmp_path: Path) -> None:
    for number in (1, 2, 9, 10, 11, 100):
        picture(tmp_path / f"{number}.png", number)
    with open_source(pattern_of.format(tmp_path)) as source:
        assert values(source) == [1, 2, 9, 10, 11, 100]


@pytest.mark.parametrize("pattern_of", ["{}", "{}/*.png", "{}/**/*.png"], ids=["folder", "pattern", "tree"])
def test_hidden_files_and_folders_are_no_pictures(pattern_of: str, tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "x"  # a hidden folder that is named is meant
    folder.mkdir(parents=True)
    picture(folder / "a.png", 1)
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    picture(folder / ".b.png", 2)
    picture(folder / ".trash" / "c.png", 3)
    (folder / "d.png").mkdir()
    with open_source(pattern_of.format(folder)) as source:
        assert values(source) == [1]
        assert source.error is None


def test_a_pattern_may_ask_for_hidden_files(tmp_path: Path) -> None:
    picture(tmp_path / ".a.png", 1)
    assert select(f"{tmp_path}/.*.png") == (tmp_path / ".a.png",)


def bad(kind: str, path: Path) -> None:
    path.unlink()
    match kind:
        case "text":
            path.write_bytes(b"not a picture")
        case "empty":
            path.touch()
        case "truncated":
            noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
            path.write_bytes(cv2.imencode(".jpg", noise)[1].tobytes()[:3000])
        case "link to nowhere":
            path.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(path)
        case "too large":
            path.write_bytes(b"P6 99999 99999 255\n")


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "link to nowhere", "pipe", "too large"])
def test_a_bad_picture_is_counted_and_the_rest_is_shown(kind: str, tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{number}.png", number) for number in (1, 2, 3, 4)]
    bad(kind, paths[1])
    with open_source(tmp_path) as source:
        assert values(source) == [1, 3, 4]
    assert source.status.damaged == 1
    with pytest.raises(SourceError, match=rf"^1 of 4 files could not be read in full\. {paths[1]}: "):
        raise source.error or AssertionError("nothing tells of it")


def test_a_picture_that_goes_while_its_folder_is_read_is_counted(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{number}.png", number) for number in (1, 2, 3)]
    source = open_source(tmp_path)
    paths[1].unlink()
    with source:
        assert values(source) == [1, 3]
    assert isinstance(source.error, SourceNotFoundError)


def test_many_bad_pictures_are_one_line_that_names_the_first(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.png").touch()
    with open_source(tmp_path, options=SourceOptions(loop=True)) as source:  # nothing to loop over: it ends
        assert values(source) == []
    text = str(source.error)
    assert text.startswith(f"9 of 9 files could not be read in full. {tmp_path}/0.png: the file is empty. ")
    assert text.endswith(f"{tmp_path}/2.png: the file is empty. And 6 more.")


def test_a_folder_with_a_bad_picture_loops_over_the_others(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        picture(tmp_path / f"{number}.png", number)
    bad("text", tmp_path / "2.png")
    with open_source(tmp_path, options=SourceOptions(loop=True)) as source:
        assert [int(frame.image[0, 0, 0]) for frame in drain(source, most=5)] == [1, 3, 1, 3, 1]


def test_a_bad_clip_does_not_keep_back_the_next(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"this is no video\n" * 200)
    encode(tmp_path / "b.mp4", 3 * [np.zeros((32, 32, 3), np.uint8)])
    with open_source(f"{tmp_path}/*.mp4") as source:
        assert len(drain(source)) == 3
    with pytest.raises(SourceUndecodableError, match=r"^1 of 2 files could not be read in full\. .*a\.mp4: "):
        raise source.error or AssertionError("nothing tells of it")


NAMES = [b"a[1].png", b"a?.png", b"a*.png", b"a%d.png", b"a b.png", b"-a.png", b"a#b.png", b"a\nb.png", b"\xff.png"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_picture_does(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    picture(tmp_path / "a1.png", 1)  # which some of the names match as patterns
    picture(path, 7)
    with open_source(path) as source:
        (frame,) = drain(source)
    assert frame.image[0, 0, 0] == 7
    with open_source(tmp_path) as source:
        assert sorted(values(source)) == [1, 7]
    # what results and messages call it is text that any program can read, on one line
    assert frame.source.isprintable()
    assert json.loads(json.dumps(frame.source).encode()).encode().decode() == frame.source
    path.write_bytes(b"no picture")
    with open_source(path) as source:
        drain(source)
    assert str(source.error).isprintable()


@pytest.mark.parametrize(
    "pattern", ["a\0b.png", "x" * 5000, "x" * 5000 + "*.png", "[", "nowhere/*.png", "**b/*.png", "\ud800*"]
)
def test_a_name_that_no_file_has_is_not_found(pattern: str, tmp_path: Path) -> None:
    def read() -> None:
        with open_source(f"{tmp_path}/{pattern}") as source:
            drain(source)
        raise source.error or AssertionError("nothing tells of it")

    with pytest.raises(SourceNotFoundError) as caught:
        read()
    assert str(caught.value).isprintable()


def test_a_folder_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(SourceDeniedError, match=f"{tmp_path}: may not be read"):
        open_source(tmp_path)


def test_a_photo_comes_upright_and_unmirrored(tmp_path: Path) -> None:
    stored = np.zeros((8, 16, 3), np.uint8)
    stored[:, :4] = 255  # white at the left
    data = cv2.imencode(".png", stored)[1].tobytes()
    exif = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 274, 3, 1, 7) + bytes(4)  # a mirror and a quarter turn
    body = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    with open_source(tmp_path) as source:
        (frame,) = drain(source)
    assert frame.image.shape == (16, 8, 3)
    assert (frame.image[12:] == 255).all()  # the left went to the bottom
    assert (frame.image[:12] == 0).all()


def test_a_pattern_of_a_thousand_folders_matches_nothing() -> None:
    with pytest.raises(SourceNotFoundError, match=r"no such file, folder or pattern|no image or video"):
        select("[a]/" * 1000)
