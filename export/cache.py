"""Engines that were built before, kept by everything that decides what an engine is.

The key covers the ONNX file, the kind and version of TensorRT, the GPU and its driver, the plugin library and every
option. Whatever changes among them is another engine; nothing is ever found under a name that means something else.
An entry is an engine and its sidecar in a folder of its own, written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from panrt.errors import ModelFileError, NoCacheFolderError
from panrt.files import cache_folder, write_atomically
from panrt.formats import plan_file
from panrt.formats.plan_file import BuildOptions, Flavour, PlanFile
from panrt.gpu.device import Gpu

log = logging.getLogger("panrt")

FOLDER = "engines"
_ENGINE = "engine.plan"
_LOCK = "lock"


@dataclass(frozen=True, kw_only=True)
class Key:
    """What decides an engine."""

    onnx_sha256: str
    flavour: Flavour
    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str
    plugins_sha256: str
    panrt: str  # version: the options' meaning is its own
    options: BuildOptions

    def digest(self) -> str:
        """Of all fields."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


class Entry(NamedTuple):
    """An engine in the cache."""

    name: str  # the start of the key's digest
    file: PlanFile
    plan: Path
    bytes: int
    used: float  # seconds since the epoch


def root() -> Path:
    """The user's cache folder of engines.

    Raises:
        NoCacheFolderError: this user has none.
    """
    return cache_folder() / FOLDER


def is_usable() -> bool:
    """Whether engines can be kept; it is logged why they cannot."""
    try:
        folder = root()
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    except NoCacheFolderError as error:
        log.warning("%s The engine is not kept for the next build.", str(error))
    except OSError as error:
        log.warning(
            "%s: %s; the engine is not kept for the next build. Set XDG_CACHE_HOME to a folder that can be written to.",
            error.filename,
            error.strerror,
        )
    else:
        return True
    return False


@contextmanager
def locked(key: Key) -> Iterator[Path]:
    """Where the engine of a key is, or is to be written; whoever wants the same one waits.

    The lock goes with the process.
    """
    folder = root() / key.digest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder / _ENGINE
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing does not free it while a forked process has it open too


def get(plan: Path) -> PlanFile | None:
    """The sidecar of a cached engine that is whole; None: there is none. What is damaged is removed."""
    if not plan.is_file():
        return None
    try:
        file = plan_file.read(plan)
        plan_file.check_engine(plan, file)
    except ModelFileError:
        plan.unlink()
        plan_file.sidecar(plan).unlink(missing_ok=True)
        return None
    os.utime(plan)
    return file


def entries() -> tuple[Entry, ...]:
    """All of them, the last used first; entries that cannot be read, e.g. of other PanRT versions, are left out."""
    found = []
    for plan in root().glob(f"*/{_ENGINE}"):
        try:
            file, status = plan_file.read(plan), plan.stat()
        except (ModelFileError, OSError):
            continue
        found.append(Entry(plan.parent.name[:12], file, plan, status.st_size, status.st_mtime))
    return tuple(sorted(found, key=lambda entry: -entry.used))


def prune(*, unused_days: float) -> tuple[int, int]:
    """Remove what has not been used for so long, and all that cannot be read: how many, and their bytes.

    An entry that a build holds is left alone.
    """
    oldest = time.time() - unused_days * 86400
    count = freed = 0
    for folder in sorted(root().glob("*")):
        plan = folder / _ENGINE
        if plan.is_file() and plan.stat().st_mtime > oldest and plan_file.sidecar(plan).is_file():
            continue
        with (folder / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if plan.is_file():
                count += 1
                freed += plan.stat().st_size
            shutil.rmtree(folder)
    return count, freed


# Timings --------------------------------------------------------------------------------------------------------------


def timings_path(tensorrt: str, gpu: Gpu | None) -> Path | None:
    """Where TensorRT's measurements of kernels on a GPU are kept; with them the next build there is faster.

    None: this user has no cache.
    """
    try:
        folder = cache_folder() / "timings"
    except NoCacheFolderError:
        return None
    name = f"{tensorrt}-{gpu.name}-{gpu.driver}" if gpu else tensorrt
    return folder / f"{re.sub('[^A-Za-z0-9.-]+', '_', name)}.cache"


def timings(path: Path | None) -> bytes:
    """What was measured before; empty at the first time."""
    return path.read_bytes() if path is not None and path.is_file() else b""


def keep_timings(path: Path | None, measured: bytes) -> None:
    """Write what was measured. That it cannot be kept costs time at the next build, and not the engine."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: temporary.write_bytes(measured))
    except OSError as error:
        log.warning("%s: %s; the next build measures kernels again.", path, error.strerror)
