"""Sources of frames, opened by URI: cameras, network streams, files and test patterns."""

from panrt.engine.sources.open import open_source
from panrt.engine.sources.source import Source, SourceOptions, SourceStatus, State, Transition
from panrt.errors import (
    SourceDeniedError,
    SourceError,
    SourceNotFoundError,
    SourceRefusedError,
    SourceTimeoutError,
    SourceUndecodableError,
    UnknownSourceError,
)

__all__ = [
    "Source",
    "SourceDeniedError",
    "SourceError",
    "SourceNotFoundError",
    "SourceOptions",
    "SourceRefusedError",
    "SourceStatus",
    "SourceTimeoutError",
    "SourceUndecodableError",
    "State",
    "Transition",
    "UnknownSourceError",
    "open_source",
]
