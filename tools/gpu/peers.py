"""Equivalents of the ops in idiomatic PyTorch, on the same workloads."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tools import kernel_workloads
from tools.gpu.checks import MissingError
from tools.gpu.machine import Machine
from tools.gpu.network import import_torch
from tools.kernel_workloads import Workload

RUNS = 20
Run = Callable[[], Any]


def microseconds(machine: Machine, make: Callable[[], Run]) -> float:
    """Return the median of a run, the host's part included, as these synchronise."""
    torch = import_torch(machine)
    run = make()
    seconds = []
    with torch.inference_mode():
        for number in range(2 if machine.simulated else RUNS + 3):
            started = time.perf_counter()
            run()
            if not machine.simulated:
                torch.cuda.synchronize()
            if number or machine.simulated:
                seconds.append(time.perf_counter() - started)
    return round(1e6 * statistics.median(seconds), 1)


def _tensors(machine: Machine, arrays: Any) -> list[Any]:
    torch = import_torch(machine)
    device = "cpu" if machine.simulated else "cuda"
    return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]


def _torchvision() -> Any:
    try:
        return importlib.import_module("torchvision.ops")
    except ImportError as error:
        raise MissingError(f"torchvision does not import ({error})") from error


def _merge(load: Workload, machine: Machine) -> Run:
    torch = import_torch(machine)
    from tools.peers import torch_postprocessing  # noqa: PLC0415

    work = kernel_workloads.panoptic_merge(load)
    logits, boxes, scores, _, _, masks = _tensors(machine, work.inputs)
    options = {name: value for name, value in work.options.items() if name != "mask_threshold"}

    def run() -> Any:
        with torch.device(logits.device):  # what the peer allocates
            return torch_postprocessing.merge(logits, boxes[0], scores[0], masks[0], **options)

    return run


def _pooling(load: Workload, machine: Machine, *, rois: int, side: int) -> Run:
    work = kernel_workloads.roi_align(load, rois=rois, output_size=side, layout="NCHW", dtype=np.float16)
    ops = _torchvision()
    features, boxes = work.inputs
    if machine.simulated:
        features = [feature.astype(np.float32) for feature in features]  # a CPU pools no float16
    levels = {str(i): tensor for i, tensor in enumerate(_tensors(machine, features))}
    pool = ops.MultiScaleRoIAlign(list(levels), side, 0, canonical_scale=int(work.options["canonical_size"]))
    (chosen,) = _tensors(machine, boxes)
    chosen = chosen.to(levels["0"].dtype)
    return lambda: pool(levels, [chosen], [load.hw])


def _nms(load: Workload, machine: Machine) -> Run:
    ops = _torchvision()
    boxes, logits = kernel_workloads.box_detections(load).inputs[2], kernel_workloads.box_detections(load).inputs[0]
    chosen, scores = _tensors(machine, (boxes[0], logits[0].max(-1)))
    return lambda: ops.nms(chosen, scores, 0.5)


PEERS: dict[str, Callable[[Workload, Machine], Run]] = {
    "PyTorch, merge as detectron2": _merge,
    "torchvision, RoIAlign 7x7 fp16 of all levels": lambda load, machine: _pooling(
        load, machine, rois=load.proposals, side=7
    ),
    "torchvision, RoIAlign 14x14 fp16 of all levels": lambda load, machine: _pooling(
        load, machine, rois=load.detections, side=14
    ),
    "torchvision, NMS of all proposals": _nms,
}
