"""A PanRT file is whole or absent, whatever happens to the process that writes it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from panrt.errors import NoCacheFolderError
from panrt.files import cache_folder, locked, move_into_place, write_atomically
from support import homes


def leftovers(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".part"))


def test_a_new_file_has_the_permissions_that_the_process_gives(tmp_path: Path) -> None:
    for mask, expected in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            write_atomically(tmp_path / f"{mask}", lambda path: path.write_bytes(b"new"))
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{mask}").stat().st_mode) == expected


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomically(path, lambda temporary: temporary.write_bytes(b"new"))
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o640)


def test_a_name_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "ä" * 127):
        write_atomically(tmp_path / name, lambda temporary: temporary.write_bytes(b"new"))
        assert (tmp_path / name).read_bytes() == b"new"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no/"):
        write_atomically(tmp_path / "no" / "a", lambda temporary: temporary.write_bytes(b""))


def test_temporary_files_of_running_writers_stay_and_abandoned_ones_are_removed(tmp_path: Path) -> None:
    """A temporary file belongs to whoever holds its lock."""
    path = tmp_path / "a"
    others = [tmp_path / ".a.b.12345678.part", tmp_path / ".a.part", tmp_path / "a.12345678.part"]
    for other in others:
        other.write_bytes(b"not of this file")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"outer")
        write_atomically(path, lambda inner: inner.write_bytes(b"inner"))
        assert temporary.exists()
        assert path.read_bytes() == b"inner"

    (tmp_path / ".a.deadbeef.part").write_bytes(b"half")
    (tmp_path / ".a.cafecafe.part").symlink_to(others[0])
    write_atomically(path, write)
    assert path.read_bytes() == b"outer"
    assert leftovers(tmp_path) == sorted([".a.cafecafe.part", *(other.name for other in others)])
    assert others[0].read_bytes() == b"not of this file"


# Writes the file over and over, each time one byte many times; "!" says that it is at it.
WRITER = """
import itertools, pathlib, sys
import panrt.cli.commands
from panrt.files import write_atomically

def write(temporary, value):
    with temporary.open("wb") as file:
        for _ in range(64):
            file.write(bytes([value]) * 4096)
            file.flush()
            print("!", flush=True)

class App:
    def __call__(self, **_):
        for number in itertools.count():
            write_atomically(pathlib.Path(sys.argv[1]), lambda temporary: write(temporary, number % 256))

panrt.cli.commands.app = App()
panrt.cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_leaves_the_file_whole_and_the_next_one_cleans_up(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Killed after the `marks`-th piece of 64 in a file: before the first move, in between, and anywhere later."""
    path = tmp_path / "a"
    for marks in (1, 40, 64 + 17, 3 * 64 + 5):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(marks):
                assert process.stdout.readline() == b"!\n"
            process.send_signal(number)
            process.stdout.read()
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
        if number != signal.SIGKILL:
            assert leftovers(tmp_path) == []
        if path.exists():
            content = path.read_bytes()
            assert content == content[:1] * 64 * 4096
    write_atomically(path, lambda temporary: temporary.write_bytes(b"whole"))
    assert sorted(os.listdir(tmp_path)) == ["a"]


# The folder of what can be made again


def test_a_cache_without_a_home_folder_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes.have_none(monkeypatch)
    with pytest.raises(NoCacheFolderError, match="no home folder to keep a cache in; set XDG_CACHE_HOME"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "panrt"


def test_lock_is_held_by_one_at_a_time_and_announced_to_the_other(tmp_path: Path) -> None:
    waits, order = threading.Event(), list[str]()

    def other() -> None:
        with locked(tmp_path / "lock", waiting=waits.set):
            order.append("other")

    thread = threading.Thread(target=other)
    with locked(tmp_path / "lock", waiting=lambda: order.append("never")):
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_file_that_is_moved_into_place_replaces_the_one_there(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"new")
    (tmp_path / "file").write_bytes(b"old")
    move_into_place(tmp_path / "part", tmp_path / "file")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"new")]
