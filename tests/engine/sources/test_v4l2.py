"""V4L2 cameras: what is behind FFmpeg's demuxer with raw data from files and pipes, and the demuxer itself on a device
that is made of open and ioctl (`support.v4l2`)."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from panrt.engine.frame import Frame, PixelFormat
from panrt.engine.pixel_formats import bgr
from panrt.engine.sources import SourceOptions, SourceTimeoutError, UnknownSourceError, v4l2
from panrt.engine.sources.buffers import Buffers
from panrt.engine.sources.open import parse
from panrt.engine.sources.source import Captured, Opening
from panrt.engine.sources.v4l2 import captured_frames, devices
from support.v4l2 import build, capture

HEIGHT, WIDTH = 48, 64
SIZE = {"video_size": f"{WIDTH}x{HEIGHT}", "framerate": "25"}
SHAPES = {"yuyv": (HEIGHT, WIDTH, 2), "nv12": (HEIGHT * 3 // 2, WIDTH)}
NAMES = {"yuyv": "yuyv422", "nv12": "nv12"}


def noise(pixel_format: str, count: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (count, *SHAPES[pixel_format]), np.uint8)


def read(file: object, demuxer: str, wanted: PixelFormat, **options: str) -> tuple[list[Captured], Opening]:
    opening = Opening(SourceOptions(pixel_format=wanted), realtime=True)
    return list(captured_frames(file, "camera://0", demuxer, options, opening)), opening


@pytest.mark.parametrize("pixel_format", ["yuyv", "nv12"])
def test_raw_frames_are_what_the_camera_wrote(tmp_path: Path, pixel_format: Any) -> None:
    frames, file = noise(pixel_format), tmp_path / "frames"
    file.write_bytes(frames.tobytes())
    pictures, _ = read(file, "rawvideo", pixel_format, pixel_format=NAMES[pixel_format], **SIZE)
    assert np.array_equal([picture.image for picture in pictures], frames)
    assert {picture.pixel_format for picture in pictures} == {pixel_format}
    converted, _ = read(file, "rawvideo", "bgr8", pixel_format=NAMES[pixel_format], **SIZE)
    for picture, frame in zip(converted, frames, strict=True):
        assert np.array_equal(picture.image, bgr(Frame(frame, pixel_format=pixel_format)))


def test_frames_that_come_through_a_pipe_are_not_mixed_up(tmp_path: Path) -> None:
    frames, pipe = noise("yuyv"), tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            for part in np.array_split(np.frombuffer(frames.tobytes(), np.uint8), 17):
                file.write(part.data)

    writer = threading.Thread(target=write)
    writer.start()
    pictures, _ = read(pipe, "rawvideo", "yuyv", pixel_format="yuyv422", **SIZE)
    writer.join()
    assert np.array_equal([picture.image for picture in pictures], frames)


@pytest.mark.parametrize("wanted", ["bgr8", "nv12"])
def test_mjpeg_is_decoded_frame_by_frame_and_what_is_damaged_is_counted(tmp_path: Path, wanted: Any) -> None:
    file, levels = tmp_path / "frames.mjpeg", (40, 90, 140, 190)
    images = [cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), level, np.uint8))[1].tobytes() for level in levels]
    images[2] = images[2][:20] + images[2][-2:]
    file.write_bytes(b"".join(images))
    pictures, opening = read(file, "mjpeg", wanted)
    frames = [bgr(Frame(picture.image, pixel_format=picture.pixel_format)) for picture in pictures]
    assert [picture.pixel_format for picture in pictures] == 3 * [wanted]
    assert np.abs([frame.mean() for frame in frames] - np.array([40, 90, 190])).max() < 2
    assert opening.damaged == 1


class PassingClock:
    """Time passes while somebody waits, half a second each time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.seconds += 0.5
        return event.is_set()


def test_a_camera_that_falls_silent_is_lost_after_the_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A frame, then what a device gives that has none and is not waited for."""
    clock, file = PassingClock(), tmp_path / "frames"
    file.write_bytes(noise("yuyv").tobytes())
    original, calls = v4l2._Camera._next, 0

    def once(camera: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise av.error.BlockingIOError(errno.EAGAIN, "")
        return original(camera)

    monkeypatch.setattr(v4l2._Camera, "_next", once)
    opening = Opening(SourceOptions(pixel_format="yuyv", timeout=2.0, clock=clock), realtime=True)
    pictures = captured_frames(file, "camera://0", "rawvideo", {"pixel_format": "yuyv422", **SIZE}, opening)
    assert next(pictures).image.shape == SHAPES["yuyv"]
    with pytest.raises(SourceTimeoutError, match=r"camera://0: no data for 2 s\."):
        next(pictures)
    assert clock.seconds == 2.5


# A device, as its driver behaves on open and ioctl.


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("v4l2"))


def story(pixel_format: str, query: str = "", **settings: object) -> dict[str, Any]:
    return {"uri": f"camera://40{query}", "pixel_format": pixel_format, **settings}


def test_a_device_gives_what_it_is_asked_for_with_one_copy_and_its_own_times(device: Path, tmp_path: Path) -> None:
    jpeg = tmp_path / "frame.jpg"
    cv2.imwrite(str(jpeg), np.full((HEIGHT, WIDTH, 3), 100, np.uint8))
    mjpg = {"V4L2_FORMAT": "MJPG", "V4L2_JPEG": jpeg.as_posix()}
    size = "?width=96&height=32&fps=100"
    told = capture(
        device,
        [
            story("yuyv", size, V4L2_FORMAT="YUYV"),
            story("nv12", size, V4L2_FORMAT="NV12"),
            story("bgr8", size, V4L2_FORMAT="NV12"),
            story("nv12", "?fourcc=MJPG", **mjpg),
            story("bgr8", "", **mjpg),
            story("yuyv", "", V4L2_DAMAGED=2),
            story("yuyv", "", V4L2_FRAMES=40),  # more than the device has buffers: each is given back
        ],
    )
    shapes = [[32, 96, 2], [48, 96], [32, 96, 3], [HEIGHT * 3 // 2, WIDTH], [HEIGHT, WIDTH, 3]]
    for one, shape in zip(told, shapes, strict=False):
        assert [frame["shape"] for frame in one["frames"]] == 3 * [shape]
        assert one["said"].endswith("the camera delivers no frames, or no more; is it unplugged?")
    for one in told:
        assert all(one["driver_memory"])  # what is copied into a frame's memory is what the driver wrote to
        # Stamped 5 ms before it came, on a clock that ticks in microseconds.
        assert all(frame["age"] >= 0.004999 for frame in one["frames"])
        times = [frame["time"] for frame in one["frames"]]
        assert times == sorted(times)
    raw, more = [told[0], told[1]], told[6]
    assert all([frame["values"] for frame in one["frames"]] == [[1], [2], [3]] for one in raw)
    assert abs(told[4]["frames"][0]["mean"] - 100) < 2
    assert told[5]["damaged"] == 1
    assert [frame["values"] for frame in told[5]["frames"]] == [[1], [3]]
    assert [frame["values"] for frame in more["frames"]] == [[n] for n in range(1, 41)]


def test_a_device_that_cannot_be_read_says_why(device: Path) -> None:
    stories = {
        "the camera delivers YUYV instead of NV12": story("nv12", V4L2_FORMAT="YUYV"),
        "the camera does not support this format, size or rate": story("bgr8", "?fourcc=MJPG", V4L2_FORMAT="YUYV"),
        "fourcc MJPG does not provide the pixel format yuyv": story("yuyv", "?fourcc=MJPG"),
        "no data for 0.2 s": story("yuyv", V4L2_THEN="silent", timeout=0.2),
        "no such device; `panrt doctor` lists": story("yuyv", V4L2_OPEN=errno.ENOENT),
        "sudo usermod -aG video $USER": story("yuyv", V4L2_OPEN=errno.EACCES),
        "in use by another program": story("yuyv", V4L2_OPEN=errno.EBUSY),
    }
    told = capture(device, list(stories.values()))
    for said, one in zip(stories, told, strict=True):
        assert said in one["said"]
        assert not one["threads_left"]
    assert [one["error"] for one in told] == [
        "SourceError",
        "SourceError",
        "SourceError",
        "SourceTimeoutError",
        "SourceNotFoundError",
        "SourceDeniedError",
        "SourceRefusedError",
    ]


def test_what_is_no_camera_says_so() -> None:
    opening = Opening(SourceOptions(), realtime=True)
    with pytest.raises(FileNotFoundError, match="/dev/null: not a V4L2 camera"):
        next(v4l2.v4l2_frames("/dev/null", "/dev/null", v4l2.V4l2Options(), opening))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("camera://0?width=640", "give both width and height"),
        ("camera://0?fourcc=XVID", "expected one of MJPG, YUYV, NV12"),
        ("camera://0?fps=0", "fps: got 0, expected 1 to 1000"),
        ("camera://0?width=99999&height=1", "width: got 99999, expected 1 to 16384"),
        ("camera://0?flip=2", "unknown option 'flip'"),
        ("camera:///etc/passwd", "expected a number, camera://0, or a device"),
        ("camera://", "expected a number, camera://0, or a device"),
    ],
)
def test_a_wrong_option_is_named(uri: str, said: str) -> None:
    with pytest.raises(UnknownSourceError, match=said):
        parse(uri)


@pytest.mark.parametrize(
    "uri", ["camera:///dev/v4l/by-id/usb-A_B%3A1-index0", "camera:///dev/v4l/by-id/usb-A_B:1-index0"]
)
def test_a_device_can_be_named_by_its_lasting_path(uri: str) -> None:
    assert parse(uri).reader.args[0] == "/dev/v4l/by-id/usb-A_B:1-index0"  # type: ignore[attr-defined]


def test_devices_are_listed_by_number_with_the_names_of_their_drivers(tmp_path: Path) -> None:
    for number, name in ((10, "vi-output, imx219 9-0010\n"), (2, "USB\x1b[31m Camera\n"), (0, "")):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / f"dev/video{number}").touch()
        if name:
            described = tmp_path / f"sys/class/video4linux/video{number}"
            described.mkdir(parents=True)
            (described / "name").write_text(name)
    (tmp_path / "dev/video").touch()
    found = devices(tmp_path)
    assert [one.path.name for one in found] == ["video0", "video2", "video10"]
    assert [one.is_csi for one in found] == [False, False, True]
    assert found[0].name == ""
    assert "\x1b" not in found[1].name
    assert all(one.is_open_to_us for one in found)


def test_memory_is_used_again_once_nobody_holds_what_lies_in_it() -> None:
    buffers = Buffers()
    first = buffers.take(1000)
    address = first.ctypes.data
    view = first.reshape(10, 100)[3:, ::2]
    del first
    assert buffers.take(1000).ctypes.data != address  # a view of it is still held
    del view
    taken = [buffers.take(1000) for _ in range(3)]
    assert address in {array.ctypes.data for array in taken}
    assert buffers.take(1200).size == 1200
