"""GStreamer pipelines: in this process if `gi` can be imported, else in gst-launch-1.0 behind a pipe.

Through the pipe, buffers travel in GStreamer's own framing (GDP), with their times and caps.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import shutil
import signal
import struct
import subprocess
from contextlib import ExitStack, suppress
from typing import Protocol

import numpy as np

from panrt.engine.sources import appsink
from panrt.engine.sources.appsink import AppSink, PipelineError, Sample
from panrt.engine.sources.buffers import Buffers

LAUNCHER = "gst-launch-1.0"
# If the pipe is full, the newest buffer waits and the one that waited before is dropped.
_TO_PIPE = "queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0 ! gdppay ! fdsink sync=false fd="
_HEADER = struct.Struct(">BxxxHIQ44x")  # version, type, length of what follows, time in nanoseconds
_BUFFER, _CAPS = 1, 2  # types; others are events
_NO_TIME = (1 << 64) - 1
_LONGEST = 1 << 28  # bytes of a buffer
_PIPE_BYTES = 1 << 20  # capacity of the pipe, if the system grants so much
_LOG_BYTES = 1 << 14  # of the launcher's output that are kept
_GRACE = 2.0  # seconds to end after SIGINT
_PATIENCE = 60.0  # seconds to scan all plugins


class Pipeline(Protocol):
    """A pipeline that runs until it is closed."""

    def pull(self, seconds: float) -> Sample | None:
        """Return the next buffer; None if none came in time.

        Raises:
            PipelineError: it failed or ended.
        """
        ...

    def close(self) -> None:
        """Stop the pipeline and free the camera. Idempotent."""
        ...


def way() -> str:
    """Return what runs pipelines on this machine: "python3-gi", "gst-launch-1.0", or "" for neither."""
    if appsink.load()[0] is not None:
        return "python3-gi"
    return LAUNCHER if shutil.which(LAUNCHER) else ""


def start(pipeline: str) -> Pipeline:
    """Start a pipeline, written as for gst-launch-1.0 without a sink.

    Raises:
        PipelineError: it cannot be built or started, or GStreamer is not installed.
    """
    found = way()
    if not found:
        raise PipelineError(f"neither python3-gi nor {LAUNCHER} is installed.")
    return LaunchedPipeline(pipeline) if found == LAUNCHER else AppSink(pipeline)


def has_element(name: str) -> bool:
    """Return whether GStreamer has an element."""
    gst, _ = appsink.load()
    if gst is not None:
        return gst.ElementFactory.find(name) is not None
    inspector = shutil.which("gst-inspect-1.0")
    if inspector is None:
        return False
    command = [inspector, name]  # not --exists, which requires GStreamer's own version
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class LaunchedPipeline:
    """A pipeline in a gst-launch-1.0 process, whose buffers arrive through a pipe.

    The process ends with the thread that started it, however that ends.
    """

    def __init__(self, pipeline: str) -> None:
        """Start a pipeline, to which the sink is added.

        Raises:
            PipelineError: the launcher cannot be started. An invalid pipeline raises at the first `pull`.
        """
        launcher = shutil.which(LAUNCHER)
        if launcher is None:
            raise PipelineError(f"{LAUNCHER} is not installed.")
        # Not on standard output, to which Argus writes its log.
        with ExitStack() as on_error:
            self._frames, frames_out = os.pipe()
            on_error.callback(os.close, self._frames)
            try:
                with suppress(OSError):
                    fcntl.fcntl(self._frames, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
                self._process = subprocess.Popen(
                    [*_ends_with_parent(), launcher, "-q", *f"{pipeline} ! {_TO_PIPE}{frames_out}".split()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(frames_out,),
                    env={**os.environ, "LC_ALL": "C"},
                    start_new_session=True,  # Ctrl-C reaches this process only, which then ends that one
                )
            except OSError as error:
                raise PipelineError(f"{LAUNCHER}: {error.strerror}.") from error
            finally:
                os.close(frames_out)
            on_error.pop_all()
        assert self._process.stdout is not None
        self._log = self._process.stdout
        self._said = b""
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._frames, self._log.fileno()):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._buffers = Buffers()
        self._caps = ""
        self._closed = False
        self._header = np.zeros(_HEADER.size, np.uint8)
        self._kind, self._time = 0, 0
        self._part, self._missing = self._header, _HEADER.size  # being read, and the bytes of it that are still missing

    def pull(self, seconds: float) -> Sample | None:
        """Wait for a buffer, see `Pipeline`; the time applies to each piece of a buffer."""
        while True:
            if not self._read():
                if not self._wait(seconds):
                    return None
            elif self._part is self._header:
                self._begin()
            else:
                part, kind = self._part, self._kind
                self._part, self._missing = self._header, _HEADER.size
                if kind == _CAPS:
                    self._caps = part.tobytes().rstrip(b"\0").decode("utf-8", "replace")
                elif kind == _BUFFER:
                    return Sample(part, self._caps, None if self._time == _NO_TIME else self._time / 1e9, None)

    def close(self) -> None:
        """Close the pipeline, see `Pipeline`; the process has ended afterwards."""
        if self._closed:
            return
        self._closed = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # has gst-launch-1.0 give the camera back
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._selector.close()
        self._log.close()
        os.close(self._frames)

    def _read(self) -> bool:
        """Read the available bytes of the current part in place; return whether it is complete."""
        while self._missing:
            try:
                count = os.readv(self._frames, [self._part.data[-self._missing :]])
            except BlockingIOError:
                return False
            if count == 0:
                raise PipelineError(self._last_words())
            self._missing -= count
        return True

    def _begin(self) -> None:
        """Prepare to read the part that follows a header."""
        version, self._kind, size, self._time = _HEADER.unpack(self._header.data)
        if version != 1 or size > _LONGEST:
            raise PipelineError(f"{LAUNCHER}: got a header of version {version} and {size} bytes, expected GDP 1.")
        self._part = self._buffers.take(size) if self._kind == _BUFFER else np.zeros(size, np.uint8)
        self._missing = size

    def _wait(self, seconds: float) -> bool:
        """Wait for bytes of frames and keep the launcher's output; return whether there are bytes."""
        ready = {key.fd for key, _ in self._selector.select(seconds)}
        if self._log.fileno() in ready:
            self._listen()
        return self._frames in ready

    def _listen(self) -> None:
        while said := self._log.read(_LOG_BYTES):
            self._said = (self._said + said)[-_LOG_BYTES:]
        if said == b"" and self._log.fileno() in self._selector.get_map():  # its end
            self._selector.unregister(self._log.fileno())

    def _last_words(self) -> str:
        """Return why the process ended, by its own output."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self._listen()
        return self._said.decode("utf-8", "replace") or f"{LAUNCHER} ended with {self._process.returncode}."


def _ends_with_parent() -> list[str]:
    """Return a prefix that ends a command with its parent; without it, the command ends at its next write."""
    program = shutil.which("setpriv")  # of util-linux
    return [program, "--pdeathsig", "KILL", "--"] if program else []
