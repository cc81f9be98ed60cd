"""Benchmarks of a session whose speed is known: it sleeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from panrt.engine.bench import benchmark
from panrt.engine.bench.benchmark import Benchmark, BenchmarkConfig, Spread, run_benchmark
from panrt.engine.bench.power import Reading
from panrt.engine.bench.report import (
    compare,
    differences,
    from_json,
    latency_table,
    read_benchmark,
    stage_table,
    to_html,
    to_json,
    to_markdown,
    warnings,
)
from panrt.engine.frame import Frame
from panrt.engine.results.result import PanopticResult
from panrt.errors import BenchmarkFileError
from panrt.formats import plan_file
from panrt.formats.plan_file import BuildOptions
from support import plans
from support.plans import ENGINE
from tools.null_session import NullSession


class SleepingSession(NullSession):
    """Takes a known time a frame, and remembers which it saw."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds=seconds)
        self.seen: list[int] = []

    def __call__(self, frame: Frame | Any) -> PanopticResult:
        if isinstance(frame, Frame):
            self.seen.append(frame.index)
        return super().__call__(frame)


FRAMES = [np.full((4, 6, 3), value, np.uint8) for value in (1, 2)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return path


def measured(session: Any, file: Path, **options: Any) -> Benchmark:
    config = BenchmarkConfig(**{"frames": 8, "warm_up": 1, **options})
    return run_benchmark(session, FRAMES, config, path=file)


def test_percentiles_are_values_that_occurred() -> None:
    assert Spread.of([float(x) for x in range(1, 101)]) == Spread(50.0, 90.0, 99.0, 100.0, 50.5)
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 3.0, 3.0)


def test_a_throughput_run_measures_the_session_and_nothing_else(file: Path) -> None:
    run = measured(SleepingSession(0.02), file, rate=0).throughput
    assert len(run.latencies) == 8
    assert all(0.02 <= latency < 0.2 for latency in run.latencies)
    assert run.stages.keys() == {"preprocess", "inference", "postprocess"}
    assert run.ages == ()


def test_a_session_that_is_too_slow_for_the_rate_skips_frames_and_counts_them(file: Path) -> None:
    session = SleepingSession(0.05)
    run = measured(session, file, rate=50).fixed_rate
    assert run is not None
    assert session.seen == sorted(set(session.seen))
    assert run.dropped == session.seen[-1] + 1 - len(session.seen)
    assert run.dropped >= 8  # two of three at least: 50 ms are 2.5 frames
    assert all(age >= 0.05 for age in run.ages)


def test_a_session_that_is_fast_enough_for_the_rate_waits_for_every_frame(file: Path) -> None:
    session = SleepingSession(0.0)
    run = measured(session, file, rate=20).fixed_rate
    assert run is not None
    assert run.seconds >= 7 / 20
    assert len(session.seen) == 8


def test_a_measurement_reads_back_as_it_was_written(file: Path) -> None:
    found = measured(SleepingSession(0.001), file, rate=100)
    assert from_json(json.loads(json.dumps(to_json(found))), source="x") == found


def test_a_report_of_the_former_schema_is_still_read(plain: Benchmark) -> None:
    data = json.loads(json.dumps(to_json(plain))) | {"schema": 1}
    data["back_to_back"], data["paced"] = data.pop("throughput"), data.pop("fixed_rate")
    assert from_json(data, source="x") == plain


def test_power_is_reported_for_each_run_where_there_is_a_sensor(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Constant:
        name = "constant"

        def read(self) -> Reading:
            return Reading(20.0, 50.0, 900.0)

        def close(self) -> None: ...

    monkeypatch.setattr(benchmark, "open_sensor", lambda backend: Constant())
    found = measured(SleepingSession(0.01), file, rate=50)
    assert from_json(json.loads(json.dumps(to_json(found))), source="x") == found
    assert found.fixed_rate is not None
    for run in (found.throughput, found.fixed_rate):
        assert run.joules_per_frame == pytest.approx(20.0 * run.seconds / 8)
    for report in (to_markdown(found), to_html(found)):
        assert "20.0 W, at most 20.0 W, 900 to 900 MHz, up to 50 °C" in report
        assert "power, fixed-rate run" in report
        assert "mJ per frame" in report


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "invalid JSON"),
        ("[]", "schema 'list'"),
        ('{"schema": 1}', "not what `panrt bench` writes"),
        ('{"schema": 7}', "schema 7"),
    ],
)
def test_a_file_that_is_no_measurement_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BenchmarkFileError, match=f"a.json: .*{said}"):
        read_benchmark(path)


def test_the_page_is_well_formed_and_draws_every_frame(file: Path) -> None:
    found = measured(SleepingSession(0.001), file, rate=100)._replace(model="<&>.onnx")
    page = to_html(found)
    plots = [ElementTree.fromstring(f"<svg{part.partition('</svg>')[0]}</svg>") for part in page.split("<svg")[1:]]
    assert len(plots) == 3
    lines = [line.attrib["points"].split() for line in plots[1].iter("polyline")]
    assert [len(line) for line in lines] == [8, 8]
    assert "&lt;&amp;&gt;.onnx" in page
    assert "<&>" not in page


def test_tables_give_milliseconds_and_shares(file: Path) -> None:
    found = measured(SleepingSession(0.01), file, rate=0)
    (row,) = latency_table(found).rows
    assert row[0] == "throughput run: latency"
    assert 10 <= float(row[1]) < 100
    shares = [float(row[2]) for row in stage_table(found).rows]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert "| ms | p50 |" in to_markdown(found)


def test_comparing_gives_ratios_and_says_what_else_differs(file: Path) -> None:
    slow, fast = (measured(SleepingSession(seconds), file, rate=0) for seconds in (0.04, 0.01))
    rows = {row[0]: row for row in compare(slow, fast).rows}
    assert 0.1 < float(rows["throughput run: latency p50"][3]) < 0.7
    moved = fast._replace(machine=fast.machine._replace(processor="another"))
    assert f"processor: {slow.machine.processor} | another" in differences(slow, moved)


def test_frames_of_two_sizes_and_none_are_refused(file: Path) -> None:
    for frames, said in (([], "none to measure"), ([FRAMES[0], FRAMES[0][:2]], "of 2 sizes")):
        with pytest.raises(ValueError, match=said):
            run_benchmark(SleepingSession(0.0), frames, BenchmarkConfig(), path=file)


# Measured otherwise, or on a busy machine


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    path.write_bytes(b"weights")
    return measured(NullSession(), path, rate=1000)


def test_other_threads_and_other_numbers_of_frames_are_noticed(plain: Benchmark) -> None:
    assert differences(plain, plain) == []
    assert plain.threads is None  # the session has none to tell of
    more = plain._replace(config=BenchmarkConfig(frames=9, warm_up=2, rate=1000), threads=4)
    assert differences(plain, more) == [
        "frames of a run: 8 | 9",
        "warm-up: 1 frames | 2 frames",
        "threads of the session: not known | 4",
    ]


def test_the_threads_of_a_session_are_measured_with_it(file: Path) -> None:
    session = NullSession()
    session.threads = 3  # type: ignore[attr-defined]
    found = measured(session, file, rate=0)
    assert found.threads == 3
    assert from_json(json.loads(json.dumps(to_json(found))), source="x") == found


@pytest.mark.parametrize("tf32", [False, True])
def test_a_measurement_of_an_engine_says_whether_it_rounds_to_tf32(tmp_path: Path, tf32: bool) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(ENGINE)
    plan_file.sidecar(path).write_text(plan_file.dumps(plans.plan_file(options=BuildOptions(tf32=tf32))))
    found = measured(NullSession(), path, rate=0)
    assert found.tf32 is tf32
    assert from_json(json.loads(json.dumps(to_json(found))), source="x") == found
    for report in (to_markdown(found), to_html(found)):
        assert (f"{found.precision} with TF32, sha256" in report) is tf32
    other = "off" if tf32 else "on"
    assert differences(found, found._replace(tf32=not tf32)) == [f"TF32: {'on' if tf32 else 'off'} | {other}"]


def test_a_measurement_of_no_engine_has_no_tf32_to_tell_of(plain: Benchmark) -> None:
    assert plain.tf32 is None
    assert "TF32: not known | on" in differences(plain, plain._replace(tf32=True))


@pytest.mark.parametrize("field", ["threads", "gpu_memory", "tf32"])
def test_a_measurement_from_before_a_field_was_kept_is_read(plain: Benchmark, field: str) -> None:
    data = json.loads(json.dumps(to_json(plain)))
    del data[field]
    assert from_json(data, source="x") == plain


@pytest.mark.parametrize(
    ("load", "threads", "warned"), [(0.4, 2, 0), (19.0, 2, 1), (1.0, 1, 0), (4.0, 64, 0), (17.0, 64, 1)]
)
def test_a_busy_machine_is_warned_of(plain: Benchmark, load: float, threads: int, warned: int) -> None:
    busy = plain._replace(machine=plain.machine._replace(load=load, threads=threads))
    found = warnings(busy)
    assert len(found) == warned
    for text in found:
        assert f"load {load:.1f} on {threads} threads" in text
        assert text in to_markdown(busy)
        assert text in to_html(busy)


def test_everything_that_is_written_in_a_plot_is_within_it(plain: Benchmark) -> None:
    page = to_html(plain)
    for plot in [ElementTree.fromstring(f"<svg{part.partition('</svg>')[0]}</svg>") for part in page.split("<svg")[1:]]:
        _, _, width, height = map(float, plot.attrib["viewBox"].split())
        rows = [float(text.attrib["y"]) for text in plot.iter("text")]
        assert len(rows) >= 6
        assert all(FONT <= y <= height for y in rows)  # y is where letters stand
        for line in plot.iter("polyline"):
            points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
            assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


FONT = 8  # pixels that letters of 11 px rise


# Files that somebody else wrote


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (("model",), "\x1b[31m"),
        (("model",), 7),
        (("input_hw",), [1]),
        (("input_hw",), [1, -2]),
        (("threads",), 10**400),
        (("tf32",), 1),
        (("tf32",), "on"),
        (("config", "rate"), 10**400),
        (("config", "rate"), -1),
        (("config", "frames"), 0),
        (("config", "frames"), True),
        (("throughput",), None),
        (("throughput", "latencies"), []),
        (("throughput", "latencies"), [-1.0]),
        (("throughput", "latencies"), ["1"]),
        (("throughput", "seconds"), 0),
        (("throughput", "stages"), {"\ud800": 1.0}),
        (("throughput", "stages"), {"dense": "1"}),
        (("machine", "gpus"), "GPU"),
        (("machine", "load"), None),
        (("fixed_rate", "power"), {"sensor": "x"}),
    ],
    ids=str,
)
def test_a_value_that_no_benchmark_writes_is_named(plain: Benchmark, field: tuple[str, ...], value: object) -> None:
    data = json.loads(json.dumps(to_json(plain)))
    inner = data
    for name in field[:-1]:
        inner = inner[name]
    inner[field[-1]] = value
    with pytest.raises(BenchmarkFileError, match=r"^a\.json") as caught:
        from_json(data, source="a.json")
    assert field[0] in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_time_of_zero_divides_nothing(plain: Benchmark) -> None:
    still = plain._replace(
        throughput=plain.throughput._replace(latencies=(0.0,), stages={"dense": 0.0}), fixed_rate=None
    )
    assert {row[3] for row in compare(still, still).rows} == {"-"}
    assert stage_table(still).rows[0] == ("dense", "0.00", "-")
    assert "<svg" in to_html(still)
