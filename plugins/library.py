"""The TensorRT plugin library, libpanrt_plugins.so: building, finding and loading it.

The library is compiled from the sources beside this file, on the machine that needs it: `panrt plugins build`. What
was built lies in the user's cache under the hash of its sources, so that a library of other sources is never taken for
this one's. The environment variable PANRT_PLUGINS names a library that is used instead.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from panrt.errors import GpuError, NoCacheFolderError, PluginLibraryError
from panrt.files import cache_folder
from panrt.gpu import device as gpu

from . import schema

NAME = "libpanrt_plugins.so"
RTX_LOADER_NAME = "libtensorrt_rtx.so"
NAMESPACE, VERSION = schema.PLUGIN_NAMESPACE, schema.PLUGIN_VERSION
OPS = tuple(schema.OPS)
VARIABLE = "PANRT_PLUGINS"

SOURCES = Path(__file__).resolve().parent
_COMPILED = ("CMakeLists.txt", "defaults.cmake", "cuda", "include", "tensorrt")
_SUFFIXES = {".cpp", ".cu", ".h", ".map", ".txt"}

# TensorRT's headers for machines without its SDK: NVIDIA publishes none alone, so they are taken from another project's
# wheel, which is unpacked and never imported. Wheel and headers are those of these digests, or there is an error.
_HEADERS = "kernel-lens==2.0.1 --hash=sha256:07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0"
_HEADERS_FOLDER = Path("kernel_lens/include/tensorrt")
_HEADERS_SHA256 = "7476a417a8f4befd865e043fc956f8583e537c74faa29c2305c5ef9f898bd9b4"  # of names and contents, in order


class PluginLibrary(NamedTuple):
    """A library with its own description."""

    path: Path
    sha256: str  # of the file
    sources_sha256: str  # of what it was compiled from; "" if it was not compiled by `panrt plugins build`
    tensorrt_headers: str  # version, e.g. "10.3.0"
    cuda_architectures: tuple[str, ...]  # e.g. ("86", "87", "87-ptx"); none: no kernels; engines can be built, not run

    @property
    def rtx_loader(self) -> Path:
        """The library beside this one through which TensorRT for RTX's ONNX parser finds its runtime."""
        return self.path.parent / RTX_LOADER_NAME


def sources_sha256() -> str:
    """Return the SHA-256 of all sources that are compiled."""
    digest = hashlib.sha256()
    for root in _COMPILED:
        top = SOURCES / root
        for path in [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.suffix in _SUFFIXES):
            digest.update(f"{path.relative_to(SOURCES).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def cached_path() -> Path:
    """Return the path of a library built from these sources.

    Raises:
        PluginLibraryError: this user has no cache.
    """
    try:
        return cache_folder() / "plugins" / sources_sha256()[:16] / NAME
    except NoCacheFolderError as error:
        raise PluginLibraryError(
            f"{error} Or build the plugin library elsewhere, with  panrt plugins build -o {NAME},  and set {VARIABLE} "
            "to it."
        ) from error


def find() -> PluginLibrary:
    """Find the library that engines are built and run with.

    Raises:
        PluginLibraryError: there is none; the message says how to get one.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return inspect(Path(chosen))
    path = cached_path()
    if not path.is_file():
        raise PluginLibraryError(
            f"{path}: the TensorRT plugins of this PanRT are not built; run  panrt plugins build  "
            f"or set {VARIABLE} to a {NAME}."
        )
    return inspect(path)


def _expanded(path: Path) -> Path:
    """Return a path without `~`."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise PluginLibraryError(f"{path}: this home folder is not known; write the path without ~.") from error


def inspect(path: Path) -> PluginLibrary:
    """Load a library into this process and ask what it is.

    Raises:
        PluginLibraryError: no such file, not a shared library, or not ours.
    """
    path = _expanded(path).resolve()
    if not path.is_file():
        raise PluginLibraryError(f"{path}: no such plugin library; run  panrt plugins build.")
    library = _open(path)
    if not hasattr(library, "panrt_plugins_info"):
        raise PluginLibraryError(f"{path}: not a PanRT plugin library; run  panrt plugins build.")
    info = json.loads(_text_function(library, "panrt_plugins_info")())
    if info["plugin_version"] != VERSION:
        raise PluginLibraryError(
            f"{path}: has plugins of version {info['plugin_version']}, this PanRT needs {VERSION}; "
            "run  panrt plugins build."
        )
    if fault := _text_function(library, "panrt_plugins_arithmetic_fault")():
        raise PluginLibraryError(f"{path}: {fault}; run  panrt plugins build.")
    return PluginLibrary(
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        sources_sha256=info["sources_sha256"],
        tensorrt_headers=info["tensorrt_headers"],
        cuda_architectures=tuple(filter(None, info["cuda_architectures"].split(","))),
    )


def load(registry: Any, library: PluginLibrary) -> None:
    """Register the library's plugins with a TensorRT plugin registry. Idempotent.

    Args:
        registry: `builder.get_plugin_registry()` or `runtime.get_plugin_registry()` of TensorRT or TensorRT for RTX.
        library: from `find` or `build`.

    Raises:
        PluginLibraryError: TensorRT does not take it, or the registry has plugins of these names from elsewhere.
    """
    if _registered(registry):
        if any(loaded != library.path for loaded in _loaded):
            raise PluginLibraryError(
                f"{library.path}: this process has loaded {_loaded[0]}; start another for another plugin library."
            )
        return
    if registry.load_library(str(library.path)) is None or not _registered(registry):
        raise PluginLibraryError(
            f"{library.path}: TensorRT did not accept all of its plugins ({', '.join(OPS)}); its log says why."
        )
    _loaded.append(library.path)


def load_rtx_loader(library: PluginLibrary) -> None:
    """Let TensorRT for RTX's ONNX parser find its runtime library; call it after `import tensorrt_rtx_libs`.

    The parser opens libtensorrt_rtx.so by that name, which the PyPI wheel does not have, and ends the process where it
    finds none.

    Raises:
        PluginLibraryError: there is none on this machine and none beside the plugin library.
    """
    for name in (RTX_LOADER_NAME, str(library.rtx_loader)):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return
    raise PluginLibraryError(
        f"{library.rtx_loader}: not found or not loadable; TensorRT for RTX's parser needs it. "
        "It is built with the plugins: run  panrt plugins build."
    )


@contextmanager
def refusals(library: PluginLibrary) -> Iterator[list[str]]:
    """Collect the errors of plugins instead of printing them; the list is complete when the block ends."""
    handle = _open(library.path)
    keep, take = handle.panrt_plugins_keep_refusals, _text_function(handle, "panrt_plugins_take_refusals")
    lines: list[str] = []
    take()
    keep(1)
    try:
        yield lines
    finally:
        lines.extend(take().splitlines())
        keep(0)


# --- building ---------------------------------------------------------------------------------------------------------


ALL = "all"  # of the architectures that PanRT and nvcc know
BYTES_A_JOB = 2 * 10**9  # of memory that an nvcc takes, about


def build(
    *,
    output: Path | None = None,
    kernels: Literal["auto", "on", "off"] = "auto",
    architectures: Sequence[str] = (),
    tensorrt_include: Path | None = None,
    fetch_headers: bool = False,
    progress: Callable[[str, str], None] = lambda step, text: None,
) -> PluginLibrary:
    """Compile the library with the CMake, the compiler and, if it is installed, the nvcc of this machine.

    Args:
        output: the library to write; default: in the user's cache, where `find` looks.
        kernels: "auto" takes CUDA kernels in where nvcc is found. Without them engines can be built, not run.
        architectures: CUDA architectures, e.g. ("87",), or (ALL,), which takes minutes; default: that of this
            machine's GPU, and all if it has none or nvcc does not know it.
        tensorrt_include: folder of NvInferRuntime.h; default: TENSORRT_HOME, or the system's.
        fetch_headers: where the system has no TensorRT headers take those of a PyPI package.
        progress: called with the name of a step and what there is to say of it.

    Raises:
        PluginLibraryError: a tool or header is missing, or the compiler complains; the message holds its last lines.
    """
    if ALL in architectures and len(architectures) > 1:
        raise PluginLibraryError(f"architectures: got {', '.join(architectures)}; expected {ALL} alone, or numbers.")
    path = _expanded(output or cached_path()).absolute()
    native = ""
    if not architectures and kernels != "off":
        native, why = this_machines_architecture()
        progress("target", why)
    jobs = build_jobs()
    folder = path.parent / f"{path.stem}-build"
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one_builds(folder):
        fallback = fetched_headers(path.parent / "tensorrt-headers") if fetch_headers else None
        definitions = {
            "CMAKE_BUILD_TYPE": "Release",
            "PANRT_KERNELS": kernels.upper(),
            "PANRT_CUDA_ARCHITECTURES": ";".join(name for name in architectures if name != ALL),
            "PANRT_NATIVE_ARCHITECTURE": native,
            "PANRT_SOURCES_SHA256": sources_sha256(),
            "PANRT_TENSORRT_INCLUDE": tensorrt_include or "",
            "PANRT_TENSORRT_FALLBACK": fallback or "",
            "PANRT_WHEELS": sysconfig.get_path("purelib"),
        }
        options = [f"-D{name}={value}" for name, value in definitions.items()]
        _run("cmake", "-S", str(SOURCES), "-B", str(folder), *_generator(folder), *options)
        progress("compile", f"{jobs} at a time, of about {BYTES_A_JOB / 1e9:g} GB each")
        _run("cmake", "--build", str(folder), "--parallel", str(jobs), progress=progress)
        for name, target in ((NAME, path), (RTX_LOADER_NAME, path.parent / RTX_LOADER_NAME)):
            _replace(folder / name, target)
    return inspect(path)


def this_machines_architecture() -> tuple[str, str]:
    """Return the CUDA architecture of this machine's GPU, such as "87", and a sentence on it; "" without a GPU."""
    try:
        found = gpu.find()
    except GpuError as error:
        return "", f"all architectures, as the GPU is unknown ({error})"
    if found is None:
        return "", "all architectures, as this machine has no GPU; --arch 87 compiles for one, and faster"
    architecture = found.compute_capability.replace(".", "")
    return architecture, f"architecture {architecture}, that of the {found.name}; --arch all compiles for others too"


def build_jobs() -> int:
    """Return the number of parallel compilers: one per core, as far as memory allows."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, available_bytes() // BYTES_A_JOB))


def available_bytes() -> int:
    """Return the memory that is available without swapping."""
    (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def _replace(source: Path, target: Path) -> None:
    """Copy in one step, so that no process ever loads half of it; leave a target that is equal alone."""
    if target.is_file() and target.read_bytes() == source.read_bytes():
        return
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copy2(source, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def fetched_headers(folder: Path) -> Path:
    """Return the folder of TensorRT's headers from PyPI, below this folder; fetched once.

    Raises:
        PluginLibraryError: pip failed, or the headers are not those of the committed digest.
    """
    headers = folder / _HEADERS_FOLDER
    if _headers_sha256(headers) != _HEADERS_SHA256:
        with tempfile.TemporaryDirectory() as scratch:
            requirements = Path(scratch, "headers.txt")
            requirements.write_text(_HEADERS + "\n")
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--require-hashes")
            _run(*pip, "--target", str(folder), "--requirement", str(requirements))
        if (found := _headers_sha256(headers)) != _HEADERS_SHA256:
            raise PluginLibraryError(
                f"{headers}: the headers of {_HEADERS.split(maxsplit=1)[0]} have sha256 {found[:12]}..., expected "
                f"{_HEADERS_SHA256[:12]}...; install TensorRT's headers (libnvinfer-headers-dev), or set TENSORRT_HOME."
            )
    return headers


def _headers_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for header in sorted(folder.glob("*.h")):
        digest.update(header.name.encode() + b"\0" + header.read_bytes())
    return digest.hexdigest()


def _generator(folder: Path) -> tuple[str, ...]:
    """Return CMake's generator: Ninja if it is installed; a build folder keeps its first one."""
    fresh = not (folder / "CMakeCache.txt").is_file()
    return ("-G", "Ninja") if fresh and shutil.which("ninja", path=tool_path()) else ()


def tool_path() -> str:
    """Return the path of a tool, first of this environment."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])


# Of Ninja and of Make: how far it is, and the file.
_STEP = re.compile(r"\[\s*(\d+/\d+|\d+%)\] (?:Building|Linking) \w+ (?:object|shared library) (\S+)")


def _run(*command: str, progress: Callable[[str, str], None] | None = None) -> None:
    tool = shutil.which(command[0], path=tool_path())
    if tool is None:
        raise PluginLibraryError(f"{command[0]}: not found; pip install 'panrt[plugins]'.")
    lines: list[str] = []
    with subprocess.Popen(
        [tool, *command[1:]],
        env={**os.environ, "PATH": tool_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            step = _STEP.match(line)
            if progress is not None and step is not None:
                progress(step[1], Path(step[2]).name.removesuffix(".o"))
    if process.returncode != 0:
        said = "\n".join(f"  {line}" for line in lines[-30:] if line.strip())
        raise PluginLibraryError(f"the plugin library does not build; {' '.join(command[:2])} ended with:\n{said}")


@contextmanager
def _only_one_builds(folder: Path) -> Iterator[None]:
    """Hold a lock on a build folder, which other builds wait for; it ends with the process."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- the library's C functions ----------------------------------------------------------------------------------------

_loaded: list[Path] = []  # at most one library, for each of TensorRT's registries; those belong to the process


def _registered(registry: Any) -> bool:
    creators = registry.all_creators
    if creators is None:  # TensorRT to 10.7 gives no list where someone else's creator is of a kind new to its Python
        versions = ((op.name, str(op.version)) for op in schema.ALL_OPS)
        return all(registry.get_creator(name, version, NAMESPACE) is not None for name, version in versions)
    there = {(creator.plugin_namespace, creator.name) for creator in creators}
    return all((NAMESPACE, name) in there for name in OPS)


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise PluginLibraryError(f"{path}: does not load as a library ({error}); run  panrt plugins build.") from error


def _text_function(library: ctypes.CDLL, name: str) -> Any:
    function = library[name]  # a new function object, whose result type is not shared
    function.restype = ctypes.c_char_p
    return lambda: function().decode()
