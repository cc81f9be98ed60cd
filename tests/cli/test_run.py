"""panrt run, from its options to its exit codes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import panrt
from panrt.cli import app
from panrt.cli.run import _line
from panrt.engine.pipeline import Stream
from panrt.engine.sinks import SinkError, folders
from panrt.engine.sources import SourceNotFoundError, argus, source, v4l2
from panrt.engine.sources.source import Opening
from support.networks import exported
from tools.null_session import NullSession
from tools.streams import CLIP, IMAGES

URI = "test://64x48@max?frames=20"


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("model") / "lively.onnx")


@pytest.fixture
def null_model(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Whatever model is named, the null session is loaded; what it was asked for."""
    asked: list[dict[str, Any]] = []

    def load(path: Path, **options: Any) -> NullSession:
        asked.append({"path": path, **options})
        return NullSession(capacity=2)

    monkeypatch.setattr(panrt, "load", load, raising=False)
    return asked


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["run", "--model", "any.onnx", *map(str, arguments)])


def test_a_clip_through_a_real_model_gives_a_video_and_a_line_for_each_frame(lively: Path, tmp_path: Path) -> None:
    sinks = "--sink", tmp_path / "out.mp4", "--sink", tmp_path / "out.jsonl"
    arguments = "run", "demo://tabletop", "--model", lively, *sinks, "--frames", 6, "--json", "--threads", 1
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["results"] == 6
    assert facts["error"] is None
    assert [sink["written"] for sink in facts["sinks"]] == [6, 6]
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["frame_index"] for row in rows] == list(range(6))
    assert all(row["segments"] and row["timings"]["inference"] > 0 for row in rows)
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_the_same_is_seen_in_frames_in_nv12() -> None:
    seen = []
    for pixel_format in ("bgr8", "nv12"):
        arguments = "run", "demo://tabletop", "-m", "tabletop", "-s", "-", "--frames", 2, "--pixel-format", pixel_format
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        seen.append([[segment["name"] for segment in row["segments"]] for row in rows])
    assert len(seen[0]) == len(seen[1]) == 2
    for names, others in zip(*seen, strict=True):
        assert len(names) > 10
        assert abs(len(names) - len(others)) <= 1  # FFmpeg rounds colours another way
        assert set(names) == set(others)


@pytest.mark.usefixtures("null_model")
def test_what_a_library_prints_is_not_among_the_results(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    original = source._next

    def chatty(pictures: Any) -> Any:
        os.write(1, b"GST_ARGUS: Setup Complete\n")
        return original(pictures)

    monkeypatch.setattr(source, "_next", chatty)
    # Not by CliRunner, under which standard output is no file.
    for arguments in (("-s", "-"), ("--json",)):
        app(["run", URI, "--model", "any.onnx", *arguments], standalone_mode=False)
        said, errors = capfd.readouterr()
        documents = said.splitlines() if "-s" in arguments else [said]
        assert all(json.loads(document) for document in documents)
        assert len(documents) == (20 if "-s" in arguments else 1)
        assert "GST_ARGUS" in errors


@pytest.mark.parametrize(
    ("converts", "asked", "formats"),
    [
        (False, "auto", ["bgr8", "bgr8", "bgr8"]),
        (True, "auto", ["nv12", "yuyv", "bgr8"]),
        (True, "bgr8", ["bgr8", "bgr8", "bgr8"]),
    ],
)
def test_a_gpu_gets_frames_of_cameras_as_these_have_them(
    monkeypatch: pytest.MonkeyPatch, converts: bool, asked: str, formats: list[str]
) -> None:
    """Where they share a batch, frames must be alike, and are BGR."""
    taken: dict[str, str] = {}

    def read(device: object, uri: str, camera: object, opening: Opening) -> Iterator[Any]:
        taken[uri] = opening.options.pixel_format
        yield from ()
        raise SourceNotFoundError(uri)

    for module, name in ((argus, "csi_frames"), (v4l2, "v4l2_frames")):
        monkeypatch.setattr(module, name, read)

    def taken_by(batch: int, *uris: str) -> list[str]:
        session = NullSession(capacity=2)
        session.converts_frames = converts
        session.model = dataclasses.replace(session.model, batch=batch)
        monkeypatch.setattr(panrt, "load", lambda *_, **__: session, raising=False)
        taken.clear()
        run(*uris, "--pixel-format", asked)
        return [taken[uri] for uri in uris]

    uris = ["csi://0", "camera://0?fourcc=YUYV", "camera://1"]  # of the last nothing is known
    assert [taken_by(2, uri)[0] for uri in uris] == formats
    assert taken_by(1, *uris) == formats
    assert taken_by(2, *uris) == ["bgr8", "bgr8", "bgr8"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--preprocess", "gpu", "the backend 'cpu' has no GPU to prepare frames on"),
        ("--preprocess", "fpga", "'fpga' is not one of"),
        ("--gpu-memory", "mapped", "the backend 'cpu' has no GPU with memory to choose"),
        ("--gpu-memory", "fast", "'fast' is not one of"),
        ("--pixel-format", "p010", "'p010' is not one of"),
        ("--conf", "1.5", "--conf: got 1.5, expected a number from 0 to 1"),
        ("--overlap", "-1", "--overlap: got -1.0, expected a number from 0 to 1"),
        ("--min-stuff", "-1", "--min-stuff: got -1, expected an integer from 0 to 2147483647"),
        ("--classes", "sofa", "'sofa' is not a class of panoptic_fpn_lite"),
        ("--pixel-format", "yuyv", "gives no frames in yuyv, but in bgr8 or nv12"),
    ],
)
def test_an_option_that_does_not_do_here_is_an_error(lively: Path, option: str, value: str, said: str) -> None:
    arguments = "run", "demo://tabletop", "--model", str(lively), "--backend", "cpu", option, value
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_the_end_of_a_run_is_told_for_people(null_model: list[dict[str, Any]], tmp_path: Path) -> None:
    result = run(URI, IMAGES / "000001.jpg", "-s", tmp_path / "out.jsonl", "--backend", "cpu", "--threads", 2)
    assert result.exit_code == 0, result.output
    assert null_model == [
        {
            "path": Path("any.onnx"),
            "backend": "cpu",
            "threads": 2,
            "preprocess": "host",
            "gpu_memory": "auto",
            "input_hw": None,
            "thresholds": None,
            "classes": None,
        }
    ]
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "21 in" in lines["results"]
    assert "ms, median / p99 / worst" in lines["age"]
    assert f"source      {URI}: 20 captured, 0 dropped; ended: end of source" in result.stdout
    assert "out.jsonl: 21 written" in lines["sink"]


@pytest.mark.usefixtures("null_model")
def test_json_lines_on_standard_output_are_alone_there() -> None:
    result = run(URI, "-s", "-")
    assert result.exit_code == 0
    assert [json.loads(line)["frame_index"] for line in result.stdout.splitlines()] == list(range(20))
    assert "20 written" in result.stderr
    both = run(URI, "-s", "-", "--json")
    assert both.exit_code == 2
    assert "both write to standard output" in both.stderr


@pytest.mark.usefixtures("null_model")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rstp://camera/1"], "error: rstp://camera/1: no source has the scheme 'rstp'; did you mean rtsp"),
        ([URI, "-s", "wep://:80"], "error: wep://:80: no sink has the scheme 'wep'; did you mean web?"),
        ([URI, "--policy", "newest"], "'newest' is not one of"),
        (["nope.mp4"], "error: nope.mp4: no such file."),
        (["rtsp://127.0.0.1:1/a"], "error: rtsp://127.0.0.1:1/a: connection refused."),
        ([URI, "-s", "window://"], "watch in a browser with web://:8080"),
    ],
)
def test_what_does_not_do_is_told_in_one_line_with_exit_code_2(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_thresholds_and_classes_reach_the_session(null_model: list[dict[str, Any]]) -> None:
    options = "--conf", 0.6, "--overlap", 0.25, "--min-stuff", 4096, "--classes", "person, traffic light"
    assert run(URI, *options).exit_code == 0
    assert null_model[0]["thresholds"] == panrt.Thresholds(instance_score=0.6, instance_overlap=0.25, stuff_area=4096)
    assert null_model[0]["classes"] == ["person", "traffic light"]
    assert run(URI, "--min-stuff", 0).exit_code == 0
    assert null_model[1]["thresholds"] == panrt.Thresholds(stuff_area=0)
    assert null_model[1]["classes"] is None


def test_only_the_chosen_classes_are_in_the_results(lively: Path) -> None:
    def names(*options: object) -> set[str]:
        arguments = "run", "demo://tabletop", "-m", lively, "-s", "-", "--frames", 2, "--threads", 1, *options
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        found = [json.loads(line) for line in result.stdout.splitlines()]
        return {segment["name"] for row in found for segment in row["segments"]}

    everything = names()
    one = min(everything)
    assert names("--classes", one) == {one} != everything


@pytest.mark.usefixtures("null_model")
def test_a_source_that_ends_by_an_error_is_told_after_its_results(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes((IMAGES / "000001.jpg").read_bytes())
    (tmp_path / "b.png").write_bytes(b"no picture")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "1 captured" in result.stdout
    assert "b.png: not an image" in result.stderr


@pytest.mark.usefixtures("null_model")
def test_a_recording_that_lost_results_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise SinkError(f"{path}: No space left on device.")

    monkeypatch.setattr(folders, "write_whole", full)
    result = run(URI, "-s", f"coco://{tmp_path}")
    assert result.exit_code == 1
    assert "20 results lost" in result.stderr
    assert "No space left on device" in result.stderr


@pytest.mark.usefixtures("null_model")
def test_the_name_that_a_file_got_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert "out.jsonl: 20 written\n" in run(URI, "-s", out).stdout
    assert f"out.jsonl: 20 written to {tmp_path / 'out-2.jsonl'}\n" in run(URI, "-s", out).stdout


@pytest.mark.usefixtures("null_model")
def test_a_source_is_not_written_over(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(CLIP.read_bytes())
    result = run(clip, "-s", clip)
    assert result.exit_code == 2
    assert f"error: {clip}: is the source {clip}" in result.stderr
    assert clip.read_bytes() == CLIP.read_bytes()


def test_a_run_ends_when_nobody_reads_its_standard_output_any_more(lively: Path) -> None:
    panrt_command = Path(sys.executable).with_name("panrt")
    command: list[str | Path] = [
        panrt_command,
        "run",
        "test://64x48@20",
        "--model",
        lively,
        "-s",
        "-",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["frame_index"] == 0
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert "nobody reads standard output any more" in errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


@pytest.mark.parametrize("command", [["--version"], ["info", "tabletop"]])
def test_output_that_cannot_be_written_is_an_error_in_one_line(command: list[str]) -> None:
    panrt_command = Path(sys.executable).with_name("panrt")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([panrt_command, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_does_not_get_the_number_of_a_standard_handle_that_is_closed(lively: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    panrt_command = Path(sys.executable).with_name("panrt")
    arguments = f"run test://64x48@max?frames=3 --model {lively} -s {out}"
    done = subprocess.run(f"{panrt_command} {arguments} <&- >&- 2>&-", shell=True, check=False)
    assert done.returncode == 0
    assert [json.loads(line)["frame_index"] for line in out.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.usefixtures("null_model")
def test_a_run_of_so_many_seconds_ends_although_nothing_comes() -> None:
    assert run("test://64x48@0.00001", "--seconds", 0.5).exit_code == 0  # the second frame is due after a day


@pytest.mark.usefixtures("null_model")
def test_the_progress_line_tells_rate_age_losses_and_trouble() -> None:
    stream: Stream = panrt.stream("test://64x48@50?frames=10", NullSession(), policy="block")
    list(stream)
    line = _line(stream.status)
    assert line.startswith("  10 results  ")
    assert " fps  age " in line
    assert line.endswith(" ms  0 dropped")


def test_ctrl_c_ends_a_run_with_everything_written(lively: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    panrt_command = Path(sys.executable).with_name("panrt")
    command: list[str | Path] = [panrt_command, "run", CLIP, "--loop", "--model", lively, "-s", out, "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out.exists() and out.read_text()):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    lines = out.read_text().splitlines()
    assert f"out.jsonl: {len(lines)} written" in shown
    assert [json.loads(line)["frame_index"] for line in lines] == list(range(len(lines)))


def test_a_bad_picture_of_a_folder_is_told_by_the_exit_code(null_model: list[dict[str, Any]], tmp_path: Path) -> None:
    for name in ("000001.jpg", "000003.jpg"):
        (tmp_path / name).write_bytes((IMAGES / name).read_bytes())
    (tmp_path / "000002.jpg").write_bytes(b"not a picture")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "2 captured, 0 dropped, 1 damaged" in result.output
    (told,) = (line for line in result.output.splitlines() if line.startswith("error: "))
    assert f"1 of 3 files could not be read in full. {tmp_path / '000002.jpg'}: not an image that can be read" in told
