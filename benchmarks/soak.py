"""A soak test of hours: no memory, thread or file handle may leak, and every lost frame must be counted.

    python -m benchmarks.soak --minutes 120

`panrt run` takes a looped clip, an RTSP camera and MJPEG over HTTP through the demo model to five sinks (mp4, JSON
lines, COCO panoptic, live page, shared memory). Beside it a viewer of the page comes and goes; every minute one of the
network sources is killed and comes back; every other minute a sink is put out of action for some seconds: the disk
of the video is filled, or the shared memory is unlinked. Memory, threads and handles of `panrt run` are sampled, and
have to be as flat in the last quarter as in the second; the counters have to add up at the end.

Linux, with GStreamer's RTSP server (see CONTRIBUTING.md). To fill a disk it mounts a small one, which needs root;
without root no disk is filled.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from benchmarks.harness import machine
from panrt.engine.sources.pattern import pattern
from tools.streams import CLIP, free_port, rtsp_server

FPS = 5  # of each source: three of them leave a core some room
SAMPLE_EVERY = 5.0  # seconds
KILL_EVERY = 60.0
CAMERA = (
    f"videotestsrc is-live=true ! video/x-raw,width=320,height=256,framerate={FPS}/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 config-interval=-1"
)
GROWTH = 1.05  # of memory, from the second quarter to the last


class Sample(NamedTuple):
    """`panrt run` at one moment."""

    seconds: float
    rss_mb: float
    threads: int
    handles: int


def sample(pid: int, started: float) -> Sample:
    """Read from /proc."""
    process = Path(f"/proc/{pid}")
    pages = int((process / "statm").read_text().split()[1])
    tasks, handles = (len(list((process / name).iterdir())) for name in ("task", "fd"))
    return Sample(time.monotonic() - started, pages * 4096 / 1e6, tasks, handles)


class Camera:
    """A network source that can be killed and comes back on the same port."""

    def __init__(self) -> None:
        self._port = free_port()
        self._running = contextlib.ExitStack()
        self.kills = 0
        self.start()

    def start(self) -> None:
        self._running.enter_context(self._serve(self._port))

    def kill(self) -> None:
        self._running.close()
        self.kills += 1

    def _serve(self, port: int) -> contextlib.AbstractContextManager[object]:
        raise NotImplementedError


class RtspCamera(Camera):
    """GStreamer's test pattern over RTSP."""

    @property
    def uri(self) -> str:
        return f"rtsp://127.0.0.1:{self._port}/clip"

    def _serve(self, port: int) -> contextlib.AbstractContextManager[object]:
        return rtsp_server(port, CAMERA)


class MjpegCamera(Camera):
    """An endless MJPEG stream over HTTP."""

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}/stream.mjpg"

    @contextlib.contextmanager
    def _serve(self, port: int) -> Iterator[object]:
        stopped = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                index = 0
                with contextlib.suppress(OSError):
                    while not stopped.wait(1 / FPS):
                        index += 1
                        jpeg = cv2.imencode(".jpg", pattern(index, (256, 320)))[1].tobytes()
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        try:
            yield server
        finally:
            stopped.set()
            server.shutdown()
            thread.join()
            server.server_close()


def view(port: int, stop: threading.Event, seen: list[int]) -> None:
    """Look at the live page for a while, go away, come back."""
    chance = random.Random(0)
    while not stop.wait(chance.uniform(1, 15)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        until = time.monotonic() + chance.uniform(1, 20)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", f"/stream.mjpg?source={chance.randrange(3)}")
            response = connection.getresponse()
            while time.monotonic() < until and not stop.is_set() and (piece := response.read1(65536)):
                seen[0] += len(piece)
        connection.close()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 2 GB in memory; whether it could be mounted."""
    folder.mkdir(parents=True)
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(disk: Path, seconds: float) -> None:
    """Leave no byte free for a while."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free)
    time.sleep(seconds)
    ballast.unlink()


def problems(facts: dict[str, Any], samples: list[Sample]) -> list[str]:
    """Return the samples that are not flat, and the counts that do not add up."""
    found = []
    status = facts
    for source in status["sources"]:
        if source["captured"] != source["delivered"] + source["dropped"] + source["waiting"]:
            found.append(f"{source['name']}: frames are not all accounted for")
    for sink in status["sinks"]:
        if sink["offered"] != sink["written"] + sink["dropped"] + sink["failed"] + sink["waiting"]:
            found.append(f"{sink['name']}: results are not all accounted for")
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    for name in ("rss_mb", "threads", "handles"):
        before, after = (statistics.median(getattr(s, name) for s in part) for part in (early, late))
        worst = [max(getattr(s, name) for s in part) for part in (early, late)]
        # A viewer and a source that reconnects have a thread or two and a few handles of their own while they last.
        slack = before * (GROWTH - 1) if name == "rss_mb" else 2
        if after > before + slack:
            found.append(f"{name} grew: median {before:g} in the second quarter, {after:g} in the last; most {worst}")
    return found


class Disturbances(NamedTuple):
    """The disturbances of a run, and their effects."""

    samples: list[Sample]
    fills: int  # of the disk of the video
    unlinks: int  # of the shared memory


def disturb(
    process: subprocess.Popen[str], cameras: Sequence[Camera], shared: Path, disk: Path | None, minutes: float
) -> Disturbances:
    """Kill and restart a camera each minute, fill the disk and unlink the shared memory in turn, and take samples.

    Args:
        process: what is watched; an end of it is the end of this.
        cameras: its sources.
        shared: the shared memory that it writes.
        disk: the small disk that it writes to; None: there is none.
        minutes: how long.
    """
    started = time.monotonic()
    samples: list[Sample] = []
    fills = unlinks = minute = 0
    while time.monotonic() - started < 60 * minutes and process.poll() is None:
        time.sleep(SAMPLE_EVERY)
        samples.append(sample(process.pid, started))
        if samples[-1].seconds < (minute + 1) * KILL_EVERY:
            continue
        minute += 1
        camera = cameras[minute % 2]
        camera.kill()
        if minute % 4 == 1 and disk is not None:
            fill(disk, 5.0)
            fills += 1
        elif minute % 4 == 3:
            shared.unlink(missing_ok=True)
            unlinks += 1
        time.sleep(2.0)
        camera.start()
        last = samples[-1]
        print(f"  {minute:4d} min  {last.rss_mb:7.1f} MB  {last.threads} threads  {last.handles} handles")
    return Disturbances(samples, fills, unlinks)


def soak(folder: Path, minutes: float) -> dict[str, Any]:
    """Run it; the figures."""
    log, disk = folder / "panrt.log", folder / "disk"
    seen, stop = [0], threading.Event()
    with small_disk(disk) as mounted, log.open("w") as errors:
        rtsp, mjpeg = RtspCamera(), MjpegCamera()
        port, shared = free_port(), f"panrt-soak-{os.getpid()}"
        sinks = [
            str(disk / "out.mp4"),
            str(folder / "out.jsonl"),
            f"coco://{folder / 'coco'}",
            f"web://127.0.0.1:{port}",
            f"shm://{shared}",
        ]
        command = [sys.executable, "-c", "from panrt.cli import main; main()", "run", str(CLIP), rtsp.uri, mjpeg.uri]
        command += ["--model", "tabletop", "--threads", "1", "--policy", "latest", "--loop", "--json"]
        process = subprocess.Popen(
            [*command, *(word for sink in sinks for word in ("--sink", sink))],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        viewer = threading.Thread(target=view, args=(port, stop, seen))
        viewer.start()
        started = time.monotonic()
        try:
            met = disturb(process, (rtsp, mjpeg), Path("/dev/shm", shared), disk if mounted else None, minutes)
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
            stop.set()
            viewer.join()
            rtsp.kill()
            mjpeg.kill()
        status = json.loads(output) if output else {"sources": [], "sinks": []}
        videos = {path.name: path.stat().st_size for path in sorted(disk.glob("*.mp4"))}
    return {
        "machine": machine(),
        "minutes": (time.monotonic() - started) / 60,
        "exit_code": process.returncode,
        "problems": problems(status, met.samples) if output else ["panrt run gave no status"],
        "kills_of_sources": rtsp.kills + mjpeg.kills - 2,
        "disk_filled": met.fills,
        "shared_memory_unlinked": met.unlinks,
        "viewer_bytes": seen[0],
        "videos": videos,
        "samples": [s._asdict() for s in met.samples],
        "status": status,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--output", type=Path, default=Path("out/soak"), help="A folder that does not exist yet.")
    options = parser.parse_args()
    options.output.mkdir(parents=True)
    facts = soak(options.output, options.minutes)
    (options.output / "soak.json").write_text(json.dumps(facts, indent=1) + "\n")
    for source in facts["status"]["sources"]:
        print("  source  ", {k: source[k] for k in ("name", "captured", "delivered", "dropped", "reconnects")})
    for sink in facts["status"]["sinks"]:
        print("  sink    ", {k: sink[k] for k in ("name", "offered", "written", "dropped", "failed")})
    quarter = len(facts["samples"]) // 4
    for name in ("rss_mb", "threads", "handles") if quarter else ():
        values = [s[name] for s in facts["samples"]]
        early, late = values[quarter : 2 * quarter], values[-quarter:]
        print(f"  {name:<8} second quarter {min(early):g} to {max(early):g}, last {min(late):g} to {max(late):g}")
    print("  problems ", facts["problems"] or "none")
    raise SystemExit(bool(facts["problems"]))


if __name__ == "__main__":
    main()
