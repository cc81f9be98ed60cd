"""TensorRT's plugin classes without TensorRT: `Plugin` holds one as TensorRT does and runs it on device memory."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panrt.errors import PluginLibraryError
from panrt.plugins import library
from tools.gpu.machine import ROOT, Machine

LINEAR, HWC8, HWC = 0, 2, 8  # nvinfer1::TensorFormat
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 3}  # nvinfer1::DataType
FLOAT32, INT32 = 1, 5  # nvinfer1::PluginFieldType
FOLDER = ROOT / "build" / "gpu"
NAME = "libplugin_calls.so"


class PluginError(Exception):
    """A plugin rejected a step."""


class Field(ctypes.Structure):
    """nvinfer1::PluginField."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


class Plugin:
    """A plugin that TensorRT would enqueue next."""

    def __init__(
        self,
        machine: Machine,
        op: str,
        tensors: Sequence[tuple[Sequence[int], Any, int]],
        *,
        inputs: int,
        attributes: dict[str, Any],
    ) -> None:
        """Take an op through all of TensorRT's steps up to the first run.

        Args:
            machine: whose libraries are taken.
            op: such as "PanopticMerge".
            tensors: (shape, dtype, format) of the inputs, then of the outputs; shapes as TensorRT has them,
                (N, C, H, W) in every format.
            inputs: how many of them are inputs.
            attributes: of the node.

        Raises:
            PluginError: the plugin rejects a step.
        """
        self._library = _load(machine.plugin_calls)
        self.inputs = inputs
        kept = []
        fields = (Field * len(attributes))()
        for field, (name, value) in zip(fields, attributes.items(), strict=True):
            values = np.atleast_1d(np.array(value))
            kept.append(np.ascontiguousarray(values, np.float32 if values.dtype.kind == "f" else np.int32))
            kind = FLOAT32 if values.dtype.kind == "f" else INT32
            field.name, field.data, field.type, field.length = name.encode(), kept[-1].ctypes.data, kind, values.size
        count = len(tensors)
        types = (ctypes.c_int32 * count)(*(TYPES[np.dtype(dtype)] for _, dtype, _ in tensors))
        formats = (ctypes.c_int32 * count)(*(layout for _, _, layout in tensors))
        ranks = (ctypes.c_int32 * count)(*(len(shape) for shape, _, _ in tensors))
        padded = (side for shape, _, _ in tensors for side in (*shape, *[0] * (8 - len(shape))))
        dims = (ctypes.c_int64 * (8 * count))(*padded)
        step = ctypes.c_char_p()
        self._plugin = self._library.plugin_open(
            machine.plugins.encode(), op.encode(), fields, len(fields), inputs, count - inputs, types, formats, ranks,
            dims, ctypes.byref(step),
        )  # fmt: skip
        if not self._plugin:
            raise PluginError(f"{op}: {(step.value or b'').decode()} fails")
        self._op = op
        self.workspace_bytes = int(self._library.plugin_workspace_bytes(self._plugin))

    def enqueue(self, addresses: Sequence[int], workspace: int, stream: int) -> None:
        """Queue a run.

        Args:
            addresses: of all tensors, inputs first.
            workspace: address of `workspace_bytes`.
            stream: a CUstream.

        Raises:
            PluginError: it was rejected.
        """
        inputs, outputs = addresses[: self.inputs], addresses[self.inputs :]
        pointers = [(ctypes.c_void_p * len(part))(*part) for part in (inputs, outputs)]
        status = self._library.plugin_enqueue(self._plugin, *pointers, workspace or None, stream)
        if status != 0:
            raise PluginError(f"{self._op}: enqueue gives {status}")

    def close(self) -> None:
        """Free it."""
        self._library.plugin_close(self._plugin)


@cache
def _load(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    library.plugin_open.restype = ctypes.c_void_p
    library.plugin_workspace_bytes.restype = ctypes.c_size_t
    library.plugin_workspace_bytes.argtypes = [ctypes.c_void_p]
    library.plugin_enqueue.argtypes = [ctypes.c_void_p] * 5
    library.plugin_close.argtypes = [ctypes.c_void_p]
    return library


def find() -> Path | None:
    """Return the library: what a bundle brought, or built where TensorRT's headers are found."""
    return _made(build)


def find_simulated(kernels: Path) -> Path | None:
    """Return the plugin classes with simulated kernels, where TensorRT's headers are found."""
    return _made(lambda: build_simulated(kernels))


def _made(make: Callable[[], Path]) -> Path | None:
    """Report why it cannot be built; phase 3 is then skipped."""
    try:
        return make()
    except PluginLibraryError as error:
        print(f"phase 3 needs the plugin classes: {error}", file=sys.stderr)
        return None


def build() -> Path:
    """Compile plugin_calls.cpp, which needs TensorRT's headers, where it changed."""
    source = Path(__file__).with_suffix(".cpp")
    return _compile(FOLDER / NAME, [source], hashlib.sha256(source.read_bytes()).hexdigest())


def build_simulated(kernels: Path) -> Path:
    """Compile the plugin classes with kernels that run on the CPU, where either changed."""
    sources = [ROOT / "plugins" / "tensorrt" / f"{name}.cpp" for name in ("library", "report", "signature")]
    link = [str(kernels), f"-Wl,-rpath,{kernels.parent}"]
    return _compile(FOLDER / f"libplugins-{kernels.stem}.so", sources, library.sources_sha256(), link)


def _flags() -> list[str]:
    """Return include folders and definitions, those of the plugin library's own build."""
    from tools.plugin_library import folder, plugin_library  # noqa: PLC0415

    plugin_library("off")
    database = json.loads((folder("off") / "libpanrt_plugins-build" / "compile_commands.json").read_text())
    words = shlex.split(next(entry["command"] for entry in database if entry["file"].endswith("library.cpp")))
    includes = [word for i, word in enumerate(words) if word.startswith("-I") or "-isystem" in words[i - 1 : i + 1]]
    return [*includes, *(word for word in words if word.startswith("-DPANRT") and word != "-DPANRT_NO_KERNELS")]


def _compile(target: Path, sources: Sequence[Path], digest: str, link: Sequence[str] = ()) -> Path:
    """Compile where the digest beside the target is another one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = target.with_suffix(".sha256")
    if target.exists() and mark.exists() and mark.read_text() == digest:
        return target
    flags = _flags()
    made = target.with_name(f".{target.name}.{os.getpid()}")
    command = [os.environ.get("CXX", "g++"), "-std=c++17", "-shared", "-fPIC", "-O1", *flags, *map(str, sources), *link]
    subprocess.run([*command, "-o", str(made), "-ldl"], check=True)
    made.replace(target)
    mark.write_text(digest)
    return target


def arrays_for(layout: int, features: NDArray[Any]) -> NDArray[Any]:
    """Return (N, C, H, W) features as they lie in memory; of HWC8 the channels are a multiple of 8 here."""
    return features if layout == LINEAR else np.ascontiguousarray(features.transpose(0, 2, 3, 1))
