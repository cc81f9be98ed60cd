"""Sinks of results, opened by URI: files, video, windows, browsers, other processes."""

from panrt.engine.sinks.open import SinkTarget, open_sink
from panrt.engine.sinks.shared_memory import SharedMemoryReader
from panrt.engine.sinks.sink import Context, Item, Sink, SinkSpec, Writer
from panrt.errors import ReaderLeftError, SameFileError, SharedMemoryError, SinkError, UnknownSinkError, WriterGoneError

__all__ = [
    "Context",
    "Item",
    "ReaderLeftError",
    "SameFileError",
    "SharedMemoryError",
    "SharedMemoryReader",
    "Sink",
    "SinkError",
    "SinkSpec",
    "SinkTarget",
    "UnknownSinkError",
    "Writer",
    "WriterGoneError",
    "open_sink",
]
