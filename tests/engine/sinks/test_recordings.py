"""No recording is lost, and none is written over: full disks, kills, taken names, files in two roles."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import json
import math
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import panrt
from panrt.engine.sinks import (
    Context,
    Item,
    SameFileError,
    Sink,
    SinkError,
    SinkSpec,
    UnknownSinkError,
    open_sink,
    output,
    same_file,
)
from panrt.engine.sinks.coco import JOURNAL, CocoWriter
from panrt.engine.sinks.json_lines import JsonLinesWriter
from panrt.engine.sinks.numpy_arrays import NumpyWriter
from panrt.engine.sinks.sink import RETRY
from panrt.engine.sinks.video import LONGEST_SIDE, VideoWriter
from panrt.engine.sources.pattern import pattern
from panrt.engine.status import Meter, SinkStatus
from tools.null_session import NullSession, map_of, model_file
from tools.streams import wait_for

HW = 24, 32
VIDEOS = ".mp4", ".mov", ".mkv"
RECORDINGS = "out.mp4", "out.mov", "out.mkv", "out.jsonl", "coco://out", "npy://out"


def uri(frames: int) -> str:
    return f"test://{HW[1]}x{HW[0]}@max?frames={frames}"


def run(source: object, *sinks: object) -> tuple[SinkStatus, ...]:
    """Through a null session without tracking; how the sinks did."""
    stream = panrt.stream(source, NullSession(), sinks=sinks, tracker=None)  # type: ignore[arg-type]
    with stream:
        for _ in stream:
            pass
    return stream.status.sinks


def item(index: int, hw: tuple[int, int] = HW, *, time: float | None = None, source: str = "") -> Item:
    frame = panrt.Frame(pattern(index, hw), index, media_time=index / 30 if time is None else time, source=source)
    return Item(frame, NullSession()(frame))


def context() -> Context:
    """Of a stream with one source, that of `item`."""
    source = panrt.engine.sources.open_source(uri(1))
    source.name = ""
    return Context(model_file(), lambda: Meter().status((source.status,), ()))


def settle(sink: Sink) -> None:
    """Wait until its thread has dealt with all that it was given."""
    wait_for(lambda: sink.status.offered == sink._handled + sink.status.dropped)


def video(path: Path, *, clock: Callable[[], float] = lambda: 0.0, scale: int = 1) -> VideoWriter:
    return VideoWriter(path, [""], crf=23, preset="ultrafast", clock=clock, scale=scale)


def times(path: Path) -> list[float]:
    """When the frames of a video are shown; decoding stops at nothing but its end."""
    with av.open(str(path)) as container:
        return [float(frame.pts * container.streams.video[0].time_base) for frame in container.decode(video=0)]


def results(folder: Path) -> int:
    """How many results can be read back from all recordings in a folder."""
    count = 0
    for path in folder.rglob("*"):
        if path.suffix in VIDEOS:
            count += len(times(path))
        elif path.suffix == ".jsonl" and path.name != JOURNAL:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            count += sum(1 for row in rows if "file" not in row or np.load(path.parent / row["file"]).shape == HW)
        elif path.name == "panoptic.json":
            names = [entry["file_name"] for entry in json.loads(path.read_text())["annotations"]]
            count += sum(1 for name in names if cv2.imread(str(path.parent / "panoptic" / name)) is not None)
    return count


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Disk:
    """Takes so many bytes, and then what a real one gives: the part that fits, and an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: float = math.inf, error: int = errno.ENOSPC) -> None:
        self.room, self.error = room, error
        self.written = 0
        monkeypatch.setattr(output, "write_all", self.write_all)

    def write_all(self, descriptor: int, data: bytes) -> None:
        fits = data[: int(min(self.room, len(data)))]
        os.write(descriptor, fits)
        self.written += len(fits)
        self.room -= len(fits)
        if len(fits) < len(data):
            raise OSError(self.error, os.strerror(self.error))


class Killed(BaseException):
    """The process ends here: nothing is caught, nothing is cleaned up."""


# names that are taken


@pytest.mark.parametrize("target", RECORDINGS)
def test_a_second_start_leaves_the_output_of_the_first_as_it_is(target: str, here: Path) -> None:
    (first,) = run(uri(3), target)
    before = content(here)
    (second,) = run(uri(4), target)
    after = content(here)
    assert before.items() <= after.items()
    assert {name.split("/")[0].split(".")[0] for name in after.keys() - before.keys()} == {"out-2"}
    assert (first.written, second.written, results(here)) == (3, 4, 7)
    assert second.files == (target.rpartition("//")[2].replace("out", "out-2"),)


def test_a_file_is_written_over_only_if_that_is_asked_for(here: Path) -> None:
    for _ in range(2):
        run(uri(3), "out.jsonl?overwrite=yes", "out.mp4?overwrite=yes")
    assert sorted(path.name for path in here.iterdir()) == ["out.jsonl", "out.mp4"]
    assert results(here) == 6
    with pytest.raises(UnknownSinkError, match="overwrite: got 'maybe', expected no or yes"):
        open_sink("out.mp4?overwrite=maybe")
    with pytest.raises(UnknownSinkError, match="unknown option 'overwrite'"):
        open_sink("coco://out?overwrite=yes")


def test_starts_at_one_moment_get_different_names(tmp_path: Path) -> None:
    gate = threading.Barrier(8)
    names: list[str] = []

    def start() -> None:
        gate.wait()
        writer = CocoWriter(tmp_path / "c", model_file())
        lines = JsonLinesWriter(tmp_path / "out.jsonl")
        names.extend((*writer.files, *lines.files))
        writer.write(item(0))
        lines.write(item(0))
        lines.close()
        writer.close()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 16
    assert results(tmp_path) == 16


def test_sources_keep_files_of_their_own_over_restarts(here: Path) -> None:
    for _ in range(2):
        run([uri(2), uri(3)], "out.mkv")
    assert {path.name: len(times(path)) for path in here.iterdir()} == {
        "out.mkv": 2, "out-2.mkv": 3, "out-3.mkv": 2, "out-2-2.mkv": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["a b#c%20d:e.jsonl", "rtsp:x.mp4", "100%.mkv", "what?.jsonl", "é\udcff.jsonl", "a\nb.jsonl", "o.v2.MP4"]
)
def test_any_name_that_the_file_system_takes_can_be_recorded_to(name: str, here: Path) -> None:
    for target in (name, Path("paths") / name):
        (status,) = run(uri(2), target)
        assert (status.written, status.state) == (2, "closed")
        assert status.name.isprintable()
        json.dumps(status.files).encode()
        print(status.name, *status.files)  # as a terminal that takes UTF-8 alone would
    assert [os.fsencode(path.name) for path in here.iterdir() if path.is_file()] == [os.fsencode(name)]
    assert (here / "paths" / name).is_file()


@pytest.mark.parametrize("name", ["{}.mp4", "{}.jsonl", "coco://{}", "npy://{}"])
def test_a_name_that_is_too_long_or_a_folder_is_an_error_before_the_first_frame(name: str, here: Path) -> None:
    with pytest.raises(SinkError, match="File name too long"):
        run(uri(2), name.format("x" * 300))
    if "//" not in name:
        (here / name.format("folder")).mkdir()
        with pytest.raises(SinkError, match="is a folder; expected the name of a file"):
            run(uri(2), name.format("folder"))
    else:
        (here / "file").write_text("in the way")
        with pytest.raises(SinkError, match="cannot be created: File exists"):
            run(uri(2), name.format("file"))
    with pytest.raises(UnknownSinkError, match="NUL"):
        open_sink(name.format("a\0b"))


def test_a_named_pipe_is_written_to_as_it_is(here: Path) -> None:
    os.mkfifo("out.jsonl")
    with pytest.raises(SinkError, match="a named pipe without a reader; start its reader first"):
        run(uri(2), "out.jsonl")
    reader = os.open("out.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    run(uri(2), "out.jsonl")
    assert len(os.read(reader, 1 << 16).splitlines()) == 2
    os.close(reader)
    assert [path.name for path in here.iterdir()] == ["out.jsonl"]


# full disks


@pytest.mark.parametrize("target", RECORDINGS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_results_reported_as_written_are_readable_when_the_disk_is_full(
    target: str, share: float, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    run(uri(30), target.replace("out", "whole/out"))
    gc.collect()
    handles = len(os.listdir("/proc/self/fd"))
    disk.room = int(share * disk.written)
    (status,) = run(uri(30), target.replace("out", "part/out"))
    assert status.state == "failed" if share < 0.99 else status.state in ("failed", "closed")
    assert status.offered == 30 == status.written + status.dropped + status.failed
    assert "No space left on device" in status.error
    assert results(here / "part") == status.written < 30
    assert len(os.listdir("/proc/self/fd")) <= handles
    assert not list(here.rglob("*.part"))


@pytest.mark.parametrize("target", RECORDINGS)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EFBIG, errno.EROFS])
def test_a_recording_goes_on_when_there_is_room_again(
    target: str, error: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, now = Disk(monkeypatch, error=error), [0.0]
    sink = Sink(open_sink(target).spec, clock=lambda: now[0])
    if target.endswith(VIDEOS):
        sink = Sink(
            SinkSpec(target, lambda _: video(here / target, clock=lambda: now[0]), recording=True), clock=lambda: now[0]
        )
    sink.start(context(), stream_policy="block")
    index = 0

    def give(count: int) -> None:
        nonlocal index
        for _ in range(count):
            now[0] += 0.4
            sink.put(item(index))
            index += 1
            settle(sink)

    give(12)
    disk.room = 0
    for _ in range(100):
        give(1)
        if sink.status.state == "waiting":
            break
    assert sink.status.state == "waiting"
    assert os.strerror(error) in sink.status.error
    disk.room = math.inf
    now[0] = max(now[0], sink._retry_at) + 0.1
    give(12)
    assert sink.status.state == "open"
    sink.close()
    end = sink.status
    assert (end.state, end.gaps) == ("closed", 1)
    assert end.written + end.failed + end.dropped == end.offered == index
    assert end.written == results(here) >= 20


def test_a_recording_that_waits_is_not_tried_before_its_time_and_shows_as_trouble() -> None:
    now, tries = [0.0], []

    class Full:
        def write(self, item: Item) -> None:
            tries.append(now[0])
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            pass

    sink = Sink(SinkSpec("full", lambda _: Full(), recording=True), clock=lambda: now[0])
    sink.start(context(), stream_policy="block")
    while now[0] < 60:
        sink.put(item(0))
        settle(sink)
        now[0] += 0.25
    pauses = np.diff(tries[4:])
    assert tries[:5] == [0, 0.25, 0.5, 0.75, 1.0]
    assert pauses.tolist() == [1, 2, 4, 8, *[10] * (len(pauses) - 4)]
    assert RETRY == (1.0, 10.0)
    status = Meter().status((), (sink.status,))
    assert status.trouble == ("full: waiting (OSError: [Errno 28] No space left on device)",)
    sink.close()
    assert sink.status.state == "failed"
    assert sink.status.dropped + sink.status.failed == sink.status.offered == 240


def test_a_recording_that_finds_no_room_at_its_start_begins_later(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, room=0)
    now = [0.0]
    sink = Sink(open_sink("coco://out").spec, clock=lambda: now[0])
    sink.start(context(), stream_policy="block")
    assert sink.status.state == "waiting"
    sink.put(item(0))
    disk.room, now[0] = math.inf, 2.0
    sink.put(item(1))
    sink.close()
    assert (sink.status.state, sink.status.dropped, sink.status.written) == ("closed", 1, 1)
    assert results(here) == 1


def test_a_view_that_fails_is_given_up_for_good() -> None:
    class Broken:
        def write(self, item: Item) -> None:
            raise ValueError("no")

        def close(self) -> None:
            pass

    (status,) = run(uri(20), Sink(SinkSpec("view", lambda _: Broken(), recording=False, policy="block")))
    assert (status.state, status.failed, status.dropped) == ("failed", 5, 15)


@pytest.mark.parametrize("target", RECORDINGS)
def test_a_folder_that_is_deleted_is_made_again(target: str, here: Path) -> None:
    sink = open_sink(target.replace("out", "deep/out"))
    sink.start(context(), stream_policy="block")
    if not target.endswith(VIDEOS):  # a video's first fragment has to be whole before there is a file
        sink.put(item(0))
    settle(sink)
    for path in sorted((here / "deep").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (here / "deep").rmdir()
    for index in range(1, 5):
        sink.put(item(index, time=2.0 * index))
    sink.close()
    status = sink.status
    lost = 0 if target.endswith(VIDEOS) else 1  # what was deleted was written before
    assert results(here) == status.written - lost >= 3
    assert status.state == "closed"


def test_a_file_that_may_grow_no_more_is_followed_by_another(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(Disk):
        def write_all(self, descriptor: int, data: bytes) -> None:
            self.room = 2000 - os.fstat(descriptor).st_size
            super().write_all(descriptor, data)

    Small(monkeypatch, error=errno.EFBIG)
    (status,) = run(uri(30), "out.jsonl")
    assert (status.written, results(here)) == (30, 30)
    assert len(list(here.iterdir())) > 3
    assert max(path.stat().st_size for path in here.iterdir()) <= 2000


# the end of the process


@pytest.mark.parametrize("suffix", VIDEOS)
def test_a_video_has_every_fragment_that_was_whole_wherever_its_process_ends(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    first = video(tmp_path / f"whole{suffix}")
    for index in range(70):
        first.write(item(index))
    first.close()
    moments = random.Random(0).sample(range(1, disk.written), 20)
    for number, room in enumerate(moments):
        path = tmp_path / f"{number}{suffix}"
        writer = video(path)
        left = [room]

        def write_all(descriptor: int, data: bytes, left: list[int] = left) -> None:
            os.write(descriptor, data[: left[0]])
            left[0] -= len(data)
            if left[0] < 0:
                raise Killed

        monkeypatch.setattr(output, "write_all", write_all)
        kept = count = 0
        with contextlib.suppress(Killed):
            for index in range(70):
                writer.write(item(index))
                count += 1
                kept = count - writer.pending
            writer.close()
        if path.exists() and path.stat().st_size > 1000:
            shown = times(path)
            assert kept <= len(shown) <= count + 1
            assert np.allclose(shown, np.arange(len(shown)) / 30, atol=1e-3)
        else:
            assert kept == 0
        for left_open in writer._videos.values():  # as the end of a process does
            left_open.drop()
        monkeypatch.setattr(output, "write_all", disk.write_all)


@pytest.mark.parametrize("suffix", VIDEOS)
def test_no_more_than_a_second_and_a_frame_of_a_video_waits(suffix: str, tmp_path: Path) -> None:
    for step, tick in ((1 / 30, 0.0), (1e-3, 0.2), (0.7, 0.0), (3.0, 3.0)):  # of the video, of the clock
        now = [0.0]
        path = tmp_path / f"{step}{suffix}"
        writer = video(path, clock=lambda now=now: now[0])  # type: ignore[misc]
        for index in range(80):
            now[0] += tick
            writer.write(item(index, time=index * step))
            # A muxer hands a fragment on with the frame after it.
            assert writer.pending <= 1 + math.ceil(min(1 / step, 1 / tick if tick else math.inf))
            if path.exists():
                assert len(times(path)) == index + 1 - writer.pending
        writer.close()
        assert len(times(path)) == 80


def test_a_video_can_be_searched_and_knows_how_long_it_is(tmp_path: Path) -> None:
    for suffix in VIDEOS:
        path = tmp_path / f"out{suffix}"
        writer = video(path)
        for index in range(150):
            writer.write(item(index))
        writer.close()
        with av.open(str(path)) as container:
            assert container.duration == pytest.approx(150 / 30 * av.time_base, rel=0.01)
            container.seek(3 * av.time_base)
            assert next(container.decode(video=0)).time == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize(
    "clocks", [[0, math.nan, 0.1], [math.inf, 0, 1], [0, 7200, 3600, 3600.1], [5, 4, 3], [0, 0, 0]]
)
def test_a_clock_that_makes_no_sense_costs_no_frame(clocks: list[float], tmp_path: Path) -> None:
    writer = video(tmp_path / "out.mp4")
    for index, clock in enumerate(clocks):
        writer.write(item(index, time=clock))
    writer.close()
    shown = times(tmp_path / "out.mp4")
    assert len(shown) == len(clocks)
    assert (np.diff(shown) > 0).all()
    assert shown[-1] < 10


def test_a_frame_of_any_size_is_recorded_or_said_to_be_too_large(tmp_path: Path) -> None:
    for hw in ((1, 1), (2, 333), (333, 2), (LONGEST_SIDE, 1)):
        for suffix in VIDEOS:
            path = tmp_path / f"{hw}{suffix}"
            writer = video(path)
            for index in range(2):
                writer.write(item(index, hw))
            writer.close()
            assert len(times(path)) == 2
    with pytest.raises(SinkError, match=r"1x16385 is too large for H\.264, 16384 at most; record it with coco"):
        video(tmp_path / "large.mp4").write(item(0, (LONGEST_SIDE + 1, 1)))


@pytest.mark.parametrize("cut", [0, 3, 40])  # bytes that are missing from the journal's last line
def test_an_interrupted_coco_folder_is_completed_by_the_next_start(cut: int, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    writer = CocoWriter(folder, model_file())
    for index in range(3):
        writer.write(item(index, source="a"))
    assert writer._journal is not None
    os.close(writer._journal.descriptor)  # as the system does when the process is gone
    writer._journal.descriptor = -1
    journal = folder / JOURNAL
    journal.write_bytes(journal.read_bytes()[: -cut or None])
    (folder / "panoptic" / ".000004.png.part").write_bytes(b"half a picture")
    whole = 2 if cut else 3
    CocoWriter(folder, model_file()).close()
    assert not journal.exists()
    assert not list(folder.rglob("*.part"))
    found = json.loads((folder / "panoptic.json").read_text())
    assert [entry["id"] for entry in found["images"]] == list(range(1, whole + 1))
    assert [entry["image_id"] for entry in found["annotations"]] == list(range(1, whole + 1))
    assert [category["name"] for category in found["categories"]] == ["bright", "dark"]
    for entry in found["annotations"]:
        png = np.asarray(cv2.imread(str(folder / "panoptic" / entry["file_name"])))
        assert np.array_equal(png[..., 2], map_of(pattern(entry["image_id"] - 1, HW)))
    assert json.loads((tmp_path / "c-2" / "panoptic.json").read_text())["images"] == []


def test_a_picture_that_is_not_whole_is_not_named(tmp_path: Path) -> None:
    writer = CocoWriter(tmp_path / "c", model_file())
    for index in range(4):
        writer.write(item(index))
    broken, gone = tmp_path / "c" / "panoptic" / "000002.png", tmp_path / "c" / "panoptic" / "000003.png"
    broken.write_bytes(broken.read_bytes()[:-1])
    gone.unlink()
    writer.close()
    found = json.loads((tmp_path / "c" / "panoptic.json").read_text())
    assert [entry["id"] for entry in found["images"]] == [1, 4]


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 100,
        b"[" * 100_000,
        b"7",
        b"[]",
        b'{"image": 3, "annotation": 4}',
        b'{"image": {}, "annotation": {"file_name": "../../secret.png"}}',
        b'{"image": {}, "annotation": {"file_name": "/dev/zero"}}',
        b'{"image": {}, "annotation": {"file_name": ["000001.png"]}}',
        b'{"image": {}, "annotation": {"file_name": "000009.png"}}',
        b'{"image": {}, "annotation": {"file_name": "\xff"}}',
        b'{"image": {}, "annotation": {"file_name": ".png"}}',
        b'{"image": {}, "annotation": {"file_name": "%s.png"}}' % (b"a" * 300),
        b'{"annotation": {"file_name": "000001.png"}}',
    ],
)
def test_a_journal_from_anywhere_names_only_pictures_of_its_folder(line: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    writer = CocoWriter(folder, model_file())
    writer.write(item(0))
    os.mkfifo(folder / "panoptic" / "000009.png")
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((*HW, 3), np.uint8))
    assert writer._journal is not None
    writer._journal.append(line + b"\n")
    writer.write(item(1))
    writer.close()
    found = json.loads((folder / "panoptic.json").read_text())
    assert [entry["id"] for entry in found["images"]] == [1, 2]


def test_a_folder_in_which_another_run_records_is_left_alone(tmp_path: Path) -> None:
    first, second = (CocoWriter(tmp_path / "c", model_file()) for _ in range(2))
    for index in range(3):
        first.write(item(index))
        second.write(item(index))
    second.close()
    first.close()
    assert (first.files, second.files) == ((str(tmp_path / "c"),), (str(tmp_path / "c-2"),))
    assert results(tmp_path) == 6


def test_a_panoptic_json_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    truth.mkdir()
    (truth / "panoptic.json").write_text("ground truth")
    run(uri(2), f"coco://{truth}")
    assert content(truth) == {"panoptic.json": b"ground truth"}
    writer = CocoWriter(tmp_path / "late", model_file())
    writer.write(item(0))
    (tmp_path / "late" / "panoptic.json").write_text("ground truth")  # copied there meanwhile
    writer.close()
    assert (tmp_path / "late" / "panoptic.json").read_text() == "ground truth"
    assert len(json.loads((tmp_path / "late" / "panoptic-2.json").read_text())["images"]) == 1


def test_a_disk_that_is_full_at_the_end_costs_a_coco_folder_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "c"
    writer = CocoWriter(folder, model_file())
    for index in range(3):
        writer.write(item(index))
    full = folder / ".panoptic.json.part"
    full.symlink_to("/dev/full")
    with pytest.raises(
        SinkError, match=r"No space left on device; \.panrt-journal\.jsonl keeps its contents, and the next"
    ):
        writer.close()
    assert sorted(path.name for path in folder.iterdir()) == [JOURNAL, "panoptic"]
    CocoWriter(folder, model_file()).close()
    assert results(folder) == 3


# one file in two roles


@pytest.mark.parametrize(
    ("source", "sinks", "said"),
    [
        ("in/a.mp4", ["in/a.mp4"], "in/a.mp4: is the source in/a.mp4"),
        ("file://{}/in/a.mp4", ["in/a.mp4"], "is the source "),
        ("in/a.mp4", ["link.mp4"], "is the source"),
        ("in/a.mp4", ["hard.mp4"], "is the source"),
        ("in/a.mp4", ["deep/../in/../in/a.mp4"], "is the source"),
        ("link.mp4", ["in/a.mp4"], "is the source"),
        ("in/*.mp4", ["in/a.mp4?overwrite=yes"], "is the source"),
        ("pictures", ["pictures/out.mp4"], "is in the folder the source"),
        ("pictures", ["coco://pictures"], "is in the folder the source"),
        ("pictures", ["npy://pictures/deep/out"], "is in the folder the source"),
        ("pictures/", ["alias/out.mkv"], "is in the folder the source"),
        ("in/a.mp4", ["coco://in"], "is the folder of the source"),
        ("test://", ["out.mp4", "./out.mp4"], "the sink out.mp4 writes to it too"),
        ("test://", ["out.jsonl", "out.jsonl?policy=block"], "the sink out.jsonl writes to it too"),
        ("test://", ["coco://out", "npy://out"], "the sink coco://out writes to it too"),
        ("test://", ["-", "-"], "the sink - writes to it too"),
    ],
)
def test_a_file_in_two_roles_is_refused_before_anything_is_written(
    source: str, sinks: list[str], said: str, here: Path
) -> None:
    for folder in ("in", "pictures", "deep"):
        Path(folder).mkdir()
    Path("in/a.mp4").write_bytes(b"a film")
    cv2.imwrite("pictures/1.png", np.zeros((*HW, 3), np.uint8))
    Path("link.mp4").symlink_to("in/a.mp4")
    Path("hard.mp4").hardlink_to("in/a.mp4")
    Path("alias").symlink_to("pictures")
    before = content(here)
    with pytest.raises(SameFileError, match=said):
        run(source.format(here), *sinks)
    assert content(here) == before


def test_files_beside_the_source_and_devices_are_no_clash(here: Path) -> None:
    cv2.imwrite("a.png", np.zeros((*HW, 3), np.uint8))
    run("a.png", "out.jsonl", "out.mp4", "coco://a", "b.jsonl")
    run(str(here), "c.jsonl")  # a folder of pictures
    Path("x.jsonl").symlink_to("/dev/null")
    same_file.reject_same_files([], [open_sink("x.jsonl").spec, open_sink("x.jsonl").spec])


# who reads


def test_a_sink_whose_reader_left_ends_without_complaint(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(writer, "w") as stream_out:
        monkeypatch.setattr(sys, "stdout", stream_out)
        stream = panrt.stream(uri(2000), NullSession(), sinks=["-"])
        other = panrt.stream(uri(3), NullSession(), sinks=["-", "out.jsonl"])
        for number, _ in enumerate(stream):
            if number == 0:
                assert os.read(reader, 1 << 16).startswith(b'{"version":2,"source"')
                os.close(reader)
            if stream.unread:
                stream.stop()
        assert list(other)
    (status,) = stream.status.sinks
    assert (status.state, status.error) == ("left", "-: nobody reads standard output any more.")
    assert stream.status.results < 2000
    assert stream.status.healthy
    assert not other.unread  # somebody may read the file
    assert [sink.state for sink in other.status.sinks] == ["left", "closed"]


def test_a_reader_that_leaves_while_nothing_comes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream_out:
        monkeypatch.setattr(sys, "stdout", stream_out)
        sink = open_sink("-")
        sink.start(context(), stream_policy="block")
        os.close(reader)
        assert sink._thread is not None
        sink._thread.join(60)
        assert sink.state == "left"


def test_standard_output_that_is_closed_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SinkError, match="standard output is closed; give the sink a file"):
        run(uri(2), "-")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(SinkError, match="standard output is closed"):
        run(uri(2), "-")


# what a sink may be


def test_a_function_a_path_and_a_single_sink_are_sinks(tmp_path: Path) -> None:
    seen: list[panrt.PanopticResult] = []
    statuses = run(uri(3), seen.append, tmp_path / "out.jsonl")
    assert [result.frame_index for result in seen] == [0, 1, 2]
    assert [status.written for status in statuses] == [3, 3]
    assert statuses[0].name == "list.append"
    list(panrt.stream(uri(2), NullSession(), sinks=tmp_path / "alone.jsonl"))
    list(panrt.stream(uri(2), NullSession(), sinks=str(tmp_path / "text.jsonl")))
    list(panrt.stream(uri(2), NullSession(), sinks=seen.append))
    assert (len(seen), results(tmp_path)) == (5, 7)


@pytest.mark.parametrize("wrong", [7, None, b"out.mp4", NullSession, 1.5])
def test_what_cannot_be_a_sink_is_one_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match="expected a URI or path, a function that takes a PanopticResult, or a Sink"):
        run(uri(1), wrong)


def test_a_function_that_fails_stops_nobody_else(tmp_path: Path) -> None:
    def broken(result: panrt.PanopticResult) -> None:
        raise KeyError(result.frame_index)

    statuses = run(uri(10), broken, tmp_path / "out.jsonl")
    assert (statuses[0].written, statuses[0].lost, statuses[1].written) == (0, 10, 10)


def test_an_array_is_there_whole_before_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = NumpyWriter(tmp_path / "n")
    writer.write(item(0))

    def killed(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise Killed

    monkeypatch.setattr(output, "write_all", killed)
    with pytest.raises(Killed):
        writer.write(item(1))
    lines = (tmp_path / "n" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["000001.npy"]
    assert [path.name for path in (tmp_path / "n").glob("*.npy")] == ["000001.npy"]


def test_the_last_record_is_put_on_the_disk_though_none_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(output, "sync", synced.append)
    now = [0.0]
    file = output.claim(tmp_path / "out.jsonl")
    file._rhythm = output.Rhythm(lambda: now[0])
    file.append(b"a line\n")
    assert synced == []
    for _ in range(10):
        now[0] += 2
        file.rest()
    assert len(synced) == 2  # the file, and the folder that has its name
    now[0] += 2
    file.append(b"another\n")
    assert len(synced) == 3
    file.close()
    assert len(synced) == 3  # nothing new


def test_data_is_put_on_the_disk_each_second_or_less_often_where_that_is_slow() -> None:
    for cost, calls in ((0.0, 60), (1.0, 3)):
        now = [0.0]
        synced: list[float] = []

        def sync(now: list[float] = now, synced: list[float] = synced, cost: float = cost) -> None:
            synced.append(now[0])
            now[0] += cost

        rhythm = output.Rhythm(lambda now=now: now[0])  # type: ignore[misc]
        while now[0] < 60:
            rhythm.beat(sync)
            now[0] += 1 / 64
        assert abs(len(synced) - calls) <= 1
