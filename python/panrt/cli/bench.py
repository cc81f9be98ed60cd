"""`panrt bench`: measure a model on this machine, and compare two measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from panrt.cli.support import (
    MODEL_HELP,
    ClassesOption,
    ConfOption,
    GpuMemoryOption,
    HeightOption,
    JsonOption,
    MinStuffOption,
    OverlapOption,
    PreprocessOption,
    Report,
    WidthOption,
    chosen_size,
    chosen_thresholds,
    find_model,
    open_found,
    progress_bar,
)
from panrt.formats.records import argument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from panrt.engine.backends.tensorrt.profile import GpuProfile
    from panrt.engine.bench.benchmark import Benchmark


class _RunByDefault(TyperGroup):
    """`panrt bench MODEL` is `panrt bench run MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command `run` if no command is named."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure a model on this machine (panrt bench MODEL), or compare two measurements.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@bench.command("run")
def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    source: Annotated[str, typer.Option(help="Where the frames come from: a file, folder or URI.")] = "demo://tabletop",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="NAME", help="Write, or replace, NAME.json, .md and .html."),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each run.")] = 200,
    warm_up: Annotated[int, typer.Option(min=0, help="Frames before the runs, not measured.")] = 20,
    rate: Annotated[float, typer.Option(min=0, help="Frames per second of the fixed-rate run; 0: none.")] = 30.0,
    backend: Annotated[str, typer.Option(help="auto, cpu, tensorrt or rtx.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU backend; default: all cores.")] = None,
    preprocess: PreprocessOption = "host",
    gpu_memory: GpuMemoryOption = "auto",
    height: HeightOption = None,
    width: WidthOption = None,
    conf: ConfOption = None,
    overlap: OverlapOption = None,
    min_stuff: MinStuffOption = None,
    classes: ClassesOption = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="On a GPU: also measure the parts of a frame, and every layer.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a throughput run, then a fixed-rate run.

    Frames are decoded beforehand, so that reading them costs nothing. Close other programs: the load is reported, not
    corrected.
    """
    from panrt.engine.bench.benchmark import BenchmarkConfig, run_benchmark
    from panrt.engine.bundled import locate

    config = BenchmarkConfig(frames=frames, warm_up=warm_up, rate=rate)
    size = chosen_size(height, width)
    settings = chosen_thresholds(conf, overlap, min_stuff, classes)
    found = find_model(Report(as_json=as_json), str(model), backend=backend, threads=threads, input_hw=size)
    path = locate(found.path)
    images = _read(source, frames)
    loaded = open_found(
        found, backend=backend, threads=threads, preprocess=preprocess, gpu_memory=gpu_memory, settings=settings
    )
    with loaded as session, progress_bar("measure") as show:
        if profile and not hasattr(session, "profile"):
            raise ValueError(f"--profile: the backend {session.backend!r} has no GPU to profile; leave it out.")
        measured = run_benchmark(session, images, config, path=path, progress=show)
        gpu = session.profile() if profile else None  # type: ignore[attr-defined]  # of GPU sessions alone
    _report(measured, gpu, output, as_json=as_json)


def _report(measured: Benchmark, gpu: GpuProfile | None, output: Path | None, *, as_json: bool) -> None:
    from panrt.engine.bench.report import facts, latency_table, profile_tables, stage_table, to_json, warnings

    report = Report(as_json=as_json)
    report.table(latency_table(measured).text())
    report.table(stage_table(measured).text())
    if gpu is not None:
        for table in profile_tables(gpu):
            report.table(table.text())
    for label, text in facts(measured):
        report.line(label, text)
    next_commands = []
    if output is not None:
        report.line("wrote", ", ".join(_write(measured, output)))
        next_commands.append(f"panrt bench compare {argument(f'{output}.json')} OTHER.json")
    profile = {} if gpu is None else {"gpu_profile": gpu._asdict()}
    report.end(to_json(measured) | {"warnings": warnings(measured)} | profile, next_commands=next_commands)


def _write(measured: Benchmark, output: Path) -> list[str]:
    """Write the three forms of a report, and return their names."""
    from panrt.engine.bench.report import to_html, to_json, to_markdown
    from panrt.files import write_atomically

    output.parent.mkdir(parents=True, exist_ok=True)
    contents = {
        ".json": json.dumps(to_json(measured), indent=1) + "\n",
        ".md": to_markdown(measured),
        ".html": to_html(measured),
    }
    for suffix, text in contents.items():
        path = output.with_name(output.name + suffix)
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))  # type: ignore[misc]
    return [f"{output}{suffix}" for suffix in contents]


@bench.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="A JSON file of panrt bench.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
    as_json: JsonOption = False,
) -> None:
    """Show two measurements side by side, and what else differs between them."""
    from panrt.engine.bench import report as reports

    before, after = (reports.read_benchmark(path) for path in (first, second))
    table = reports.compare(before, after)
    differing = reports.differences(before, after)
    report = Report(as_json=as_json)
    report.table(table.text())
    for index, difference in enumerate(differing):
        report.line("" if index else "differ in", difference)
    report.end({"header": list(table.header), "rows": [list(row) for row in table.rows], "differing": differing})


def _read(source: str, count: int) -> list[NDArray[np.uint8]]:
    """Return the first frames of a source, in memory.

    Raises:
        SourceError: the source has none.
    """
    from panrt.engine.sources import SourceError, SourceOptions, open_source

    images: list[NDArray[np.uint8]] = []
    with open_source(source, options=SourceOptions(policy="block")) as opened:
        while len(images) < min(count, 100) and (frame := opened.take(None)) is not None:
            images.append(frame.image)
        if opened.error is not None:
            raise opened.error
    if not images:
        raise SourceError(f"{source}: has no frame to measure with.")
    return images
