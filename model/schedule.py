"""The learning rate as a function of the iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up from `warmup_factor`, times a step or cosine decay, times a linear cool-down at the end."""

    learning_rate: float = 0.02
    kind: Literal["step", "cosine"] = "step"
    steps: tuple[int, ...] = (60_000, 80_000)  # iterations from which the rate is a tenth of what it was
    horizon: int = 0  # iteration at which a cosine reaches zero; 0: the end of the training
    cooldown: int = 0  # iterations at the end over which the rate falls to zero, wherever it is by then
    warmup_iterations: int = 1000
    warmup_factor: float = 0.001


def learning_rate(config: ScheduleConfig, iteration: int, iterations: int) -> float:
    """Return the learning rate of an iteration 0..iterations-1."""
    warmup = 1.0
    if iteration < config.warmup_iterations:
        done = iteration / config.warmup_iterations
        warmup = config.warmup_factor * (1 - done) + done
    if config.kind == "cosine":
        decay = 0.5 * (1 + math.cos(math.pi * iteration / (config.horizon or iterations)))
    else:
        decay = 0.1 ** sum(iteration >= step for step in config.steps)
    cooldown = min((iterations - iteration) / config.cooldown, 1.0) if config.cooldown else 1.0
    return config.learning_rate * warmup * decay * cooldown
