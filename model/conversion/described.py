"""A network as a configuration of another framework describes it."""

from __future__ import annotations

from typing import NamedTuple

from panrt.model.config import PanopticFPNConfig


class Described(NamedTuple):
    """A network of another framework, as PanRT configures it."""

    config: PanopticFPNConfig
    rgb: bool  # it was trained on RGB: its first convolution expects red first
    notes: tuple[str, ...]  # what was assumed, each one readable line
