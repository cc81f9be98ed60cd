"""Forks of a process that has sessions and streams raise an error, never hang, and leave the parent intact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

SETUP = """
import multiprocessing, os, sys, threading, warnings
import numpy as np
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
import panrt
from tools.null_session import NullSession, map_of
from panrt.engine.frame import Frame
from panrt.engine.pipeline import StreamError
from panrt.engine.session import SessionForkedError
IMAGE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)

def child(work, leave=os._exit):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"child: {type(error).__name__}: {error}", flush=True)
            os._exit(9)
        leave(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def story(script: str, *arguments: str | Path) -> str:
    """What a script prints in a process of its own that must end."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SETUP + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_a_child_is_told_that_a_session_is_its_parents_and_leaves_in_every_way() -> None:
    told = story("""
session = panrt.load("tabletop", threads=2)
before = session(IMAGE).panoptic

def use():
    for call in (lambda: session(IMAGE), lambda: session.submit([Frame(IMAGE)]), session.collect):
        try:
            call()
        except SessionForkedError as error:
            assert f"was opened by process {os.getppid()}" in str(error), error
        else:
            raise AssertionError("it was not told")

def use_in_a_block():
    with session:
        use()

def forget():
    global session
    del session

for work in (use, use_in_a_block, session.close, forget):
    for leave in (os._exit, sys.exit):
        print(child(work, leave), end=" ", flush=True)
process = multiprocessing.get_context("fork").Process(target=use_in_a_block)
process.start()
process.join()
print(process.exitcode)
assert np.array_equal(session(IMAGE).panoptic, before)  # the parent's goes on
session.close()
""")
    assert told.split() == ["0"] * 9


def test_a_child_may_load_a_session_of_its_own() -> None:
    assert story("""
first = panrt.load("tabletop", threads=2)
expected = first(IMAGE).panoptic

def work():
    with panrt.load("tabletop", threads=2) as own:
        assert np.array_equal(own(IMAGE).panoptic, expected)

print(child(work, sys.exit))
""").split() == ["0"]


def test_a_child_forked_amid_calls_and_submissions_of_other_threads_hangs_nowhere() -> None:
    assert story("""
stop = threading.Event()
session = NullSession(capacity=2)

def work():
    while not stop.is_set():
        session(IMAGE)

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
codes = {child(session.close, leave) for leave in (os._exit, sys.exit) for _ in range(10)}
stop.set()
for thread in threads:
    thread.join()
print(codes)
""").split() == ["{0}"]


@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
def test_a_child_of_a_running_stream_writes_nothing_and_the_parent_everything(tmp_path: Path, leave: str) -> None:
    path = tmp_path / "out.jsonl"
    told = story(
        f"""
session = NullSession(capacity=2)
stream = panrt.stream("test://32x24@max?frames=40", session, sinks=sys.argv[1:])
codes = set()
results = iter(stream)
for result in results:
    if result.frame_index % 10 == 5:
        def end():
            for use in (lambda: next(results), lambda: iter(stream)):
                try:
                    use()
                except StreamError:
                    pass
                else:
                    raise AssertionError("it was not told")
            stream.status
            stream.close()
        codes.add(child(end, {leave}))
print(codes)
""",
        path,
    )
    assert told.split() == ["{0}"]
    lines = path.read_text().splitlines()
    assert [line.split('"frame_index":')[1].split(",")[0] for line in lines] == [str(index) for index in range(40)]


def test_a_source_in_a_child_has_ended() -> None:
    assert story("""
from panrt.engine.sources import SourceError, open_source
with open_source("test://32x24@100") as source:
    assert source.take(None) is not None

    def work():
        assert source.take(None) is None
        assert source.exhausted
        assert isinstance(source.error, SourceError)
        source.close()

    print(child(work, sys.exit))
""").split() == ["0"]


def test_a_child_neither_listens_for_a_server_nor_keeps_its_clients_connected_and_leaves_at_once() -> None:
    told = story("""
import contextlib, io, socket
from panrt.engine.sinks import Context
from panrt.engine.sinks.address import parse_address
from panrt.engine.sinks.web import WebWriter
from panrt.engine.sources import open_source
from panrt.engine.status import Meter
from tools.null_session import model_file
status = Meter().status((open_source("test://8x8").status,), ())
with contextlib.redirect_stderr(io.StringIO()):  # the URL
    writer = WebWriter(parse_address("web", "127.0.0.1:0", {}), Context(model_file(), lambda: status))

def ask(path):
    client = socket.create_connection(("127.0.0.1", writer.port), timeout=20)
    client.sendall(f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode())
    assert client.recv(12) == b"HTTP/1.1 200", path
    return client

def inherited():
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}").startswith("socket:"))
    return sum(found)

held, done = threading.Event(), threading.Event()

def hold():
    with writer._changed, writer._server.clients._changed:
        held.set()
        done.wait()

def work():
    print(inherited(), flush=True)
    writer.close()

clients = [ask("/"), ask("/stream.mjpg")]
holder = threading.Thread(target=hold)
holder.start()
held.wait()
print(child(work), flush=True)
done.set()
holder.join()
ask("/").close()  # the parent still answers
writer.close()
""")
    assert told.split() == ["2", "0"]  # the clients' own ends
