"""A file becomes a session: on the backend that was asked for, or on the best one that works here.

A backend is a module of `panrt.engine.backends` with

    obstacle(path: Path) -> str | None                           why it cannot run this file here; None: it can
    open_session(path: Path, *, threads, preprocess, gpu_memory, input_hw) -> Session         each as `load` has it
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
import os
import shlex
from pathlib import Path
from typing import Any, NamedTuple, get_args

from panrt.engine.bundled import locate
from panrt.engine.session import GpuMemory, Preprocess, Session
from panrt.errors import BackendError
from panrt.version import version

log = logging.getLogger("panrt")

BACKENDS = ("tensorrt", "rtx", "cpu")  # the best first
AUTO = "auto"
_MODULES = {"tensorrt": "tensorrt.tensorrt", "rtx": "tensorrt.rtx", "cpu": "cpu.session"}
WEIGHTS = (".safetensors", ".pkl", ".pth", ".pt", ".ckpt")  # suffixes of what is exported, not run


class _Options(NamedTuple):
    """What backends are opened with, as `load` has it."""

    threads: int | None
    preprocess: Preprocess
    gpu_memory: GpuMemory
    input_hw: tuple[int, int] | None


class Verdict(NamedTuple):
    """Whether a backend can run a file here."""

    backend: str
    obstacle: str | None  # None: it can


def load(
    path: str | os.PathLike[str],
    *,
    backend: str = AUTO,
    threads: int | None = None,
    preprocess: Preprocess = "host",
    gpu_memory: GpuMemory = "auto",
    input_hw: tuple[int, int] | None = None,
) -> Session:
    """Open a model file.

    Args:
        path: an .onnx file of `panrt export`, a .plan file of `panrt build`, or the name of a model that comes with
            PanRT: "tabletop".
        backend: "cpu", "tensorrt", "rtx", or "auto" for the best one that works; which one and why is logged.
        threads: of the CPU; None takes every core that this process may use.
        preprocess: who resizes BGR frames, "host" or "gpu". The GPU takes that work from the CPU; how its kernel
            resizes differs a little from OpenCV's way on the host. Frames in other pixel formats are always converted
            and resized on the GPU, where there is one.
        gpu_memory: where a GPU has the network's inputs and outputs: "mapped", in the host's memory without copies,
            "device", or "auto" for the faster. A GPU that shares the host's memory (Jetson) is measured with both when
            the session opens, which takes some runs; any other gets "device". `session.gpu_memory` is what was chosen.
        input_hw: (height, width) of the network's input, multiples of 32, for a file that leaves it open (`panrt export
            --dynamic`). A file of one size has no use for it, and takes only its own.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFileError: the file is not ours, is damaged, or is from a newer PanRT.
        BackendError: the backend does not work here or not with this file. An explicit one is never replaced.
        InputSizeError: the file needs an input size and got none, or has another one.
        ThreadLimitError: the system starts no more threads.
        SessionError: a GPU was asked for what it has not, or the CPU for what only GPUs have.
        ValueError: no such backend, preprocessing or memory, or threads are not positive.
    """
    if backend != AUTO and backend not in BACKENDS:
        near = difflib.get_close_matches(backend, (*BACKENDS, AUTO), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"backend: got {backend!r}, expected {', '.join((AUTO, *BACKENDS))}{hint}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads: got {threads}, expected at least 1.")
    if preprocess not in get_args(Preprocess):
        raise ValueError(f"preprocess: got {preprocess!r}, expected {' or '.join(get_args(Preprocess))}.")
    if gpu_memory not in get_args(GpuMemory):
        raise ValueError(f"gpu_memory: got {gpu_memory!r}, expected {' or '.join(get_args(GpuMemory))}.")
    options = _Options(threads, preprocess, gpu_memory, input_hw)
    path = locate(path)
    if path.suffix.lower() in WEIGHTS:
        raise BackendError(
            f"{path}: holds weights, and the runtime takes .onnx and .plan files; make one: {_way_in(path)}"
        )
    if backend != AUTO:
        found = verdict(backend, path)
        if found.obstacle is not None:
            raise BackendError(f"{path}: the backend {backend!r} cannot run it: {found.obstacle}")
        return _open(backend, path, options)
    passed: list[Verdict] = []
    for name in BACKENDS:
        found = verdict(name, path)
        if found.obstacle is None:
            because = "; ".join(f"not {other}: {obstacle}" for other, obstacle in passed) or "it is the best"
            log.info("%s: backend %s (%s)", path, name, because)
            return _open(name, path, options)
        passed.append(found)
    reasons = "".join(f"\n  {name}: {obstacle}" for name, obstacle in passed)
    raise BackendError(f"{path}: no backend can run it here.{reasons}")


def _way_in(path: Path) -> str:
    """The commands that make a file for the runtime of weights."""
    names = {suffix: shlex.quote(str(path.with_suffix(suffix))) for suffix in (".safetensors", ".onnx")}
    export = f"panrt export {names['.safetensors']} -o {names['.onnx']}"
    if path.suffix == ".safetensors":
        return export
    return f"panrt convert {shlex.quote(str(path))} -o {names['.safetensors']} --config CONFIG && {export}"


def verdict(backend: str, path: Path) -> Verdict:
    """Whether a backend can run a file here, without loading it."""
    if importlib.util.find_spec(_name(backend)) is None:
        return Verdict(backend, f"this PanRT comes without it (version {version()})")
    try:
        module: Any = importlib.import_module(_name(backend))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "panrt":
            raise
        extra = "" if backend == "cpu" else f"; pip install 'panrt[{backend}]' brings what it needs"
        return Verdict(backend, f"the package {error.name!r} is not installed{extra}")
    return Verdict(backend, module.obstacle(path))


def _open(backend: str, path: Path, options: _Options) -> Session:
    module: Any = importlib.import_module(_name(backend))
    session: Session = module.open_session(path, **options._asdict())
    return session


def _name(backend: str) -> str:
    return f"panrt.engine.backends.{_MODULES[backend]}"
