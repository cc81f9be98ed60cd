"""The ONNX files that are made of weights, each kept under everything that determines it.

A file is made once for a precision and leaves its input size open, so that another size needs no PyTorch and no other
file. The export runs in a process of its own: a program that runs a model never loads PyTorch, and the memory of the
export is free again before the first frame.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from panrt.errors import ExportError, MissingError
from panrt.files import locked, read_whole, write_atomically
from panrt.formats import records
from panrt.hub.watch import Watch
from panrt.hub.weights import Weights, root
from panrt.version import version

Precision = Literal["fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
INSTALL = "pip install 'panrt[export]'"
EXPORTER = 1  # raised when the exporter makes another file of the same weights
_NEEDED = ("torch", "onnxscript", "safetensors")
_FILE, _FACTS = "model.onnx", "model.json"
# Only then is the path set, so that a file in the current folder is never imported for a package.
_PROGRAM = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); from panrt.export.from_weights import main; main()"


@dataclass(frozen=True, kw_only=True)
class Key:
    """Everything that determines a file."""

    weights_sha256: str
    config: str  # of the network; empty: the weights' file has it
    precision: Precision
    exporter: int = EXPORTER
    panrt: str = dataclasses.field(default_factory=version)

    def folder(self) -> Path:
        """Return where the file is kept."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()
        return root() / "exports" / digest[:32]


class Kept(NamedTuple):
    """A file in the cache."""

    path: Path
    weights_sha256: str
    precision: str
    bytes: int


def find(key: Key) -> Path | None:
    """Return the file of a key; None if it has to be made, as it is missing or has another size than it had."""
    kept = _read(key.folder())
    if kept is None or kept.path.stat().st_size != kept.bytes:
        return None
    return kept.path


def require_exporter(name: str) -> None:
    """Raise MissingError, with the command that installs them, unless the packages that an export needs are here."""
    missing = [package for package in _NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingError(
            f"{name}: to run, its weights are exported once, and that needs {', '.join(missing)}; nothing was "
            f"downloaded.\n  Install it:  {INSTALL}\n  A machine without PyTorch can run the file that 'panrt pull "
            f"{name}' makes on another one."
        )


def make(weights: Weights, key: Key, *, name: str, provenance: str, watch: Watch) -> Path:
    """Return the file of a key; export it unless it is here. Other processes that want it wait.

    Args:
        weights: to export.
        key: of the file.
        name: of the model, for messages.
        provenance: of the weights, one readable line.
        watch: of the export.

    Raises:
        MissingError: PyTorch, or another package that is needed, is not installed.
        ExportError: the export failed; the message is its own.
        OSError: from the file system.
    """
    folder = key.folder()
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"another process exports {name}; waiting for it"
    with locked(folder / "lock", waiting=lambda: watch.line(busy)):
        if (found := find(key)) is not None:
            return found
        require_exporter(name)
        watch.line(f"export      {name} to ONNX, {key.precision}; this is done once and takes about half a minute")
        path = folder / _FILE
        _export(weights, path, key, name=name, provenance=provenance)
        facts = {"weights_sha256": weights.sha256, "precision": key.precision, "bytes": path.stat().st_size}
        write_atomically(folder / _FACTS, lambda temporary: temporary.write_text(json.dumps(facts) + "\n"))
        return path


def _export(weights: Weights, path: Path, key: Key, *, name: str, provenance: str) -> None:
    program = [sys.executable, "-c", _PROGRAM, "\n".join(map(os.path.abspath, sys.path))]
    arguments = [str(weights.path), str(path), key.config, key.precision, provenance]
    done = subprocess.run([*program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode == 0:
        return
    if done.returncode < 0:
        raise ExportError(
            f"{name}: the export was ended by signal {-done.returncode}; the memory may not have been enough, it takes "
            "2 to 3 GB."
        )
    said = done.stderr.decode(errors="replace").strip() or "it failed without a message"
    raise ExportError(f"{name}: not exported: {said}")


def _read(folder: Path) -> Kept | None:
    """Return what is kept in a folder; None if nothing whole is."""
    path = folder / _FILE
    try:
        content = read_whole(folder / _FACTS, longest=10_000, error=ExportError, expected="facts of an export")
        facts = records.parse(content, source=str(folder), error=ExportError, cure="")
        return Kept(path, str(facts["weights_sha256"]), str(facts["precision"]), int(facts["bytes"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def kept() -> Iterator[Kept]:
    """Give every file that is kept."""
    for folder in sorted((root() / "exports").glob("*")):
        if (found := _read(folder)) is not None and found.path.is_file():
            yield found


def remove(weights_sha256: str) -> int:
    """Remove every file that was made of these weights; return their bytes."""
    freed = 0
    for each in [each for each in kept() if each.weights_sha256 == weights_sha256]:
        freed += each.path.stat().st_size
        (each.path.parent / _FACTS).unlink(missing_ok=True)  # the lock stays: somebody may wait for it
        each.path.unlink()
    return freed
