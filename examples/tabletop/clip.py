"""Read a clip: images from H.264, ids without loss.

Shapes: T frames of H x W pixels. Needs PyAV and NumPy only. A clip `NAME` is three files: `NAME.mp4`,
`NAME_ids.npz` with `ids` (T, H, W) uint8, and `NAME.json`.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panrt.formats.video_files import open_video


class ClipSegment(NamedTuple):
    """The segment of an id, in every frame of the clip."""

    id: int
    category_id: int  # see `classes.CLASSES`


class Clip(NamedTuple):
    """A clip with panoptic ids that stay the same over time."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) BGR
    ids: NDArray[np.uint8]  # (T, H, W), 0 is void
    segments: tuple[ClipSegment, ...]
    frames_per_second: int


def read_clip(path: Path | str) -> Clip:
    """Read a clip by the path of its JSON file.

    Raises:
        FileNotFoundError: one of the three files is missing.
        ValueError: the three files do not match.
    """
    path = Path(path)
    record = json.loads(path.read_text())
    video, labels = path.with_suffix(".mp4"), path.with_name(path.stem + "_ids.npz")
    for needed in (video, labels):
        if not needed.is_file():
            raise FileNotFoundError(
                f"{needed}: missing; a clip is {path.name}, {video.name} and {labels.name} in one folder"
            )
    with open_video(video.resolve()) as container:
        frames = np.stack([frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)])
    with np.load(labels) as stored:
        ids = stored["ids"]
    segments = tuple(ClipSegment(entry["id"], entry["category_id"]) for entry in record["segments"])
    if frames.shape[:3] != ids.shape:
        raise ValueError(
            f"{path}: {video.name} holds {frames.shape[:3]} (T, H, W), {labels.name} holds {ids.shape}; "
            "generate the clip again"
        )
    unknown = set(np.unique(ids).tolist()) - {segment.id for segment in segments} - {0}
    if unknown:
        raise ValueError(
            f"{path}: {labels.name} has ids {sorted(unknown)} that `segments` does not list; generate the clip again"
        )
    return Clip(frames, ids, segments, int(record["frames_per_second"]))
