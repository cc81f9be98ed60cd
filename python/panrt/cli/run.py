"""`panrt run`: sources through a model to sinks, until they end or are stopped."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panrt.cli import signals
from panrt.cli.support import GpuMemoryOption, HeightOption, JsonOption, Report, WidthOption, chosen_size, interactive

if TYPE_CHECKING:
    from panrt.engine.pipeline import Stream
    from panrt.engine.status import StreamStatus

NOT_WHOLE = 1
_ENDED = "closed", "left"  # states of a sink that did what it could
_LOOK_EVERY = 0.1  # seconds


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="camera://0, csi://0, rtsp://..., http://..., a file, folder or glob, test://640x480@30, demo://tabletop.",
        ),
    ],
    model: Annotated[Path, typer.Option("--model", "-m", help="An .onnx or .plan file, or a name: tabletop.")],
    sinks: Annotated[
        list[str],
        typer.Option(
            "--sink",
            "-s",
            help="out.mp4, out.jsonl, - (JSON lines on standard output), coco://DIR, npy://DIR, shm://NAME, window://, "
            "web://:8080, metrics://:9090 (this machine; 0.0.0.0:8080: the network). May be given several times. What "
            "exists is kept: the new one is out-2.mp4.",
        ),
    ] = [],  # noqa: B006  (typer reads it, nobody writes to it)
    backend: Annotated[str, typer.Option(help="auto, cpu, tensorrt or rtx.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU; default: all.")] = None,
    height: HeightOption = None,
    width: WidthOption = None,
    policy: Annotated[
        str | None,
        typer.Option(help="latest drops what cannot be kept up with, block never drops; default: latest where live."),
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many results.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Play files again and again.")] = False,
    track: Annotated[bool, typer.Option(help="Keep the ids of things from frame to frame.")] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which a silent source is lost.")] = 5.0,
    rtsp_transport: Annotated[str, typer.Option(help="tcp or udp.")] = "tcp",
    pixel_format: Annotated[
        str,
        typer.Option(
            help="Of frames: bgr8; nv12 or yuyv leave colours as source or camera has them, for a GPU to convert. "
            "auto: as cameras have them where their format is known and a GPU converts it, else bgr8."
        ),
    ] = "auto",
    preprocess: Annotated[str, typer.Option(help="Who resizes BGR frames: host or gpu.")] = "host",
    gpu_memory: GpuMemoryOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Run a model on cameras, streams and files.

    Ctrl-C, SIGTERM and SIGHUP end it with everything written; a second one ends it at once. So does the end of whoever
    reads standard output, where no other sink is open. Exit codes: 0 done or stopped, 1 a sink lost results that it
    should have kept, 2 a source, sink or model is invalid.
    """
    import panrt
    from panrt.engine.pipeline import stop_on_signals
    from panrt.engine.sources.source import SourceOptions
    from panrt.errors import PanrtError

    if as_json and "-" in sinks:
        raise ValueError("--json and --sink -: both write to standard output; give the sink a file, out.jsonl.")
    options = SourceOptions(
        policy=policy,  # type: ignore[arg-type]  # it checks, as it does the pixel format
        loop=loop,
        timeout=timeout,
        rtsp_transport=rtsp_transport,
        pixel_format="bgr8" if pixel_format == "auto" else pixel_format,  # type: ignore[arg-type]
    )
    report = Report(as_json=as_json, to_stderr="-" in sinks)
    loaded = panrt.load(
        model,
        backend=backend,
        threads=threads,
        preprocess=preprocess,  # type: ignore[arg-type]  # it checks
        gpu_memory=gpu_memory,  # type: ignore[arg-type]
        input_hw=chosen_size(height, width),
    )
    with loaded as session:
        alike = len(sources) == 1 or session.model.batch == 1  # as frames that share a batch must be
        options = replace(options, native=pixel_format == "auto" and session.converts_frames and alike)
        stream = panrt.stream(sources, session, sinks=sinks, options=options, track=track, limit=frames)
        report.line("model", f"{model}: {session.model.name}, {session.model.precision}, backend {session.backend}")
        problem: PanrtError | None = None
        with (
            _output_kept_apart() if as_json or "-" in sinks else nullcontext(),
            stream,
            signals.second_forces(),
            stop_on_signals(stream),
            _stop_after(seconds, stream),
            _stop_unread(stream),
            _progress(stream),
        ):
            try:
                for _ in stream:
                    pass
            except PanrtError as error:
                if stream.status.results == 0:
                    raise
                problem = error  # after results: tell of them first
        status = stream.status
    lost = [sink for sink in status.sinks if sink.lost and sink.keeps and sink.state != "left"]
    _tell(report, status)
    report.end(status.to_json() | {"error": str(problem) if problem else None})
    if problem is not None:
        raise problem
    if lost or any(sink.state not in _ENDED for sink in status.sinks):
        for sink in status.sinks:
            if sink in lost or sink.state not in _ENDED:
                typer.echo(f"error: {sink.name}: {sink.lost} results lost; {sink.error}", err=True)
        raise typer.Exit(NOT_WHOLE)


@contextmanager
def _output_kept_apart() -> Iterator[None]:
    """Have what libraries print go to standard error: Argus tells of each camera on standard output, among results."""
    ours = sys.stdout
    try:
        kept = os.dup(ours.fileno())
    except OSError:  # not a file: something that captures the output
        yield
        return
    libraries = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(kept, "w", encoding=ours.encoding) as sys.stdout:
            yield
    finally:
        sys.stdout = ours
        os.dup2(libraries, 1)
        os.close(libraries)


@contextmanager
def _stop_after(seconds: float | None, stream: Stream) -> Iterator[None]:
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, stream.stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def _stop_unread(stream: Stream) -> Iterator[None]:
    """End a stream whose results nobody reads any more."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_EVERY):
            if stream.unread:
                stream.stop()
                return

    watcher = threading.Thread(target=watch, name="reader watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def _progress(stream: Stream) -> Iterator[None]:
    """A line on a terminal's stderr that is kept up to date, and gone at the end."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    if not interactive():
        yield
        return

    def line() -> Text:
        return Text(_line(stream.status), no_wrap=True, overflow="ellipsis")

    with Live(get_renderable=line, console=Console(stderr=True), refresh_per_second=4, transient=True):
        yield


def _line(status: StreamStatus) -> str:
    age = f"{1000 * status.age.last:.0f} ms" if status.age else "-"
    parts = [f"{status.results} results", f"{status.fps:.1f} fps", f"age {age}", f"{status.dropped} dropped"]
    return "  ".join(["", *parts, *status.trouble])


def _tell(report: Report, status: StreamStatus) -> None:
    rate = status.results / status.elapsed if status.elapsed else 0.0
    report.line("results", f"{status.results} in {status.elapsed:.1f} s, {rate:.1f} a second")
    if status.age is not None:
        ages = " / ".join(f"{1000 * age:.0f}" for age in (status.age.median, status.age.p99, status.age.worst))
        report.line("age", f"{ages} ms, median / p99 / worst, from capture to result")
    for source in status.sources:
        counts = f"{source.captured} captured, {source.dropped} dropped"
        extra = [
            f"{count} {what}"
            for count, what in ((source.damaged, "damaged packets or files"), (source.reconnects, "reconnects"))
            if count
        ]
        report.line("source", f"{source.name}: {', '.join([counts, *extra])}; {source.state.value}: {source.reason}")
    for sink in status.sinks:
        losses: dict[str, Any] = {"dropped": sink.dropped, "failed": sink.failed, "gaps": sink.gaps}
        extra = [f"{count} {what}" for what, count in losses.items() if count]
        if sink.state == "left":
            extra.append(sink.error)
        files = [file for file in sink.files if not sink.name.endswith(file)]
        where = f" to {', '.join(sink.files)}" if files else ""
        report.line("sink", f"{sink.name}: {', '.join([f'{sink.written} written{where}', *extra])}")
