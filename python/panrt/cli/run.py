"""`panrt run`: sources through a model to sinks, until they end or are stopped."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panrt.cli import signals
from panrt.cli.support import (
    MODEL_HELP,
    BackendOption,
    ClassesOption,
    ConfOption,
    GpuMemoryOption,
    HeightOption,
    JsonOption,
    MinStuffOption,
    OverlapOption,
    PreprocessOption,
    Report,
    ThreadsOption,
    WidthOption,
    chosen_size,
    chosen_thresholds,
    find_model,
    interactive,
    open_found,
)
from panrt.errors import PanrtError

if TYPE_CHECKING:
    from panrt.engine.pipeline import Stream
    from panrt.engine.status import SinkStatus, StreamStatus

NOT_WHOLE = 1
_ENDED = "closed", "left"  # states of a sink that ended without an error
_LOOK_EVERY = 0.1  # seconds

SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="camera://0, csi://0, rtsp://..., http://..., a file, folder or glob, test://640x480@30, demo://tabletop.",
    ),
]
SinksOption = Annotated[
    list[str],
    typer.Option(
        "--sink",
        "-s",
        help="out.mp4, out.jsonl, - (JSON lines on standard output), coco://DIR, npy://DIR, shm://NAME, window://, "
        "web://:8080, metrics://:9090 (this machine; 0.0.0.0:8080: the network). Repeatable. Existing files are kept: "
        "the new one is out-2.mp4.",
    ),
]
PolicyOption = Annotated[
    Literal["latest", "block"] | None,
    typer.Option(
        help="latest drops frames that the model cannot keep up with, block never drops; default: latest for live "
        "sources, block for files."
    ),
]
PixelFormatOption = Annotated[
    Literal["auto", "bgr8", "nv12", "yuyv"],
    typer.Option(
        help="Format of frames. nv12 and yuyv leave the conversion of colours to the GPU. auto: the camera's own "
        "format if it is known and a GPU converts it, else bgr8."
    ),
]
TransportOption = Annotated[Literal["tcp", "udp"], typer.Option(help="Transport of RTSP streams.")]


def run(
    sources: SourcesArgument,
    model: Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)],
    sinks: SinksOption = [],  # noqa: B006  (typer reads it, nobody writes to it)
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    conf: ConfOption = None,
    overlap: OverlapOption = None,
    min_stuff: MinStuffOption = None,
    classes: ClassesOption = None,
    policy: PolicyOption = None,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Stop after this many seconds.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many results.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Play files repeatedly.")] = False,
    track: Annotated[bool, typer.Option(help="Give things IDs that persist from frame to frame.")] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which a silent source is lost.")] = 5.0,
    rtsp_transport: TransportOption = "tcp",
    pixel_format: PixelFormatOption = "auto",
    preprocess: PreprocessOption = "host",
    gpu_memory: GpuMemoryOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Run a model on cameras, streams and files.

    Ctrl-C, SIGTERM and SIGHUP end it with all results written; a second signal ends it at once. It also ends when
    nobody reads its standard output any more, unless another sink is open. Exit codes: 0 done or stopped, 1 a recording
    lost results, 2 a source, sink or model is invalid.
    """
    import panrt

    if as_json and "-" in sinks:
        raise ValueError("--json and --sink -: both write to standard output; give the sink a file, out.jsonl.")
    options = panrt.SourceOptions(
        policy=policy,
        loop=loop,
        timeout=timeout,
        rtsp_transport=rtsp_transport,
        pixel_format="bgr8" if pixel_format == "auto" else pixel_format,
    )
    report = Report(as_json=as_json, to_stderr="-" in sinks)
    settings = chosen_thresholds(conf, overlap, min_stuff, classes)
    found = find_model(report, model, backend=backend, threads=threads, input_hw=chosen_size(height, width))
    tracker = panrt.TrackingConfig() if track else None
    with open_found(
        found, backend=backend, threads=threads, preprocess=preprocess, gpu_memory=gpu_memory, settings=settings
    ) as session:
        alike = len(sources) == 1 or session.model.batch == 1  # frames that share a batch need one format
        options = replace(options, native=pixel_format == "auto" and session.converts_frames and alike)
        stream = panrt.stream(sources, session, sinks=sinks, options=options, tracker=tracker, limit=frames)
        report.line("model", f"{model}: {session.model.name}, {session.model.precision}, backend {session.backend}")
        problem = _consume(stream, seconds, own_output=as_json or "-" in sinks)
    status = stream.status
    _tell(report, status)
    report.end(status.to_json() | {"error": str(problem) if problem else None})
    if problem is not None:
        raise problem
    check_sinks(status.sinks)


def _consume(stream: Stream, seconds: float | None, *, own_output: bool) -> PanrtError | None:
    """Run a stream to its end, on signals too; return the error that ended it after its first result.

    Args:
        stream: to run; it is closed.
        seconds: after which it is stopped; None: no limit.
        own_output: whether standard output is reserved for the results.

    Raises:
        PanrtError: the stream ended without a result.
    """
    from panrt.engine.pipeline import stop_on_signals

    with (
        _output_kept_apart() if own_output else nullcontext(),
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
            return error  # the results are reported first
    return None


def check_sinks(sinks: tuple[SinkStatus, ...]) -> None:
    """Exit with NOT_WHOLE, and a line for each, if recordings lost results or sinks did not end properly."""
    bad = [sink for sink in sinks if (sink.lost and sink.keeps and sink.state != "left") or sink.state not in _ENDED]
    for sink in bad:
        typer.echo(f"error: {sink.name}: {sink.lost} results lost; {sink.error}", err=True)
    if bad:
        raise typer.Exit(NOT_WHOLE)


@contextmanager
def _output_kept_apart() -> Iterator[None]:
    """Redirect the output of libraries to standard error: Argus logs to standard output, where the results go."""
    ours = sys.stdout
    try:
        kept = os.dup(ours.fileno())
    except OSError:  # not a file: the output is captured
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
    """Stop a stream whose results nobody reads any more."""
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
    """Show a status line on a terminal's stderr, and remove it at the end."""
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
    report.line("results", f"{status.results} in {status.elapsed:.1f} s, {rate:.1f} per second")
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
