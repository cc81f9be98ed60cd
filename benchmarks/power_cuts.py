"""Kill a recording at random moments and check what is left of it.

    python -m benchmarks.power_cuts --kills 50

Each round starts `panrt run` on a live pattern with one sink of every recording kind and the same command as the round
before, ends it by SIGKILL at a random moment, and then looks:

* at how far before the kill each recording ends, by the capture times of its frames;
* whether every file of earlier rounds is as it was, byte for byte;
* whether the next start completed the `coco://` folder of this round.

For the process, SIGKILL is like a power cut. A power cut also loses what was not flushed to disk;
`panrt.engine.sinks.output` flushes every second, which this benchmark cannot check.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from av.error import FFmpegError

from panrt.formats.video_files import open_video

VIDEOS = "mp4", "mov", "mkv"
SINKS = *VIDEOS, "jsonl", "coco", "npy"
LATEST = 2.0  # seconds that may be missing
_PROGRAM = "from panrt.cli import main; main()"
_SOURCE = "test://160x120@15"


class Found(NamedTuple):
    """The recording that a round left."""

    frames: int
    missing: float  # seconds from its last frame to the kill; from the first result if it has none


class Report(NamedTuple):
    """All rounds."""

    kills: int
    worst: dict[str, float]  # by sink: the most seconds that were missing
    median: dict[str, float]
    frames: dict[str, int]  # in all
    faults: list[str]


def measure(
    kills: int,
    folder: Path,
    *,
    model: str = "tabletop",
    longest: float = 6.0,
    latest: float = LATEST,
    seed: int = 0,
) -> Report:
    """Run the rounds.

    Args:
        kills: how many.
        folder: an empty one, for the recordings.
        model: to run.
        longest: seconds from the first result to the kill, at most.
        latest: seconds that may be missing from a recording.
        seed: of the moments.
    """
    moments = random.Random(seed)
    found: dict[str, list[Found]] = {kind: [] for kind in SINKS}
    kept: dict[Path, str] = {}
    faults: list[str] = []
    for number in range(kills):
        killed = _round(folder, model, moments.uniform(0.0, longest), first=f"first-{number}")
        faults += [f"round {number}: {path} changed" for path, digest in kept.items() if _digest(path) != digest]
        faults += _unfinished(folder, number)
        new = {kind: _newest(folder, kind) for kind in SINKS}
        times = _times(new["jsonl"])
        for kind, path in new.items():
            try:
                count = _count(kind, path)
            except (OSError, ValueError, FFmpegError) as error:
                faults.append(f"round {number}: {path}: {error}")
                continue
            # A result can be in a recording whose line was not written yet.
            last = times[min(count, len(times)) - 1] if count else times[0] if times else killed
            found[kind].append(Found(count, max(0.0, killed - last)))
            if killed - last > latest:
                faults.append(f"round {number}: {path}: ends {killed - last:.2f} s before the kill")
            if path is not None and kind != "coco":  # the next start is to complete that one
                kept |= {file: _digest(file) for file in ([path] if path.is_file() else sorted(path.iterdir()))}
    _round(folder, model, 0.0, first="last")
    faults += _unfinished(folder, kills)
    missing = {kind: sorted(each.missing for each in rounds) for kind, rounds in found.items()}
    return Report(
        kills,
        {kind: values[-1] for kind, values in missing.items() if values},
        {kind: values[len(values) // 2] for kind, values in missing.items() if values},
        {kind: sum(each.frames for each in rounds) for kind, rounds in found.items()},
        faults,
    )


def _round(folder: Path, model: str, after: float, *, first: str) -> float:
    """Start a run and kill it so long after its first result; when that was."""
    begun = folder / f"{first}.ndjson"  # tells that results come; new in each round
    targets = [f"coco://{folder / 'coco'}", f"npy://{folder / 'npy'}", folder / "out.jsonl"]
    targets += [folder / f"out.{suffix}" for suffix in VIDEOS]
    sinks = [argument for target in [*targets, begun] for argument in ("--sink", str(target))]
    command = [sys.executable, "-c", _PROGRAM, "run", _SOURCE, "--model", model, "--threads", "1", *sinks]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not begun.exists() or not begun.stat().st_size:
            if process.poll() is not None:
                assert process.stderr is not None
                raise RuntimeError(process.stderr.read().decode())
            time.sleep(0.01)
        time.sleep(after)
        process.kill()
        killed = time.monotonic()
    begun.unlink()
    return killed


def _newest(folder: Path, kind: str) -> Path | None:
    """The recording with the highest number; None: the round came to none."""
    pattern = kind if kind in ("coco", "npy") else f"out.{kind}"
    stem, _, suffix = pattern.partition(".")
    number, newest = 1, None
    while (path := folder / f"{stem}{f'-{number}' if number > 1 else ''}{f'.{suffix}' if suffix else ''}").exists():
        number, newest = number + 1, path
    return newest


def _times(path: Path | None) -> list[float]:
    """Return the capture times of the frames of JSON lines."""
    lines = path.read_text().splitlines(keepends=True) if path else []
    return [json.loads(line)["captured_at"] for line in lines if line.endswith("\n")]


def _count(kind: str, path: Path | None) -> int:
    """Return the number of results that can be read back from a recording.

    Raises:
        OSError, ValueError, FFmpegError: it cannot be read.
    """
    if path is None:
        return 0
    if kind in VIDEOS:
        if not path.stat().st_size:
            return 0  # its first frame was not encoded yet
        with open_video(path) as container:
            return sum(1 for _ in container.decode(video=0))
    if kind == "jsonl":
        return len(_times(path))
    if kind == "npy":
        files = [json.loads(line)["file"] for line in _whole_lines(path / "results.jsonl")]
        return sum(1 for file in files if np.load(path / file).ndim == 2)
    journal = [json.loads(line) for line in _whole_lines(path / ".panrt-journal.jsonl")]
    names = [path / "panoptic" / entry["image"]["file_name"] for entry in journal if "image" in entry]
    return sum(1 for name in names if name.exists() and cv2.imread(str(name)) is not None)


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _unfinished(folder: Path, rounds: int) -> list[str]:
    """Return the faults of the COCO folders of all rounds but the newest, which the next start completes."""
    faults = []
    newest = _newest(folder, "coco")
    for path in folder.glob("coco*"):
        if path == newest:
            continue
        try:
            content = json.loads((path / "panoptic.json").read_text())
        except (OSError, ValueError) as error:
            faults.append(f"round {rounds}: {path}: {error}")
            continue
        images = {file.name for file in (path / "panoptic").iterdir()}
        named = [entry["file_name"] for entry in content["annotations"]]
        if set(named) != images or len(named) != len(images):
            faults.append(f"round {rounds}: {path}: {len(images)} images, {len(named)} annotations")
    return faults


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "gone"


def main() -> None:
    """Print a table; exit code 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds from the first result to the kill, at most")
    parser.add_argument("--model", default="tabletop")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="power-cuts-") as folder:
        report = measure(
            arguments.kills, Path(folder), model=arguments.model, longest=arguments.longest, seed=arguments.seed
        )
    print(f"{report.kills} kills, {_SOURCE}, load {os.getloadavg()[0]:.1f}")
    print("sink   frames   missing before the kill, median / worst")
    for kind in SINKS:
        print(f"{kind:5} {report.frames[kind]:7}   {report.median[kind]:.2f} / {report.worst[kind]:.2f} s")
    for fault in report.faults:
        print("FAULT", fault)
    print("faults:", len(report.faults))
    raise SystemExit(bool(report.faults))


if __name__ == "__main__":
    main()
