"""Phase 0: properties of the device, its copy bandwidth, and loading of the libraries."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from cuda.bindings import driver as cu

from tools.gpu.bandwidth import bandwidth
from tools.gpu.checks import Checks
from tools.gpu.device import attribute, call, open_context, sticky_error
from tools.gpu.machine import FACTS, Machine, load_kernels
from tools.simcuda import facts

FUNCTIONS = (
    "rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge", "preprocess", "overlay", "narrow_map",
)  # fmt: skip
ATTRIBUTES = ("COMPUTE_CAPABILITY_MAJOR", "COMPUTE_CAPABILITY_MINOR", "MULTIPROCESSOR_COUNT", "INTEGRATED")


def run(checks: Checks, machine: Machine) -> None:
    """Write one record per check, and facts.json, which describes this device for the simulated driver."""
    with checks.check("a context opens") as check:
        open_context()
        checks.lost = sticky_error
        name: bytes = call(cu.cuDeviceGetName, 256, call(cu.cuDeviceGet, 0))
        check.detail = name.partition(b"\0")[0].decode()
    with checks.check("driver and attributes") as check:
        check.figures["CUDA"] = int(call(cu.cuDriverGetVersion))
        check.figures |= {name: attribute(name) for name in ATTRIBUTES}
    with checks.check("facts for the simulation") as check:
        check.figures["facts"] = _write_facts(machine)
    with checks.check("copy bandwidth") as check:
        check.figures["GB/s"] = bandwidth(4 << 20 if machine.simulated else 256 << 20)
    with checks.check("the kernel library loads and has every function") as check:
        library = load_kernels(machine)
        missing = [name for name in FUNCTIONS if not hasattr(library, f"panrt_cuda_{name}")]
        if missing:
            raise AttributeError(f"{machine.kernels}: lacks panrt_cuda_{missing[0]}")
    with checks.check("the kernels are built for this device") as check:
        check.figures |= _built_for(library)


def _write_facts(machine: Machine) -> int:
    """Write what tools/simcuda/facts describes of a device; return how many facts."""
    measured = facts.measure_facts()
    facts.write(measured, machine.folder / FACTS)
    return len(measured)


def _built_for(library: ctypes.CDLL) -> dict[str, Any]:
    """Compare the architectures of the plugin library with the device.

    Raises:
        RuntimeError: it has neither code for the device nor PTX that the driver could compile.
    """
    if not hasattr(library, "panrt_plugins_info"):
        return {"architectures": "of the CPU"}  # the simulated kernels
    function = library.panrt_plugins_info
    function.restype = ctypes.c_char_p
    names = json.loads(function().decode())["cuda_architectures"].split(",")
    major, minor = attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")
    numbers = [int(name) for name in names if name.isdigit()]
    runs = [n for n in numbers if n // 10 == major and n % 10 <= minor]
    ptx = [int(name.split("-")[0]) for name in names if name.endswith("-ptx")]
    if not runs and not [n for n in ptx if n <= 10 * major + minor]:
        raise RuntimeError(f"the library has kernels for {','.join(names)}, the device is {major}.{minor}")
    return {"architectures": ",".join(names), "own code": bool(runs)}
