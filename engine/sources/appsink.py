"""A GStreamer pipeline in this process, through PyGObject (`gi`), a package of the system's Python.

This file imports only the standard library and `gi`, so that it runs in any Python that has them.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

_SINK = "appsink name=frames drop=true max-buffers=1 sync=false"  # the newest frame, as soon as it arrives


class PipelineError(Exception):
    """A pipeline cannot be built, failed, or ended; the text is that of gst-launch-1.0."""


class Sample(NamedTuple):
    """A buffer that a pipeline delivered."""

    data: Any  # bytes, or an array of them
    caps: str  # its format, as GStreamer writes it
    time: float | None  # seconds on the clock of the stream
    age: float | None  # seconds since then; None: unknown


class AppSink:
    """A pipeline that runs until it is closed."""

    def __init__(self, pipeline: str) -> None:
        """Start a pipeline, to which the sink is added.

        Raises:
            PipelineError: it cannot be built or started.
        """
        self._gst, reason = load()
        if self._gst is None:
            raise PipelineError(reason)
        glib: Any = importlib.import_module("gi.repository.GLib")
        try:
            self._pipeline = self._gst.parse_launch(f"{pipeline} ! {_SINK}")
        except glib.Error as error:
            raise PipelineError(f"WARNING: erroneous pipeline: {error.message}") from error
        self._sink = self._pipeline.get_by_name("frames")
        self._bus = self._pipeline.get_bus()
        if self._pipeline.set_state(self._gst.State.PLAYING) == self._gst.StateChangeReturn.FAILURE:
            try:
                self._raise_what_was_posted()
                raise PipelineError("the pipeline does not start.")
            finally:
                self.close()

    def pull(self, seconds: float) -> Sample | None:
        """Return the next buffer; None if none came in time.

        Raises:
            PipelineError: it failed or ended.
        """
        sample = self._sink.try_pull_sample(int(seconds * self._gst.SECOND))
        if sample is None:
            self._raise_what_was_posted()
            return None
        buffer = sample.get_buffer()
        time = age = None
        if buffer.pts != self._gst.CLOCK_TIME_NONE:
            time = buffer.pts / self._gst.SECOND
            running = self._pipeline.get_clock().get_time() - self._pipeline.get_base_time()
            age = (running - buffer.pts) / self._gst.SECOND
        return Sample(self._content(buffer), sample.get_caps().to_string(), time, age)

    def close(self) -> None:
        """Stop the pipeline and free the camera. Idempotent."""
        self._pipeline.set_state(self._gst.State.NULL)

    def _content(self, buffer: Any) -> bytes:
        """Copy a buffer, once: the buffer itself belongs to a pool of the camera, which would run empty."""
        info = _last(buffer.map(self._gst.MapFlags.READ))
        try:
            return bytes(info.data)  # either bytes, which are not copied again, or a view of the buffer
        finally:
            buffer.unmap(info)

    def _raise_what_was_posted(self) -> None:
        kinds = self._gst.MessageType
        message = self._bus.pop_filtered(kinds.ERROR | kinds.EOS)
        if message is None:
            return
        if message.type == kinds.EOS:
            raise PipelineError("the stream ended.")
        error, details = message.parse_error()
        raise PipelineError(f"ERROR: from element {message.src.get_path_string()}: {error.message}\n{details or ''}")


def load() -> tuple[Any, str]:
    """Return GStreamer as a Python module; or None, and the reason."""
    try:
        gi: Any = importlib.import_module("gi")
        gi.require_version("Gst", "1.0")
        gi.require_version("GstApp", "1.0")
        gst: Any = importlib.import_module("gi.repository.Gst")
        importlib.import_module("gi.repository.GstApp")  # gives a sink `try_pull_sample`
    except (ImportError, ValueError) as error:  # no gi, or no typelib of GStreamer
        return None, str(error)
    started = gst.init_check(None)
    is_started = started[0] if isinstance(started, tuple) else started  # see `_last`
    return (gst, "") if is_started else (None, "GStreamer cannot be initialised")


def _last(returned: Any) -> Any:
    """Return the value of a GStreamer call: without python3-gst-1.0 it is the last of a tuple, after the success."""
    return returned[-1] if isinstance(returned, tuple) else returned
