"""Phase 2: the kernels that decide by atomics and spin for one another, many times, beside a second busy stream.

Whatever depends on the order of blocks would give other bytes some time, or hang, which the phase's time limit reports.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.kernel_workloads import OPS, WORKLOADS

from gpu.checks import Checks, Record
from gpu.device import Stream, open_context, sticky_error
from gpu.local_gpu import Call, LocalGpu, differing_bytes, ops
from gpu.machine import Machine

REPEATS = {"panoptic_merge": 1000, "rpn_proposals": 200, "box_detections": 200}
SMALL_REPEATS = 3
BUSY_LAUNCHES = 4  # beside each call
RESERVE_SECONDS = 3.0


def run(checks: Checks, machine: Machine) -> None:
    """One record for each op and workload."""
    small = machine.profile == "small"
    loads = WORKLOADS.values() if not machine.simulated else [WORKLOADS["tabletop"]]
    if small:
        loads = [replace(WORKLOADS["tabletop"], hw=(64, 96), candidates=60, proposals=20, detections=6, instances=4)]
    open_context()
    checks.lost = sticky_error
    cuda_ops = ops(machine)
    with checks.check("a second stream is kept busy"):
        load = next(iter(loads))
        busy, beside = OPS["preprocess BGR8"](replace(load, camera_hw=(64, 96)) if machine.simulated else load), Stream()
    for load in loads:
        for op, repeats in REPEATS.items():
            wanted = SMALL_REPEATS if small else repeats // 100 if machine.simulated else repeats
            with checks.check(f"{wanted} runs of {op}, {load.name}, give the same bytes beside a busy stream") as check:
                watch = _Repeats(checks, check, wanted)
                gpu = LocalGpu(machine, Stream(), watch=watch.look)
                traffic = LocalGpu(machine, beside, watch=watch.keep_busy(beside, gpu, cuda_ops, OPS[op](load)))
                cuda_ops.preprocess(*busy.inputs, **busy.options, gpu=traffic)


class _Repeats:
    """Runs a call again and again while another stream works."""

    def __init__(self, checks: Checks, check: Record, wanted: int) -> None:
        self._checks, self._check, self._wanted = checks, check, wanted

    def keep_busy(self, beside: Stream, gpu: LocalGpu, cuda_ops: object, load: object) -> object:
        """Return what runs `load` while the call that it watches is queued again and again."""

        def watch(function: str, busy: Call) -> None:
            del function
            self._beside, self._busy = beside, busy
            getattr(cuda_ops, load.function)(*load.inputs, **load.options, gpu=gpu)
            beside.synchronize()

        self._stream = gpu.stream
        return watch

    def look(self, function: str, call: Call) -> None:
        """Compare each run with the first."""
        first = call.results()
        for done in range(1, self._wanted + 1):
            if self._checks.seconds_left < RESERVE_SECONDS:
                self._check.note(f"stopped after {done - 1} of {self._wanted} runs for want of time")
                break
            call.buffers.rewind()
            for _ in range(BUSY_LAUNCHES):
                self._busy.queue(self._beside)
            call.queue(self._stream)
            self._stream.synchronize()
            if different := differing_bytes(first, call.results()):
                raise AssertionError(f"{function}: run {done} of {self._wanted} gave {different} other bytes")
            self._beside.synchronize()
        self._check.figures["runs"] = done
