"""The simulated driver's functions as symbols, as programs find them that are linked with libcuda (PyCUDA).

cuda-python asks for all of them by cuGetProcAddress. For others each function that cuda.h declares becomes a symbol
that calls what cuGetProcAddress has under that name: an entry point, or a stub that says CUDA_ERROR_NOT_SUPPORTED.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

_DECLARATION = re.compile(r"CUresult\s+(cu\w+)\s*\(([^()]*)\)\s*;")
_LOOKED_UP = "cuGetProcAddress_v2"  # simcuda.cpp exports that one itself
_BEFORE = 12000  # the CUDA version of `name` where cuda.h declares a `name_v2` beside it: all those came later

_BEGIN = """\
#include <cuda.h>

// Those of cudaProfiler.h, which few packages have.
extern "C" CUresult cuProfilerInitialize(char const* config, char const* output, int mode);
extern "C" CUresult cuProfilerStart(void);
extern "C" CUresult cuProfilerStop(void);

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

template <typename Function>
Function look_up(char const* name, int version) {
  void* function = nullptr;
  cuGetProcAddress_v2(name, &function, version, 0, nullptr);
  return reinterpret_cast<Function>(function);
}

#define SYMBOL extern "C" __attribute__((visibility("default"))) CUresult
"""


def exports(headers: Path) -> str:
    """C++ source of the symbols of the cuda.h in a folder."""
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, "-E", "-P", "-x", "c++", "-isystem", str(headers), "-"]
    declared = subprocess.run(command, input=_BEGIN, check=True, capture_output=True, text=True).stdout
    functions = {name: parameters for name, parameters in _DECLARATION.findall(declared) if name != _LOOKED_UP}
    return _BEGIN + "".join(_symbol(name, functions) for name in functions)


def _symbol(name: str, functions: dict[str, str]) -> str:
    parameters = " ".join(functions[name].split())
    arguments = [] if parameters in ("", "void") else [_name(each) for each in parameters.split(",")]
    base = re.sub(r"_v\d+$", "", name)
    has_later = any(other.startswith(f"{name}_v") for other in functions)
    version = _BEFORE if has_later else "CUDA_VERSION"
    return (
        f"\nSYMBOL {name}({parameters}) {{\n"
        f'  static auto const entry_point = look_up<decltype(&{name})>("{base}", {version});\n'
        f"  return entry_point({', '.join(arguments)});\n}}\n"
    )


def _name(parameter: str) -> str:
    found = re.search(r"(\w+)\s*(\[\w*\])?$", parameter.strip())
    assert found is not None, parameter
    return found.group(1)
