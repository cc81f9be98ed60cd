"""CUDA kernels as nvcc compiles them, on the interpreter of tools/ptxsim, behind the same `SimulatedGpu`.

`kernels` compiles the unmodified plugins/cuda for the interpreter: host code by nvcc, device code as PTX that stays in
the library, the CUDA runtime replaced. `interpreter` is the machine alone, for PTX that a test has written.

    gpu = SimulatedGpu(kernels(), {"PTXSIM_COUNTS": "counts.json"})
    gpu.launch("panrt_cuda_overlay", Struct(OverlayArgs, ...), ("random", 7))
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ROOT = Path(__file__).resolve().parents[2]
PTXSIM = ROOT / "tools" / "ptxsim"
CUDA = ROOT / "plugins" / "cuda"
FOLDER = ROOT / "build" / "ptxsim"
KERNEL_INCLUDE = [CUDA, CUDA / "include", ROOT / "plugins" / "include"]
# As the plugin library has them; the PTX is for what both Jetson Orin and later GPUs take.
NVCC_FLAGS = [
    *("-std=c++17", "-O3", "--fmad=false", "-lineinfo"),
    *("-gencode", "arch=compute_87,code=compute_87", "--no-compress", "-cudart", "none", "-Xcompiler", "-fPIC"),
]
# Arithmetic is the GPU's: one rounding per operation.
CXX_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-Wall", "-Wextra"]


def has_nvcc() -> bool:
    """Return whether kernels can be compiled here."""
    return shutil.which("nvcc") is not None


def interpreter() -> Path:
    """The machine and its interface as a shared library; it needs no CUDA toolkit."""
    sources = [path for path in sorted(PTXSIM.glob("*.cpp")) if path.name != "runtime.cpp"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _linked("machine", list(pool.map(_machine_object, sources)))


def kernels() -> Path:
    """The library of all kernels in plugins/cuda, with their C interface."""
    return build("kernels", [*sorted(CUDA.glob("*.cu")), CUDA / "c_api.cpp"])


def build(name: str, sources: Sequence[Path], definitions: Sequence[str] = ()) -> Path:
    """A shared library of sources that nvcc compiles and the machine; what has been compiled already is reused."""
    flags = [*NVCC_FLAGS, *(f"-I{path}" for path in KERNEL_INCLUDE), *(f"-D{name}" for name in definitions)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = pool.map(lambda source: _object(source, ["nvcc", *flags], KERNEL_INCLUDE), sources)
        machine = pool.map(_machine_object, sorted(PTXSIM.glob("*.cpp")))
        return _linked(name, [*objects, *machine])


def _machine_object(source: Path) -> Path:
    if source.name == "runtime.cpp":  # nvcc knows where CUDA's headers are
        return _object(source, ["nvcc", "-std=c++17", "-O2", "-Xcompiler", "-fPIC,-Wall,-Wextra"], [PTXSIM])
    return _object(source, [_cxx(), *CXX_FLAGS], [PTXSIM])


def _linked(name: str, objects: Sequence[Path]) -> Path:
    digest = hashlib.sha256("".join(path.name for path in objects).encode()).hexdigest()[:16]
    return _once(FOLDER / f"{name}-ptxsim-{digest}.so", [_cxx(), "-shared", "-Wl,--no-undefined", *map(str, objects)])


def _object(source: Path, command: list[str], include: Sequence[Path]) -> Path:
    digest = hashlib.sha256(repr(command).encode() + _headers(tuple(include)) + source.read_bytes()).hexdigest()[:16]
    return _once(FOLDER / f"{source.stem}-{digest}.o", [*command, "-c", str(source)])


@cache
def _headers(folders: tuple[Path, ...]) -> bytes:
    paths = [path for folder in folders for path in sorted(folder.rglob("*.h"))]
    return b"".join(path.name.encode() + path.read_bytes() for path in paths)


def _cxx() -> str:
    return os.environ.get("CXX", "g++")


def _once(target: Path, command: list[str]) -> Path:
    """Make what is not there yet; who comes while it is made waits for it."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f"new-{target.name}")
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, " ".join(command) + "\n" + done.stderr
            assert not done.stderr, done.stderr  # a warning
            made.replace(target)
    return target


# --- PTX that a test has written --------------------------------------------------------------------------------------


class PtxError(Exception):
    """A module or launch was rejected, or a kernel stopped; the text is the interpreter's report."""


class Machine:
    """The interpreter in this process.

    machine = Machine()
    (doubled,) = machine.run(DOUBLE, numbers, threads=32)
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(interpreter()))
        self._library.hc_malloc.restype = ctypes.c_void_p
        self._library.hc_malloc.argtypes = [ctypes.c_size_t]
        self._library.hc_free.argtypes = [ctypes.c_void_p]
        self._library.hc_report.restype = ctypes.c_char_p
        self._library.px_load.restype = ctypes.c_void_p
        self._library.px_counts.restype = ctypes.c_char_p
        self._modules: dict[str, int] = {}

    def run(
        self,
        text: str,
        *arguments: NDArray[Any] | np.generic,
        blocks: int = 1,
        threads: int = 32,
        shared: int = 0,
        order: tuple[str, int] = ("forward", 0),
        resident: int = 0,
        weak: int = -1,
        patience: int = 200_000,
    ) -> list[NDArray[Any]]:
        """Launch the kernel `k` of a module: with arrays as buffers, which are returned, and scalars by value.

        Raises:
            PtxError: as the class says.
        """
        if text not in self._modules:
            module = self._library.px_load(text.encode())
            if module is None:
                raise PtxError(self._library.hc_report().decode())
            self._modules[text] = module
        self._library.hc_set_order(order[0].encode(), order[1])
        self._library.px_set_machine(resident, weak, 1, ctypes.c_ulonglong(patience))
        arrays = [np.ascontiguousarray(a) for a in arguments if isinstance(a, np.ndarray)]
        buffers = [self._library.hc_malloc(array.nbytes) for array in arrays]
        try:
            for buffer, array in zip(buffers, arrays, strict=True):
                ctypes.memmove(buffer, array.ctypes.data, array.nbytes)
            places = iter(buffers)
            values = [np.uint64(next(places)) if isinstance(a, np.ndarray) else a for a in arguments]
            cells = [np.array(value) for value in values]
            pointers = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
            module = ctypes.c_void_p(self._modules[text])
            if self._library.px_launch(module, b"k", blocks, threads, shared, pointers) != 0:
                raise PtxError(self._library.hc_report().decode())
            results = [np.empty_like(array) for array in arrays]
            for buffer, result in zip(buffers, results, strict=True):
                ctypes.memmove(result.ctypes.data, buffer, result.nbytes)
            return results
        finally:
            for buffer in buffers:
                self._library.hc_free(buffer)

    def counts(self) -> dict[str, Any]:
        """Warp instructions since `reset_counts`, as $PTXSIM_COUNTS has them."""
        counts: dict[str, Any] = json.loads(self._library.px_counts())
        return counts

    def reset_counts(self) -> None:
        """Begin to count anew."""
        self._library.px_reset_counts()


_REGISTERS = {np.dtype(t): kind for t, kind in zip("HhIiQqefd", "hhrrllhfd", strict=True)}
_MOVES = {1: "b8", 2: "b16", 4: "b32", 8: "b64"}


def kernel(parameters: int, body: str, declarations: str = "") -> str:
    """A module with the kernel `k` of pointers %a0, %a1, ... and registers %h, %r, %l, %f, %d, %p of each width."""
    names = range(parameters)
    listed = ", ".join(f".param .u64 p{i}" for i in names)
    loads = "\n".join(f"ld.param.u64 %a{i}, [p{i}]; cvta.to.global.u64 %a{i}, %a{i};" for i in names)
    return f"""
.version 8.0
.target sm_87
.address_size 64
{declarations}
.entry k({listed}) {{
.reg .b64 %a<{parameters + 1}>;
.reg .b16 %h<20>; .reg .b32 %r<40>; .reg .b64 %l<40>; .reg .f32 %f<20>; .reg .f64 %d<20>; .reg .pred %p<20>;
{loads}
{body}
ret;
}}
"""


def evaluate(machine: Machine, instruction: str, result: DTypeLike, *sources: NDArray[Any]) -> NDArray[Any]:
    """Run one instruction, with {d}, {a}, {b}, {c} for its registers, on numbers: one thread for each."""
    count, made = len(sources[0]), np.dtype(result)
    registers = {"d": f"%{_REGISTERS[made]}10"}
    body = ["mov.u32 %r30, %tid.x; mov.u32 %r31, %ctaid.x; mad.lo.u32 %r30, %r31, 32, %r30;"]
    for i, source in enumerate(sources):
        registers["abc"[i]] = name = f"%{_REGISTERS[source.dtype]}{i}"
        body += [
            f"mul.wide.u32 %l30, %r30, {source.itemsize}; add.s64 %l30, %a{i}, %l30;",
            f"ld.global.{_MOVES[source.itemsize]} {name}, [%l30];",
        ]
    body += [
        f"{instruction.format(**registers)};",
        f"mul.wide.u32 %l30, %r30, {made.itemsize}; add.s64 %l30, %a{len(sources)}, %l30;",
        f"st.global.{_MOVES[made.itemsize]} [%l30], {registers['d']};",
    ]
    padded = [np.resize(source, -(-count // 32) * 32) for source in sources]
    text = kernel(len(sources) + 1, "\n".join(body))
    output = np.zeros(len(padded[0]), made)
    return machine.run(text, *padded, output, blocks=len(output) // 32)[-1][:count]
