"""`panrt demo`: the bundled model on the bundled clip, in one command and without PyTorch."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panrt.cli.support import (
    MODEL_HELP,
    BackendOption,
    HeightOption,
    JsonOption,
    Report,
    ThreadsOption,
    WidthOption,
    chosen_size,
    find_model,
    progress_bar,
)
from panrt.formats.records import argument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from panrt.engine.session import Session
    from panrt.engine.sinks.sink import Item

CLIP = "demo://tabletop"
MEASURED, WARM_UP = 100, 10  # frames


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for video and figures; existing ones are kept.")
    ] = Path("out"),
    model: Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)] = "tabletop",
    source: Annotated[str, typer.Option(help="Another clip, or a folder of images of one size.")] = CLIP,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    as_json: JsonOption = False,
) -> None:
    """Segment the bundled clip, write an annotated video, and measure.

    In the video every thing keeps its colour from frame to frame. The figures are of a throughput run on frames in
    memory, without the video.
    """
    import panrt
    from panrt.engine.bench.benchmark import BenchmarkConfig, run_benchmark
    from panrt.engine.bench.report import facts, latency_table, stage_table, to_json
    from panrt.engine.bundled import locate
    from panrt.engine.sinks.output import claim

    report = Report(as_json=as_json)
    located = find_model(report, model, backend=backend, threads=threads, input_hw=chosen_size(height, width))
    path = locate(located.path)
    out.mkdir(parents=True, exist_ok=True)
    with panrt.load(path, backend=backend, threads=threads, input_hw=located.input_hw) as session:
        report.line("model", f"{path.name}: {session.model.name}, {session.model.precision}, backend {session.backend}")
        seen, video = _segment(source, session, out / "demo.mp4")
        config = BenchmarkConfig(frames=MEASURED, warm_up=WARM_UP, rate=0)
        with progress_bar("measure") as show:
            measured = run_benchmark(session, seen.images, config, path=path, progress=show)
    found = seen.to_json()
    report.line("clip", f"{source}: {seen.frames} frames, {found['segments_a_frame']:.1f} segments per frame")
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
    """Counts over the clip, and its first frames."""

    images: list[NDArray[np.uint8]] = field(default_factory=list)  # the first ones, to measure with
    frames: int = 0
    segments: int = 0
    named: float = 0.0  # share of the pixels with a segment, summed over frames
    things: dict[str, int] = field(default_factory=dict)  # class -> the largest number in one frame
    stuff: set[str] = field(default_factory=set)

    def add(self, item: Item) -> None:
        result = item.result
        if len(self.images) < MEASURED:
            self.images.append(item.frame.image)
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
    """Segment every frame of a source and draw it into a video, whose name is numbered if it exists."""
    import panrt
    from panrt.engine.sinks import SinkError

    seen = _Seen()
    with panrt.stream(source, session, sinks=[f"{wanted}?scale=2"], policy="block") as stream:
        for item in stream.pairs():
            seen.add(item)
    if not seen.frames:
        raise ValueError(f"{source}: it has no frames.")
    (sink,) = stream.status.sinks
    if sink.lost or not sink.files:
        raise SinkError(f"{wanted}: {sink.lost} of {seen.frames} frames could not be written; {sink.error}")
    return seen, Path(sink.files[0])


def _next_commands(model: str) -> list[str]:
    model = argument(model)
    commands = (
        ("panrt predict photo.jpg --model coco", "your photo; downloads a model of the real world"),
        (f"panrt run camera://0 --model {model} --sink web://:8080", "your camera, live on a page"),
        (f"panrt run clip.mp4 --model {model} --sink out.mp4", "your video"),
        (f"panrt bench {model}", "figures with plots"),
        ("panrt doctor", "what else this machine supports"),
    )
    width = max(len(command) for command, _ in commands)
    return [f"{command:{width}}   ({purpose})" for command, purpose in commands]
