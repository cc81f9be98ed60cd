"""What can go wrong with a sink."""

from __future__ import annotations

from panrt.errors import PanrtError


class UnknownSinkError(PanrtError, ValueError):
    """A URI that no sink answers to, or an option that its sink does not have."""


class SameFileError(PanrtError, ValueError):
    """A sink would write to what a source reads, or two sinks would write to one place."""


class SinkError(PanrtError, OSError):
    """A sink cannot be opened here, or cannot take a result."""


class ReaderLeftError(SinkError):
    """Nobody reads what a sink writes any more."""


class SharedMemoryError(SinkError):
    """What is under a name of shared memory was not written by PanRT, is damaged, or is of another version."""


class WriterGoneError(SinkError):
    """The process that wrote to shared memory ended without closing it; read again to wait for the next one."""
