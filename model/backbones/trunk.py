"""The parts that every trunk has: its module, and the files of ImageNet weights that fit it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from panrt.model.config import PanopticFPNConfig

NOTHING = re.compile(r"(?!)")  # matches no name


class TrunkWeights(NamedTuple):
    """One kind of file with ImageNet weights, recognised by the name of the first convolution's weight."""

    label: str
    stem: str  # name of the first convolution's weight
    name: Callable[[str], str]  # PanRT's name within the trunk -> the file's
    rgb: bool  # trained on RGB
    ignored: re.Pattern[str]  # of the file's names, the classifier and the like
    optional: re.Pattern[str] = NOTHING  # of PanRT's names, those that may be missing
    author: str | None = None  # only files that name this author
    problem: Callable[[PanopticFPNConfig], str | None] = lambda config: None  # why a configuration cannot use them


class Trunk(nn.Module):
    """The base class of trunks: image -> (C2, C3, C4, C5), at strides 4, 8, 16, 32."""

    channels: ClassVar[tuple[int, int, int, int]]  # of C2..C5
    weights: ClassVar[tuple[TrunkWeights, ...]]  # that fit it

    @abstractmethod
    def stages(self) -> tuple[nn.Module, ...]:
        """Return the stem and the stages in order; training freezes a prefix of them."""

    @abstractmethod
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return C2..C5 of a normalised image (N, 3, H, W)."""
