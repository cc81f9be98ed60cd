"""Reports of benchmarks, and the URIs of sources and sinks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random

from fuzz import mutate
from fuzz.target import Files, Target, require
from fuzz.watch import judge_message
from panrt.engine.bench import report as report_files
from panrt.engine.bench.benchmark import Benchmark, BenchmarkConfig, Run
from panrt.engine.bench.machine import Machine
from panrt.engine.bench.power import Power
from panrt.engine.sinks.open import open_sink
from panrt.engine.sources.open import parse
from panrt.engine.uri import redact
from panrt.errors import PanrtError

# Reports --------------------------------------------------------------------------------------------------------------


@lru_cache
def reports() -> tuple[Files, ...]:
    """With and without a fixed-rate run and figures of power."""
    power = Power("nvml", 5, 20.5, 30.0, 61.0, (900.0, 1500.0), ("power cap",))
    machine = Machine("a processor", 2, 3000.0, "powersave", 0.5, ("a GPU",), "", "Linux", {"numpy": "2.0"})
    made = []
    for fixed_rate in (None, Run((0.01, 0.02), (0.02, 0.03), {"dense": 0.004}, 0.5, 0.4, 3, power)):
        report = Benchmark(
            model="street.onnx",
            model_sha256="a" * 64,
            name="panoptic_fpn_lite",
            precision="fp16",
            backend="cpu",
            input_hw=(256, 320),
            frame_hw=(480, 640),
            config=BenchmarkConfig(frames=2, warm_up=0),
            throughput=Run((0.011, 0.012), (), {"dense": 0.004, "merge": 0.001}, 0.05, 0.04, 0),
            fixed_rate=fixed_rate,
            resident=(1 << 20, 2 << 20),
            machine=machine,
            when="2026-01-01T00:00:00Z",
        )
        made.append({"report.json": json.dumps(report_files.to_json(report)).encode()})
    return tuple(made)


def mutate_report(rng: Random, files: Files) -> Files:
    return {"report.json": mutate.json_text(rng, files["report.json"].decode())}


def check_report(folder: Path) -> None:
    """Read it, and show it in every form."""
    report = report_files.read_benchmark(folder / "report.json")
    page = report_files.to_html(report)
    require("<script" not in page, "a page has no script")
    for text in (report_files.to_markdown(report), page, report_files.compare(report, report).text()):
        text.encode()
    report_files.latency_table(report).text()


# URIs -----------------------------------------------------------------------------------------------------------------

SECRET = "hunter2"
_URIS = (
    *(
        "camera://0?width=640&height=480&fps=30&fourcc=MJPG",
        "/dev/video0",
        "csi://0?width=640&height=480&fps=30&mode=1&flip=2",
        "camera:///dev/v4l/by-id/usb-a%3Ab",
        "test://640x480@60?frames=3",
        "clip.mp4",
    ),
    *(f"rtsp://user:{SECRET}@cam/a?b=c", f"rtsps://user:{SECRET}@[::1]:554/a", f"http://user:{SECRET}@cam:80/a.mp4#t"),
    *("file:///a/b%20c.png", "demo://tabletop", "shots/*.png", "a[1].mp4", "https://cam/live?x=1", "file://a.mp4"),
    *(
        "out.mp4?crf=20&preset=fast&scale=2",
        "out.jsonl",
        "-",
        "coco://folder",
        "npy://folder?policy=latest",
        "shm://name",
    ),
    *("window://", "web://:8080", "web://[::1]:8080", "metrics://127.0.0.1:9090", "web://localhost:0?policy=block"),
)


def uris() -> tuple[Files, ...]:
    return tuple({"uri": uri.encode()} for uri in _URIS)


def mutate_uri(rng: Random, files: Files) -> Files:
    """A URI with a character, a part or a number changed; as bytes, like what a command line gives."""
    old = files["uri"].decode()
    parts = (
        "://",
        "?",
        "@",
        ":",
        "/",
        "#",
        "%",
        "%00",
        "%ff",
        "[",
        "]",
        "[::1",
        "..",
        "\\",
        "\n",
        " ",
        "*",
        "=",
        "&",
        "٣",
        "²",
    )
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(old) + 1)
        match rng.randrange(6):
            case 0:
                old = old[:at] + rng.choice(parts) + old[at:]
            case 1:
                old = old[:at] + old[at + rng.randrange(1, 4) :]
            case 2:
                old = old[:at] + str(mutate.integer(rng)) + old[at:]
            case 3:
                other = rng.choice(_URIS)
                old = old[:at] + other[rng.randrange(len(other)) :]
            case 4:
                old = mutate.text(rng, old)
            case _:
                old = old[:at] + old[at:].swapcase()
    if (old.startswith("/") and "*" in old) or "**" in old:
        old = old.replace("*", "")  # a walk through the whole disk is what was asked for, and takes its time
    return {"uri": old.encode("utf-8", "surrogateescape" if rng.random() < 0.9 else "replace") if _ok(old) else b"\xff"}


def _ok(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def check_uri(folder: Path) -> str | None:
    """What it means as a source and as a sink; neither is started. A password is in no message."""
    uri = (folder / "uri").read_bytes().decode("utf-8", "surrogateescape")
    said: list[str] = []
    errors: list[Exception] = []
    reads: tuple[Callable[[], str], ...] = (lambda: parse(uri).uri, lambda: open_sink(uri).name, lambda: redact(uri))
    for read in reads:
        try:
            said.append(read())
        except Exception as error:
            said.append(str(error))
            errors.append(error)
    _check_secret(uri, said)
    if bugs := [error for error in errors if not isinstance(error, PanrtError)]:
        raise bugs[0]
    if len(errors) == len(said) - 1:  # neither is it a source nor a sink
        raise errors[0]
    return next((str(error) for error in errors if any(judge_message(str(error), lines=3))), None)


def _check_secret(uri: str, said: list[str]) -> None:
    """Where a login was given as it is meant to be, nothing repeats it."""
    login = f"user:{SECRET}@"
    scheme, _, rest = uri.partition("://")
    if scheme.lower() in ("rtsp", "rtsps", "http", "https") and rest.startswith(login) and uri.count(SECRET) == 1:
        for text in said[:1] + said[2:]:
            require(SECRET not in text, "a password is not shown")


TARGETS = (
    Target(name="benchmark", seeds=reports, mutate=mutate_report, check=check_report, short=400, refusals=(OSError,)),
    Target(name="uris", seeds=uris, mutate=mutate_uri, check=check_uri, short=800, refusals=(OSError,)),
)
