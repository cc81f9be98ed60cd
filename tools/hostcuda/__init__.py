"""CUDA kernels compiled for the CPU, and a process that runs them on NumPy arrays.

`build` compiles kernel sources with the simulation of tools/hostcuda into a shared library, once for each content.
`SimulatedGpu` loads one in a process of its own - a kernel that crashes, or that a sanitizer stops, takes that process
alone - and calls it: arrays go in as device buffers of exactly their size, results come back.

    gpu = SimulatedGpu(build("roi", sources, "asan"))
    args = Struct(PyramidRoiAlignArgs, rois=rois, pooled=Out(shape, dtype), ...)
    (pooled,) = gpu.launch("panrt_cuda_pyramid_roi_align", args)
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Flavour = Literal["plain", "asan", "tsan", "trace"]

ROOT = Path(__file__).resolve().parents[2]
HOSTCUDA = ROOT / "tools" / "hostcuda"
INCLUDE = [
    HOSTCUDA / "include",
    ROOT / "plugins" / "cuda",
    ROOT / "plugins" / "cuda" / "include",
    ROOT / "plugins" / "include",
]
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unknown-pragmas"]
COMMON = ["-std=c++17", "-g", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing"]
# Of kernels; the simulation itself is always plain code that knows its flavour.
FLAGS: dict[Flavour, list[str]] = {
    "plain": ["-O2"],
    "asan": [
        *("-O1", "-fno-omit-frame-pointer", "-DHC_ASAN"),
        *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
    ],
    "tsan": ["-O1", "-fno-omit-frame-pointer", "-DHC_TSAN", "-fsanitize=thread"],
    "trace": ["-O1", "-DHC_TRACE", "-fsanitize=thread"],
}
RUNTIME_FLAGS: dict[Flavour, list[str]] = {
    "plain": ["-O2"],
    "asan": ["-O2", "-DHC_ASAN"],
    "tsan": ["-O2", "-DHC_TSAN"],
    "trace": ["-O2", "-DHC_TRACE"],
}
LINK: dict[Flavour, list[str]] = {
    "plain": [],
    "asan": ["-fsanitize=address,undefined"],
    "tsan": ["-fsanitize=thread"],
    "trace": [],
}
RUNTIME = ("hostcuda", "fibers", "meetings", "runtime")  # the simulation's sources
PRELOADED = {"asan": "libasan.so", "tsan": "libtsan.so"}
# Symbols are looked up in the worker; nothing that it leaves behind is a leak of a kernel.
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=86:handle_segv=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=86",
    "TSAN_OPTIONS": "exitcode=86:halt_on_error=1:report_signal_unsafe=0",
}


# --- Building ---------------------------------------------------------------------------------------------------------


FOLDER = ROOT / "build" / "hostcuda"


def build(name: str, sources: Sequence[Path], flavour: Flavour) -> Path:
    """A shared library of kernel sources and the simulation; what has been compiled from the same content is reused."""
    runtime = [HOSTCUDA / f"{part}.cpp" for part in (*RUNTIME, *(["trace"] if flavour == "trace" else []))]
    objects = [_object(source, FLAGS[flavour]) for source in sources]
    objects += [_object(source, RUNTIME_FLAGS[flavour]) for source in runtime]
    digest = hashlib.sha256("".join(path.name for path in objects).encode())
    return _once(
        FOLDER / f"{name}-{flavour}-{digest.hexdigest()[:16]}.so", ["-shared", *LINK[flavour], *map(str, objects)]
    )


def kernels(flavour: Flavour) -> Path:
    """The library of all kernels in plugins/cuda, with their C interface."""
    folder = ROOT / "plugins" / "cuda"
    return build("kernels", [*sorted(folder.glob("*.cu")), folder / "c_api.cpp"], flavour)


def _object(source: Path, flags: list[str]) -> Path:
    options = [*COMMON, *WARNINGS, *flags, *(f"-I{path}" for path in (*INCLUDE, HOSTCUDA))]
    digest = hashlib.sha256(repr(options).encode() + _headers() + source.read_bytes())
    return _once(FOLDER / f"{source.stem}-{digest.hexdigest()[:16]}.o", [*options, "-x", "c++", "-c", str(source)])


@cache
def _headers() -> bytes:
    suffixes = (".h", "")  # <cuda/atomic> has none
    paths = [
        path
        for folder in (*INCLUDE, HOSTCUDA)
        for path in sorted(folder.rglob("*"))
        if path.suffix in suffixes and path.is_file()
    ]
    return b"".join(path.name.encode() + path.read_bytes() for path in paths)


def _once(target: Path, options: list[str]) -> Path:
    """Compile or link what is not there yet."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / target.name
            _compile([os.environ.get("CXX", "g++"), *options, "-o", str(made)])
            made.replace(target)  # at once: another process may be waiting for the same name
    return target


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, " ".join(command) + "\n" + done.stderr
    assert not done.stderr, done.stderr  # a warning


@cache
def _runtime_library(name: str) -> str:
    compiler = os.environ.get("CXX", "g++")
    return subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


# --- What a call is made of -------------------------------------------------------------------------------------------


class Out(NamedTuple):
    """A device buffer that the kernel writes. It holds 0xCD bytes before, or `copy` if given."""

    shape: tuple[int, ...]
    dtype: DTypeLike
    copy: NDArray[Any] | None = None
    offset: int = 0  # bytes from where device memory is aligned


class At(NamedTuple):
    """A device buffer that the kernel reads, some bytes from where device memory is aligned."""

    array: NDArray[Any]
    offset: int


def in_out(array: NDArray[Any]) -> Out:
    """A device buffer that the kernel reads and writes."""
    return Out(array.shape, array.dtype, np.ascontiguousarray(array))


@dataclass(frozen=True)
class Struct:
    """An argument struct: arrays, At and Out become pointers, lists fill arrays, a name takes that field's pointer."""

    kind: type[ctypes.Structure]
    fields: dict[str, Any]

    def __init__(self, kind: type[ctypes.Structure], **fields: Any) -> None:
        unknown = set(fields) - {name for name, *_ in kind._fields_}
        assert not unknown, f"{kind.__name__} has no {sorted(unknown)}"
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "fields", fields)


MAX_BUFFERS = 64
MAX_LAUNCHES = 64


class TrafficCounts(ctypes.Structure):
    """Requests for one buffer; tools/hostcuda/trace.cpp."""

    _fields_ = tuple(
        (name, ctypes.c_longlong)
        for name in ("requests", "bytes", "sectors", "ideal_sectors", "block_sectors", "launch_sectors", "uncoalesced")
    )


class TotalCounts(ctypes.Structure):
    """tools/hostcuda/trace.cpp."""

    _fields_ = (
        ("reads", TrafficCounts * MAX_BUFFERS),
        ("writes", TrafficCounts * MAX_BUFFERS),
        *((name, ctypes.c_longlong) for name in ("shared_requests", "shared_passes", "shared_ideal_passes", "atomics")),
        ("kernel", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Traffic:
    """32-byte sectors of one buffer: asked for, needed for the bytes of each request, different in a block, in all."""

    requests: int
    bytes: int
    sectors: int
    ideal_sectors: int
    block_sectors: int
    launch_sectors: int
    uncoalesced: int  # requests whose lanes lie apart; tools/hostcuda/trace.cpp says how far


@dataclass(frozen=True)
class Trace:
    """Memory requests of a call; buffers are numbered as they appear in its arguments."""

    reads: dict[int, Traffic]
    writes: dict[int, Traffic]
    shared_requests: int
    shared_passes: int
    shared_ideal_passes: int
    atomics: int
    kernel: str = ""  # of a launch, with namespaces and parameters; empty for a fill or a copy
    launches: tuple[Trace, ...] = ()  # the same, launch by launch; their atomics are not counted apart


class LaunchError(Exception):
    """A launch was rejected or failed: the status code, its message, and the simulation's report."""

    def __init__(self, code: int, message: str, report: str) -> None:
        super().__init__(f"status {code}: {message}" + (f"\n{report}" if report else ""))
        self.code, self.message, self.report = code, message, report


class CrashError(Exception):
    """The process of the kernel ended; the text is what it wrote, a sanitizer's report for one."""


@dataclass(frozen=True)
class Request:
    """A request to the worker."""

    function: str
    arguments: tuple[Any, ...]
    as_struct: bool  # a C API function: struct, its size, stream, or nothing; else plain arguments
    order: tuple[str, int]


@dataclass(frozen=True)
class Reply:
    """A reply of the worker."""

    outputs: list[NDArray[Any]]
    code: int
    message: str
    report: str
    launches: int
    trace: Trace | None


# --- Calling ----------------------------------------------------------------------------------------------------------


@dataclass
class SimulatedGpu:
    """A library of kernels in a process of its own, restarted after a crash."""

    library: Path
    environment: dict[str, str] = field(default_factory=dict)
    launches: int = 0  # of the last call
    trace: Trace | None = None  # of the last call, in the "trace" flavour
    _worker: subprocess.Popen[bytes] | None = None
    _stderr: Any = None

    @property
    def flavour(self) -> str:
        """The flavour of the library."""
        return self.library.name.split("-")[-2]

    def launch(self, function: str, struct: Struct, order: tuple[str, int] = ("forward", 0)) -> list[NDArray[Any]]:
        """Call a function of the C API; its Outs, in order of appearance.

        Raises:
            LaunchError: the status was not 0.
            CrashError: the process ended.
        """
        return self._outputs(Request(function, (struct,), True, order))

    def call(self, function: str, *arguments: Any, order: tuple[str, int] = ("forward", 0)) -> list[NDArray[Any]]:
        """Call a function of pointers, C ints and floats that gives a cudaError_t; as `launch`."""
        return self._outputs(Request(function, arguments, False, order))

    def prepare(self) -> None:
        """Call `panrt_cuda_prepare`; raises as `launch`."""
        self._outputs(Request("panrt_cuda_prepare", (), True, ("forward", 0)))

    def close(self) -> None:
        """End the process. Idempotent."""
        if self._worker is not None:
            assert self._worker.stdin is not None
            assert self._worker.stdout is not None
            self._worker.stdin.close()
            self._worker.stdout.close()
            self._worker.wait()
            self._stderr.close()
            self._worker = None

    def _outputs(self, request: Request) -> list[NDArray[Any]]:
        reply = self._send(request)
        self.launches, self.trace = reply.launches, reply.trace
        if reply.code != 0:
            raise LaunchError(reply.code, reply.message, reply.report)
        return reply.outputs

    def _send(self, request: Request) -> Reply:
        if self._worker is None:
            self._start()
        assert self._worker is not None
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        try:
            pickle.dump(request, self._worker.stdin)
            self._worker.stdin.flush()
            reply: Reply = pickle.load(self._worker.stdout)
        except (EOFError, BrokenPipeError):
            status = self._worker.wait()
            self._stderr.seek(0)
            text = self._stderr.read().decode(errors="replace")
            self._worker.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                self._worker.stdin.close()
            self._stderr.close()
            self._worker = None
            raise CrashError(f"the simulation of {self.library.name} ended with status {status}\n{text}") from None
        return reply

    def _start(self) -> None:
        command = [sys.executable, "-m", "tools.hostcuda.worker", str(self.library)]
        environment = {**os.environ, **SANITIZER_OPTIONS, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        paths = [str(ROOT), str(ROOT / "python"), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        environment["PYTHONMALLOC"] = "malloc"
        if self.flavour in PRELOADED:
            environment["LD_PRELOAD"] = _runtime_library(PRELOADED[self.flavour])
        if self.flavour == "tsan":
            # ThreadSanitizer cannot place its shadow where the kernel randomises addresses by more than it knows.
            setarch = shutil.which("setarch")
            assert setarch is not None, "ThreadSanitizer needs setarch (util-linux)"
            command = [setarch, "-R", *command]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._worker = subprocess.Popen(
            command,
            env={**environment, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
