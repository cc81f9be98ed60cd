"""What can go wrong with an export that a caller would handle."""

from __future__ import annotations

from panrt.errors import PanrtError


class ExportError(PanrtError, ValueError):
    """A network cannot be exported as it was asked for; nothing was written."""
