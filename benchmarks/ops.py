"""The four ops on this machine's CPU, compared with other implementations of the same work.

Contenders take turns, so a ratio compares like with like on a noisy machine; the milliseconds themselves do not travel.
A ratio is the contender's median over that of PanRT's kernel, hence 5.0 means "takes five times as long".
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Run, Timing, in_fresh_process, interleave, machine, peak_memory, write_json
from panrt.plugins import native, reference
from panrt.plugins.contract import Float32, Int32

STRIDES = (4, 8, 16, 32)
ANCHOR_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
RPN: dict[str, Any] = {
    "strides": (*STRIDES, 64),
    "anchor_sizes": ANCHOR_SIZES,
    "aspect_ratios": (0.5, 1.0, 2.0),
    "pre_nms_top_k": 1000,
    "post_nms_top_k": 1000,
    "nms_threshold": 0.7,
}
BOX: dict[str, Any] = {
    "box_weights": (10.0, 10.0, 5.0, 5.0),
    "score_threshold": 0.05,
    "nms_threshold": 0.5,
    "max_detections": 100,
}
MERGE: dict[str, Any] = {"score_threshold": 0.5, "overlap_threshold": 0.5, "stuff_area_limit": 4096}


class Workload(NamedTuple):
    """Contenders for one op at one size, made for a number of threads. The first is PanRT's kernel."""

    title: str
    contenders: Callable[[int], Mapping[str, Run]]


def has(package: str) -> bool:
    """Return whether a peer is installed."""
    return importlib.util.find_spec(package) is not None


def random_boxes(rng: np.random.Generator, count: int, hw: tuple[int, int], sides: tuple[float, float]) -> Float32:
    """Return (count, 4) boxes inside the image, sides log-uniform, aspect ratios from 1/2 to 2."""
    side = np.exp(rng.uniform(np.log(sides[0]), np.log(sides[1]), count))
    aspect = np.exp(rng.uniform(-np.log(2), np.log(2), count) / 2)
    w, h = np.minimum(side * aspect, hw[1]), np.minimum(side / aspect, hw[0])
    x, y = rng.uniform(0, hw[1] - w), rng.uniform(0, hw[0] - h)
    return np.stack([x, y, x + w, y + h], axis=1).astype(np.float32)


def smooth(rng: np.random.Generator, shape: tuple[int, ...], cell: int) -> Float32:
    """Random maps (..., h, w) that vary over about `cell` cells, as a network's outputs do; deviation 3."""
    h, w = shape[-2:]
    coarse = rng.standard_normal((*shape[:-2], h // cell + 2, w // cell + 2)).astype(np.float32)

    def along(axis: int, size: int, values: Float32) -> Float32:
        position = np.arange(size) / cell
        i, t = position.astype(int), (position % 1).astype(np.float32)
        t = t.reshape((-1, 1) if axis == -2 else (-1,))
        return values.take(i, axis) * (1 - t) + values.take(i + 1, axis) * t

    return np.ascontiguousarray(3 * along(-1, w, along(-2, h, coarse)))


# --- workloads --------------------------------------------------------------------------------------------------------


def roi_align(sampling_ratio: int) -> Workload:
    """1000 boxes x 256 channels x 7 x 7 from P2-P5 of 512 x 1024."""
    S = 7

    def contenders(threads: int) -> Mapping[str, Run]:
        rng = np.random.default_rng(0)
        nchw = [rng.standard_normal((1, 256, 512 // s, 1024 // s), np.float32) for s in STRIDES]
        nhwc = [np.ascontiguousarray(f.transpose(0, 2, 3, 1)) for f in nchw]
        rois = random_boxes(rng, 1000, (512, 1024), (16, 640))
        options: dict[str, Any] = {"strides": STRIDES, "output_size": S, "sampling_ratio": sampling_ratio}
        runs: dict[str, Run] = {
            "PanRT, NHWC in and out": lambda: native.pyramid_roi_align(
                nhwc, rois[None], **options, layout="NHWC", threads=threads
            ),
            "PanRT, NCHW in and out": lambda: native.pyramid_roi_align(nchw, rois[None], **options, threads=threads),
        }
        levels = np.clip([reference.pyramid_level(roi, 224.0, 4) for roi in rois], 2, 5).astype(int)
        level_rois = [rois[levels == i + 2] for i in range(len(STRIDES))]
        if has("onnxruntime"):
            from tools.peers import onnxruntime_ops

            runs["onnxruntime RoiAlign a level"] = onnxruntime_ops.roi_align_per_level(
                nchw, level_rois, **options, threads=threads
            )
        if has("torchvision"):
            import torch
            from torchvision.ops import roi_align as torchvision_roi_align

            tensors = [torch.from_numpy(f) for f in nchw]
            boxes = [torch.from_numpy(r) for r in level_rois]

            def torchvision_run() -> object:
                torch.set_num_threads(threads)
                return [
                    torchvision_roi_align(f, [b], S, 1 / s, sampling_ratio, aligned=True)
                    for f, b, s in zip(tensors, boxes, STRIDES, strict=True)
                ]

            runs["torchvision roi_align a level"] = torchvision_run
        return runs

    samples = f"sampling ratio {sampling_ratio}" if sampling_ratio else "adaptive sampling"
    return Workload(f"RoIAlign 1000 x 256 x 7 x 7, P2-P5 of 512 x 1024, {samples}", contenders)


def rpn_proposals(input_hw: tuple[int, int]) -> Workload:
    """Logits of a smooth objectness map, deltas that move boxes a little."""

    def contenders(threads: int) -> Mapping[str, Run]:
        rng = np.random.default_rng(1)
        sizes = [(-(-input_hw[0] // s), -(-input_hw[1] // s)) for s in RPN["strides"]]
        logits = [smooth(rng, (1, 3, *hw), 4) + rng.standard_normal((1, 3, *hw), np.float32) for hw in sizes]
        deltas = [0.2 * rng.standard_normal((1, 12, *hw), np.float32) for hw in sizes]
        runs: dict[str, Run] = {
            "PanRT": lambda: native.rpn_proposals(logits, deltas, **RPN, input_hw=input_hw, threads=threads)
        }
        if has("onnxruntime"):
            from tools.peers import onnxruntime_ops

            runs["onnxruntime TopK + NonMaxSuppression"] = onnxruntime_ops.rpn_proposals(
                logits, deltas, **RPN, input_hw=input_hw, threads=threads
            )
        return runs

    return Workload(f"RpnProposals {input_hw[0]} x {input_hw[1]}, 1000 a level, 1000 out", contenders)


def box_detections() -> Workload:
    """1000 RoIs x 81 classes; one RoI in five is an object, several RoIs an object."""

    def contenders(threads: int) -> Mapping[str, Run]:
        rng = np.random.default_rng(2)
        R, C, hw = 1000, 80, (800, 1344)
        objects = random_boxes(rng, 40, hw, (32, 500))
        rois = (objects[rng.integers(0, 40, R)] + rng.normal(0, 6, (R, 4))).clip(0).astype(np.float32)
        rois[:, 2:] = np.maximum(rois[:, 2:], rois[:, :2] + 4)
        logits = rng.standard_normal((R, C + 1), np.float32)
        logits[:, C] += 6
        found = rng.random(R) < 0.2
        logits[found, rng.integers(0, C, found.sum())] += 8
        deltas = rng.standard_normal((R, 4 * C), np.float32)
        options: dict[str, Any] = {**BOX, "input_hw": hw}
        runs: dict[str, Run] = {
            "PanRT": lambda: native.box_detections(
                logits[None], deltas[None], rois[None], np.array([R], np.int32), **options, threads=threads
            )
        }
        if has("onnxruntime"):
            from tools.peers import onnxruntime_ops

            runs["onnxruntime Softmax + NonMaxSuppression"] = onnxruntime_ops.box_detections(
                logits[None], deltas[None], rois[None], **options, threads=threads
            )
        return runs

    return Workload("BoxDetections 1000 x 81, 100 out", contenders)


def panoptic_merge(input_hw: tuple[int, int], output_hw: tuple[int, int], logits: str) -> Workload:
    """100 masks over an output, mean box 2 % of it, 54 semantic channels."""

    def contenders(threads: int) -> Mapping[str, Run]:
        rng = np.random.default_rng(3)
        K, S = 100, 54
        h, w = (-(-side // 32) * 8 for side in input_hw)
        semantic = (
            smooth(rng, (1, S, h, w), 24) if logits == "smooth" else rng.standard_normal((1, S, h, w), np.float32)
        )
        side = float(np.sqrt(0.02 * input_hw[0] * input_hw[1]))
        boxes = random_boxes(rng, K, input_hw, (side / 2, side * 1.7))
        scores = np.sort(rng.uniform(0.5, 1, K).astype(np.float32))[::-1].copy()
        y, x = np.mgrid[:28, :28] / 27 * 2 - 1
        blob = 1.2 - np.hypot(y, x)
        noise = 0.15 * smooth(rng, (K, 28, 28), 7)
        masks = (1 / (1 + np.exp(-6 * (blob + noise)))).astype(np.float32)
        classes: Int32 = rng.integers(0, 80, (1, K), np.int32)
        options: dict[str, Any] = {"input_hw": input_hw, "output_hw": output_hw, **MERGE}
        runs: dict[str, Run] = {
            "PanRT": lambda: native.panoptic_merge(
                semantic,
                boxes[None],
                scores[None],
                classes,
                np.array([K], np.int32),
                masks[None],
                **options,
                threads=threads,
            )
        }
        if has("torch"):
            import torch

            from tools.peers import torch_postprocessing

            tensors = [torch.from_numpy(array) for array in (semantic, boxes, scores, masks)]

            def torch_run() -> object:
                torch.set_num_threads(threads)
                return torch_postprocessing.merge(*tensors, **options)

            runs["PyTorch, detectron2's way"] = torch_run
        return runs

    source = "" if input_hw == output_hw else f" from {input_hw[0]} x {input_hw[1]}"
    return Workload(
        f"PanopticMerge 100 masks, 54 channels, {output_hw[0]} x {output_hw[1]}{source}, {logits} logits", contenders
    )


WORKLOADS = {
    "roi_align_2": roi_align(2),
    "roi_align_adaptive": roi_align(0),
    "proposals_800x1344": rpn_proposals((800, 1344)),
    "proposals_512x1024": rpn_proposals((512, 1024)),
    "detections": box_detections(),
    "merge_1024x2048": panoptic_merge((1024, 2048), (1024, 2048), "smooth"),
    "merge_1024x2048_noise": panoptic_merge((1024, 2048), (1024, 2048), "noise"),
    "merge_1080x1920": panoptic_merge((1080, 1920), (1080, 1920), "smooth"),
    "merge_1024x2048_from_512x1024": panoptic_merge((512, 1024), (1024, 2048), "smooth"),
}
SHORT = ("roi_align_2", "proposals_800x1344", "detections", "merge_1024x2048")


# --- the run ----------------------------------------------------------------------------------------------------------


def measure(name: str, threads: int, seconds: float) -> list[Timing]:
    """Times from this process, peak memory of each contender from a process of its own."""
    timings = interleave(WORKLOADS[name].contenders(threads), seconds=seconds)
    if not sys.platform.startswith("linux"):
        return timings
    peaks = [
        float(in_fresh_process("benchmarks.ops", ["--peak", name, timing.contender, "--threads", str(threads)]))
        for timing in timings
    ]
    return [
        Timing(t.contender, t.median_ms, t.best_ms, t.rounds, t.ratio, peak)
        for t, peak in zip(timings, peaks, strict=True)
    ]


def show(title: str, timings: list[Timing], console: Console) -> None:
    """Print one workload as a table."""
    table = Table(box=None, header_style="dim", min_width=78)
    table.add_column("contender", min_width=38)
    for column in ("median ms", "best ms", "peak MB", "x PanRT"):
        table.add_column(column, justify="right")
    for t in timings:
        memory = "" if t.peak_mb is None else f"{t.peak_mb:.1f}"
        table.add_row(t.contender, f"{t.median_ms:.2f}", f"{t.best_ms:.2f}", memory, f"{t.ratio:.2f}")
    console.print(title, style="bold", soft_wrap=True)
    console.print(table, "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=WORKLOADS, metavar="NAME", help=f"one or more of: {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="thread counts (1 2)")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each workload and thread count (6)")
    parser.add_argument("--short", action="store_true", help="one workload an op, all cores, about 20 seconds in all")
    parser.add_argument("--output", type=Path, default=Path("out/ops.json"), help="JSON file to write (out/ops.json)")
    parser.add_argument(
        "--peak", nargs=2, metavar=("NAME", "CONTENDER"), help="print one contender's peak memory, in MB"
    )
    arguments = parser.parse_args()
    if arguments.peak:
        name, contender = arguments.peak
        print(peak_memory(WORKLOADS[name].contenders(arguments.threads[0])[contender]))
        return
    names = arguments.only or (SHORT if arguments.short else tuple(WORKLOADS))
    all_threads = [native.default_threads()] if arguments.short else arguments.threads
    seconds = 1.5 if arguments.short else arguments.seconds

    console = Console(width=None if sys.stdout.isatty() else 100)
    about = machine()
    console.print(f"{about['cpu']}, {about['cores']} cores, load {about['load_at_start']}; {about['system']}")
    absent = [peer for peer in ("onnxruntime", "torch", "torchvision") if not has(peer)]
    if absent:
        console.print(f"not installed, hence not measured: {', '.join(absent)}", style="dim")
    console.print()
    measured: dict[str, list[Timing]] = {}
    for threads, name in itertools.product(all_threads, names):
        title = f"{WORKLOADS[name].title}, {threads} thread{'s' if threads > 1 else ''}"
        with console.status(title):
            measured[f"{name}@{threads}"] = timings = measure(name, threads, seconds)
        show(title, timings, console)
    write_json(arguments.output, measured, about)
    console.print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
