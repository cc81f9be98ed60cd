"""What can go wrong with a source, one class per thing that a caller would handle differently."""

from __future__ import annotations

from panrt.errors import PanrtError


class UnknownSourceError(PanrtError, ValueError):
    """A URI that no source answers to, or an option that its source does not have."""


class SourceError(PanrtError, OSError):
    """A source cannot be opened, or stopped giving frames; the classes below say why."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """No such file, device, host or stream."""


class SourceRefusedError(SourceError, ConnectionError):
    """The other side does not listen, is busy, or hung up."""


class SourceDeniedError(SourceError, PermissionError):
    """A login or a permission is missing; trying again does not help."""


class SourceUndecodableError(SourceError, ValueError):
    """Not a picture or video that can be decoded here, or one that is damaged."""


class SourceTimeoutError(SourceError, TimeoutError):
    """Nothing came for too long."""
