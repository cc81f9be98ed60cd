"""V4L2 cameras through OpenCV.

With a raw pixel format OpenCV converts nothing, and frames are what the camera wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import dataclass

import cv2
import numpy as np

from panrt.engine.frame import Frame, PixelFormat
from panrt.engine.pixel_formats import check_pixels
from panrt.engine.preprocess import FrameError
from panrt.engine.sources.errors import SourceError, SourceNotFoundError, SourceRefusedError, SourceUndecodableError
from panrt.engine.sources.source import Opening, Picture

V4L2_FORMATS: tuple[PixelFormat, ...] = ("bgr8", "nv12", "yuyv")


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """What to ask a camera for; 0 or "" leaves it to the camera."""

    width: int = 0
    height: int = 0
    fps: int = 0
    fourcc: str = ""  # pixel format, "MJPG" or "YUYV": many USB cameras are fast in MJPG only


def camera_pictures(
    device: int | str, uri: str, camera: CameraOptions, opening: Opening
) -> Generator[Picture, None, None]:
    """Frames of a V4L2 device by its number or path, until it is gone.

    Raises:
        SourceError: it does not give what was asked for.
    """
    pixel_format = opening.options.pixel_format
    fourcc = camera.fourcc if pixel_format == "bgr8" else pixel_format.upper()
    if camera.fourcc not in ("", fourcc):
        raise SourceError(
            f"{uri}: fourcc {camera.fourcc} does not go with the pixel format {pixel_format}; leave it out."
        )
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    capture = cv2.VideoCapture(device, backend)
    if not capture.isOpened():
        capture.release()
        raise SourceNotFoundError(f"{uri}: no camera there, it is in use, or this user may not open it (group video).")
    if fourcc:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
    wanted = {"width": cv2.CAP_PROP_FRAME_WIDTH, "height": cv2.CAP_PROP_FRAME_HEIGHT, "fps": cv2.CAP_PROP_FPS}
    for name, key in wanted.items():
        if getattr(camera, name):
            capture.set(key, getattr(camera, name))
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if pixel_format != "bgr8":
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        given = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1")
        if given != fourcc:
            capture.release()
            raise SourceError(
                f"{uri}: the camera gives {given!r}, expected {fourcc}; ask for a pixel format that it has "
                "(v4l2-ctl --list-formats-ext), or for bgr8."
            )
    yield from _frames(capture, uri, opening)


def _frames(capture: cv2.VideoCapture, uri: str, opening: Opening) -> Generator[Picture, None, None]:
    try:
        while not opening.stop.is_set():
            # A device that is gone fails here at once; one that is silent after OpenCV's own time-out.
            if not capture.grab():
                raise SourceRefusedError(f"{uri}: the camera gives no more frames; is it unplugged?")
            grabbed_at = opening.clock.now()
            good, image = capture.retrieve()
            if not good or image is None:
                opening.damaged += 1
                continue
            pixel_format = opening.options.pixel_format
            if pixel_format == "bgr8" and image.ndim == 2:  # a grey camera
                image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
            pixels = np.asarray(image, np.uint8)
            try:
                check_pixels(Frame(pixels, pixel_format=pixel_format))
            except FrameError as error:
                raise SourceUndecodableError(f"{uri}: {error}") from error
            yield Picture(pixels, captured_at=grabbed_at, pixel_format=pixel_format)
    finally:
        capture.release()
