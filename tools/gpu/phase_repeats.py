"""Phase 2: the kernels that decide by atomics and spin for one another, many times, beside a second busy stream.

Whatever depends on the order of blocks would give other bytes some time, or hang, which the phase's time limit reports.
"""

from __future__ import annotations

from dataclasses import replace

from tools.gpu.checks import Checks, Record
from tools.gpu.device import Stream, open_context, sticky_error
from tools.gpu.local_gpu import Call, launch_of, opened, same_bytes
from tools.gpu.machine import Machine
from tools.kernel_workloads import OPS, WORKLOADS, Workload

REPEATS = {"panoptic_merge": 1000, "rpn_proposals": 200, "box_detections": 200}
SIMULATED_REPEATS, SMALL_REPEATS = 10, 3
BUSY_LAUNCHES = 4  # beside each call
RESERVE_SECONDS = 3.0
TINY = replace(
    WORKLOADS["tabletop"],
    name="tiny",
    hw=(64, 96),
    candidates=60,
    proposals=20,
    detections=6,
    instances=4,
    camera_hw=(64, 96),
)


def run(checks: Checks, machine: Machine) -> None:
    """Write one record per op and workload."""
    open_context()
    checks.lost = sticky_error
    for load in loads_of(machine):
        with opened(machine, launch_of(machine, OPS["preprocess BGR8"](load))) as busy:
            for op, most in REPEATS.items():
                few = SMALL_REPEATS if machine.profile == "small" else SIMULATED_REPEATS
                repeats = few if machine.simulated else most
                launch = launch_of(machine, OPS[op](load))
                name = f"{op}, {load.name}: {repeats} runs beside a busy stream give the same"
                with checks.check(name) as check, opened(machine, launch) as call:
                    _repeat(checks, check, call, busy, repeats)


def loads_of(machine: Machine) -> tuple[Workload, ...]:
    """Return the workloads that there is time for."""
    if machine.profile == "small":
        return (TINY,)
    return (WORKLOADS["tabletop"],) if machine.simulated else tuple(WORKLOADS.values())


def _repeat(checks: Checks, check: Record, call: Call, busy: Call, repeats: int) -> None:
    """Compare each run with the first.

    Raises:
        AssertionError: one gave something else.
    """
    stream, beside = Stream(), Stream()
    call.queue(stream)
    stream.synchronize()
    first = call.results()
    for done in range(repeats):
        check.figures["runs"] = done
        if checks.seconds_left < RESERVE_SECONDS:
            check.note(f"stopped after {done} of {repeats} runs for lack of time")
            break
        call.rewind()
        for _ in range(BUSY_LAUNCHES):
            busy.queue(beside)
        call.queue(stream)
        stream.synchronize()
        if not same_bytes(first, call.results()):
            raise AssertionError(f"{call.function}: run {done + 1} of {repeats} gave other bytes than the first")
    else:
        check.figures["runs"] = repeats
    call.check_inputs()
    beside.synchronize()
    stream.close()
    beside.close()
