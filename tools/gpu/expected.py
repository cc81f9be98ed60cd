"""The maps that the tabletop network gives for the evaluation frames on a CPU, in a file that needs no image decoder.

    python -m tools.gpu.expected FILE [--frames 64]

Shapes: F frames, H x W pixels.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.gpu.machine import ROOT

EVALUATION = ROOT / "tests" / "data" / "tabletop" / "eval"


class Expected(NamedTuple):
    """The content of a file."""

    images: NDArray[np.uint8]  # (F, H, W, 3) BGR
    panoptic: NDArray[np.int32]  # (F, H, W), by the network on a CPU in float32
    segments: list[list[list[int]]]  # of each frame its rows of the merge
    truth: NDArray[np.int32]  # (F, H, W), ids of the annotation
    truth_segments: list[list[list[int]]]  # of each frame (id, category, area)


def write(path: Path, frames: int = 64) -> None:
    """Compute the maps, which takes PyTorch and a moment, and write the file."""
    import torch  # noqa: PLC0415

    from panrt.model import load  # noqa: PLC0415
    from panrt.model.data.coco_panoptic import load_sample, read_coco_panoptic  # noqa: PLC0415

    network = load("tabletop")
    dataset = read_coco_panoptic(EVALUATION / "panoptic.json", images=EVALUATION / "images")
    samples = [load_sample(record) for record in dataset.records[:frames]]
    panoptic, segments = [], []
    for sample in samples:
        found = network(torch.from_numpy(np.ascontiguousarray(sample.image))[None])
        panoptic.append(found.panoptic[0].numpy())
        segments.append(found.segments[0, : int(found.segment_count[0])].tolist())
    truth_segments = [[[s.id, s.category_id, s.area] for s in sample.segments] for sample in samples]
    np.savez_compressed(
        path,
        images=np.stack([sample.image for sample in samples]),
        panoptic=np.stack(panoptic).astype(np.uint16),
        truth=np.stack([sample.panoptic for sample in samples]).astype(np.int32),
        text=np.array(json.dumps({"segments": segments, "truth_segments": truth_segments})),
    )


@cache
def read(path: str) -> Expected:
    """Return what `write` wrote."""
    with np.load(path) as file:
        text: dict[str, Any] = json.loads(str(file["text"]))
        return Expected(
            file["images"],
            file["panoptic"].astype(np.int32),
            text["segments"],
            file["truth"],
            text["truth_segments"],
        )


def main() -> None:
    """Write a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--frames", type=int, default=64)
    chosen = parser.parse_args()
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    write(chosen.file, chosen.frames)
    print(f"wrote {chosen.file}, {chosen.file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
