"""The backend of TensorRT and TensorRT for RTX: opens an engine file if it was built for this machine.

Everything is checked before TensorRT sees the engine: the sidecar states what it needs. Whether the file is whole is
known once it is read, which `open_session` does and `obstacle` does not.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from panrt.errors import MissingError, PanrtError
from panrt.formats import metadata, plan_file
from panrt.formats.plan_file import MODULES, OLDEST, PRODUCTS, Flavour, PlanFile, Process, version_of
from panrt.formats.records import argument
from panrt.gpu import device as machine
from panrt.plugins import library
from panrt.plugins.library import PluginLibrary

if TYPE_CHECKING:
    from panrt.engine.backends.tensorrt import driver
    from panrt.engine.backends.tensorrt.engine import Engine
    from panrt.engine.backends.tensorrt.kernels import Kernels
    from panrt.engine.backends.tensorrt.session import TensorRTSession
    from panrt.engine.session import GpuMemory, Preprocess

_INSTALL: dict[Flavour, str] = {
    "tensorrt": "on Jetson it comes with JetPack, and a venv needs --system-site-packages to see it; on a desktop "
    "install TensorRT for your CUDA",
    "rtx": "pip install 'panrt[rtx]'",
}


class _Ready(NamedTuple):
    file: PlanFile
    trt: ModuleType
    plugins: PluginLibrary
    process: Process


@dataclass(frozen=True)
class TensorRTBackend:
    """TensorRT or TensorRT for RTX; see `panrt.engine.load.Backend`."""

    flavour: Flavour

    def obstacle(self, path: Path) -> str | None:
        """Return why an engine cannot run here; None if nothing is known against it."""
        try:
            _examine(path, self.flavour)
        except (PanrtError, OSError) as error:
            return str(error)
        return None

    def open_session(
        self,
        path: Path,
        *,
        threads: int | None = None,
        input_hw: tuple[int, int] | None = None,
        preprocess: Preprocess = "host",
        gpu_memory: GpuMemory = "auto",
    ) -> TensorRTSession:
        """Load an engine.

        Args:
            path: of an engine, with its sidecar beside it.
            threads: of the CPU, which a GPU session does not use.
            input_hw: that of the engine; None: whatever it is.
            preprocess: what resizes BGR frames; see `panrt.load`.
            gpu_memory: where network inputs and outputs lie; see `panrt.load`.

        Raises:
            MissingError, PluginLibraryError: this machine lacks something that engines need.
            PlanFileError: the sidecar is missing or damaged, or the engine is cut off or changed.
            PlanMismatch: the engine was built for something else.
            InputSizeError: it has another input size.
            EngineError, CudaError: an error of TensorRT or the driver.
            KernelError: the plugin library cannot be loaded, or the GPU cannot load its kernels.
            SessionError: mapped memory was requested, and the GPU cannot map host memory.
        """
        del threads
        file, trt, plugins, process = _examine(path, self.flavour)
        from panrt.engine.backends.tensorrt.session import TensorRTSession  # noqa: PLC0415  # `_examine` checks for it

        metadata.sized(file.model, input_hw, source=str(path))
        engine, context, kernels = _deserialised(path, file, trt, plugins, process)
        return TensorRTSession(
            file.model,
            engine,
            context,
            backend=self.flavour,
            kernels=kernels,
            preprocess=preprocess,
            gpu_memory=gpu_memory,
        )


def _deserialised(
    path: Path, file: PlanFile, trt: ModuleType, plugins: PluginLibrary, process: Process
) -> tuple[Engine, driver.Context, Kernels]:
    """Load kernels, plugins and engine in a context that is left open with them."""
    from panrt.engine.backends.tensorrt import driver, runtime_cache  # noqa: PLC0415  # `_examine` checks for them
    from panrt.engine.backends.tensorrt.engine import Engine  # noqa: PLC0415
    from panrt.engine.backends.tensorrt.kernels import Kernels  # noqa: PLC0415

    kernels = Kernels(plugins.path)
    context = driver.Context()
    try:
        with context:
            kernels.prepare()
            library.load(trt.get_plugin_registry(), plugins)
            plan = plan_file.read_engine(path, file)
            compiles = file.flavour == "rtx"
            kept = runtime_cache.path_of(file, process, driver.driver_version()) if compiles else None
            host_code = file.options.version_compatible
            engine = Engine(trt, path, plan, runs_host_code=host_code, compiles=compiles, kernels=kept)
            return engine, context, kernels
    except BaseException:
        context.close()
        raise


def _examine(path: Path, flavour: Flavour) -> _Ready:
    """Check all that can be known without loading the engine."""
    if path.suffix == ".onnx":
        plan = path.with_suffix(plan_file.SUFFIX)
        raise MissingError(f"it is not an engine; build one:  panrt build {argument(path)} -o {argument(plan)}")
    file = plan_file.read(path)
    if file.flavour != flavour:
        raise MissingError(f"it is an engine of {PRODUCTS[file.flavour]}, not of {PRODUCTS[flavour]}.")
    trt = _import(flavour)
    gpu, compute_capability = _gpu()
    plugins = library.find()
    if not plugins.cuda_architectures:
        raise MissingError(
            f"{plugins.path}: has no CUDA kernels, so engines can be built with it but not run; install nvcc and run  "
            "panrt plugins build."
        )
    process = Process(
        flavour=flavour,
        tensorrt=trt.__version__,
        gpu=gpu,
        compute_capability=compute_capability,
        plugin_version=library.VERSION,
        plugins_sha256=plugins.sha256,
        plugins_sources_sha256=plugins.sources_sha256,
    )
    plan_file.check(path, file, process)
    return _Ready(file, trt, plugins, process)


def _import(flavour: Flavour) -> ModuleType:
    try:
        trt = importlib.import_module(MODULES[flavour])
    except ImportError as error:
        raise MissingError(
            f"{PRODUCTS[flavour]}'s Python module does not import ({error}); {_INSTALL[flavour]}."
        ) from error
    if flavour == "tensorrt" and version_of(trt.__version__) < OLDEST[flavour]:
        raise MissingError(
            f"TensorRT {trt.__version__} is too old, PanRT needs {'.'.join(map(str, OLDEST[flavour]))}; upgrade it."
        )
    return trt


def _gpu() -> tuple[str, str]:
    """Return name and compute capability of the GPU that engines would run on."""
    try:
        from panrt.engine.backends.tensorrt import driver  # noqa: PLC0415

        device = driver.device()
    except ImportError as error:
        raise MissingError(
            f"cuda-python does not import ({error}); pip install 'panrt[{machine.cuda_extra()}]'."
        ) from error
    except RuntimeError as error:  # raised by cuda-python if there is no driver to load
        raise MissingError(f"there is no GPU to run it on ({error}).") from error
    return device.name, device.compute_capability
