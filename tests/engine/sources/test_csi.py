"""CSI cameras: GStreamer itself, with stand-ins for the two elements of a Jetson (`support.argus`)."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import panrt
from panrt.engine.pixel_formats import bgr
from panrt.engine.sources import (
    SourceDeniedError,
    SourceError,
    SourceNotFoundError,
    SourceOptions,
    SourceRefusedError,
    SourceTimeoutError,
    SourceUndecodableError,
    State,
    appsink,
    argus,
    gstreamer,
    open_source,
)
from panrt.engine.sources.appsink import PipelineError, Sample
from panrt.engine.sources.argus import Moments, csi_frames, nv12_frame
from panrt.engine.sources.gstreamer import LaunchedPipeline
from panrt.engine.sources.source import Opening
from tools.clock import PATIENCE
from tools.null_session import NullSession
from tools.streams import drain, wait_for

pytestmark = pytest.mark.usefixtures("csi_camera")
NV12 = SourceOptions(pixel_format="nv12", timeout=PATIENCE)
SMALL = "csi://0?width=160&height=120"
SYSTEM_PYTHON = Path("/usr/bin/python3")  # `gi` is a package of the system's Python


@pytest.fixture(autouse=True)
def by_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `gi` cannot be imported."""
    monkeypatch.setattr(appsink, "load", lambda: (None, "no gi"))


def launchers() -> set[int]:
    """The processes of gst-launch-1.0 that this one has started and not yet reaped."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        if int(rest.split()[1]) == os.getpid() and ("gst-launch" in name or "setpriv" in name):
            found.add(int(stat.parent.name))
    return found


def error_of(uri: str, options: SourceOptions = NV12) -> Exception:
    """Why a source ends that gives no frame."""
    with open_source(uri, options=options) as source:
        assert drain(source) == []
    assert source.error is not None
    return source.error


# Frames.


def test_frames_are_those_of_the_sensor_with_its_times() -> None:
    with open_source("csi://0?width=162&height=120&fps=20", options=NV12) as source:
        frames = drain(source, most=4)
    bars = [(b, g, r) for g in (255, 0) for r in (255, 0) for b in (255, 0)][:7]  # of SMPTE: white, yellow, cyan ...
    for frame in frames:
        assert (frame.pixel_format, frame.image.shape, frame.hw) == ("nv12", (180, 162), (120, 162))
        assert np.abs(bgr(frame)[20, 11::23].astype(int) - bars).max() <= 3
    times = np.array([frame.media_time for frame in frames])
    periods = np.diff(times) / 0.05
    assert np.allclose(periods, np.rint(periods), atol=1e-4)
    captured = np.array([frame.captured_at for frame in frames])
    assert np.all(np.diff(captured) > 0)


def test_bgr_frames_are_converted_from_the_same_nv12() -> None:
    with open_source(SMALL, options=SourceOptions(timeout=PATIENCE)) as source:
        [frame] = drain(source, most=1)
    with open_source(SMALL, options=NV12) as source:
        [raw] = drain(source, most=1)
    assert np.array_equal(frame.image[:80], bgr(raw)[:80])  # below, the test picture has noise


@pytest.mark.parametrize(
    ("flip", "turned"),
    [
        (1, lambda image: np.rot90(image, 1)),
        (2, lambda image: np.rot90(image, 2)),
        (3, lambda image: np.rot90(image, 3)),
        (4, np.fliplr),
        (6, np.flipud),
    ],
)
def test_flip_turns_the_picture_as_nvidia_numbers_it(flip: int, turned: Any) -> None:
    shown = []
    for uri in (SMALL, f"{SMALL}&flip={flip}&mode=1"):
        with open_source(uri, options=NV12) as source:
            [frame] = drain(source, most=1)
        shown.append(bgr(frame)[..., 1])
    upright = turned(shown[0])
    assert shown[1].shape == upright.shape
    agree = np.abs(shown[1].astype(int) - upright) < 8
    assert agree.mean() > 0.8  # the noise is a twelfth of the picture, and chroma is halved


def test_each_byte_is_read_from_the_pipe_once_into_the_memory_of_its_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies between the launcher and a frame, counted: each `readv` is one."""
    frame_bytes, reads = 160 * 120 * 3 // 2, []
    original = os.readv

    def counted(descriptor: int, targets: list[memoryview]) -> int:
        count = original(descriptor, targets)
        reads.append((np.frombuffer(targets[0], np.uint8)[:count], count))
        return count

    monkeypatch.setattr("panrt.engine.sources.gstreamer.os.readv", counted)
    # Held, so that no memory is used again.
    with open_source(SMALL, options=SourceOptions(pixel_format="nv12", policy="block", timeout=PATIENCE)) as source:
        frames = drain(source, most=4)
    for frame in frames:
        into = [count for target, count in reads if np.shares_memory(target, frame.image)]
        assert sum(into) == frame_bytes


def test_memory_of_frames_is_used_again_but_never_while_one_is_held() -> None:
    with open_source(SMALL, options=SourceOptions(pixel_format="nv12", policy="block", timeout=PATIENCE)) as source:
        [held] = drain(source, most=1)
        content, addresses = held.image.copy(), [held.image.ctypes.data]
        for _ in range(12):
            [frame] = drain(source, most=1)
            addresses.append(frame.image.ctypes.data)
            del frame
    assert addresses.count(addresses[0]) == 1
    assert np.array_equal(held.image, content)
    assert len(set(addresses)) < len(addresses)


def test_a_stream_of_a_csi_camera_gives_a_result_for_each_frame_that_it_takes() -> None:
    with panrt.stream(SMALL, NullSession(), options=SourceOptions(timeout=PATIENCE), limit=3) as stream:
        pairs = list(stream.pairs())
    assert [(item.frame.pixel_format, item.frame.hw) for item in pairs] == 3 * [("bgr8", (120, 160))]
    assert [item.result.frame_index for item in pairs] == [item.frame.index for item in pairs]
    assert launchers() == set()


# The life of the launcher.


def test_a_launcher_that_dies_is_started_again_and_none_is_left() -> None:
    options = SourceOptions(pixel_format="nv12", timeout=PATIENCE, backoff=(0.01, 0.05))
    descriptors = set(os.listdir("/proc/self/fd"))
    with open_source(SMALL, options=options) as source:
        drain(source, most=2)
        [first] = launchers()
        assert os.getsid(first) == first  # so that Ctrl-C in a terminal does not reach it
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: source.status.reconnects > 0)
        drain(source, most=2)
        assert first not in launchers()  # reaped
        states = [transition.state for transition in source.status.history if transition.state is not State.STALLED]
        assert states[:3] == [State.CONNECTING, State.LIVE, State.RECONNECTING]
        status = source.status
        assert status.captured == status.delivered + status.dropped + status.waiting
    assert launchers() == set()
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert source.error is None


def test_a_launcher_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "_GRACE", 0.05)
    with open_source(SMALL, options=NV12) as source:
        drain(source, most=1)
        [launcher] = launchers()
        os.kill(launcher, signal.SIGSTOP)
    assert launchers() == set()


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    with open_source(f"{SMALL}&fps=200", options=NV12) as source:
        [first] = drain(source, most=1)
        wait_for(lambda: source.status.captured > first.index + 20)
        [newest] = drain(source, most=1)
        status = source.status
    assert newest.index > first.index + 10
    assert status.dropped >= newest.index - first.index - 1


SILENT = "videotestsrc is-live=true ! video/x-raw,format=NV12,width=16,height=16,framerate=1/10000"
ORPHAN = f"""
from panrt.engine.sources import gstreamer
gstreamer.appsink.load = lambda: (None, "")
pipeline = gstreamer.LaunchedPipeline({SILENT!r})
while pipeline.pull(0.1) is None:
    pass
print(pipeline._process.pid, flush=True)
pipeline.pull(1000)
"""


def test_a_launcher_ends_with_its_parent_even_if_it_writes_nothing_and_hears_nothing() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        launcher = Path("/proc") / parent.stdout.readline().strip()
        assert "gst-launch" in (launcher / "comm").read_text()
        os.kill(int(launcher.name), signal.SIGSTOP)
    finally:
        parent.kill()
        parent.communicate()

    def is_gone() -> bool:
        try:
            return (launcher / "stat").read_text().rpartition(")")[2].split()[0] == "Z"  # left to a lazy init
        except OSError:
            return True

    wait_for(is_gone)


# Errors.


def test_a_sensor_that_is_not_there_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    error = error_of("csi://1")
    assert isinstance(error, SourceNotFoundError)
    assert "GStreamer: Invalid camera device specified" in str(error)
    monkeypatch.setenv("ARGUS_SENSORS", "0")
    assert "GStreamer: No cameras available" in str(error_of("csi://0"))


def test_a_machine_without_argus_is_told_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GST_PLUGIN_PATH", str(tmp_path))
    monkeypatch.setenv("GST_REGISTRY", str(tmp_path / "registry.bin"))
    said = str(error_of("csi://0"))
    assert said.startswith("csi://0: GStreamer lacks the element nvarguscamerasrc, which is in nvidia-l4t-gstreamer")
    assert not gstreamer.has_element("nvarguscamerasrc")


def test_elements_are_found_where_the_inspector_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert gstreamer.has_element("nvarguscamerasrc")
    inspector = tmp_path / "gst-inspect-1.0"
    inspector.write_text("no program")
    inspector.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert not gstreamer.has_element("nvarguscamerasrc")
    inspector.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(gstreamer, "_PATIENCE", 0.1)
    assert not gstreamer.has_element("nvarguscamerasrc")


def test_a_machine_without_gstreamer_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gstreamer.way() == ""
    assert not gstreamer.has_element("nvarguscamerasrc")
    assert "sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-bad" in str(error_of("csi://0"))


def test_a_rate_that_the_sensor_has_not_is_said() -> None:
    error = error_of("csi://0?fps=1000")  # the stand-in has up to 240
    assert type(error) is SourceError
    assert "does not support this size or rate" in str(error)


ERROR = "ERROR: from element /GstPipeline:pipeline0/GstNvArgusCameraSrc:src:"
ARGUS_ENDS = """GST_ARGUS: Creating output stream
Error generated. /dvs/git/gst-nvarguscamera/gstnvarguscamerasrc.cpp, execute:751 Failed to create CaptureSession
GST_ARGUS: Cleaning up
"""


NO_DAEMON = """(Argus) Error FileOperationFailed: Connecting to nvargus-daemon failed: No such file or directory
(Argus) Error FileOperationFailed: Cannot create camera provider (in src/rpc/socket/client)
"""


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        (NO_DAEMON, SourceRefusedError, "-v /tmp/argus_socket:/tmp/argus_socket"),
        (ARGUS_ENDS, SourceRefusedError, "another program uses it"),
        (ARGUS_ENDS, SourceRefusedError, "GStreamer: Error generated. /dvs/git"),
        (
            "ERROR: from element /a/b:c0: Could not open device.\nsystem error: Permission denied",
            SourceDeniedError,
            "usermod -aG video",
        ),
        (f"{ERROR} Device '/dev/video0' is busy\n", SourceRefusedError, "another program uses it"),
        (
            f"{ERROR} y\x1b[31m\nstreaming stopped, reason error (-5)",
            SourceRefusedError,
            "show why. GStreamer: y",
        ),
        ("gst-launch-1.0 ended with -9.", SourceRefusedError, "or no more; `journalctl -u nvargus-daemon`"),
    ],
)
def test_what_gstreamer_says_is_understood(
    monkeypatch: pytest.MonkeyPatch, said: str, kind: type[SourceError], told: str
) -> None:
    def fail(_: str) -> Any:
        raise PipelineError(said)

    monkeypatch.setattr(gstreamer, "start", fail)
    error = error_of("csi://0")
    assert type(error) is kind
    assert told in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize(("frames", "seconds"), [(0, 15), (1, 2)])
def test_a_camera_that_is_silent_is_lost_after_the_timeout_or_what_its_start_may_take(
    monkeypatch: pytest.MonkeyPatch, frames: int, seconds: int
) -> None:
    class Silent:
        seconds = 0.0
        left = frames
        closed = False

        def now(self) -> float:
            return self.seconds

        def pull(self, seconds: float) -> Sample | None:
            self.seconds += seconds
            self.left -= 1
            return Sample(bytes(12), CAPS.decode(), None, None) if self.left >= 0 else None

        def close(self) -> None:
            self.closed = True

    silent = Silent()
    monkeypatch.setattr(gstreamer, "start", lambda _: silent)
    options = SourceOptions(timeout=2.0, clock=silent)  # type: ignore[arg-type]
    with pytest.raises(SourceTimeoutError, match=rf"no data for {seconds} s\."):
        list(csi_frames(0, "csi://0", argus.CsiOptions(), Opening(options, realtime=True)))
    assert silent.closed
    assert seconds < silent.seconds < seconds + 0.5


# The way through the pipe, by a launcher that writes what a test says.


def launcher_that_writes(folder: Path, stream: bytes, says: str = "") -> None:
    """Put a gst-launch-1.0 into a folder."""
    (folder / "stream").write_bytes(stream)
    (folder / "says").write_text(says)
    program = folder / "gst-launch-1.0"
    program.write_text(f'#!/bin/bash\ncat {folder}/says\nfor last; do :; done\ncat {folder}/stream >&"${{last#fd=}}"\n')
    program.chmod(0o755)


def part(kind: int, content: bytes, time: int = (1 << 64) - 1) -> bytes:
    """A part of a stream in GStreamer's framing."""
    return struct.pack(">BBBxHIQ44x", 1, 0, 1, kind, len(content), time) + content


CAPS = b"video/x-raw, format=(string)NV12, width=(int)4, height=(int)2, colorimetry=(string)bt709\0"


def pull_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Sample], str]:
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    pipeline, samples = LaunchedPipeline("fakesrc"), []
    try:
        while True:
            sample = pipeline.pull(0.1)
            if sample is not None:
                samples.append(sample)
    except PipelineError as error:
        return samples, str(error)
    finally:
        pipeline.close()


def test_buffers_keep_their_content_times_and_caps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixels = [bytes(range(n, n + 12)) for n in range(3)]
    stream = part(64 + 10254, b"GstEventStreamStart;") + part(2, CAPS) + part(65, b"") + part(1, pixels[0], 40_000_000)
    stream += part(1, pixels[1], 80_000_000) + part(2, CAPS.replace(b"bt709", b"bt601")) + part(1, pixels[2])
    launcher_that_writes(tmp_path, stream, "GST_ARGUS: on standard output, where no frames are\n")
    samples, said = pull_all(tmp_path, monkeypatch)
    frames = [nv12_frame(sample, "csi://0") for sample in samples]
    assert [frame.image.tobytes() for frame in frames] == pixels
    assert [frame.yuv_standard for frame in frames] == ["bt709", "bt709", "bt601"]
    assert [sample.time for sample in samples] == [0.04, 0.08, None]
    assert said == "GST_ARGUS: on standard output, where no frames are\n"


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (b"", "gst-launch-1.0 ended with 0."),
        (part(1, b"abcdef")[:-3], "gst-launch-1.0 ended with 0."),
        (part(1, b"")[:30], "gst-launch-1.0 ended with 0."),
        (b"\x7fELF" + bytes(100), "got a header of version 127"),
        (part(1, b"")[:6] + b"\xff" * 56, "4294967295 bytes, expected GDP 1"),
    ],
)
def test_what_is_no_stream_of_buffers_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stream: bytes, said: str
) -> None:
    launcher_that_writes(tmp_path, stream)
    samples, told = pull_all(tmp_path, monkeypatch)
    assert samples == []
    assert said in told


@pytest.mark.parametrize(
    ("caps", "size"),
    [
        ("video/x-raw, format=(string)I420, width=(int)4, height=(int)2", 12),
        ("video/x-raw, format=(string)NV12, width=(int)5, height=(int)2", 12),
        ("video/x-raw, format=(string)NV12, width=(int)4", 12),
        ("video/x-raw, format=(string)NV12, width=(int)4, height=(int)2", 13),
        ("video/x-raw, format=(string)NV12, width=(int)0, height=(int)0", 0),
        ("", 12),
    ],
)
def test_what_is_no_frame_in_nv12_is_an_error(caps: str, size: int) -> None:
    with pytest.raises(SourceUndecodableError, match="csi://0: got"):
        nv12_frame(Sample(bytes(size), caps, None, None), "csi://0")


# Times.


@given(
    delays=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=20),
    period=st.floats(0.001, 0.2),
    begin=st.floats(0, 1e6),
)
def test_frames_keep_their_distances_however_long_they_were_on_their_way(
    delays: list[float], period: float, begin: float
) -> None:
    moments, quickest = Moments(), float("inf")
    for index, delay in enumerate(delays):
        time = index * period
        captured = moments.of(Sample(b"", "", time, None), begin + time + delay)
        quickest = min(quickest, delay)
        assert captured == pytest.approx(begin + time + quickest, abs=1e-6)


def test_a_stream_that_begins_anew_is_not_taken_for_old() -> None:
    moments = Moments()
    assert moments.of(Sample(b"", "", 100.0, None), 500.0) == 500.0
    assert moments.of(Sample(b"", "", 0.0, None), 501.0) == 501.0
    assert moments.of(Sample(b"", "", 0.1, None), 501.3) == pytest.approx(501.1)


def test_an_age_that_is_known_counts_and_one_that_cannot_be_does_not() -> None:
    moments = Moments()
    assert moments.of(Sample(b"", "", 5.0, 0.25), 100.0) == 99.75
    assert moments.of(Sample(b"", "", 5.0, -3.0), 100.0) == 100.0
    assert moments.of(Sample(b"", "", 5.0, 1e6), 100.0) == 100.0
    assert moments.of(Sample(b"", "", None, None), 100.0) == 100.0


# In this process, by `gi`.

BY_GI = """
import importlib.util, json, sys, tracemalloc
specification = importlib.util.spec_from_file_location("appsink", sys.argv[1])
appsink = importlib.util.module_from_spec(specification)
sys.modules["appsink"] = appsink
specification.loader.exec_module(appsink)
told = {"problem": appsink.load()[1], "samples": [], "errors": []}
pipeline = appsink.AppSink(sys.argv[2])
held = []
while len(held) < 4:
    tracemalloc.start()
    sample = pipeline.pull(1.0)
    copied = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if sample is not None:
        held.append(sample)
        told["samples"].append([sample.caps, sample.time, sample.age, len(sample.data), copied])
pipeline.close()
pipeline.close()
told["row"] = list(held[0].data[20 * 640 : 21 * 640])
for wrong in sys.argv[3:]:
    try:
        failing = appsink.AppSink(wrong)
        while True:
            failing.pull(1.0)
    except appsink.PipelineError as error:
        told["errors"].append(str(error))
print(json.dumps(told))
"""


def test_gi_gives_the_same_buffers_with_one_copy_and_their_age() -> None:
    pipeline = argus.argus_pipeline(0, argus.CsiOptions(width=640, height=480))
    wrong = ["nosuchelement", argus.argus_pipeline(7, argus.CsiOptions()), f"{SILENT} ! identity eos-after=1"]
    command: list[str | Path] = [SYSTEM_PYTHON, "-c", BY_GI, appsink.__file__, pipeline, *wrong]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    frame_bytes = 640 * 480 * 3 // 2
    for caps, time, age, size, copied in told["samples"]:
        assert "format=(string)NV12" in caps
        assert (time >= 0, age >= 0, size) == (True, True, frame_bytes)
        assert frame_bytes <= copied < 2 * frame_bytes  # what Python allocated meanwhile: one copy
    with open_source("csi://0?width=640&height=480", options=NV12) as source:
        [frame] = drain(source, most=1)
    assert told["row"] == frame.image[20].tolist()
    assert 'no element "nosuchelement"' in told["errors"][0]
    assert "Invalid camera device specified" in told["errors"][1]
    assert told["errors"][2] == "the stream ended."


def test_what_gi_gives_becomes_a_frame_without_another_copy() -> None:
    data = bytes(range(12))
    frame = nv12_frame(Sample(data, CAPS.decode(), None, None), "csi://0")
    assert np.shares_memory(frame.image, np.frombuffer(data, np.uint8))


def test_gi_is_preferred_where_it_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gstreamer.way() == "gst-launch-1.0"
    started: list[str] = []
    monkeypatch.setattr(appsink, "load", lambda: (object(), ""))
    monkeypatch.setattr(gstreamer, "AppSink", started.append)
    gstreamer.start("fakesrc")
    assert (gstreamer.way(), started) == ("python3-gi", ["fakesrc"])
