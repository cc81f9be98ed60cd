"""A cache of engines, keyed by everything that determines an engine.

The key covers the ONNX file, the kind and version of TensorRT, the GPU and its driver, the plugin library and every
option. A change of any of them is another engine. An entry is an engine and its sidecar in its own folder, written
atomically.
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

from panrt import files
from panrt.errors import ModelFileError, NoCacheFolderError
from panrt.files import cache_folder, write_atomically
from panrt.formats import plan_file
from panrt.formats.plan_file import BuildOptions, Flavour, PlanFile, options_to_json
from panrt.gpu.device import Gpu

log = logging.getLogger("panrt")

FOLDER = "engines"
_ENGINE = "engine.plan"
_LOCK = "lock"


@dataclass(frozen=True, kw_only=True)
class Key:
    """Everything that determines an engine."""

    onnx_sha256: str
    flavour: Flavour
    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str
    plugins_sha256: str
    panrt: str  # version, which defines the meaning of the options
    options: BuildOptions

    def digest(self) -> str:
        """Return the SHA-256 of all fields."""
        fields = dataclasses.asdict(self) | {"options": options_to_json(self.options)}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class Entry(NamedTuple):
    """An engine in the cache."""

    name: str  # the start of the key's digest
    file: PlanFile
    plan: Path
    bytes: int
    used: float  # seconds since the epoch


def root() -> Path:
    """Return the user's cache folder of engines.

    Raises:
        NoCacheFolderError: this user has none.
    """
    return cache_folder() / FOLDER


def is_usable() -> bool:
    """Return whether engines can be kept; a warning says why not."""
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
    """Lock the entry of a key, and give the path of its engine, which may not exist; other processes wait.

    The lock ends with the process.
    """
    folder = root() / key.digest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / _LOCK):
        yield folder / _ENGINE


def get(plan: Path) -> PlanFile | None:
    """Return the sidecar of a complete cached engine; None if there is none. A damaged one is removed."""
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
    """Return all entries, the last used first, without those that cannot be read, e.g. of other PanRT versions."""
    found = []
    for plan in root().glob(f"*/{_ENGINE}"):
        try:
            file, status = plan_file.read(plan), plan.stat()
        except (ModelFileError, OSError):
            continue
        found.append(Entry(plan.parent.name[:12], file, plan, status.st_size, status.st_mtime))
    return tuple(sorted(found, key=lambda entry: -entry.used))


def prune(*, unused_days: float) -> tuple[int, int]:
    """Remove what was unused for so long, and what cannot be read; return the number and bytes of engines.

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
    """Return the file for TensorRT's measurements of kernels on a GPU, which make the next build faster.

    None: this user has no cache.
    """
    try:
        folder = cache_folder() / "timings"
    except NoCacheFolderError:
        return None
    name = f"{tensorrt}-{gpu.name}-{gpu.driver}" if gpu else tensorrt
    return folder / f"{re.sub('[^A-Za-z0-9.-]+', '_', name)}.cache"


def timings(path: Path | None) -> bytes:
    """Return what was measured before; empty at first."""
    return path.read_bytes() if path is not None and path.is_file() else b""


def keep_timings(path: Path | None, measured: bytes) -> None:
    """Keep measurements; a failure only makes the next build slower, and is logged."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: temporary.write_bytes(measured))
    except OSError as error:
        log.warning("%s: %s; the next build measures kernels again.", path, error.strerror)
