"""The machine under test: a GPU with the compiled plugin library, or the stand-ins on the CPU.

The stand-ins are the simulated driver of tools/simcuda and the kernels of plugins/cuda compiled for the CPU by
tools/hostcuda, which queue their work on the simulated streams. All calls are the same on both, so that a run on the
stand-ins shows that the suite itself works; it says nothing about a GPU.
"""

from __future__ import annotations

import ctypes
import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from panrt.errors import PluginLibraryError

ROOT = Path(__file__).resolve().parents[2]
REPORT = "checks.jsonl"
FACTS = "facts.json"
MEASURED = "measured.json"

Profile = Literal["full", "small"]


class SetupError(Exception):
    """Something that every phase needs is missing."""


@dataclass(frozen=True)
class Machine:
    """Handed to each phase's process as a JSON file."""

    out: str  # folder of the reports
    simulated: bool
    kernels: str  # library with the kernels' C interface
    plugins: str  # library with TensorRT's plugin classes; "": none
    plugin_calls: str  # library that calls them, built from plugin_calls.cpp; "": none
    expected: str  # file of `expected.write`; "": none
    simcuda: str = ""  # folder of the simulated driver
    profile: Profile = "full"  # "small": as few cases as show that a phase works
    plant: str = ""  # a fault of `planted.FAULTS`
    tools: str = ""  # folder of compute-sanitizer and ncu; "": PATH, and none for the stand-ins

    @property
    def folder(self) -> Path:
        """The folder of the reports."""
        return Path(self.out)

    def environment(self) -> dict[str, str]:
        """Return the environment of a phase's process and of those that it starts."""
        paths = [str(ROOT), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        if self.simulated:
            folder = self.simcuda
            libraries = (folder, os.environ.get("LD_LIBRARY_PATH", ""))
            environment |= {
                "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
                "SIMCUDA_KERNELS": f"{folder}/libkernels.so",
                "PANRT_SIMCUDA": f"{folder}/libcuda.so.1",
                "OMP_NUM_THREADS": "1",
            }
        return environment

    def write(self) -> None:
        """Leave this where the phases look."""
        (self.folder / "machine.json").write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def read(folder: Path) -> Machine:
        """Return what was written."""
        return Machine(**json.loads((folder / "machine.json").read_text()))


@cache
def load_kernels(machine: Machine) -> ctypes.CDLL:
    """Load the kernels into this process; simulated ones go by the simulated driver from now on."""
    library = ctypes.CDLL(machine.kernels)
    for name, function in {"hc_set_stream_hook": "simcuda_enqueue", "hc_set_load_hook": "simcuda_refuses_load"}.items():
        if hasattr(library, name):
            hook = library[name]
            hook.argtypes = [ctypes.c_void_p]
            hook(ctypes.cast(getattr(ctypes.CDLL(os.environ["PANRT_SIMCUDA"]), function), ctypes.c_void_p))
    return library


def simulated(out: Path, *, kernels: str, **options: Any) -> Machine:
    """Build the stand-ins; `kernels` is a library instead of theirs, options are fields of `Machine`."""
    from tools import hostcuda  # noqa: PLC0415
    from tools.gpu import plugin_calls  # noqa: PLC0415  # of the stand-ins alone
    from tools.simcuda import build  # noqa: PLC0415

    library = kernels or str(hostcuda.kernels("plain"))
    return Machine(
        out=str(out),
        simulated=True,
        kernels=library,
        plugins=str(plugin_calls.find_simulated(Path(library)) or ""),
        plugin_calls=str(plugin_calls.find() or ""),
        simcuda=str(build.build()),
        **options,
    )


def real(out: Path, *, kernels: str, **options: Any) -> Machine:
    """Find what a GPU runs; arguments as in `simulated`.

    Raises:
        SetupError: the plugin library is missing, or has no kernels.
    """
    from panrt.plugins import library  # noqa: PLC0415
    from tools.gpu import plugin_calls  # noqa: PLC0415

    try:
        found = library.inspect(Path(kernels)) if kernels else library.find()
    except PluginLibraryError as error:
        raise SetupError(str(error)) from error
    if not found.cuda_architectures:
        raise SetupError(f"{found.path}: has no CUDA kernels; install nvcc and run  panrt plugins build.")
    return Machine(
        out=str(out),
        simulated=False,
        kernels=str(found.path),
        plugins=str(found.path),
        plugin_calls=str(plugin_calls.find() or ""),
        **options,
    )
