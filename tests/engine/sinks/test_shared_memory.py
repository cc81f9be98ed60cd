"""Shared memory between a writer and readers, any of which may die, and beside foreign files."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import panrt
from panrt.engine.results.result import PanopticResult, Timings
from panrt.engine.results.segment import Segment
from panrt.engine.sinks import Item, SharedMemoryError, SharedMemoryReader, SinkError, WriterGoneError
from panrt.engine.sinks.shared_memory import SharedMemoryWriter, memory_path
from panrt.engine.sources.pattern import pattern
from tools.null_session import NullSession, map_of

HW = 24, 32


@pytest.fixture
def name() -> Iterator[str]:
    """A name that no other test has; whatever is left under it goes."""
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    yield name
    path = memory_path(name)
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def item(index: int, hw: tuple[int, int] = HW) -> Item:
    frame = panrt.Frame(pattern(index, hw), index)
    return Item(frame, NullSession()(frame))


def lock_path(name: str) -> Path:
    return memory_path(name).with_name(f"{memory_path(name).name}.lock")


def publish(name: str, *indices: int) -> SharedMemoryWriter:
    writer = SharedMemoryWriter(name)
    for index in indices:
        writer.write(item(index))
    return writer


def index_of(result: PanopticResult | None) -> int | None:
    return None if result is None else result.frame_index


# what is read is what was written


def test_a_result_comes_back_with_every_field(name: str) -> None:
    segment = Segment(7, 30, 'a "name" ü \ud800', True, 0.25, 3, (1, 2, 3, 4))
    panoptic = np.arange(12, dtype=np.int32).reshape(3, 4)
    wanted = PanopticResult(
        panoptic, (segment,), Timings(0.1, 0.2, 0.3), 5, 6.5, 7.5, "\udcff.mp4", {7: (1, 2, 3), 2**31 - 1: (0, 0, 0)}
    )
    writer = SharedMemoryWriter(name)
    writer.write(Item(panrt.Frame(pattern(0, HW)), wanted))
    with SharedMemoryReader(name) as reader:
        result = reader.read(0.0)
    writer.close()
    assert result is not None
    assert np.array_equal(result.panoptic, panoptic)
    for field in ("segments", "timings", "frame_index", "captured_at", "media_time", "source", "colors"):
        assert getattr(result, field) == getattr(wanted, field)


def test_a_result_of_thousands_of_segments_and_one_without_pixels_fit(name: str) -> None:
    many = tuple(Segment(number, 1, "x" * 100, True, 0.5, 1, (0, 0, 1, 1)) for number in range(5000))
    writer = SharedMemoryWriter(name)
    with SharedMemoryReader(name) as reader:
        for hw, segments in (((2, 2), ()), ((0, 5), ()), ((2, 2), many)):
            result = PanopticResult(np.zeros(hw, np.int32), segments, Timings(0, 0, 0))
            writer.write(Item(panrt.Frame(pattern(0, HW)), result))
            got = reader.read(0.0) or reader.read(0.0)  # the second call finds the memory that replaced a smaller one
            assert got is not None
            assert (got.panoptic.shape, got.segments) == (hw, segments)
    writer.close()


# the writer's end


def test_a_reader_learns_that_its_writer_was_killed_and_finds_the_next(name: str) -> None:
    script = (
        "import runpy, sys, time\n"
        "sys.path[:0] = sys.argv[3:]\n"
        "writer = runpy.run_path(sys.argv[1])['publish'](sys.argv[2], 1, 2)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, __file__, name, *sys.path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with SharedMemoryReader(name) as reader:
        try:
            assert process.stdout.readline() == "ready\n"
            first = index_of(reader.read(10.0))
            assert reader.read(0.0) is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        with pytest.raises(WriterGoneError, match="its writing process has ended; read again"):
            reader.read(None)  # would wait for ever for a result
        assert first == 2
        assert reader.read(0.0) is None  # what is left behind is not read
        writer = publish(name, 8)
        assert index_of(reader.read(0.0)) == 8
        writer.close()
        assert reader.read(0.0) is None  # closed in order: no error
    assert not memory_path(name).exists()
    assert not lock_path(name).exists()


def test_a_reader_gets_the_last_result_of_a_writer_before_it_learns_of_its_end(name: str) -> None:
    writer = publish(name, 1)
    with SharedMemoryReader(name) as reader:
        assert index_of(reader.read(0.0)) == 1
        writer.write(item(2))
        die(writer)
        assert index_of(reader.read(0.0)) == 2
        with pytest.raises(WriterGoneError):
            reader.read(0.0)


def test_a_memory_left_behind_is_removed_by_the_next_writer_even_if_it_writes_nothing(name: str) -> None:
    die(publish(name, 1))
    assert memory_path(name).exists()
    SharedMemoryWriter(name).close()
    assert not memory_path(name).exists()


def die(writer: SharedMemoryWriter) -> None:
    """As the system does it when a process is killed: descriptors go, and nothing else happens."""
    for descriptor in (writer._lock, writer._memory):
        os.close(descriptor)
    writer._lock = writer._memory = -1


# one writer


@pytest.mark.parametrize("unlinked", [(), (".lock",), ("",), (".lock", "")])
def test_a_second_writer_never_joins_a_first(name: str, unlinked: tuple[str, ...]) -> None:
    first = publish(name, 1)
    for suffix in unlinked:
        memory_path(name).with_name(memory_path(name).name + suffix).unlink()
    if len(unlinked) < 2:
        with pytest.raises(SinkError, match="another process writes under this name"):
            SharedMemoryWriter(name)
        first.write(item(2))
        with SharedMemoryReader(name) as reader:
            assert index_of(reader.read(0.0)) == 2
        first.close()
        assert not memory_path(name).exists()
        assert not lock_path(name).exists()
        return
    second = publish(name, 7)  # nothing of the first is left to be seen
    for _ in range(3):
        with pytest.raises(SinkError, match="another process writes under this name"):
            first.write(item(2))
    first.close()
    with SharedMemoryReader(name) as reader:
        assert index_of(reader.read(0.0)) == 7
        second.write(item(8))
        assert index_of(reader.read(0.0)) == 8
    second.close()


def test_of_writers_that_start_at_once_one_gets_the_name(name: str) -> None:
    for _ in range(20):
        start = threading.Barrier(4)
        winners: list[SharedMemoryWriter] = []

        def run(start: threading.Barrier = start, winners: list[SharedMemoryWriter] = winners) -> None:
            start.wait()
            with suppress(SinkError):
                winners.append(SharedMemoryWriter(name))
            start.wait()

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        winners[0].close()


@pytest.mark.parametrize("replace", [False, True])
def test_a_writer_whose_memory_was_cut_unlinked_or_replaced_makes_it_again(name: str, replace: bool) -> None:
    writer = publish(name, 1)
    path = memory_path(name)
    with SharedMemoryReader(name) as reader:
        assert index_of(reader.read(0.0)) == 1
        path.unlink()
        if replace:
            path.write_bytes(b"something else")
        writer.write(item(2))
        assert index_of(reader.read(0.0) or reader.read(0.0)) == 2
        os.truncate(path, 100)
        writer.write(item(3))
        assert index_of(reader.read(0.0) or reader.read(0.0)) == 3
    writer.close()


# files that are not ours


@pytest.mark.parametrize("suffix", ["", ".lock", ".new"])
def test_no_link_is_followed(name: str, suffix: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    link = memory_path(name).with_name(memory_path(name).name + suffix)
    link.symlink_to(victim)
    if suffix == ".new":
        publish(name, 1).close()  # a stale one is removed, as a link
    else:
        with pytest.raises(SinkError, match="choose another name"):
            publish(name, 1)
    if suffix == "":
        with pytest.raises(SharedMemoryError), SharedMemoryReader(name) as reader:
            reader.read(0.0)
    assert victim.read_bytes() == b"precious"
    assert stat.S_IMODE(victim.stat().st_mode) != 0o600


@pytest.mark.parametrize("suffix", ["", ".lock"])
def test_hard_links_folders_and_pipes_are_not_taken_for_files_of_a_writer(
    name: str, suffix: str, tmp_path: Path
) -> None:
    path = memory_path(name).with_name(memory_path(name).name + suffix)
    path.mkdir()
    with pytest.raises(SinkError, match="choose another name"):
        publish(name, 1)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(SinkError, match="choose another name"):
        publish(name, 1)
    if not suffix:
        with pytest.raises(SharedMemoryError), SharedMemoryReader(name) as reader:
            reader.read(0.0)
    path.unlink()
    path.touch()
    other = path.with_name(path.name + "-other")
    os.link(path, other)
    with pytest.raises(SinkError, match="choose another name"):
        publish(name, 1)


def test_the_files_are_for_their_owner_alone(name: str) -> None:
    before = os.umask(0)
    try:
        writer = publish(name, 1)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (memory_path(name), lock_path(name))} == {0o600}
    writer.close()


@pytest.mark.parametrize(
    "bad", ["", "..", ".", "a/b", "../a", "/etc/passwd", "a\0b", "a" * 65, "ü", "a.lock", "a.new", "a..b", "a b", "a\n"]
)
def test_a_name_that_could_be_another_file_is_rejected_by_both_sides(bad: str) -> None:
    for each in (SharedMemoryReader, SharedMemoryWriter):
        with pytest.raises(SinkError, match="expected 1 to 64 letters"):
            each(bad)


# what a reader finds there


def damaged() -> Iterator[bytes]:
    """Foreign and damaged files: cut at every field, each field of the header wrong, and bytes at random."""
    header = struct.Struct("<8sIIQQI")
    sound: list[bytes | int] = [b"PANRTSHM", 2, 4, 1 << 15, 1, 0]
    wrong: dict[int, list[bytes | int]] = {
        0: [b"PANRTSHX"],
        1: [0, 1, 3, 2**32 - 1],
        2: [0, 1, 5, 2**32 - 1],
        3: [0, 1, 64, 2**64 - 1],
        5: [2, 2**32 - 1],
    }
    rest = bytes(64 - header.size + 4 * (1 << 15))
    yield b""
    yield b"x" * 100
    whole = header.pack(*sound) + rest
    for length in (1, 8, 12, 32, 35, 36, 63, 64, 65, len(whole) - 1):
        yield whole[:length]
    yield whole + b"\0"
    for field, values in wrong.items():
        for value in values:
            yield header.pack(*[value if index == field else old for index, old in enumerate(sound)]) + rest
    generator = random.Random(0)
    for _ in range(50):
        yield header.pack(*sound) + generator.randbytes(len(rest))


def test_whatever_lies_under_the_name_a_reader_returns_none_or_raises_its_error(name: str) -> None:
    messages: list[str] = []
    nothing = 0
    for content in damaged():
        memory_path(name).write_bytes(content)
        with memory_path(name).open("rb") as file, SharedMemoryReader(name) as reader:
            fcntl.flock(file, fcntl.LOCK_EX)  # as if its writer lived
            for _ in range(3):
                try:
                    assert reader.read(0.0) is None
                    nothing += 1
                except SharedMemoryError as error:
                    messages.append(str(error))
    assert nothing > 0
    assert len(messages) > 3 * 20
    assert all(message.startswith(f"{memory_path(name)}: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b"nonsense",
        b"\xff",
        b"[" * 10_000,
        b'{"segments": [[1]], "timings": [0, 0, 0]}',
        b'{"segments":[],"timings":[0,0],"frame_index":0,"captured_at":0,"media_time":null,"source":"","colors":[]}',
        b'{"segments":[],"timings":[0,0,0],"frame_index":1e400,"captured_at":0,"media_time":null,"source":"","colors":[]}',
        b'{"segments":5,"timings":[0,0,0],"frame_index":0,"captured_at":0,"media_time":null,"source":"","colors":[]}',
        b'{"segments":[],"timings":[0,0,0],"frame_index":0,"captured_at":0,"media_time":null,"source":"","colors":[[1,2]]}',
    ],
)
def test_text_that_is_no_result_is_the_readers_error(name: str, text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SharedMemoryWriter(name)
    monkeypatch.setattr("panrt.engine.sinks.shared_memory._dump", lambda _: text)
    writer.write(item(1))
    with SharedMemoryReader(name) as reader, pytest.raises(SharedMemoryError, match="use one version of PanRT"):
        reader.read(0.0)
    writer.close()


@pytest.mark.parametrize("length", [0, 10, 64, 1000])
def test_a_memory_that_shrinks_under_its_reader_is_an_error_and_no_signal(name: str, length: int) -> None:
    writer = publish(name, 1)
    with SharedMemoryReader(name) as reader:
        assert reader.read(0.0) is not None
        writer.write(item(2))
        os.truncate(memory_path(name), length)
        with pytest.raises(SharedMemoryError):
            reader.read(0.0)
        writer.write(item(3))
        result = reader.read(0.0)
        assert result is not None
        assert np.array_equal(result.panoptic, map_of(pattern(3, HW)))
    writer.close()


def test_a_memory_disk_that_is_full_is_the_writers_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    writer = SharedMemoryWriter(name)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        for _ in range(3):
            with pytest.raises(SinkError, match="bytes of memory: No space left on device"):
                writer.write(item(1))
    assert [path.name for path in memory_path(name).parent.glob(f"{memory_path(name).name}*")] == [lock_path(name).name]
    writer.write(item(2))  # there is room again
    with SharedMemoryReader(name) as reader:
        assert index_of(reader.read(0.0)) == 2
    writer.close()


def test_descriptors_do_not_add_up(name: str) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for index in range(20):
        writer = publish(name, index)
        writer.write(item(index, (40 + index, 50)))  # a larger memory
        reader = SharedMemoryReader(name)
        assert reader.read(0.0) is not None
        with pytest.raises(SinkError):
            SharedMemoryWriter(name)
        del reader
        writer.close()
        writer.close()
    assert count() == before
