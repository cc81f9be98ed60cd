"""CSI cameras of a Jetson: GStreamer's Argus source, with frames in NV12 as the image processor writes them.

Only numbers are taken from a URI into the text of a pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from panrt import errors
from panrt.engine.frame import Frame, PixelFormat, YuvStandard
from panrt.engine.pixel_formats import bgr
from panrt.engine.sources import gstreamer
from panrt.engine.sources.appsink import PipelineError, Sample
from panrt.engine.sources.source import Captured, Opening
from panrt.formats.records import legible

ELEMENT = "nvarguscamerasrc"
FORMATS: tuple[PixelFormat, ...] = ("bgr8", "nv12")
# By GStreamer's colorimetry. A missing one, or one that `Frame` cannot express, is taken for BT.601.
_STANDARDS: dict[str, YuvStandard] = {"bt709": "bt709", "2:3:5:1": "bt709", "1:3:5:1": "bt709", "2:3:0:0": "bt709"}
_STARTING = 15.0  # seconds at least for the first frame: on its first run GStreamer scans its plugins
_TICK = 0.1  # seconds between checks whether the source is stopped
_OLDEST = 10.0  # seconds; an older frame means that its clock was reset


@dataclass(frozen=True, kw_only=True)
class CsiOptions:
    """The mode to request from a CSI camera."""

    width: int = 1280
    height: int = 720
    fps: int = 30
    mode: int | None = None  # of the sensor; None: Argus chooses
    flip: int = 0  # nvvidconv's flip-method; 2 rotates by 180 degrees


def csi_frames(sensor: int, uri: str, camera: CsiOptions, opening: Opening) -> Generator[Captured, None, None]:
    """Yield the frames of a Jetson's CSI camera until it is lost.

    Raises:
        SourceError: it delivers no frames, or no more; the message holds the reason that GStreamer reports.
    """
    try:
        with closing(gstreamer.start(argus_pipeline(sensor, camera))) as pipeline:
            yield from _frames(pipeline, uri, opening)
    except PipelineError as error:
        raise _meaning(uri, str(error)) from error


def argus_pipeline(sensor: int, camera: CsiOptions) -> str:
    """Return the pipeline from a CSI sensor to NV12 in host memory."""
    mode = "" if camera.mode is None else f" sensor-mode={camera.mode}"
    return (
        f"{ELEMENT} sensor-id={sensor}{mode} ! video/x-raw(memory:NVMM),format=NV12,"
        f"width={camera.width},height={camera.height},framerate={camera.fps}/1 ! "
        f"nvvidconv flip-method={camera.flip} ! video/x-raw,format=NV12"
    )


def _frames(pipeline: gstreamer.Pipeline, uri: str, opening: Opening) -> Generator[Captured, None, None]:
    clock, moments = opening.clock, Moments()
    heard_at, patience = clock.now(), max(opening.options.timeout, _STARTING)
    while not opening.stop.is_set():
        sample = pipeline.pull(_TICK)
        now = clock.now()
        if sample is None:
            if now - heard_at > patience:
                raise errors.SourceTimeoutError(f"{uri}: no data for {patience:g} s.")
            continue
        frame = nv12_frame(sample, uri)
        captured_at = moments.of(sample, now)
        if opening.options.pixel_format == "bgr8":
            yield Captured(bgr(frame), sample.time, captured_at)
        else:
            yield Captured(frame.image, sample.time, captured_at, "nv12", frame.yuv_standard)
        patience = opening.options.timeout
        heard_at = clock.now()  # time spent waiting for the reader is not silence


class Moments:
    """Capture times of frames, from the times of their stream.

    If the age of frames is unknown, the frame with the smallest delay is assumed to have had none.
    """

    def __init__(self) -> None:
        self._begin: float | None = None  # start of the stream, on the clock of arrivals
        self._last = 0.0

    def of(self, sample: Sample, arrived: float) -> float:
        """Return the capture time of a frame that arrived now."""
        if sample.time is None:
            return arrived
        if sample.age is not None:
            return arrived - sample.age if 0 <= sample.age < _OLDEST else arrived
        begin = arrived - sample.time
        if self._begin is None or begin < self._begin or sample.time < self._last or begin > self._begin + _OLDEST:
            self._begin = begin
        self._last = sample.time
        return self._begin + sample.time


def nv12_frame(sample: Sample, uri: str) -> Frame:
    """Return a buffer as a frame that shares its memory.

    Raises:
        SourceUndecodableError: it is not a frame in NV12.
    """
    fields = dict(re.findall(r'([a-z-]+)=\(\w+\)"?([^\s,;"]+)', sample.caps))
    sides = [fields.get(name, "") for name in ("width", "height")]
    if fields.get("format") != "NV12" or not all(re.fullmatch("[0-9]{0,4}[02468]", side) for side in sides):
        raise errors.SourceUndecodableError(f"{uri}: got {legible(sample.caps)}, expected NV12 with even sides.")
    width, height = map(int, sides)
    content: NDArray[np.uint8] = np.frombuffer(sample.data, np.uint8)
    pitch, rows = -(-width // 4) * 4, height * 3 // 2  # GStreamer's layout
    if content.size == 0 or content.size != pitch * rows:
        raise errors.SourceUndecodableError(
            f"{uri}: got {content.size:,} bytes, expected {pitch * rows:,} for {width} x {height} in NV12."
        )
    standard = _STANDARDS.get(fields.get("colorimetry", "bt601"), "bt601")
    return Frame(content.reshape(rows, pitch)[:, :width], pixel_format="nv12", yuv_standard=standard)


_PACKAGES = {
    ELEMENT: "nvidia-l4t-gstreamer of JetPack",
    "nvvidconv": "nvidia-l4t-gstreamer of JetPack",
    "appsink": "gstreamer1.0-plugins-base",
    "gdppay": "gstreamer1.0-plugins-bad",
}
_MEANINGS: tuple[tuple[str, type[errors.SourceError], str], ...] = (
    (
        "connecting to nvargus-daemon|create cameraprovider|argus_socket",
        errors.SourceRefusedError,
        "Argus does not respond: sudo systemctl restart nvargus-daemon; a container needs its socket, "
        "-v /tmp/argus_socket:/tmp/argus_socket",
    ),
    (
        "neither python3-gi|not installed",
        errors.SourceError,
        "GStreamer is missing; sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-bad",
    ),
    (
        "no cameras available|invalid camera|no such file|no such device",
        errors.SourceNotFoundError,
        "no such camera; check its cable, and the cameras that `panrt doctor` lists",
    ),
    (
        "permission denied|not authorized",
        errors.SourceDeniedError,
        "this user may not open it: sudo usermod -aG video $USER, and log in again",
    ),
    (
        "busy|in use|failed to create capturesession|alreadyallocated",
        errors.SourceRefusedError,
        "another program uses it; if none does: sudo systemctl restart nvargus-daemon",
    ),
    (
        "not-negotiated|not supported|could not link",
        errors.SourceError,
        "the camera does not support this size or rate; request another: ?width=1920&height=1080&fps=30",
    ),
)


_ERROR = re.compile(
    r"(?:ERROR: from element \S+:|ERROR: pipeline could not be constructed:|WARNING: erroneous pipeline:) (.*)"
)


def _meaning(uri: str, text: str) -> errors.SourceError:
    """Return the error that a user can act on for a message of GStreamer."""
    account = legible(_shortened(text))
    element = re.search(r'no element "(\w+)"', text)
    if element is not None:
        package = _PACKAGES.get(element[1], "a package that is not installed")
        return errors.SourceError(
            f"{uri}: GStreamer lacks the element {element[1]}, which is in {package}; USB cameras are camera://0."
        )
    for pattern, kind, advice in _MEANINGS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{uri}: {advice}. GStreamer: {account}")
    return errors.SourceRefusedError(
        f"{uri}: the camera delivers no frames, or no more; `journalctl -u nvargus-daemon` may show why. "
        f"GStreamer: {account}"
    )


def _shortened(text: str) -> str:
    """Return the errors in the output of gst-launch-1.0, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [found[1] for line in lines if (found := _ERROR.match(line))]
    errors = errors or [line for line in lines if "rror" in line] or lines[-1:]
    reasons = [line for line in lines if line.startswith(("streaming stopped", "system error"))]
    return " ".join(errors[:1] + reasons[:1])
