"""Phase 5: the network in PyTorch with the CUDA kernels, in three precisions: panoptic quality and differing pixels.

Differences to the CPU come from rounding: fused multiply-adds and another order of sums in float32, 10 bits of mantissa
in TF32 and float16. They sit on the edges of segments, so they are few, and the quality stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tools.gpu import expected
from tools.gpu.checks import Checks, MissingError, Record
from tools.gpu.device import open_context, sticky_error
from tools.gpu.machine import Machine
from tools.gpu.network import HW, Found, Network, Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "fp16")
DIFFERING: dict[Precision, float] = {"fp32": 0.001, "tf32": 0.01, "fp16": 0.01}  # share of pixels, on average
QUALITY: dict[Precision, float] = {"fp32": 0.002, "tf32": 0.01, "fp16": 0.01}  # of PQ, which goes from 0 to 1
RESERVE_SECONDS = 4.0


def run(checks: Checks, machine: Machine) -> None:
    """Write one record per precision."""
    with checks.check("the expected maps can be read"):
        if not machine.expected:
            raise MissingError("--expected was not given; python -m tools.gpu.expected FILE writes such a file")
        data = expected.read(machine.expected)
    if not machine.expected:
        return
    open_context()
    checks.lost = sticky_error
    for done, precision in enumerate(PRECISIONS):
        with checks.check(f"{precision}: panoptic quality and differing pixels") as check:
            if machine.simulated and precision != "fp32":
                raise MissingError("needs a GPU")
            share = (checks.seconds_left - RESERVE_SECONDS) / (len(PRECISIONS) - done)
            _compare(check, machine, data, precision, seconds=share, checks=checks)


def _compare(
    check: Record, machine: Machine, data: expected.Expected, precision: Precision, *, seconds: float, checks: Checks
) -> None:
    """Run as many frames as there is time for.

    Raises:
        AssertionError: too many pixels differ, or the quality does.
    """
    network = Network(machine, precision=precision)
    end = checks.seconds_left - seconds
    found: list[Found] = []
    for image in data.images:
        if image.shape[:2] != HW or (checks.seconds_left < end and found):
            break
        found.append(network.run(image))
    assert found, f"no frame of {HW[0]} x {HW[1]} in {machine.expected}"
    shares = [float(np.mean(f.panoptic != wanted)) for f, wanted in zip(found, data.panoptic, strict=False)]
    others = sum(_names(f.segments.tolist()) != _names(wanted) for f, wanted in zip(found, data.segments, strict=False))
    here = _quality(network, data, [(f.panoptic, f.segments.tolist()) for f in found])
    cpu = _quality(network, data, list(zip(data.panoptic[: len(found)], data.segments, strict=False)))
    check.figures |= {
        "frames": len(found),
        "differing %": round(100 * float(np.mean(shares)), 4),
        "worst frame %": round(100 * max(shares), 4),
        "frames with other segments": others,
        "PQ": round(100 * here, 3),
        "PQ on the CPU": round(100 * cpu, 3),
    }
    assert np.mean(shares) <= DIFFERING[precision], (
        f"{100 * np.mean(shares):.3f} % of the pixels differ, allowed {100 * DIFFERING[precision]:.1f} %"
    )
    assert abs(here - cpu) <= QUALITY[precision], f"PQ is {100 * here:.2f}, on the CPU {100 * cpu:.2f}"
    if len(found) < len(data.images):
        check.note(f"{len(found)} of {len(data.images)} frames for lack of time")


def _names(segments: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(category, is_thing) for _, category, is_thing, *_ in segments]


def _quality(network: Network, data: expected.Expected, maps: Sequence[tuple[Any, Any]]) -> float:
    """Return PQ of maps, with rows of the merge, against the annotation."""
    from panrt.model.panoptic_map import Category, PanopticMap, Segment  # noqa: PLC0415
    from panrt.model.panoptic_quality import evaluate  # noqa: PLC0415

    file = network.file
    categories = [Category(c.id, c.name, c.is_thing) for c in (*file.things, *file.stuff)]
    pairs = []
    for (ids, rows), truth, annotated in zip(maps, data.truth, data.truth_segments, strict=False):
        segments = [Segment(row[0], file.category(row[1], is_thing=bool(row[2])).id) for row in rows]
        wanted = [Segment(identity, category, area) for identity, category, area in annotated]
        pairs.append((PanopticMap(truth, wanted), PanopticMap(ids, segments)))
    return float(evaluate(pairs, categories).all.pq)
