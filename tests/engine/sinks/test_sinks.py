"""Sinks: what they write can be read back, and a fault of one affects no other."""

from __future__ import annotations

import json
import operator
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

import panrt
from panrt.engine.sinks import Context, Item, SharedMemoryReader, Sink, SinkError, SinkSpec, UnknownSinkError, open_sink
from panrt.engine.sinks.open import _split
from panrt.engine.sinks.shared_memory import SharedMemoryWriter, memory_path
from panrt.engine.sinks.video import VideoWriter
from panrt.engine.slot import Policy
from panrt.engine.sources.pattern import pattern
from panrt.engine.status import Meter, SinkStatus
from tools.clock import PATIENCE
from tools.null_session import NullSession, map_of, model_file
from tools.streams import CLIP, IMAGES, drain, wait_for

HW = 24, 32


def uri(frames: int, rate: str = "max") -> str:
    return f"test://{HW[1]}x{HW[0]}@{rate}?frames={frames}"


def run(source: object, *sinks: str | Sink, seconds: float = 0.0) -> tuple[SinkStatus, ...]:
    """Through a null session without tracking; how the sinks did."""
    stream = panrt.stream(source, NullSession(seconds=seconds), sinks=sinks, tracker=None)  # type: ignore[arg-type]
    with stream:
        for _ in stream:
            pass
    return stream.status.sinks


# what is written


def test_json_lines_tell_every_result(tmp_path: Path) -> None:
    path = tmp_path / "made" / "out.jsonl"
    (status,) = run(uri(20), str(path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["frame_index"] for row in rows] == list(range(20))
    for row in rows:
        ids = map_of(pattern(row["frame_index"], HW))
        assert (row["height"], row["width"]) == HW
        assert {s["name"]: s["area"] for s in row["segments"]} == {
            name: int((ids == number).sum()) for number, name in ((1, "bright"), (2, "dark"))
        }
        assert row["source"] == uri(20)
    assert (status.written, status.lost, status.state) == (20, 0, "closed")


def test_json_lines_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    run(uri(3), "-")
    assert [json.loads(line)["frame_index"] for line in capsys.readouterr().out.splitlines()] == [0, 1, 2]


def test_a_coco_folder_reads_back_as_the_maps_that_went_in(tmp_path: Path) -> None:
    run([uri(3), str(IMAGES / "000001.jpg")], f"coco://{tmp_path}/coco")
    content = json.loads((tmp_path / "coco" / "panoptic.json").read_text())
    assert [(c["id"], c["name"], c["isthing"]) for c in content["categories"]] == [(1, "bright", 1), (2, "dark", 0)]
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "coco").iterdir()) == ["panoptic", "panoptic.json"]
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        assert annotation["image_id"] == image["id"]
        png = np.asarray(cv2.imread(str(tmp_path / "coco" / "panoptic" / annotation["file_name"])), np.int32)
        ids = png[..., 2] + 256 * png[..., 1] + 65536 * png[..., 0]
        assert ids.shape == (image["height"], image["width"])
        if image["source"] == uri(3):
            assert np.array_equal(ids, map_of(pattern(image["frame_index"], HW)))
        assert {s["id"]: s["area"] for s in annotation["segments_info"]} == {
            int(number): int(count) for number, count in zip(*np.unique(ids, return_counts=True), strict=True)
        }


def test_numpy_arrays_are_the_maps(tmp_path: Path) -> None:
    run(uri(4), f"npy://{tmp_path}")
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        ids = np.load(tmp_path / row["file"])
        assert ids.dtype == np.int32
        assert np.array_equal(ids, map_of(pattern(row["frame_index"], HW)))


def test_a_video_shows_the_overlay_at_the_times_of_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    stream = panrt.stream(CLIP, NullSession(), sinks=[str(path)], limit=30, tracker=None)
    items = list(stream.pairs())
    with panrt.engine.sources.open_source(path) as source:
        frames = drain(source)
    assert len(frames) == 30
    for frame, item in zip(frames, items, strict=True):
        assert frame.media_time == pytest.approx(item.frame.media_time, abs=2e-3)
        shown = item.result.overlay(item.frame.image)
        error = np.abs(frame.image.astype(int) - shown).mean()  # of 4:2:0 colour, at the borders of a speckled map
        assert error < 0.5 * np.abs(frame.image.astype(int) - item.frame.image).mean()
    data = path.read_bytes()
    assert b"avc1" in data  # H.264


def test_a_video_takes_frames_of_odd_and_changing_size_and_each_source_its_own_file(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, (height, width) in enumerate([(33, 47), (64, 20), (1, 1)]):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((height, width, 3), 99, np.uint8))
    statuses = run([folder, uri(2)], str(tmp_path / "out.mkv"))
    assert statuses[0].written == 5
    for name, size, count in (("out.mkv", (34, 48), 3), ("out-2.mkv", HW, 2)):
        with panrt.engine.sources.open_source(tmp_path / name) as source:
            assert [frame.image.shape[:2] for frame in drain(source)] == count * [size]


def test_a_clock_that_is_set_back_does_not_end_a_video(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", [""], crf=23, preset="ultrafast")
    session = NullSession()
    for index, clock in enumerate([0.0, 0.1, 0.2, 0.0, 0.1, 9000.0]):
        frame = panrt.Frame(pattern(index, HW), index, media_time=clock)
        writer.write(Item(frame, session(frame)))
    writer.close()
    with panrt.engine.sources.open_source(tmp_path / "out.mp4") as source:
        times = [frame.media_time for frame in drain(source)]
    assert np.allclose(np.diff(np.array(times, float)), 0.1, atol=1e-3)


READER = """
import sys, json
from panrt.engine.sinks import SharedMemoryReader
with SharedMemoryReader(sys.argv[1]) as reader:
    print("ready", flush=True)
    index = -1
    while index < int(sys.argv[2]) and (result := reader.read(60.0)) is not None:
        index = result.frame_index
        areas = {s.name: s.area for s in result.segments}
        print(json.dumps([result.frame_index, result.source, areas, int((result.panoptic == 1).sum())]), flush=True)
"""


def test_another_process_reads_results_from_shared_memory() -> None:
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen([sys.executable, "-c", READER, name, "39"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (status,) = run(uri(40, "50"), f"shm://{name}")
    output, _ = process.communicate(timeout=60)
    rows = [json.loads(line) for line in output.splitlines()]
    indices = [row[0] for row in rows]
    assert indices == sorted(set(indices))
    assert indices[-1] == 39
    for index, source, areas, ones in rows:
        assert source == uri(40, "50")
        assert areas["bright"] == ones == int((map_of(pattern(index, HW)) == 1).sum())
    assert status.written == status.offered - status.dropped
    assert not memory_path(name).exists()


def test_shared_memory_is_never_torn_and_grows_with_the_map() -> None:
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    sink = open_sink(f"shm://{name}?policy=block")
    sink.start(Context(model_file(), lambda: Meter().status((), ())), stream_policy="block")
    session = NullSession()
    stop = threading.Event()
    torn: list[int] = []
    sizes: set[tuple[int, ...]] = set()

    def read() -> None:
        with SharedMemoryReader(name) as reader:
            while not stop.is_set():
                result = reader.read(0.05)
                if result is not None:
                    sizes.add(result.panoptic.shape)
                    wanted = map_of(pattern(result.frame_index, (result.panoptic.shape[0], result.panoptic.shape[1])))
                    if not np.array_equal(result.panoptic, wanted):
                        torn.append(result.frame_index)

    reader = threading.Thread(target=read)
    reader.start()
    for hw in ((40, 64), (120, 160)):
        for index in range(150):
            frame = panrt.Frame(pattern(index, hw), index)
            sink.put(Item(frame, session(frame)))
        wait_for(partial(operator.contains, sizes, hw))
    with pytest.raises(SinkError, match="another process writes under this name"):
        open_sink(f"shm://{name}").start(Context(model_file(), lambda: Meter().status((), ())), stream_policy="block")
    sink.close()
    stop.set()
    reader.join()
    assert torn == []
    assert sizes == {(40, 64), (120, 160)}


def test_a_reader_finds_the_writer_that_follows_one_that_was_killed() -> None:
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    session, context = NullSession(), Context(model_file(), lambda: Meter().status((), ()))
    with SharedMemoryReader(name) as reader:
        assert reader.read(0.0) is None
        for start in (0, 100):
            writer = SharedMemoryWriter(name)
            for index in (start, start + 1):
                frame = panrt.Frame(pattern(index, HW), index)
                writer.write(Item(frame, session(frame)))
            result = reader.read(2.0)
            assert result is not None
            assert result.frame_index == start + 1
            for descriptor in (writer._lock, writer._memory):  # as the system does when the process is gone
                os.close(descriptor)
        last = open_sink(f"shm://{name}")
        last.start(context, stream_policy="block")
        last.close()
    assert not memory_path(name).exists()


# what befalls a sink


class Behaviour:
    """A writer that does as it is told."""

    def __init__(self, *, raises: bool = False, hangs: threading.Event | None = None, pause: float = 0.0) -> None:
        self.seen: list[int] = []
        self.closed = False
        self._raises, self._hangs, self._pause = raises, hangs, pause

    def write(self, item: Item) -> None:
        if self._raises:
            raise OSError(28, "No space left on device")
        if self._hangs is not None:
            self._hangs.wait(PATIENCE)
        time.sleep(self._pause)
        self.seen.append(item.frame.index)

    def close(self) -> None:
        self.closed = True


def sink(
    writer: Behaviour, policy: Policy | None = None, *, patience: float = PATIENCE, recording: bool = True
) -> Sink:
    return Sink(SinkSpec("test", lambda _: writer, recording, policy), depth=4, patience=patience)


def balanced(status: SinkStatus) -> bool:
    return status.offered == status.written + status.dropped + status.failed + status.waiting


def test_a_slow_recording_of_a_file_misses_nothing() -> None:
    writer = Behaviour(pause=0.005)
    (status,) = run(uri(40), sink(writer))
    assert writer.seen == list(range(40))
    assert (status.written, status.lost, status.keeps) == (40, 0, True)
    assert writer.closed


def test_a_slow_view_misses_what_it_cannot_show_and_counts_it() -> None:
    release = threading.Event()
    writer = Behaviour(hangs=release)
    stream = panrt.stream(uri(60), NullSession(), sinks=[sink(writer, recording=False)], tracker=None)
    for result in stream:
        if result.frame_index == 59:
            release.set()
    (status,) = stream.status.sinks
    assert status.dropped >= 60 - 1 - 4  # but for the one that it was at and those that waited
    assert writer.seen == sorted(writer.seen)
    assert writer.seen[-1] == 59  # it ends with the newest
    assert balanced(status)
    assert (status.waiting, status.state, status.keeps) == (0, "closed", False)


def test_a_sink_that_raises_stops_neither_the_stream_nor_its_neighbours(tmp_path: Path) -> None:
    bad, good = Behaviour(raises=True), Behaviour()
    statuses = run(uri(40), sink(bad), sink(good))
    assert good.seen == list(range(40))
    assert statuses[0].state == "failed"
    assert "No space left on device" in statuses[0].error
    assert (statuses[0].written, statuses[0].lost) == (0, 40)
    assert balanced(statuses[0])
    assert bad.closed


def test_a_sink_that_fails_now_and_then_goes_on() -> None:
    class Sometimes(Behaviour):
        def write(self, item: Item) -> None:
            if item.frame.index % 3 == 0:
                raise ValueError(f"frame {item.frame.index}")
            super().write(item)

    writer = Sometimes()
    (status,) = run(uri(30), sink(writer))
    assert (status.state, status.written, status.failed) == ("closed", 20, 10)
    assert status.error == "ValueError: frame 27"


def test_a_sink_that_hangs_is_given_up_and_the_stream_goes_on() -> None:
    release = threading.Event()
    hung, good = Behaviour(hangs=release), Behaviour()
    statuses = run(uri(60), sink(hung, patience=0.3), sink(good))
    assert hung.seen == []  # it hangs yet
    release.set()
    assert good.seen == list(range(60))
    assert statuses[0].state == "hung"
    assert statuses[0].lost >= 58
    assert "accepted no results for 0.3 s" in statuses[0].error or "did not finish" in statuses[0].error


def test_a_disk_that_is_full_is_told_and_inference_goes_on() -> None:
    statuses = run(uri(40), sink(FullDisk()), sink(Behaviour()))
    assert statuses[0].state == "failed"
    assert "No space left on device" in statuses[0].error
    assert statuses[1].written == 40


class FullDisk(Behaviour):
    """JSON lines to a device that is always full."""

    def __init__(self) -> None:
        super().__init__()
        self._file = Path("/dev/full").open("w")  # noqa: SIM115

    def write(self, item: Item) -> None:
        self._file.write("a line\n" * 10_000)
        self._file.flush()

    def close(self) -> None:
        super().close()
        self._file.close()


# what is refused at once


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("wep://:8080", "no sink has the scheme 'wep'; did you mean web"),
        ("out.avi", r"expected a name that ends in \.mp4, \.mkv, \.mov, \.jpg, \.jpeg, \.png, \.jsonl, \.ndjson"),
        ("out.mp4?cfr=3", "unknown option 'cfr'; did you mean crf"),
        ("out.jsonl?policy=drop", "policy: got 'drop', expected latest or block"),
        ("web://", "expected HOST:PORT or :PORT"),
        ("web://:http", "expected HOST:PORT or :PORT"),
        ("coco://", "names no target"),
    ],
)
def test_a_uri_that_means_nothing_is_answered_with_what_would(target: str, said: str) -> None:
    with pytest.raises(UnknownSinkError, match=said):
        open_sink(target)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("12:30.mp4?crf=20", ("video", "12:30.mp4", {"crf": "20"})),
        ("a#b%41 [1]@x.JSONL", ("jsonl", "a#b%41 [1]@x.JSONL", {})),
        ("really?.mp4", ("video", "really?.mp4", {})),
        ("-", ("jsonl", "", {})),
        ("COCO://a:b/c#d?policy=block", ("coco", "a:b/c#d", {"policy": "block"})),
        ("WEB://:8080", ("web", ":8080", {})),
        ("file:///tmp/a%23b.mp4", ("video", "/tmp/a#b.mp4", {})),
    ],
)
def test_a_sink_is_written_where_its_uri_says(target: str, parts: tuple[str, str, dict[str, str]]) -> None:
    assert _split(target) == parts


@pytest.mark.parametrize("target", ["wep://admin:Zq@host", "admin:Zq@host", "wep://host?token=Zq", "file://out.mp4"])
def test_a_sink_that_is_refused_does_not_show_a_login(target: str) -> None:
    with pytest.raises(UnknownSinkError) as caught:
        open_sink(target)
    assert "Zq" not in str(caught.value)


@pytest.mark.parametrize("target", ["{}/out.jsonl", "{}/out.mp4", "coco://{}/a", "npy://{}/a"])
def test_a_folder_that_cannot_be_made_is_told_before_the_first_frame(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SinkError, match=r"cannot be created: (Not a directory|File exists)"):
        run(uri(3), target.format(tmp_path / "file" / "sub"))


def test_a_window_needs_an_opencv_that_has_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SinkError, match=r"opencv-python instead of opencv-python-headless.*web://:8080"):
        run(uri(3), "window://")
    shown: list[str] = []
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "GUI:   GTK3\n")
    monkeypatch.setattr(cv2, "imshow", lambda name, image: shown.append(f"{name} {image.shape}"))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: -1)
    monkeypatch.setattr(cv2, "namedWindow", lambda name, flags: shown.append(f"opened {name}"))
    monkeypatch.setattr(cv2, "resizeWindow", lambda name, width, height: shown.append(f"{width} x {height}"))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, key: float(len(shown) < 4))  # closed by hand after two
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append("closed"))
    run(uri(3), "window://?policy=block")
    title = f"panrt {uri(3)}"
    assert shown == [f"opened {title}", "32 x 24", *2 * [f"{title} (24, 32, 3)"], "closed"]


def test_a_name_of_shared_memory_is_checked() -> None:
    with pytest.raises(SinkError, match="expected 1 to 64 letters"):
        run(uri(3), "shm://../escape")
