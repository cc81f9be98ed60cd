"""Phase 0: what the device says about itself, how fast it copies, and whether the libraries load."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from cuda.bindings import driver as cu

from gpu.checks import Checks
from gpu.device import Buffer, Event, Stream, attribute, call, open_context, sticky_error
from gpu.machine import FACTS, Machine, load_kernels

FUNCTIONS = (
    "rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge", "preprocess", "overlay", "narrow_map",
)  # fmt: skip
COPIES = 5  # of which the fastest counts


def run(checks: Checks, machine: Machine) -> None:
    """Fill facts.json on the way."""
    facts: dict[str, Any] = {"simulated": machine.simulated}
    with checks.check("a context opens") as check:
        open_context()
        checks.lost = sticky_error
        name: bytes = call(cu.cuDeviceGetName, 256, call(cu.cuDeviceGet, 0))
        facts["name"] = check.detail = name.partition(b"\0")[0].decode()
    with checks.check("driver and attributes") as check:
        facts["cuda_version"] = int(call(cu.cuDriverGetVersion))
        for key in ("COMPUTE_CAPABILITY_MAJOR", "COMPUTE_CAPABILITY_MINOR", "MULTIPROCESSOR_COUNT", "INTEGRATED"):
            facts[key.lower()] = attribute(key)
        check.figures |= facts
    with checks.check("facts for the simulation") as check:
        facts |= _simcuda_facts()
        check.figures["facts"] = len(facts)
    with checks.check("copy bandwidth") as check:
        facts["bandwidth"] = check.figures["GB/s"] = _bandwidth(4 << 20 if machine.simulated else 256 << 20)
    with checks.check("the kernel library loads and has every function") as check:
        library = load_kernels(machine)
        missing = [name for name in FUNCTIONS if not hasattr(library, f"panrt_cuda_{name}")]
        if missing:
            raise AttributeError(f"{machine.kernels}: lacks panrt_cuda_{missing[0]}")
    with checks.check("the kernels are built for this device") as check:
        check.figures |= _built_for(library, facts)
    (machine.folder / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def _simcuda_facts() -> dict[str, Any]:
    """Return what tests/simcuda/facts describes of a device."""
    from simcuda import facts  # noqa: PLC0415

    return dict(facts.measure_facts())


def _bandwidth(size: int) -> dict[str, float]:
    """Copy between pinned memory and the device, and on the device, whose bytes count twice."""
    stream = Stream()
    host = call(cu.cuMemHostAlloc, size, 0)
    one, other = Buffer(size, canary=0), Buffer(size, canary=0)
    copies = {
        "upload": (cu.cuMemcpyHtoDAsync, one.address, host, 1),
        "download": (cu.cuMemcpyDtoHAsync, host, one.address, 1),
        "device": (cu.cuMemcpyDtoDAsync, other.address, one.address, 2),
    }
    rates = {}
    before, after = Event(), Event()
    for name, (copy, target, source, times) in copies.items():
        seconds = []
        for _ in range(COPIES):
            before.record(stream)
            call(copy, target, source, size, stream.handle)
            after.record(stream)
            seconds.append(after.seconds_since(before))
        rates[name] = round(times * size / max(min(seconds), 1e-9) / 1e9, 2)
    one.close()
    other.close()
    call(cu.cuMemFreeHost, host)
    stream.close()
    return rates


def _built_for(library: ctypes.CDLL, facts: dict[str, Any]) -> dict[str, Any]:
    """Compare the architectures of the plugin library with the device.

    Raises:
        RuntimeError: it has neither code for the device nor PTX that the driver could compile.
    """
    if not hasattr(library, "panrt_plugins_info"):
        return {"architectures": "of the CPU"}  # the simulated kernels
    function = library.panrt_plugins_info
    function.restype = ctypes.c_char_p
    names = json.loads(function().decode())["cuda_architectures"].split(",")
    major, minor = facts["compute_capability_major"], facts["compute_capability_minor"]
    numbers = [int(name) for name in names if name.isdigit()]
    runs = [n for n in numbers if n // 10 == major and n % 10 <= minor]
    ptx = [int(name.split("-")[0]) for name in names if name.endswith("-ptx")]
    if not runs and not [n for n in ptx if n <= 10 * major + minor]:
        raise RuntimeError(f"the library has kernels for {','.join(names)}, the device is {major}.{minor}")
    return {"architectures": ",".join(names), "own code": bool(runs)}
