"""A cache of the kernels that TensorRT for RTX compiled on this machine.

Its engines contain kernels as source text, which it compiles for the GPU when an engine first runs: without a cache, at
every start. A file of the cache belongs to one engine, GPU, driver and TensorRT version, and is written atomically. It
starts with a digest of the rest, so that TensorRT never gets a damaged one. A cache that cannot be read or written only
costs time, so that this is logged and never raised.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any

from panrt.errors import NoCacheFolderError, PanrtError
from panrt.files import cache_folder, read_whole, write_atomically
from panrt.formats.plan_file import PlanFile, Process

log = logging.getLogger("panrt")

FOLDER = "kernels"
SUFFIX = ".kernels"
LONGEST = 2**30  # bytes; a network has some megabytes
_MAGIC = b"PanRT kernels 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


class _CacheFileError(PanrtError, RuntimeError):
    """A file is not a cache file."""


def root() -> Path:
    """Return the user's cache folder of compiled kernels.

    Raises:
        NoCacheFolderError: this user has none.
    """
    return cache_folder() / FOLDER


def path_of(file: PlanFile, process: Process, driver: tuple[int, int]) -> Path | None:
    """Return the file for an engine's kernels; None without a cache. `driver` is the CUDA version that it supports."""
    decisive = (file.plan_sha256, process.tensorrt, process.gpu, process.compute_capability, driver)
    try:
        folder = root()
    except NoCacheFolderError as error:
        log.warning("%s TensorRT for RTX compiles kernels at every start.", str(error))
        return None
    return folder / f"{hashlib.sha256(repr(decisive).encode()).hexdigest()[:32]}{SUFFIX}"


class RuntimeCache:
    """The configuration of all execution contexts of an engine, and the kernels compiled for them."""

    def __init__(self, config: Any, cache: Any, path: Path | None) -> None:
        """Load the kernels at the path if they are complete and TensorRT accepts them.

        Args:
            config: TensorRT's IRuntimeConfig of the engine.
            cache: the IRuntimeCache that it made.
            path: of the file; None: kernels are not kept.
        """
        self.config = config
        self._cache = cache
        self._path = path
        self._kept = b"" if path is None else _read(path)
        if self._kept and not cache.deserialize(self._kept):
            log.warning("%s: TensorRT for RTX rejects its kernels, and compiles them again.", path)
            self._kept = b""
        if not config.set_runtime_cache(cache):
            log.warning("%s: TensorRT for RTX rejects the cache, and compiles at every start.", path or "no file")

    def keep(self) -> None:
        """Write the kernels if any were compiled since."""
        if self._path is None:
            return
        kernels = bytes(self._cache.serialize() or b"")
        if kernels and kernels != self._kept:
            _write(self._path, kernels)
            self._kept = kernels


def _read(path: Path) -> bytes:
    """Read the kernels in a file; empty if it does not exist or is damaged."""
    try:
        content = read_whole(path, longest=LONGEST, error=_CacheFileError, expected="compiled kernels")
        os.utime(path)  # the time of its last use
    except FileNotFoundError:
        return b""
    except _CacheFileError as error:
        log.warning("%s Kernels are compiled again.", str(error))  # its traceback would keep the engine
        return b""
    except OSError as error:
        log.warning("%s: %s; kernels are compiled again.", path, error.strerror)
        return b""
    digest, kernels = content[len(_MAGIC) :][:_DIGEST_BYTES], content[len(_MAGIC) + _DIGEST_BYTES :]
    if not content.startswith(_MAGIC) or hashlib.sha256(kernels).digest() != digest:
        log.warning("%s: damaged; kernels are compiled again.", path)
        return b""
    return kernels


def _write(path: Path, kernels: bytes) -> None:
    content = _MAGIC + hashlib.sha256(kernels).digest() + kernels
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        log.warning("%s: %s; the next start compiles kernels again.", path, error.strerror)


def sizes() -> dict[Path, int]:
    """Return the files of the cache, and their bytes."""
    return {path: path.stat().st_size for path in sorted(root().glob(f"*{SUFFIX}")) if path.is_file()}


def prune(*, unused_days: float) -> tuple[int, int]:
    """Remove files that were unused for so long; return their number and bytes. Open sessions no longer need them."""
    oldest = time.time() - unused_days * 86400
    count = freed = 0
    for path, size in sizes().items():
        if path.stat().st_mtime <= oldest:
            path.unlink(missing_ok=True)
            count, freed = count + 1, freed + size
    return count, freed
