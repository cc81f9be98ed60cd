"""Where results go: files, video, windows, browsers, other processes; all by URI."""

from panrt.engine.sinks.errors import SharedMemoryError, SinkError, UnknownSinkError, WriterGoneError
from panrt.engine.sinks.open import open_sink
from panrt.engine.sinks.shared_memory import SharedMemoryReader
from panrt.engine.sinks.sink import Context, Item, Sink, SinkSpec, Writer

__all__ = [
    "Context",
    "Item",
    "SharedMemoryError",
    "SharedMemoryReader",
    "Sink",
    "SinkError",
    "SinkSpec",
    "UnknownSinkError",
    "Writer",
    "WriterGoneError",
    "open_sink",
]
