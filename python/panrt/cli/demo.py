"""`panrt demo`: the product on its own clip, in one command and without PyTorch."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panrt.cli.support import HeightOption, JsonOption, Report, WidthOption, chosen_size, progress_bar
from panrt.formats.records import argument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from panrt.engine.session import Session
    from panrt.engine.sinks.sink import Item

CLIP = "demo://tabletop"
MEASURED, WARM_UP = 100, 10  # frames


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for video and figures; earlier ones stay.")] = Path(
        "out"
    ),
    model: Annotated[str, typer.Option("--model", "-m", help="An .onnx or .plan file, or tabletop.")] = "tabletop",
    source: Annotated[str, typer.Option(help="Another clip or folder of pictures of one size.")] = CLIP,
    backend: Annotated[str, typer.Option(help="auto, cpu, tensorrt or rtx.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU; default: all.")] = None,
    height: HeightOption = None,
    width: WidthOption = None,
    as_json: JsonOption = False,
) -> None:
    """Segment the clip that comes with PanRT, leave an annotated video, and measure.

    The video shows every thing in a colour of its own that it keeps. The figures are from frames in memory, back to
    back and without the video: what the engine takes on this machine.
    """
    import panrt
    from panrt.engine.bench.benchmark import BenchmarkConfig, run_benchmark
    from panrt.engine.bench.report import facts, latency_table, stage_table, to_json
    from panrt.engine.bundled import locate
    from panrt.engine.sinks.output import claim

    report = Report(as_json=as_json)
    path = locate(model)
    out.mkdir(parents=True, exist_ok=True)
    with panrt.load(path, backend=backend, threads=threads, input_hw=chosen_size(height, width)) as session:
        report.line("model", f"{path.name}: {session.model.name}, {session.model.precision}, backend {session.backend}")
        seen, video = _segment(source, session, out / "demo.mp4")
        config = BenchmarkConfig(frames=MEASURED, warm_up=WARM_UP, rate=0)
        with progress_bar("measure") as show:
            measured = run_benchmark(session, seen.pictures, config, path=path, progress=show)
    found = seen.to_json()
    report.line("clip", f"{source}: {seen.frames} frames, {found['segments_a_frame']:.1f} segments a frame")
    things = ", ".join(f"{count} {name}" for name, count in seen.things.items()) or "no things"
    report.line("found", f"at most at once: {things}; {', '.join(found['stuff']) or 'no stuff'}")
    report.table(latency_table(measured).text())
    report.table(stage_table(measured).text())
    for label, text in facts(measured)[3:]:
        report.line(label, text)
    contents = {"source": source, "video": str(video), "found": found, "benchmark": to_json(measured)}
    figures = claim(video.with_suffix(".json"))  # beside the video, with its number
    figures.append((json.dumps(contents, indent=1) + "\n").encode())
    figures.close()
    report.line("wrote", f"{video}, {figures.path}")
    report.end(contents, next_commands=_next_commands(model))


@dataclass
class _Seen:
    """What was in the clip."""

    pictures: list[NDArray[np.uint8]] = field(default_factory=list)  # the first ones, to measure with
    frames: int = 0
    segments: int = 0
    named: float = 0.0  # share of the pixels with a segment, summed over frames
    things: dict[str, int] = field(default_factory=dict)  # class -> the most that were seen at once
    stuff: set[str] = field(default_factory=set)

    def add(self, item: Item) -> None:
        result = item.result
        if len(self.pictures) < MEASURED:
            self.pictures.append(item.frame.image)
        self.frames += 1
        self.segments += len(result.segments)
        self.named += float((result.panoptic > 0).mean())
        for name, count in Counter(segment.name for segment in result.segments if segment.is_thing).items():
            self.things[name] = max(self.things.get(name, 0), count)
        self.stuff |= {segment.name for segment in result.segments if not segment.is_thing}

    def to_json(self) -> dict[str, Any]:
        return {
            "frames": self.frames,
            "segments_a_frame": self.segments / self.frames,
            "named_pixels": self.named / self.frames,
            "most_at_once": self.things,
            "stuff": sorted(self.stuff),
        }


def _segment(source: str, session: Session, wanted: Path) -> tuple[_Seen, Path]:
    """Every frame of a source, drawn into a video; which has a number in its name where an earlier one is there."""
    import panrt
    from panrt.engine.sinks import SinkError

    seen = _Seen()
    with panrt.stream(source, session, sinks=[f"{wanted}?scale=2"], policy="block") as stream:
        for item in stream.pairs():
            seen.add(item)
    if not seen.frames:
        raise ValueError(f"{source}: there is no frame in it.")
    (sink,) = stream.status.sinks
    if sink.lost or not sink.files:
        raise SinkError(f"{wanted}: {sink.lost} of {seen.frames} frames could not be written; {sink.error}")
    return seen, Path(sink.files[0])


def _next_commands(model: str) -> list[str]:
    model = argument(model)
    return [
        f"panrt run camera://0 --model {model} --sink web://:8080     (your camera, live on a page)",
        f"panrt run clip.mp4 --model {model} --sink out.mp4           (your video)",
        f"panrt bench {model}                                        (figures with plots)",
        "panrt doctor                                               (what else works on this machine)",
    ]
