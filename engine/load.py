"""Open a model file on the requested backend, or on the best one that works on this machine."""

from __future__ import annotations

import difflib
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict, get_args

from panrt.engine import backends, named
from panrt.engine.bundled import locate
from panrt.engine.session import GpuMemory, Preprocess, Session
from panrt.errors import BackendError
from panrt.formats.metadata import FileThresholds
from panrt.formats.thresholds import Thresholds
from panrt.hub import models
from panrt.version import version

log = logging.getLogger("panrt")

BACKENDS = ("tensorrt", "rtx", "cpu")  # the best first
AUTO = "auto"
WEIGHTS = (".safetensors", ".pkl", ".pth", ".pt", ".ckpt")  # suffixes of files that are exported, not run


class _Options(TypedDict):
    """The options of a session; see `load`."""

    threads: int | None
    preprocess: Preprocess
    gpu_memory: GpuMemory
    input_hw: tuple[int, int] | None


class Backend(Protocol):
    """A way to run model files: a module or an object with these functions."""

    def obstacle(self, path: Path) -> str | None:
        """Return why a file cannot run on this machine; None if nothing is known against it."""
        ...

    def open_session(
        self,
        path: Path,
        *,
        threads: int | None,
        preprocess: Preprocess,
        gpu_memory: GpuMemory,
        input_hw: tuple[int, int] | None,
    ) -> Session:
        """Open a file; arguments and errors are those of `load`."""
        ...


class Verdict(NamedTuple):
    """Whether a backend can run a file on this machine."""

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
    thresholds: Thresholds | FileThresholds | None = None,
    classes: Sequence[str] | None = None,
) -> Session:
    """Open a model file.

    Args:
        path: an .onnx file of `panrt export`, a .plan file of `panrt build`, the name of a model, such as "tabletop"
            (bundled) or "coco" (`panrt models` lists them), or a file of PanRT on the Hugging Face hub,
            "hf://OWNER/NAME/FILE". The first use of a name that is not bundled downloads weights and exports them,
            which needs PyTorch, and reports progress on standard error; later ones use the cache and no network.
        backend: "cpu", "tensorrt", "rtx", or "auto" for the best one that works; the choice and its reason are logged.
        threads: of the CPU; None takes every core that this process may use.
        preprocess: what resizes BGR frames, "host" or "gpu". The GPU relieves the CPU of that work; its kernel rounds
            slightly differently from OpenCV on the host. Frames in other pixel formats are always converted and resized
            on the GPU if the session has one.
        gpu_memory: where the network's inputs and outputs lie: "mapped", in host memory without copies, "device", or
            "auto" for the faster. On a GPU that shares the host's memory (Jetson) both are measured when the session
            opens, which takes some runs; any other GPU gets "device". `session.gpu_memory` is the choice.
        input_hw: (height, width) of the network's input, multiples of 32, for a file with an open input size (`panrt
            export --dynamic`) and for a model of the catalogue, where it is (384, 512) if not given. A file with a
            fixed size needs none, and accepts only its own.
        thresholds: that replace the file's own, such as panrt.Thresholds(instance_score=0.6); see `Session.thresholds`.
        classes: names of the classes to find; None: all. See `Session.classes`.

    Raises:
        UnknownModelError: the file does not exist, and no model has that name; it is a FileNotFoundError.
        DownloadError: the weights of a model by name cannot be downloaded.
        MissingError: they cannot be exported without PyTorch, which is not installed; nothing was downloaded.
        ModelFileError: the file is not a PanRT file, is damaged, or is from a newer PanRT.
        BackendError: the backend does not work here or not with this file. An explicit one is never replaced.
        InputSizeError: the file needs an input size and got none, or has another one.
        ThreadLimitError: the system starts no more threads.
        SessionError: an option that this GPU does not support, or a GPU option on the CPU.
        ThresholdsFixedError: a threshold or class that this file or engine cannot change.
        ValueError: unknown backend, preprocessing, memory or class, or threads below 1.
    """
    _check(backend, threads, preprocess, gpu_memory)
    if models.is_remote(os.fspath(path)):
        path, input_hw = named.locate(os.fspath(path), backend=backend, input_hw=input_hw)
    options = _Options(threads=threads, preprocess=preprocess, gpu_memory=gpu_memory, input_hw=input_hw)
    session = _opened(locate(path), backend, options)
    try:
        if thresholds is not None:
            session.thresholds = thresholds
        if classes is not None:
            session.classes = classes
    except BaseException:
        session.close()
        raise
    return session


def _opened(path: Path, backend: str, options: _Options) -> Session:
    """Open a file on this backend, or on the best one that works."""
    if path.suffix.lower() in WEIGHTS:
        raise BackendError(
            f"{path}: holds weights, and the runtime takes .onnx and .plan files; make one: {_way_in(path)}"
        )
    if backend != AUTO:
        found = verdict(backend, path)
        if found.obstacle is not None:
            raise BackendError(f"{path}: the backend {backend!r} cannot run it: {found.obstacle}")
        return _imported(backend).open_session(path, **options)
    return _best(path, options)


def _best(path: Path, options: _Options) -> Session:
    """Open a file with the best backend that works; the choice and its reason are logged."""
    passed: list[Verdict] = []
    for name in BACKENDS:
        found = verdict(name, path)
        if found.obstacle is None:
            because = "; ".join(f"not {other}: {obstacle}" for other, obstacle in passed) or "it is the best"
            log.info("%s: backend %s (%s)", path, name, because)
            return _imported(name).open_session(path, **options)
        passed.append(found)
    reasons = "".join(f"\n  {name}: {obstacle}" for name, obstacle in passed)
    raise BackendError(f"{path}: no backend can run it here.{reasons}")


def _check(backend: str, threads: int | None, preprocess: str, gpu_memory: str) -> None:
    """Raise ValueError for an option of `load` that is none of its values."""
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


def _way_in(path: Path) -> str:
    """Return the commands that make a file for the runtime from weights."""
    names = {suffix: shlex.quote(str(path.with_suffix(suffix))) for suffix in (".safetensors", ".onnx")}
    export = f"panrt export {names['.safetensors']} -o {names['.onnx']}"
    if path.suffix == ".safetensors":
        return export
    return f"panrt convert {shlex.quote(str(path))} -o {names['.safetensors']} --config CONFIG && {export}"


def verdict(backend: str, path: Path) -> Verdict:
    """Return whether a backend can run a file on this machine, without loading it."""
    try:
        found = _imported(backend)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith(f"{backends.__name__}."):
            return Verdict(backend, f"this PanRT was installed without it (version {version()})")
        if missing.split(".")[0] in ("", "panrt"):
            raise
        extra = "" if backend == "cpu" else f"; pip install 'panrt[{backend}]' installs what it needs"
        return Verdict(backend, f"the package {missing!r} is not installed{extra}")
    return Verdict(backend, found.obstacle(path))


def _imported(backend: str) -> Backend:
    """Import a backend; what it needs may be absent, and none is imported before it is asked for."""
    if backend == "cpu":
        from panrt.engine.backends.cpu import session as cpu  # noqa: PLC0415

        return cpu
    from panrt.engine.backends.tensorrt.plans import TensorRTBackend  # noqa: PLC0415

    return TensorRTBackend("rtx" if backend == "rtx" else "tensorrt")
