"""Frames of a folder or a clip, as a PanRT network receives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from panrt.export.frames import Frame


def network_frames(
    path: Path,
    *,
    limit: int,
    input_hw: tuple[int, int],
    valid_hw: tuple[int, int] | None,
    free: Sequence[float],
) -> list[Frame]:
    """Return at most `limit` frames (*input_hw, 3) uint8 BGR, each placed as a session places it.

    Args:
        path: a folder of images, one image, or a clip.
        limit: frames are taken evenly.
        input_hw: of the network.
        valid_hw: its part that holds the frame; None: all of it.
        free: BGR of pixels without a frame, 0..255.

    Raises:
        ExportError, FileNotFoundError: see `panrt.export.frames.read_frames`.
    """
    import numpy as np

    from panrt.engine.preprocess import fill, place
    from panrt.export.frames import read_frames

    color = np.rint(np.asarray(free)).astype(np.uint8)
    placed = []
    for frame in read_frames(path, limit=limit):
        target = np.empty((*input_hw, 3), np.uint8)
        valid = valid_hw or input_hw
        fill(frame, place((frame.shape[0], frame.shape[1]), valid, valid), color, target)
        placed.append(target)
    return placed
