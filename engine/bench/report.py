"""Benchmarks as JSON, Markdown and an HTML page with plots, and the comparison of two.

The page is one file: its plots are SVG written here, so that it needs neither a network nor a plotting package.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from panrt.engine.bench.benchmark import Benchmark, Run, Spread
from panrt.errors import BenchmarkFileError
from panrt.files import read_whole
from panrt.formats import records
from panrt.formats.decoding import decode
from panrt.formats.records import shown

if TYPE_CHECKING:
    from panrt.engine.backends.tensorrt.profile import GpuProfile

SCHEMA = 2
ADDED = ("threads", "gpu_memory", "tf32", "power")  # fields that older files lack
FORMER_NAMES = {"back_to_back": "throughput", "paced": "fixed_rate"}  # of the runs in schema 1
LONGEST = 2**26  # bytes of a file; a million frames take a third
BUSY = 0.25  # load per thread beyond which a measurement is unreliable


def to_json(benchmark: Benchmark) -> dict[str, Any]:
    """Return plain data, times in seconds; `from_json` reads it back equal."""
    return {
        "schema": SCHEMA,
        **benchmark._asdict(),
        "config": vars(benchmark.config),
        "machine": benchmark.machine._asdict(),
        "throughput": _run_to_json(benchmark.throughput),
        "fixed_rate": None if benchmark.fixed_rate is None else _run_to_json(benchmark.fixed_rate),
    }


def _run_to_json(run: Run) -> dict[str, Any]:
    return run._asdict() | {"power": None if run.power is None else run.power._asdict()}


def from_json(data: Any, *, source: str) -> Benchmark:
    """Read what `to_json` wrote, in this schema or the former; `source` names it in messages.

    Raises:
        BenchmarkFileError: it is not that.
    """
    schema = data.get("schema") if isinstance(data, dict) else type(data).__name__
    if type(schema) is not int or schema not in (1, SCHEMA):
        raise BenchmarkFileError(
            f"{source}: schema {shown(schema)}, expected {SCHEMA} or 1 of `panrt bench`; measure again."
        )
    fields = {name: value for name, value in data.items() if name not in ("schema", "gpu_profile", "warnings")}
    if schema == 1:
        fields = {FORMER_NAMES.get(name, name): value for name, value in fields.items()}
    try:
        benchmark: Benchmark = decode(Benchmark, fields, source=source, least=0, optional=ADDED)
    except ValueError as error:
        raise BenchmarkFileError(f"{error}; this is not what `panrt bench` writes, measure again.") from error
    for name, run in _runs(benchmark):
        if run is not None and (not run.latencies or min(run.latencies) < 0 or run.seconds <= 0):
            raise BenchmarkFileError(f"{source}: {name}: holds no frame, or a time below 0; measure again.")
    return benchmark


def read_benchmark(path: Path) -> Benchmark:
    """Read a JSON file of `panrt bench`.

    Raises:
        BenchmarkFileError: it is not that.
        OSError: from the file system.
    """
    expected = "a .json file of panrt bench"
    content = read_whole(path, longest=LONGEST, error=BenchmarkFileError, expected=expected)
    cure = f"expected {expected}"
    return from_json(records.parse(content, source=str(path), error=BenchmarkFileError, cure=cure), source=str(path))


class Table(NamedTuple):
    """Rows of text, the first column left-aligned and the others right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Return it aligned, for a terminal."""
        widths = [max(len(row[i]) for row in (self.header, *self.rows)) for i in range(len(self.header))]
        lines = []
        for row in (self.header, *self.rows):
            cells = [
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join((lines[0], "-" * max(map(len, lines)), *lines[1:]))

    def markdown(self) -> str:
        """Return it as a GitHub table."""
        ruler = ("---", *("---:" for _ in self.header[1:]))
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.header, ruler, *self.rows))

    def html(self) -> str:
        """Return it as an HTML table."""

        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.rows)
        return f"<table><thead>{row(self.header, 'th')}</thead><tbody>{body}</tbody></table>"


def latency_table(benchmark: Benchmark) -> Table:
    """Return latencies and ages in milliseconds, a row for each."""
    rows = []
    for name, run in _runs(benchmark):
        if run is None:
            continue
        rows.append((f"{name}: latency", *_milliseconds(Spread.of(run.latencies))))
        if run.ages:
            rows.append((f"{name}: age of the result", *_milliseconds(Spread.of(run.ages))))
    return Table(("ms", "p50", "p90", "p99", "max", "mean"), tuple(rows))


def stage_table(benchmark: Benchmark) -> Table:
    """Return the mean time of each stage of a frame in the throughput run."""
    stages = benchmark.throughput.stages
    whole = sum(benchmark.throughput.latencies) / len(benchmark.throughput.latencies)
    rows = [(name, f"{1e3 * seconds:.2f}", _percent(seconds, whole)) for name, seconds in stages.items()]
    rest = whole - sum(stages.values())
    rows.append(("the rest", f"{1e3 * rest:.2f}", _percent(rest, whole)))
    return Table(("stage", "ms per frame", "%"), tuple(rows))


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def profile_tables(profile: GpuProfile, *, layers: int = 20) -> tuple[Table, Table]:
    """Return the parts of a frame's time on the GPU, and the slowest layers."""
    parts = [(name.replace("_", " "), seconds) for name, seconds in profile._asdict().items() if name != "layers"]
    slowest = sorted(profile.layers.items(), key=lambda item: -item[1])[:layers]
    total = sum(profile.layers.values()) or 1.0
    return (
        Table(("on the GPU", "ms"), tuple((name, f"{1e3 * seconds:.3f}") for name, seconds in parts)),
        Table(
            (f"slowest of {len(profile.layers)} layers", "ms", "%"),
            tuple((name[:80], f"{1e3 * seconds:.3f}", f"{100 * seconds / total:.1f}") for name, seconds in slowest),
        ),
    )


def facts(benchmark: Benchmark) -> list[tuple[str, str]]:
    """Return the facts beside the tables as labels and texts."""
    b = benchmark
    fast = b.throughput
    rows = [
        ("model", f"{b.model}: {b.name}, {b.precision}{' with TF32' if b.tf32 else ''}, sha256 {b.model_sha256[:12]}"),
        ("backend", ", ".join([b.backend, *_resources(b)])),
        ("sizes", f"frames {_size(b.frame_hw)}, network {_size(b.input_hw)} (width x height)"),
        (
            "throughput",
            f"{fast.frames_per_second:.1f} frames per second, {fast.cpu_seconds / fast.seconds:.2f} cores busy",
        ),
    ]
    if b.fixed_rate is not None:
        came = len(b.fixed_rate.latencies) + b.fixed_rate.dropped
        rows.append(("fixed rate", f"{b.config.rate:g} per second: {b.fixed_rate.dropped} of {came} frames dropped"))
    for name, run in _runs(b):
        if run is not None and run.power is not None:
            joules = run.joules_per_frame
            energy = "" if joules is None else f"; {1e3 * joules:.1f} mJ per frame"
            rows.append((f"power, {name}", run.power.text() + energy))
    rows.append(
        ("memory", f"{b.resident[0] / 2**20:.0f} MiB in RAM before the runs, {b.resident[1] / 2**20:.0f} after")
    )
    return [*rows, *b.machine.lines(), ("when", b.when), *(("warning", text) for text in warnings(b))]


def to_markdown(benchmark: Benchmark) -> str:
    """Return a Markdown section for a README or a pull request."""
    listed = "\n".join(f"* {label}: {text}" for label, text in facts(benchmark))
    tables = f"{latency_table(benchmark).markdown()}\n\n{stage_table(benchmark).markdown()}"
    return f"# Latency of {benchmark.model}\n\n{tables}\n\n{listed}\n"


def to_html(benchmark: Benchmark) -> str:
    """Return one HTML page with the tables and plots of the latencies."""
    title = f"Latency of {html.escape(benchmark.model)}"
    plots = []
    for name, run in _runs(benchmark):
        if run is not None:
            plots.append(f"<h2>{name}, frame by frame</h2>{_timeline(run)}")
    plots.append(f"<h2>Share of frames within a time, throughput run</h2>{_distribution(benchmark.throughput)}")
    listed = "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in facts(benchmark))
    body = f"{latency_table(benchmark).html()}{stage_table(benchmark).html()}{''.join(plots)}<dl>{listed}</dl>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"</head><body><h1>{title}</h1>{body}</body></html>\n"
    )


def compare(before: Benchmark, after: Benchmark) -> Table:
    """Return the times of both, and the ratio of the second to the first: below 1 is faster."""
    rows = []
    for name, run in _runs(before):
        other = dict(_runs(after))[name]
        if run is None or other is None:
            continue
        for what in ("latencies", "ages"):
            a, b = getattr(run, what), getattr(other, what)
            if not a or not b:
                continue
            first, second = Spread.of(a), Spread.of(b)
            for percentile in ("p50", "p90", "p99"):
                x, y = getattr(first, percentile), getattr(second, percentile)
                kind = "latency" if what == "latencies" else "age"
                rows.append((f"{name}: {kind} {percentile}", f"{1e3 * x:.2f}", f"{1e3 * y:.2f}", _ratio(y, x)))
    for stage in sorted(before.throughput.stages.keys() & after.throughput.stages.keys()):
        x, y = before.throughput.stages[stage], after.throughput.stages[stage]
        rows.append((f"stage {stage}", f"{1e3 * x:.2f}", f"{1e3 * y:.2f}", _ratio(y, x)))
    return Table(("ms", "first", "second", "second / first"), tuple(rows))


def _ratio(value: float, to: float) -> str:
    return f"{value / to:.2f}" if to else "-"


def differences(before: Benchmark, after: Benchmark) -> list[str]:
    """Return all that differs beside the figures, which makes the two hard to compare."""
    pairs = {
        "model": (before.model_sha256[:12], after.model_sha256[:12]),
        "backend": (before.backend, after.backend),
        "precision": (before.precision, after.precision),
        "frames": (_size(before.frame_hw), _size(after.frame_hw)),
        "network input": (_size(before.input_hw), _size(after.input_hw)),
        "rate": (f"{before.config.rate:g}", f"{after.config.rate:g}"),
        "frames of a run": (str(before.config.frames), str(after.config.frames)),
        "warm-up": (f"{before.config.warm_up} frames", f"{after.config.warm_up} frames"),
        "threads of the session": (_threads(before), _threads(after)),
        "TF32": (_tf32(before), _tf32(after)),
        "GPU memory": (before.gpu_memory or "not known", after.gpu_memory or "not known"),
        "processor": (before.machine.processor, after.machine.processor),
        "threads of the machine": (str(before.machine.threads), str(after.machine.threads)),
        "GPU": (", ".join(before.machine.gpus), ", ".join(after.machine.gpus)),
        "power mode": (before.machine.power_mode, after.machine.power_mode),
        "load": (f"{before.machine.load:.0f}", f"{after.machine.load:.0f}"),
        "versions": (str(before.machine.versions), str(after.machine.versions)),
    }
    return [f"{name}: {a} | {b}" for name, (a, b) in pairs.items() if a != b]


def warnings(benchmark: Benchmark) -> list[str]:
    """Return the reasons to distrust the figures."""
    found, threads = benchmark.machine, benchmark.machine.threads
    if found.load <= max(1.0, BUSY * threads):
        return []
    return [
        f"load {found.load:.1f} on {threads} threads: other programs were using the processor; close them and measure "
        "again"
    ]


def _resources(benchmark: Benchmark) -> Iterator[str]:
    """Return what the session used, as far as it is known."""
    if benchmark.threads is not None:
        yield f"{benchmark.threads} threads"
    if benchmark.gpu_memory is not None:
        yield f"network inputs and outputs in {benchmark.gpu_memory} memory"


def _threads(benchmark: Benchmark) -> str:
    return "not known" if benchmark.threads is None else str(benchmark.threads)


def _tf32(benchmark: Benchmark) -> str:
    return {None: "not known", False: "off", True: "on"}[benchmark.tf32]


def _runs(benchmark: Benchmark) -> tuple[tuple[str, Run | None], ...]:
    """Return the runs by their display names."""
    return ("throughput run", benchmark.throughput), ("fixed-rate run", benchmark.fixed_rate)


def _milliseconds(spread: Spread) -> list[str]:
    return [f"{1e3 * value:.2f}" for value in spread]


def _size(hw: tuple[int, int]) -> str:
    return f"{hw[1]}x{hw[0]}"


# Plots ----------------------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 228, 52, 24
_TOP = 12  # room for the upper half of the topmost label, and for the legend
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2em auto;padding:0 1em;color:#1b1f24}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right}"
    "td,th{border-bottom:1px solid #d0d7de}"
    "td:first-child,th:first-child{text-align:left;padding-left:0}dt{font-weight:600;float:left;clear:left;width:7em}"
    "dd{margin:0 0 .2em 8em}h2{font-size:1.05em;margin:1.6em 0 .3em}svg{width:100%;height:auto}"
    "svg text{font:11px system-ui,sans-serif;fill:#57606a}"
)


def _timeline(run: Run) -> str:
    """Plot the latency of each frame, and in a fixed-rate run the age of each result."""
    lines = [("#0969da", run.latencies), *([("#bc4c00", run.ages)] if run.ages else [])]
    top = 1.1e3 * max(max(values) for _, values in lines) or 1.0
    drawn = []
    for color, values in lines:
        step = (_WIDTH - _LEFT) / max(len(values) - 1, 1)
        points = " ".join(f"{_LEFT + i * step:.1f},{_y(1e3 * value, top):.1f}" for i, value in enumerate(values))
        drawn.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.3" points="{points}"/>')
    names = ["latency", "age of the result"][: len(lines)]
    legend = "".join(
        f'<text x="{_WIDTH - 220 + 80 * i}" y="9" style="fill:{color}">{name}</text>'
        for i, (name, (color, _)) in enumerate(zip(names, lines, strict=True))
    )
    return _axes(top, "ms", "".join(drawn) + legend, f"{len(run.latencies)} frames")


def _distribution(run: Run) -> str:
    """Plot the percentage of frames that were done within a time."""
    ordered = sorted(1e3 * value for value in run.latencies)
    last = 1.05 * ordered[-1] or 1.0
    points = [(0.0, 0.0), *((value, 100 * (i + 1) / len(ordered)) for i, value in enumerate(ordered))]
    path = " ".join(f"{_LEFT + x / last * (_WIDTH - _LEFT):.1f},{_y(y, 100):.1f}" for x, y in points)
    line = f'<polyline fill="none" stroke="#0969da" stroke-width="1.6" points="{path}"/>'
    return _axes(100, "%", line, f"0 to {last:.1f} ms")


def _y(value: float, top: float) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - value / top)


def _axes(top: float, unit: str, inside: str, below: str) -> str:
    rows = []
    for part in range(5):
        value = top * part / 4
        y = _y(value, top)
        rows.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d8dee4"/>')
        rows.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g} {unit}</text>')
    caption = f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">{html.escape(below)}</text>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(below)}">'
        f"{''.join(rows)}{inside}{caption}</svg>"
    )
