"""Build a TensorRT engine from a PanRT ONNX file, with a sidecar that records how it was built.

    build_engine("street.onnx", "street.plan")                   # TensorRT, on the GPU that will run it
    build_engine("street.onnx", "street.plan", flavour="rtx")    # TensorRT for RTX, on any machine

Steps: lint the file, look in the cache, parse, report in which precision each layer computes, build, write. Nothing is
left behind when a step fails or the user stops it.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args

from panrt.errors import BuildError, ExportError
from panrt.export import cache as engine_cache
from panrt.export.lint import Finding, Linted, lint
from panrt.export.tensorrt import WEIGHTED, Layer, Network, TensorRT
from panrt.files import write_atomically
from panrt.formats import plan_file
from panrt.formats.metadata import IMAGE, ModelFile
from panrt.formats.plan_file import SUFFIX, BuildOptions, Flavour, PlanFile, Precisions, version_of
from panrt.gpu import device as gpus
from panrt.gpu.device import Gpu
from panrt.plugins import library as plugin_library
from panrt.plugins.library import PluginLibrary
from panrt.version import version

# GPU memory that tactics may use as scratch: a share of the total, so that an engine does not depend on what else was
# running, or a share of what is free, if that is less.
TOTAL_SHARE = 0.5
FREE_SHARE = 0.8
WORKSPACE_STEP = 1 << 28  # bytes, and the least
MAX_OPTIMIZATION_LEVEL = 5

Progress = Callable[[str, int, int], None]  # phase, done, of
_T = TypeVar("_T")


class Built(NamedTuple):
    """A written engine."""

    file: PlanFile
    warnings: tuple[Finding, ...]
    layers: tuple[Layer, ...]  # as parsed; empty if the engine came from the cache
    from_cache: bool


def build_engine(
    onnx_path: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    flavour: Flavour = "tensorrt",
    options: BuildOptions | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    rtx: bool | None = None,
) -> Built:
    """Build an engine and its sidecar, both or neither.

    Args:
        onnx_path: a file of `panrt export`.
        path: destination, a .plan file; it and its sidecar are replaced.
        flavour: "tensorrt", which builds for the GPU it is on, or "rtx", TensorRT for RTX, which needs no GPU to build.
        options: build options.
        cache: take the engine from the user's cache if it was built before, and keep it there. If the user has no
            writable cache, a warning is logged.
        progress: called with the phase, its steps done and its steps in all, from another thread.
        rtx: deprecated; use `flavour`.

    Raises:
        ModelFileError: the file is not a PanRT file, damaged, or from a newer PanRT.
        InputSizeError: it leaves the input size open and `options` has none, or it has another one.
        LintError: it has nodes that TensorRT cannot build.
        BuildError: TensorRT is missing, lacks an option, or rejects the network.
        PluginLibraryError: the plugin library is missing or not of this PanRT.
        ExportError: an option is invalid.
        ValueError: unknown flavour.
        OSError: from the file system. Nothing is written in any of these cases.
        KeyboardInterrupt: the user stopped the build; likewise.
    """
    if rtx is not None:
        flavour = "rtx" if rtx else "tensorrt"
        warnings.warn(f"rtx={rtx} is deprecated; use flavour={flavour!r}.", DeprecationWarning, stacklevel=2)
    if flavour not in get_args(Flavour):
        raise ValueError(f"flavour: got {flavour!r}, expected {' or '.join(get_args(Flavour))}.")
    onnx_path, path, options = Path(onnx_path), Path(path), options or BuildOptions()
    _check_destination(path)
    _check_options(options)
    library = plugin_library.find()
    tensorrt = TensorRT(flavour, library)
    tensorrt.check(options)
    linted = lint(onnx_path, flavour=flavour, release=version_of(tensorrt.version), input_hw=options.input_hw)
    gpu = _gpu(flavour)
    target = _Target(tensorrt, library, gpu, options, workspace_bytes(options, gpu))
    if cache and engine_cache.is_usable():
        return _build_or_copy(linted, onnx_path, path, target, progress)
    file, layers = _build(linted, onnx_path, path, target, progress)
    return Built(file, linted.warnings, layers, False)


def _build_or_copy(linted: Linted, onnx_path: Path, path: Path, target: _Target, progress: Progress | None) -> Built:
    """Take the engine from the cache, or build it there."""
    with engine_cache.locked(target.key(linted.model)) as cached:
        layers: tuple[Layer, ...] = ()
        found = engine_cache.get(cached)
        if found is not None and found.workspace_bytes < target.workspace_bytes:
            found = None  # memory was short when it was built
        if found is None:
            made, layers = _build(linted, onnx_path, cached, target, progress)
        file = dataclasses.replace(found or made, onnx=onnx_path.name, options=target.options)
        _write(path, file, lambda temporary: temporary.write_bytes(cached.read_bytes()))
    return Built(file, linted.warnings, layers, found is not None)


class _Target(NamedTuple):
    """Everything that determines an engine, except the model."""

    tensorrt: TensorRT
    library: PluginLibrary
    gpu: Gpu | None
    options: BuildOptions
    workspace_bytes: int  # not in the key: it is the same for a GPU unless memory is short

    def key(self, model: bytes) -> engine_cache.Key:
        gpu = self.gpu
        return engine_cache.Key(
            onnx_sha256=hashlib.sha256(model).hexdigest(),
            flavour=self.tensorrt.flavour,
            tensorrt=self.tensorrt.version,
            gpu=gpu.name if gpu else "",
            compute_capability=gpu.compute_capability if gpu else "",
            driver=gpu.driver if gpu else "",
            plugins_sha256=self.library.sha256,
            panrt=version(),
            options=dataclasses.replace(self.options, input_hw=None),  # the model is of that size already
        )


def _build(
    linted: Linted, source: Path, path: Path, target: _Target, progress: Progress | None
) -> tuple[PlanFile, tuple[Layer, ...]]:
    """Parse the file, build the engine and write it."""
    started = time.monotonic()
    tensorrt, options = target.tensorrt, target.options
    timings = engine_cache.timings_path(tensorrt.version, target.gpu)
    stop = threading.Event()

    def watch(phase: str, done: int, of: int) -> bool:
        if progress is not None:
            progress(phase, done, of)
        return not stop.is_set()

    def work() -> tuple[bytes | None, tuple[Layer, ...]]:
        network = tensorrt.parse(linted.model, source=str(source))
        layers = network.layers()
        _check_precision(layers, linted.file, source)
        config = tensorrt.config(options, workspace_bytes=target.workspace_bytes, timings=engine_cache.timings(timings))
        _check_batch(network, source)
        config.progress_monitor = tensorrt.monitor(watch)
        engine = tensorrt.build(network, config, source=str(source))
        if engine is not None and (measured := tensorrt.timings(config)) is not None:
            engine_cache.keep_timings(timings, measured)
        return engine, layers

    engine, layers = _interruptible(work, stop)
    if engine is None:
        raise KeyboardInterrupt
    gpu = target.gpu
    file = PlanFile(
        model=linted.file,
        flavour=tensorrt.flavour,
        tensorrt=tensorrt.version,
        gpu=gpu.name if gpu else "",
        compute_capability=gpu.compute_capability if gpu else "",
        driver=gpu.driver if gpu else "",
        panrt=version(),
        plugin_version=plugin_library.VERSION,
        plugins_sha256=target.library.sha256,
        plugins_sources_sha256=target.library.sources_sha256,
        onnx=source.name,
        onnx_sha256=hashlib.sha256(linted.model).hexdigest(),
        plan_sha256=hashlib.sha256(engine).hexdigest(),
        plan_bytes=len(engine),
        options=options,
        workspace_bytes=target.workspace_bytes,
        precisions=_precisions(layers, linted.file),
        build_seconds=round(time.monotonic() - started, 1),
    )
    _write(path, file, lambda temporary: temporary.write_bytes(engine))
    return file, layers


def _interruptible(work: Callable[[], _T], stop: threading.Event) -> _T:
    """Run in another thread, as Python sees no Ctrl-C while TensorRT builds in this one, and set `stop` on Ctrl-C."""
    with ThreadPoolExecutor(1, thread_name_prefix="panrt-build") as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            stop.set()
            raise


def _write(path: Path, file: PlanFile, engine: Callable[[Path], object]) -> None:
    """Write the engine, then its sidecar; if the second fails, the first is removed, so that no half pair remains."""
    write_atomically(path, engine)
    try:
        write_atomically(plan_file.sidecar(path), lambda temporary: temporary.write_text(plan_file.dumps(file)))
    except BaseException:
        path.unlink()
        plan_file.sidecar(path).unlink(missing_ok=True)
        raise


# Options --------------------------------------------------------------------------------------------------------------


def _check_destination(path: Path) -> None:
    if path.suffix != SUFFIX:
        raise ExportError(f"{path}: suffix {path.suffix!r}, expected {SUFFIX!r}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder", str(path.parent))


def _check_options(options: BuildOptions) -> None:
    if not 0 <= options.optimization_level <= MAX_OPTIMIZATION_LEVEL:
        raise ExportError(
            f"optimization_level: got {options.optimization_level}, expected 0 to {MAX_OPTIMIZATION_LEVEL}."
        )
    if options.workspace_bytes < 0:
        raise ExportError(f"workspace_bytes: got {options.workspace_bytes}, expected at least 0.")
    if options.aux_streams < 0:
        raise ExportError(f"aux_streams: got {options.aux_streams}, expected at least 0.")


def _gpu(flavour: Flavour) -> Gpu | None:
    """Return the GPU that TensorRT builds for; None for TensorRT for RTX, which needs none."""
    if flavour == "rtx":
        return None
    found = gpus.find()
    if found is None:
        raise BuildError(
            "TensorRT builds on the GPU that is to run the engine, and this machine has none; build there, or for an "
            "RTX GPU on any machine:  panrt build --flavour rtx"
        )
    return found


def workspace_bytes(options: BuildOptions, gpu: Gpu | None) -> int:
    """Return bytes of scratch memory for tactics: the requested, else by a rule; 0 leaves it to TensorRT."""
    if options.workspace_bytes or gpu is None:
        return options.workspace_bytes
    most = int(min(gpu.total_bytes * TOTAL_SHARE, gpu.free_bytes * FREE_SHARE))
    return max(most // WORKSPACE_STEP, 1) * WORKSPACE_STEP


def _check_batch(network: Network, source: Path) -> None:
    """Raise ExportError if the batch is open: an engine has one, as a CUDA graph holds one shape."""
    if (batch := network.inputs[IMAGE][0]) < 1:
        raise ExportError(
            f"{source}: leaves its batch open ({batch}), and engines have one; export the model again, with --batch N "
            "for N images per inference."
        )


# Precision ------------------------------------------------------------------------------------------------------------


def _precisions(layers: tuple[Layer, ...], file: ModelFile) -> Precisions:
    counts = {
        name: sum(layer.precision == name for layer in layers) for name in ("fp32", "fp16", "int8", "plugin", "other")
    }
    fallen = [layer.node for layer in layers if layer.type in WEIGHTED and layer.precision == "fp32"]
    return Precisions(
        fp32=counts["fp32"],
        fp16=counts["fp16"],
        int8=counts["int8"],
        plugins=counts["plugin"],
        other=counts["other"],
        fallen_to_fp32=tuple(dict.fromkeys(fallen)) if file.precision != "fp32" else (),
    )


def _check_precision(layers: tuple[Layer, ...], file: ModelFile, source: Path) -> None:
    """Raise BuildError unless a layer computes in the precision of the file: an int8 file gives an int8 engine."""
    if not any(layer.type in WEIGHTED and layer.precision == file.precision for layer in layers):
        raise BuildError(
            f"{source}: says {file.precision}, but TensorRT finds no layer with weights that computes in it; "
            "export the model again."
        )
