"""Phase 6: times of the kernels on the workloads of the kernel report, beside PyTorch.

A graph of many runs is launched and timed by events, so that no figure holds what a launch costs the host. Inputs stay
in the cache where they fit, as what a layer has just written does.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from cuda.bindings import driver as cu

from panrt.plugins import library
from tools.gpu import peers
from tools.gpu.bandwidth import bandwidth
from tools.gpu.checks import Checks
from tools.gpu.device import Event, Stream, call, open_context, sticky_error
from tools.gpu.local_gpu import launch_of, opened
from tools.gpu.machine import MEASURED, Machine
from tools.gpu.phase_repeats import loads_of
from tools.kernel_workloads import OPS, REPORT, SECTOR, Call, Workload, roi_align

RUNS_IN_GRAPH, GRAPHS = 20, 15
RESERVE_SECONDS = 10.0
# Beside those of the report: channels first in the type of the vectors, against which HWC is compared.
LAYOUTS: dict[str, Callable[[Workload], Call]] = {
    "roi_align 7x7, linear fp16": lambda load: roi_align(
        load, rois=load.proposals, output_size=7, layout="NCHW", dtype=np.float16
    ),
    "roi_align 14x14, linear fp16": lambda load: roi_align(
        load, rois=load.detections, output_size=14, layout="NCHW", dtype=np.float16
    ),
}


def run(checks: Checks, machine: Machine) -> None:
    """Write one record per op and peer, and measured.json, which `benchmarks.kernel_report --measured` reads."""
    open_context()
    checks.lost = sticky_error
    name: bytes = call(cu.cuDeviceGetName, 256, call(cu.cuDeviceGet, 0))
    measured: dict[str, Any] = {
        "device": name.partition(b"\0")[0].decode(),
        "simulated": machine.simulated,
        "sources_sha256": library.sources_sha256(),
        "workloads": {},
        "peers": {},
    }
    with checks.check("bandwidth of the device's memory") as check:
        measured["bandwidth_gb_s"] = bandwidth(4 << 20 if machine.simulated else 256 << 20)["device"]
        check.figures["GB/s"] = measured["bandwidth_gb_s"]
    for load in loads_of(machine):
        found = measured["workloads"][load.name] = {}
        for op, make in (OPS | LAYOUTS).items():
            if checks.seconds_left < RESERVE_SECONDS:
                break
            with checks.check(f"{op}, {load.name}") as check:
                check.figures |= _timed(machine, load, op, make(load), measured.get("bandwidth_gb_s", 0.0))
                found[op] = dict(check.figures)
        measured["peers"][load.name] = _run_peers(checks, machine, load)
    (machine.folder / MEASURED).write_text(json.dumps(measured, indent=1) + "\n")


def _timed(machine: Machine, load: Workload, op: str, work: Call, gb_per_second: float) -> dict[str, float]:
    """Return microseconds of a run, launches, and the share of the bandwidth that the least traffic would take."""
    runs, graphs = (1, 1) if machine.simulated else (RUNS_IN_GRAPH, GRAPHS)
    stream, before, after = Stream(), Event(), Event()
    with opened(machine, launch_of(machine, work)) as kernels:
        kernels.queue(stream)
        stream.synchronize()
        with stream.capture() as graph:
            for _ in range(runs):
                kernels.queue(stream)
        seconds = []
        for _ in range(graphs):
            before.record(stream)
            graph.launch()
            after.record(stream)
            seconds.append(after.seconds_since(before) / runs)
        graph.close()
    stream.close()
    median = statistics.median(seconds)
    figures = {"us": round(1e6 * median, 2), "launches": graph.nodes // runs}
    if gb_per_second and median:
        figures["share"] = round(_least_bytes(load, op, work) / median / (1e9 * gb_per_second), 3)
    return figures


def _least_bytes(load: Workload, op: str, work: Call) -> int:
    """Return the ideal traffic of the kernel report; channels first has that of the same pooling in HWC."""
    reported = json.loads(REPORT.read_text())["traffic"].get(load.name, {})
    facts = reported.get(op) or reported.get(op.replace("linear", "HWC"))
    return SECTOR * int(facts["ideal_sectors"]) if facts else work.ideal_bytes


def _run_peers(checks: Checks, machine: Machine, load: Workload) -> dict[str, float]:
    found = {}
    for name, peer in peers.PEERS.items():
        if checks.seconds_left < RESERVE_SECONDS:
            break
        with checks.check(f"peer {name}, {load.name}") as check:
            found[name] = check.figures["us"] = peers.microseconds(machine, partial(peer, load, machine))
    return found
