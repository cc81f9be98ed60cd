"""Opening a video to be read, in the same way with every version of PyAV that the package allows."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

import av

# A title may be in any encoding. PyAV raises where it is not UTF-8 unless it is asked not to; PyAV 19 and newer never
# do, and cannot be asked.
_LENIENT = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
LARGEST_BLOCK = 1 << 29  # bytes; the largest frame that is read, 8192 x 4320, takes 212 MB in 16 bits a channel
_open: Any = av.open  # noqa: TID251


def open_video(file: object, **options: Any) -> av.container.InputContainer:
    """Open a video by `av.open`, whatever its titles are encoded in.

    Args:
        file: a path, a URI, or an object with `read`, and with `seek` where it can.
        options: arguments of `av.open`.

    Raises:
        av.FFmpegError, OSError: as `av.open` does.
    """
    _bound_memory()
    path = os.fspath(file) if isinstance(file, os.PathLike) else file
    opened: av.container.InputContainer = _open(path, mode="r", **options, **_LENIENT)
    return opened


@cache
def _bound_memory() -> None:
    """Have FFmpeg allocate no block of memory above `LARGEST_BLOCK`, in this process.

    It believes sizes that a file declares: a title of 2 GB in an MP4 of 2 kB is allocated before it is read. PyAV does
    not offer `av_max_alloc`; it is looked up in the libraries that PyAV itself is linked with.
    """
    limit = ctypes.CDLL(av.frame.__file__).av_max_alloc
    limit.argtypes, limit.restype = [ctypes.c_size_t], None
    limit(LARGEST_BLOCK)
