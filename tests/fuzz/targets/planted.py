"""A reader with every fault that the fuzzers look for; the tests of the fuzzers see that they find each."""

from __future__ import annotations

import ctypes
import os
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from fuzz.target import Files, Target, require
from panrt.errors import PanrtError


def _open_by_libc(path: str) -> None:
    libc = ctypes.CDLL(None)
    libc.close(libc.open(path.encode(), os.O_RDONLY))


def _raise(error: Exception) -> None:
    raise error


def _allocate(folder: Path) -> None:
    try:
        np.empty(1 << 40, np.uint8)
    except MemoryError as error:
        raise PanrtError("a.json: too large") from error


def _loop(folder: Path) -> None:
    while True:
        pass


def _in_a_thread(folder: Path) -> None:
    thread = threading.Thread(target=_raise, args=(KeyError("x"),))
    thread.start()
    thread.join()


# What is done, and the kind of finding that it must be; None: it is right.
FAULTS: tuple[tuple[Callable[[Path], object], str | None], ...] = (
    (lambda folder: (folder / "input").read_bytes(), None),
    (lambda folder: _raise(PanrtError("a.json: size: got 3, expected 4; export it again.")), None),
    (lambda folder: _raise(ValueError("not a PanrtError")), "exception"),
    (lambda folder: _raise(PanrtError("x" * 3000)), "message"),
    (lambda folder: _raise(PanrtError("a\nb\nc\nd")), "message"),
    (lambda folder: _raise(PanrtError("a\x1b[2J")), "message"),
    (lambda folder: (folder.parent / "canary.bin").read_bytes(), "opened"),
    (lambda folder: Path("canary.bin").read_bytes(), "opened"),
    (lambda folder: _open_by_libc(str(folder / "canary.mp4")), "opened"),
    (lambda folder: (folder.parent / "new").write_bytes(b""), "opened"),
    (lambda folder: os.rename(folder / "input", folder.parent / "other"), "changed"),
    (lambda folder: os.system("true"), "event"),
    (lambda folder: pickle.loads(b"cos\ngetcwd\n."), "event"),
    (lambda folder: __import__("no_such_module"), "import"),
    (_allocate, "memory"),
    (lambda folder: np.ones(300 << 20, np.uint8).sum(), "memory"),
    (_in_a_thread, "uncaught"),
    (lambda folder: print("Traceback: a thread of a server died", file=sys.stderr), "traceback"),
    (lambda folder: require(False, "a promise is kept"), "invariant"),
    (_loop, "hang"),
    (lambda folder: os.kill(os.getpid(), 11), "signal"),
    (lambda folder: os._exit(0), "signal"),
    (lambda folder: sys.exit(0), "exception"),
    (lambda folder: (folder / "input").read_bytes(), None),
)


def seeds() -> tuple[Files, ...]:
    return ({"input": b"0"},)


def mutate(rng: Random, files: Files) -> Files:
    return files


def check(folder: Path) -> None:
    FAULTS[int((folder / "input").read_bytes())][0](folder)


TARGETS = (Target(name="planted", seeds=seeds, mutate=mutate, check=check),)
