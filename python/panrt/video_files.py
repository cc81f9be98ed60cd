"""Opening a video to be read, in the same way with every version of PyAV that the package allows."""

from __future__ import annotations

import os
from typing import Any

import av

# A title may be in any encoding. PyAV raises where it is not UTF-8 unless it is asked not to; PyAV 19 and newer never
# do, and cannot be asked.
_LENIENT = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_open: Any = av.open  # noqa: TID251


def open_video(file: object, **options: Any) -> av.container.InputContainer:
    """Open a video by `av.open`, whatever its titles are encoded in.

    Args:
        file: a path, a URI, or an object with `read`, and with `seek` where it can.
        options: arguments of `av.open`.

    Raises:
        av.FFmpegError, OSError: as `av.open` does.
    """
    path = os.fspath(file) if isinstance(file, os.PathLike) else file
    opened: av.container.InputContainer = _open(path, mode="r", **options, **_LENIENT)
    return opened
