"""Cameras through OpenCV: V4L2 devices, and CSI cameras of a Jetson through GStreamer's Argus source."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass

import cv2
import numpy as np

from panrt.engine.sources.errors import SourceError, SourceNotFoundError, SourceRefusedError
from panrt.engine.sources.source import Opening, Picture


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """What to ask a camera for; 0 or "" leaves it to the camera."""

    width: int = 0
    height: int = 0
    fps: int = 0
    fourcc: str = ""  # pixel format, "MJPG" or "YUYV": many USB cameras are fast in MJPG only
    flip: int = 0  # CSI: nvvidconv's flip-method, 2 turns by 180 degrees


def camera_pictures(
    device: int | str, uri: str, camera: CameraOptions, opening: Opening
) -> Generator[Picture, None, None]:
    """Frames of a V4L2 device by its number or path, until it is gone."""
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    capture = cv2.VideoCapture(device, backend)
    if not capture.isOpened():
        capture.release()
        raise SourceNotFoundError(f"{uri}: no camera there, it is in use, or this user may not open it (group video).")
    if camera.fourcc:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*camera.fourcc))
    wanted = {"width": cv2.CAP_PROP_FRAME_WIDTH, "height": cv2.CAP_PROP_FRAME_HEIGHT, "fps": cv2.CAP_PROP_FPS}
    for name, key in wanted.items():
        if getattr(camera, name):
            capture.set(key, getattr(camera, name))
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    yield from _frames(capture, uri, opening)


def csi_pictures(sensor: int, uri: str, camera: CameraOptions, opening: Opening) -> Generator[Picture, None, None]:
    """Frames of a CSI camera of a Jetson.

    Raises:
        SourceError: this OpenCV is built without GStreamer.
    """
    pipeline = argus_pipeline(sensor, camera)
    if not has_gstreamer():
        raise SourceError(
            f"{uri}: this OpenCV ({cv2.__version__}) is built without GStreamer. On a Jetson use the system's "
            "OpenCV: python3 -m venv --system-site-packages, without opencv-python-headless from pip."
        )
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        capture.release()
        raise SourceNotFoundError(f"{uri}: the camera did not start; try the pipeline:  gst-launch-1.0 {pipeline}")
    yield from _frames(capture, uri, opening)


def argus_pipeline(sensor: int, camera: CameraOptions) -> str:
    """The GStreamer pipeline from a CSI sensor to BGR frames, the newest only."""
    width, height, fps = camera.width or 1280, camera.height or 720, camera.fps or 30
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1 ! "
        f"nvvidconv flip-method={camera.flip} ! video/x-raw,format=BGRx ! "
        "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def has_gstreamer() -> bool:
    """Whether OpenCV is built with GStreamer."""
    return re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()) is not None


def _frames(capture: cv2.VideoCapture, uri: str, opening: Opening) -> Generator[Picture, None, None]:
    try:
        while not opening.stop.is_set():
            # A device that is gone fails here at once; one that is silent after OpenCV's own time-out.
            if not capture.grab():
                raise SourceRefusedError(f"{uri}: the camera gives no more frames; is it unplugged?")
            grabbed_at = time.monotonic()
            good, image = capture.retrieve()
            if not good or image is None:
                opening.damaged += 1
                continue
            if image.ndim == 2:  # a grey camera
                image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
            yield Picture(np.asarray(image, np.uint8), captured_at=grabbed_at)
    finally:
        capture.release()
