"""Open a video for reading, in the same way with every supported version of PyAV."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

import av

# Titles may have any encoding. Before version 19, PyAV raises an error for one that is not UTF-8 unless an option makes
# it replace the title; newer versions never raise it, and have no such option.
_LENIENT = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
LARGEST_BLOCK = 1 << 29  # bytes; the largest frame, 8192 x 4320, takes 212 MB with 16 bits per channel
_open: Any = av.open  # noqa: TID251


def open_video(file: object, **options: Any) -> av.container.InputContainer:
    """Open a video with `av.open`, whatever the encoding of its titles.

    Args:
        file: a path, a URI, or an object with `read` and, if it is seekable, `seek`.
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
    """Limit FFmpeg's memory blocks to `LARGEST_BLOCK` in this process.

    FFmpeg trusts declared sizes: a title of 2 GB in an MP4 of 2 kB is allocated before it is read. PyAV does not expose
    `av_max_alloc`, so it is looked up in the libraries that PyAV is linked with.
    """
    limit = ctypes.CDLL(av.frame.__file__).av_max_alloc
    limit.argtypes, limit.restype = [ctypes.c_size_t], None
    limit(LARGEST_BLOCK)
