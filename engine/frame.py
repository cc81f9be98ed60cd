"""A frame as it passes through the runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

PixelFormat: TypeAlias = Literal["bgr8", "rgb8", "nv12", "yuyv"]
YuvStandard: TypeAlias = Literal["bt601", "bt709"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One captured image with its times, its index and its pixel format.

    Shapes of `image` by `pixel_format`: bgr8 and rgb8 (H, W, 3); yuyv (H, W, 2), W even; nv12 (H * 3 / 2, W), the plane
    of interleaved chroma below that of luma, both sides even. `panrt.engine.pixel_formats.bgr` converts it to BGR.

    For a session on a GPU `image` may also be another library's array in GPU memory; see `docs/engines.md`.
    """

    image: NDArray[np.uint8]
    index: int = 0  # among all frames that its source captured, including dropped ones
    captured_at: float = 0.0  # seconds of `time.monotonic()`; of a file under "block": when the frame was taken
    media_time: float | None = None  # seconds on the clock of the file or stream, if it has one
    source: str = ""  # the name of the source
    pixel_format: PixelFormat = "bgr8"
    yuv_standard: YuvStandard = "bt601"  # of nv12 and yuyv, limited range
    file_name: str = ""  # of an image file, without its folder

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the image."""
        rows, width = self.image.shape[:2]
        return (rows * 2 // 3 if self.pixel_format == "nv12" else rows), width


def is_on_device(thing: object) -> bool:
    """Return whether another library's array is on a GPU."""
    if hasattr(thing, "__cuda_array_interface__"):
        return True
    if isinstance(thing, np.ndarray) or not hasattr(thing, "__dlpack_device__"):
        return False
    kind, _ = thing.__dlpack_device__()
    return int(kind) in (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
