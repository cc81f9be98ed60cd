"""Training: one loop for all networks, on a GPU or on two CPU cores.

    result = train(build("panoptic_fpn_lite"), data, lite_recipe(iterations=5000), out=Path("out/tabletop"))

In `out` it keeps `training.pt` (everything that resuming needs), `log.jsonl` (one line per logged iteration) and, at
the end, `model.safetensors` and `curves.png`. Run again with the same `out`, it resumes from the last `training.pt`:
all randomness is a function of the seed and the iteration, so the result is that of an uninterrupted training. More
iterations than before extend a training, finished or not, with the learning rates of the longer one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from panrt.errors import CheckpointError, OtherTrainingError, PanrtError, RecipeError, TrainingError
from panrt.files import write_atomically
from panrt.formats import records
from panrt.model.checkpoints import load_torch, save
from panrt.model.curves import plot_curves
from panrt.model.losses import LossConfig, Losses, joint_losses
from panrt.model.panoptic_fpn import PanopticFPN
from panrt.model.schedule import ScheduleConfig, learning_rate
from panrt.model.training_data import Batch, Step, Steps, TrainingData, collate

Evaluation = Callable[[PanopticFPN], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe of a training; defaults are detectron2's `panoptic_fpn_R_50_1x`."""

    iterations: int = 90_000
    batch_size: int = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9  # of SGD
    weight_decay: float = 1e-4  # not on normalisation layers
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    alternate: bool = False  # instance and semantic losses in turn instead of together
    frozen_stages: int = 2  # of `trunk.stages()`, the stem being the first
    cache_trunk: bool = False  # keep the features of a wholly frozen trunk, in float16
    clip_norm: float | None = None
    ema_decay: float | None = None  # average the weights; the average is evaluated and saved
    amp: bool = False  # mixed precision: float16 on CUDA, bfloat16 on CPUs
    mirror: bool = True
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)  # drawn for each image; empty keeps its size
    max_side: int = 1333
    seed: int = 0
    workers: int = 0  # processes that read samples
    log_every: int = 20
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise RecipeError(name, f"got {getattr(self, name)}, expected at least 1")
        if self.cache_trunk and self.short_sides:
            raise RecipeError(
                "cache_trunk", "features of a resized image are of no use for another size", short_sides=()
            )


def lite_recipe(*, iterations: int = 5000, seed: int = 0) -> TrainConfig:
    """Return the recipe for `panoptic_fpn_lite` on two CPU cores: the ImageNet trunk is frozen and cached."""
    return TrainConfig(
        iterations=iterations,
        batch_size=6,
        optimizer="adamw",
        schedule=ScheduleConfig(learning_rate=2e-3, kind="cosine", warmup_iterations=50, warmup_factor=0.05),
        losses=LossConfig(semantic_weight=1.0, rpn_samples=128, pre_nms_top_k=600, post_nms_top_k=200, roi_samples=96),
        frozen_stages=8,
        cache_trunk=True,
        clip_norm=5.0,
        ema_decay=0.998,
        short_sides=(),
        seed=seed,
    )


class TrainingResult(NamedTuple):
    model: PanopticFPN  # averaged, if so configured; in eval mode
    metrics: dict[str, float]  # returned by `evaluate`; empty without one
    path: Path  # of the saved model


def train(
    model: PanopticFPN,
    data: TrainingData,
    config: TrainConfig,
    *,
    out: Path,
    evaluate: Evaluation | None = None,
    device: str = "cpu",
    provenance: str = "",
    progress: bool = True,
) -> TrainingResult:
    """Train `model` in place, or resume where an earlier call with the same `out` stopped.

    Args:
        model: the network, its trunk with initial weights.
        data: the labelled images.
        config: all other options that determine the result.
        out: a folder for logs and checkpoints; created if missing.
        evaluate: called once at the end with the model in eval mode; its result is logged.
        device: "cpu", "cuda", "cuda:1".
        provenance: a line on data and recipe, stored in the model; see `save`.
        progress: show a bar with losses and the remaining time, on stderr.

    Raises:
        RecipeError: the configuration does not fit the model or the training in `out`.
        ValueError: there are no data.
        CheckpointError: `out` holds the training of another network, or a damaged checkpoint.
        OtherTrainingError: `out` holds a training with another configuration.
        TrainingError: a loss is not finite; `training.pt` is from before.
    """
    _check(model, data, config)
    out.mkdir(parents=True, exist_ok=True)
    # convolutions are faster in NHWC, on CPUs and tensor cores alike: a step on two cores took a third less
    model.to(torch.device(device), memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    _freeze(model, config.frozen_stages)
    state = _State(model, config, torch.device(device))
    start = state.restore(out / "training.pt")
    log = _Log(out / "log.jsonl", start)
    steps = _steps(data, config)
    cache = TrunkCache(model) if config.cache_trunk else None
    with _bar(progress, start, config.iterations) as show:
        for iteration, step in enumerate(_read(steps, start, config.workers), start=start):
            began = time.perf_counter()
            losses = _train_step(model, state, step, cache, iteration)
            done = iteration + 1
            if done % config.log_every == 0 or done == config.iterations:
                rate = learning_rate(config.schedule, iteration, config.iterations)
                log.write(done, learning_rate=rate, losses=losses, seconds=time.perf_counter() - began)
            if done % config.checkpoint_every == 0 or done == config.iterations:
                state.store(out / "training.pt", done)
            show(done, losses)
    state.use_average()
    model.eval()
    save(model, out / "model.safetensors", provenance=provenance)
    metrics = dict(evaluate(model)) if evaluate is not None else {}
    if metrics:
        log.write(config.iterations, evaluation=metrics)
    plot_curves(out / "log.jsonl", out / "curves.png")
    return TrainingResult(model, metrics, out / "model.safetensors")


def _check(model: PanopticFPN, data: TrainingData, config: TrainConfig) -> None:
    stages = len(model.backbone.trunk.stages())
    if not 0 <= config.frozen_stages <= stages:
        raise RecipeError("frozen_stages", f"got {config.frozen_stages}, {model.config.name} has 0 to {stages}")
    if config.cache_trunk and config.frozen_stages < stages:
        raise RecipeError(
            "cache_trunk",
            f"only {config.frozen_stages} of {stages} stages are frozen, so features change",
            frozen_stages=stages,
        )
    if config.alternate and (model.instance is None or model.semantic is None):
        raise RecipeError("alternate", f"{model.config.name} has one branch only; there is nothing to alternate")
    if len(data) == 0:
        raise ValueError("data: no samples to learn from.")


def _steps(data: TrainingData, config: TrainConfig) -> Steps:
    return Steps(
        data,
        steps=config.iterations,
        batch_size=config.batch_size,
        seed=config.seed,
        mirror=config.mirror,
        short_sides=config.short_sides,
        max_side=config.max_side,
    )


def _freeze(model: PanopticFPN, stages: int) -> None:
    """Exclude the first stages of the trunk from training."""
    for stage in model.backbone.trunk.stages()[:stages]:
        stage.requires_grad_(False)


def _read(steps: Steps, start: int, workers: int) -> Iterator[Step]:
    """Yield the steps from `start` on, read ahead by worker processes if there are any.

    Raises:
        PanrtError: a step's images cannot be read.
    """
    loader: Iterator[Step | PanrtError] = iter(
        DataLoader(
            _Outcomes(steps),
            batch_size=None,
            sampler=range(start, len(steps)),
            num_workers=workers,
            collate_fn=_unchanged,
        )
    )
    for outcome in loader:
        if isinstance(outcome, PanrtError):
            raise outcome
        yield outcome


class _Outcomes(Dataset[Step | PanrtError]):
    """Steps, or the error in place of one: an exception of a worker process would have its traceback as message."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, step: int) -> Step | PanrtError:
        try:
            return self._steps[step]
        except PanrtError as error:
            return error


def _unchanged(step: Any) -> Any:
    """Keep the samples' arrays, which the loader would convert to tensors by default."""
    return step


def _train_step(
    model: PanopticFPN, state: _State, step: Step, cache: TrunkCache | None, iteration: int
) -> dict[str, float]:
    """Update the weights once; return the losses by name, the weighted sum as "total"."""
    config, device = state.config, state.device
    rate = learning_rate(config.schedule, iteration, config.iterations)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + iteration)
    batch = collate(step.samples, model, device)
    # the types are autocast's defaults: float16 on CUDA, bfloat16 on CPUs
    with torch.autocast(device.type, enabled=config.amp):
        pyramid = _pyramid(model, step, batch, cache)
        losses = joint_losses(
            model,
            pyramid,
            batch.targets,
            config.losses,
            generator=generator,
            instances=not config.alternate or iteration % 2 == 0,
            semantic=not config.alternate or iteration % 2 == 1,
        )
    total = losses.total(config.losses)
    values = _values(losses, total)
    if not torch.isfinite(total):
        images = ", ".join(str(index) for index, _ in step.keys)
        raise TrainingError(
            f"iteration {iteration}: a loss is not finite: {values}; the batch was samples {images}. "
            "Look at those labels, or lower the learning rate or clip_norm."
        )
    state.update(total)
    return values


def _pyramid(model: PanopticFPN, step: Step, batch: Batch, cache: TrunkCache | None) -> tuple[Tensor, ...]:
    if cache is not None:
        return model.backbone.pyramid(cache.maps(step.keys, batch.images))
    pyramid: tuple[Tensor, ...] = model.backbone(batch.images)
    return pyramid


def _values(losses: Losses, total: Tensor) -> dict[str, float]:
    named = {name: loss for name, loss in losses._asdict().items() if loss is not None} | {"total": total}
    return {name: float(loss.detach()) for name, loss in named.items()}


class TrunkCache:
    """C2..C5 of a frozen trunk for each image and its mirror image, computed once and kept in float16 in memory.

    Each is kept at the padded size of the first batch it came in. In a batch with a larger image, whose size it is
    padded to, its features are computed for that batch alone: the result is right for images of any size, and the
    cache is most effective if all have one.
    """

    def __init__(self, model: PanopticFPN) -> None:
        self.trunk = model.backbone.trunk
        self.kept: dict[tuple[int, bool], tuple[tuple[int, ...], tuple[Tensor, ...]]] = {}

    @torch.no_grad()
    def maps(self, keys: tuple[tuple[int, bool], ...], images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of a batch (N, 3, Hp, Wp), in float32."""
        found = [self._maps(key, image) for key, image in zip(keys, images, strict=True)]
        return tuple(torch.stack(level).float() for level in zip(*found, strict=True))

    def _maps(self, key: tuple[int, bool], image: Tensor) -> tuple[Tensor, ...]:
        size, kept = tuple(image.shape[-2:]), self.kept.get(key)
        if kept is not None and kept[0] == size:
            return kept[1]
        maps = tuple(level[0].half() for level in self.trunk(image[None]))
        if kept is None:
            self.kept[key] = size, maps
        return maps


class _State:
    """The state of a training, which updates change and checkpoints hold: model, optimiser, scaler and average."""

    def __init__(self, model: PanopticFPN, config: TrainConfig, device: torch.device) -> None:
        self.model = model
        self.config = config
        self.device = device
        self.optimizer = _optimizer(model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp and device.type == "cuda")
        self.average: dict[str, Tensor] | None = None
        self.updates = 0
        if config.ema_decay is not None:
            self.average = {name: value.clone() for name, value in model.state_dict().items()}

    def update(self, total: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            trained = [p for p in self.model.parameters() if p.requires_grad]
            nn.utils.clip_grad_norm_(trained, self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.updates += 1
        if self.average is not None and self.config.ema_decay is not None:
            # the average is short at first, as the initial weights are random
            decay = min(self.config.ema_decay, (1 + self.updates) / (10 + self.updates))
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)

    def use_average(self) -> None:
        if self.average is not None:
            self.model.load_state_dict(self.average)

    def store(self, path: Path, iteration: int) -> None:
        content = {
            "config": dataclasses.asdict(self.config),
            "iteration": iteration,
            "updates": self.updates,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average,
        }
        write_atomically(path, lambda temporary: torch.save(content, temporary))

    def restore(self, path: Path) -> int:
        """Take the state from a checkpoint if there is one; return the iteration to resume from."""
        if not path.exists():
            return 0
        content = load_torch(path)
        try:
            stored, done = content["config"], content["iteration"]
            self._check(path, stored, done)
            if type(done) is not int or not 0 <= done <= self.config.iterations:
                raise ValueError(f"iteration {records.shown(done)}")
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            if self.average is not None:
                for name, value in self.average.items():
                    value.copy_(content["average"][name])
            self.updates = int(content["updates"])
        except (CheckpointError, RecipeError):
            raise
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
            raise CheckpointError(f"{path}: from a training of another network, or damaged: {reason}.") from error
        return done

    def _check(self, path: Path, stored: Mapping[str, Any], done: int) -> None:
        """Check the recipe against that of the checkpoint; a training may be extended."""
        wanted = dataclasses.asdict(self.config)
        free = {"log_every", "checkpoint_every", "workers"}  # do not affect the result
        if self.config.iterations > stored["iterations"]:
            free |= {"iterations", "schedule"}
        differing = [name for name in wanted if name not in free and stored.get(name) != wanted[name]]
        if self.config.iterations < stored["iterations"] and set(differing) <= {"iterations", "schedule"}:
            raise RecipeError(
                "iterations",
                f"{path} is of a training of {stored['iterations']} iterations, of which {done} are done; "
                f"got {self.config.iterations}, which must not be fewer",
            )
        if differing:
            raise OtherTrainingError(path, differing)


def _optimizer(model: PanopticFPN, config: TrainConfig) -> torch.optim.Optimizer:
    norms = nn.GroupNorm, nn.BatchNorm2d
    undecayed = {id(p) for m in model.modules() if isinstance(m, norms) for p in m.parameters(recurse=False)}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in undecayed], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if id(p) in undecayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.schedule.learning_rate)
    return torch.optim.SGD(groups, lr=config.schedule.learning_rate, momentum=config.momentum)


class _Log:
    """The file `log.jsonl`; on resuming, lines that a killed run wrote after its last checkpoint are dropped."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                # the last line of a killed run may be cut off
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                    if json.loads(line)["iteration"] <= start:
                        kept.append(line + "\n")
        write_atomically(path, lambda temporary: temporary.write_text("".join(kept)))

    def write(self, iteration: int, **facts: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"iteration": iteration, **facts}) + "\n")


@contextlib.contextmanager
def _bar(visible: bool, start: int, iterations: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task("train", total=iterations, completed=start, losses="")

        def show(done: int, losses: dict[str, float]) -> None:
            bar.update(task, completed=done, losses="  ".join(f"{name} {x:.3f}" for name, x in losses.items()))

        yield show
