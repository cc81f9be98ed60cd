"""A profiler sees the stages of every frame, through NVTX itself; without the package nothing is added."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from panrt.engine.nvtx_ranges import nvtx_range

RECORDER = Path(__file__).parents[1] / "support" / "nvtx_recorder.cpp"

STREAM = """
import ctypes, sys
import panrt
recorder, out = sys.argv[1:]
with panrt.load("tabletop", backend="cpu", threads=1) as session:
    for _ in panrt.stream("demo://tabletop", session, sinks=[out], policy="block", limit=3):
        pass
text = ctypes.create_string_buffer(1 << 20)
assert ctypes.CDLL(recorder).nvtx_recorder_take(text, len(text)) < len(text)
print(text.value.decode())
"""


def test_the_stages_of_frames_are_ranges_in_the_threads_that_run_them(tmp_path: Path) -> None:
    recorder = tmp_path / "recorder.so"
    compiler = os.environ.get("CXX", "g++")
    subprocess.run([compiler, "-std=c++17", "-shared", "-fPIC", "-O1", str(RECORDER), "-o", str(recorder)], check=True)
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(recorder), str(tmp_path / "results.jsonl")],
        env=os.environ | {"NVTX_INJECTION64_PATH": str(recorder)},
        capture_output=True,
        text=True,
        check=True,
    )
    ranges: Counter[str] = Counter()
    threads: defaultdict[str, set[str]] = defaultdict(set)
    stacks: defaultdict[str, list[str]] = defaultdict(list)
    for line in filter(None, done.stdout.splitlines()):
        thread, sign, domain, *name = line.split()
        assert domain == "panrt"
        if sign == "+":
            stacks[thread].append(name[0])
            ranges["/".join(stacks[thread])] += 1
            threads[name[0]].add(thread)
        else:
            stacks[thread].pop()
    assert not any(stacks.values())
    assert {name for name, count in ranges.items() if count >= 3} == {
        "capture", "submit", "submit/preprocess", "collect", "sink",
    }  # fmt: skip
    assert ranges["submit"] == ranges["submit/preprocess"] == ranges["collect"]
    assert threads["submit"] == threads["collect"]
    assert not threads["capture"] & threads["submit"]
    assert not threads["sink"] & threads["submit"]


def test_a_function_stays_what_it_is_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)

    def work() -> None:
        """Nothing."""

    assert nvtx_range("sink")(work) is work
