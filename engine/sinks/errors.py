"""What can go wrong with a sink."""

from __future__ import annotations

from panrt.errors import PanrtError


class UnknownSinkError(PanrtError, ValueError):
    """A URI that no sink answers to, or an option that its sink does not have."""


class SinkError(PanrtError, OSError):
    """A sink cannot be opened here, or cannot take a result."""
