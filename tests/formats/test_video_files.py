"""Opening a video to be read: the same with every version of PyAV."""

from __future__ import annotations

import ctypes
from pathlib import Path

import av
import numpy as np
import pytest

from panrt.export.frames import read_frames
from panrt.formats.video_files import LARGEST_BLOCK, open_video
from tools.streams import CLIP

TITLE = "Küche1"


def untidy(path: Path) -> Path:
    """Two frames, with titles of the file and of its stream that are Latin-1."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QQQQQQ"
        stream = container.add_stream("mpeg4", rate=25)
        stream.metadata["title"] = "QQQQQQ"
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert b"QQQQQQ" in content
    path.write_bytes(content.replace(b"QQQQQQ", TITLE.encode("latin-1")))
    return path


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
def test_a_title_that_is_not_utf_8_stops_nothing(tmp_path: Path, name: str) -> None:
    path = untidy(tmp_path / name)
    with open_video(path) as container:
        assert container.metadata["title"] not in ("", "QQQQQQ", TITLE)  # it was met
        assert sum(1 for _ in container.decode(video=0)) == 2
    with path.open("rb") as file, open_video(file, buffer_size=4096) as container:
        assert sum(1 for _ in container.decode(video=0)) == 2
    assert len(list(read_frames(path, limit=5))) == 2


def test_what_is_no_video_is_rejected_as_by_pyav(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(av.error.InvalidDataError):
        open_video(tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError):
        open_video(tmp_path / "b.mp4")


def test_ffmpeg_allocates_no_size_that_a_file_merely_declares() -> None:
    with open_video(CLIP):
        pass
    ffmpeg = ctypes.CDLL(av.frame.__file__)
    ffmpeg.av_malloc.argtypes, ffmpeg.av_malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    ffmpeg.av_free.argtypes = [ctypes.c_void_p]
    assert ffmpeg.av_malloc(LARGEST_BLOCK + 1) is None
    block = ffmpeg.av_malloc(1 << 20)
    assert block is not None
    ffmpeg.av_free(block)
