"""Latency of a frame: the CPU session beside eager PyTorch and plain ONNX Runtime, with the same weights.

    python -m benchmarks.latency --model tabletop

All get the same frames of the clip and the same number of threads, and take turns in one process, frame by frame; the
session also resizes the frame to the network's input and names the segments. Wall time is what a user waits; CPU time
is what was computed (and spun) for it, and the figure to compare if other programs use the machine too. Eager PyTorch
is `panrt.model`, whose custom ops are PanRT kernels too; only the rest of the network differs. Before anything is
timed, all must give the same panoptic maps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

import panrt
from benchmarks.harness import machine
from examples.tabletop.clip import read_clip
from panrt.engine.backends.cpu.executor import DENSE
from panrt.engine.backends.cpu.session import CpuSession
from panrt.export import to_onnx
from panrt.formats.onnx_runtime import SPINNING
from panrt.model import PanopticFPN
from panrt.model import load as load_network

CLIP = Path(__file__).parents[1] / "tests" / "data" / "tabletop" / "clip.json"
SESSION, EAGER, PLAIN = "PanRT session", "eager PyTorch", "ONNX Runtime, no PanRT"
TURN = 9  # frames of a contender that are counted before it is the next one's turn
SAME_PIXELS = 0.999  # of all pixels; on edges and at near-ties sums in another order decide

Infer = Callable[[NDArray[np.uint8]], NDArray[np.int32]]


@dataclass(frozen=True)
class Measured:
    """One contender on one number of threads, in milliseconds per frame."""

    contender: str
    threads: int
    frames: int
    wall_median: float
    wall_best: float
    cpu_median: float
    wall_ratio: float  # medians, own over the session's
    cpu_ratio: float


@dataclass(frozen=True)
class Split:
    """The parts of the session's time, in milliseconds per frame."""

    threads: int
    stages: dict[str, float]
    whole: float
    outside_dense: float  # share


def contenders(network: PanopticFPN, session: CpuSession, threads: int) -> dict[str, Infer]:
    """Frame in, panoptic map out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    for key, value in SPINNING.items():  # as in the session
        options.add_session_config_entry(key, value)
    plain = onnxruntime.InferenceSession(session.path, options, providers=["CPUExecutionProvider"])

    def eager(frame: NDArray[np.uint8]) -> NDArray[np.int32]:
        found: NDArray[np.int32] = network(torch.from_numpy(frame[None])).panoptic[0].numpy()
        return found

    def by_onnx_runtime(frame: NDArray[np.uint8]) -> NDArray[np.int32]:
        found: NDArray[np.int32] = plain.run(["panoptic"], {"image": frame[None]})[0][0]
        return found

    return {SESSION: lambda frame: session(frame).panoptic, EAGER: eager, PLAIN: by_onnx_runtime}


def check(runs: dict[str, Infer], frames: Sequence[NDArray[np.uint8]]) -> float:
    """Smallest share of equal pixels between the session and another contender, over all frames.

    Raises:
        RuntimeError: it is too small, so that there is nothing to compare.
    """
    least = 1.0
    for name in (EAGER, PLAIN):
        equal = [float(np.mean(runs[name](frame) == runs[SESSION](frame))) for frame in frames]
        least = min(least, statistics.mean(equal))
        if least < SAME_PIXELS:
            raise RuntimeError(f"{name}: only {least:.2%} of the pixels are those of the session; fix that first.")
    return least


def measure(
    runs: dict[str, Infer], session: CpuSession, frames: Sequence[NDArray[np.uint8]], *, threads: int, seconds: float
) -> tuple[list[Measured], Split]:
    """Turn by turn, after a warm-up.

    A turn is several frames, and its first one is not counted: then a contender finds in the caches what it left there
    itself, as in a stream, and not what the others did.
    """
    for infer in runs.values():
        for frame in frames[:3]:
            infer(frame)
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpus: dict[str, list[float]] = {name: [] for name in runs}
    stages: list[dict[str, float]] = []
    started = time.perf_counter()
    index = 0
    while index < 20 or time.perf_counter() - started < seconds:
        for name, infer in runs.items():
            infer(frames[(index - 1) % len(frames)])
            for number in range(index, index + TURN):
                wall, cpu = time.perf_counter(), time.process_time()
                infer(frames[number % len(frames)])
                cpus[name].append(1e3 * (time.process_time() - cpu))
                walls[name].append(1e3 * (time.perf_counter() - wall))
                if name == SESSION:
                    stages.append({stage: 1e3 * took for stage, took in session.stages.items()})
        index += TURN
    wall, cpu = (statistics.median(times[SESSION]) for times in (walls, cpus))
    rows = [
        Measured(
            name,
            threads,
            index,
            statistics.median(walls[name]),
            min(walls[name]),
            statistics.median(cpus[name]),
            statistics.median(walls[name]) / wall,
            statistics.median(cpus[name]) / cpu,
        )
        for name in runs
    ]
    means = {stage: statistics.median(row[stage] for row in stages) for stage in stages[0]}
    outside = statistics.median(1 - row[DENSE] / took for row, took in zip(stages, walls[SESSION], strict=True))
    return rows, Split(threads, means, wall, outside)


def markdown(rows: Sequence[Measured], splits: Sequence[Split]) -> str:
    """Tables for docs/benchmarks.md."""
    lines = [
        "| threads | | ms per frame, median | best | CPU ms, median | wall ratio | CPU ratio |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.threads} | {r.contender} | {r.wall_median:.1f} | {r.wall_best:.1f} | {r.cpu_median:.1f} | "
        f"{r.wall_ratio:.2f} | {r.cpu_ratio:.2f} |"
        for r in rows
    ]
    for split in splits:
        parts = ", ".join(f"{stage} {took:.2f}" for stage, took in split.stages.items())
        lines += [
            "",
            f"Session, {split.threads} thread{'s' if split.threads > 1 else ''}: {parts} ms; "
            f"outside the subgraphs {split.outside_dense:.1%} of {split.whole:.1f} ms.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tabletop", help="a .safetensors file, or tabletop (the default)")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="thread counts (1 2)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each thread count (20)")
    parser.add_argument("--frames", type=int, default=20, help="of the clip, evenly spread (20)")
    parser.add_argument("--output", type=Path, default=Path("out/latency.json"), help="JSON; .md goes beside it")
    arguments = parser.parse_args()

    clip = read_clip(CLIP).frames
    frames = [np.ascontiguousarray(clip[i]) for i in np.linspace(0, len(clip) - 1, arguments.frames).astype(int)]
    network = load_network(arguments.model)
    about = machine()
    rows: list[Measured] = []
    splits: list[Split] = []
    same = 1.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        height, width = frames[0].shape[:2]
        to_onnx(network, path, input_hw=(height, width))
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            with panrt.load(path, backend="cpu", threads=threads) as session:
                assert isinstance(session, CpuSession)
                runs = contenders(network, session, threads)
                same = min(same, check(runs, frames))
                measured, split = measure(runs, session, frames, threads=threads, seconds=arguments.seconds)
                rows += measured
                splits.append(split)
    text = markdown(rows, splits)
    print(text)
    print(f"equal pixels, mean over {len(frames)} frames: {same:.4%} at least")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    contents = {
        "machine": about,
        "model": arguments.model,
        "input_hw": frames[0].shape[:2],
        "equal_pixels": same,
        "contenders": [asdict(row) for row in rows],
        "session": [asdict(split) for split in splits],
    }
    arguments.output.write_text(json.dumps(contents, indent=1) + "\n")
    arguments.output.with_suffix(".md").write_text(text)
    print(f"wrote {arguments.output}, {arguments.output.with_suffix('.md')}")


if __name__ == "__main__":
    main()
