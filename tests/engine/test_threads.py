"""Races of threads under the shortest switch interval, and threads that the system cannot start."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import panrt
from panrt.engine.slot import Policy, Slot, SlotCounts
from panrt.engine.sources import open_source
from panrt.engine.status import StreamStatus
from support.shared_sessions import in_threads, restless
from tools.null_session import NullSession


@pytest.mark.parametrize(("policy", "depth"), [("latest", 1), ("block", 1), ("block", 3)])
def test_a_slot_counts_right_while_it_is_written_read_and_asked(policy: Policy, depth: int) -> None:
    slot: Slot[int] = Slot(policy, depth=depth)
    seen: list[int] = []
    asked: list[SlotCounts] = []

    def write() -> None:
        for number in range(2000):
            assert slot.put(number)
        slot.close()

    def read() -> None:
        while not slot.exhausted:
            item = slot.take(None)
            if item is not None:
                seen.append(item)

    def ask() -> None:
        while not slot.exhausted:
            asked.append(slot.counts)

    with restless():
        in_threads(write, read, ask)
    assert seen == sorted(set(seen))  # in order, and nothing twice
    counts = slot.counts
    assert (counts.put, counts.taken, counts.waiting) == (2000, len(seen), 0)
    assert counts.dropped == 2000 - len(seen)
    assert policy == "latest" or counts.dropped == 0
    assert all(count.put == count.taken + count.dropped + count.waiting for count in asked)
    assert all(count.waiting <= depth for count in asked)


def test_a_stream_counts_right_while_it_runs_and_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    asked: list[StreamStatus] = []
    done = threading.Event()
    with NullSession(capacity=2) as session:
        stream = panrt.stream(["test://32x24@max?frames=150"] * 2, session, sinks=[str(path)], policy="block")

        def run() -> None:
            try:
                assert sum(1 for _ in stream) == 300
            finally:
                done.set()

        def ask() -> None:
            while not done.is_set():
                asked.append(stream.status)
                json.dumps(stream.status.to_json())

        with restless():
            in_threads(run, ask, ask)
    final = stream.status
    assert final.results == 300
    assert [(source.captured, source.delivered, source.dropped) for source in final.sources] == [(150, 150, 0)] * 2
    assert [(sink.offered, sink.written, sink.lost) for sink in final.sinks] == [(300, 300, 0)]
    results = [status.results for status in asked]
    assert all(source.captured == source.delivered + source.waiting for s in asked for source in s.sources)
    assert max(results, default=0) <= 300
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for name in {line["source"] for line in lines}:
        assert [line["frame_index"] for line in lines if line["source"] == name] == list(range(150))


def test_closing_a_source_from_several_threads_while_it_is_read() -> None:
    with restless():
        for _ in range(5):
            source = open_source("test://32x24@max").start()
            began = threading.Event()

            def read(source: panrt.engine.sources.Source = source, began: threading.Event = began) -> None:
                while not source.exhausted:
                    source.take(1.0)
                    began.set()

            def close(source: panrt.engine.sources.Source = source, began: threading.Event = began) -> None:
                began.wait()
                source.close()

            in_threads(read, close, close)
            counts = source.status
            assert counts.captured == counts.delivered + counts.waiting


LIMITED = """
import os, resource, sys, threading, warnings
import numpy as np
import panrt
from tools.null_session import NullSession
from panrt.engine.frame import Frame
from panrt.engine.sources import open_source
from panrt.errors import PanrtError
from panrt.plugins import native
image = np.zeros((24, 32, 3), np.uint8)
session = panrt.load("tabletop", threads=1)
session(image)
list(panrt.stream("test://32x24@max?frames=2", NullSession()))  # has everything imported
if os.getuid() == 0:  # whom no limit binds
    try:
        os.setresuid(54321, 54321, 54321)
    except PermissionError:
        pass
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
else:
    print("no limit")
    os._exit(0)
def said(call):
    try:
        call()
    except PanrtError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"
print(said(lambda: session.submit([Frame(image)])))
print(said(lambda: open_source("test://32x24@max").start()))
print(said(lambda: list(panrt.stream("test://32x24@max?frames=2", NullSession()))))
table = np.arange(3 * 256, dtype=np.float32).reshape(3, 256)
large = np.zeros((1, 64, 64, 3), np.uint8)
one, many = (native.look_up(large, table, out=np.empty((1, 3, 64, 64), np.float32), threads=n) for n in (1, 8))
print(np.array_equal(one, many))  # the kernels do with the threads that there are
print(len(session(image).panoptic.shape))
session.close()
sys.stdout.flush()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them")
def test_where_the_system_gives_no_more_threads_errors_say_so() -> None:
    root = Path(__file__).resolve().parents[2]
    script = f"import sys; sys.path.insert(0, {str(root)!r})\n" + LIMITED
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    if done.stdout == "no limit\n":
        pytest.skip("the system does not hold this user to a limit")
    submit, source, stream, same, works = done.stdout.splitlines()
    said = "the system starts no more threads for this process (limits: `ulimit -u`"
    assert submit.startswith(f"ThreadLimitError: session: submit: {said}")
    assert source.startswith(f"ThreadLimitError: source test://32x24@max: {said}")
    assert stream.startswith(f"ThreadLimitError: source test://32x24@max?frames=2: {said}")
    assert (same, works) == ("True", "2")
