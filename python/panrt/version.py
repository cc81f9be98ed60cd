"""The version of this installation."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version as version_of


@cache
def version() -> str:
    """Return PanRT's version, as its installed package declares it."""
    return version_of("panrt")
