"""A sink: a writer behind a bounded queue, on a thread of its own.

Nothing that a writer does reaches the stream: what it raises is counted and shown, and a writer that hangs is given up
after `patience` seconds. A recording ("block") makes the stream wait while it works and so misses nothing; a view
("latest") lets old results give way to new ones.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from panrt.engine import forks, threads
from panrt.engine.frame import Frame
from panrt.engine.nvtx_ranges import nvtx_range
from panrt.engine.result import PanopticResult
from panrt.engine.session import Drawing
from panrt.engine.slot import Policy, Slot
from panrt.engine.status import SinkStatus, StreamStatus
from panrt.model_file import ModelFile

LOG = logging.getLogger("panrt.sinks")
GIVE_UP_AFTER = 5  # failures in a row


class Item(NamedTuple):
    """What a sink gets."""

    frame: Frame
    result: PanopticResult
    drawing: Drawing | None = None  # where the session draws the result itself


@dataclass(frozen=True)
class Context:
    """What a writer may want to know of the stream that it belongs to."""

    model: ModelFile
    status: Callable[[], StreamStatus]


class Writer(Protocol):
    """Where results go. Opened by the thread that starts the stream, then used by the sink's thread alone."""

    def write(self, item: Item) -> None:
        """Take a result; whatever it raises is counted against this result alone."""
        ...

    def close(self) -> None:
        """Finish what was begun."""
        ...


@dataclass(frozen=True)
class SinkSpec:
    """What a URI means."""

    uri: str
    open: Callable[[Context], Writer]  # raises SinkError
    recording: bool  # misses nothing where its stream misses nothing
    policy: Policy | None = None  # that was asked for
    pictures: bool = False  # shows frames with their segments, in the frames' size


class Sink:
    """Takes results from one stream. Made by `open_sink`, started and closed by the stream."""

    def __init__(self, spec: SinkSpec, *, depth: int = 8, patience: float = 5.0) -> None:
        self.name = spec.uri
        self._spec = spec
        self._depth = depth
        self._patience = patience
        self._slot: Slot[Item] = Slot("latest")
        self._thread: threading.Thread | None = None
        self._state = "open"
        self._error = ""
        self._offered = self._refused = self._written = self._failed = 0
        self._busy_since: float | None = None  # when the writer was given what it has

    def start(self, context: Context, *, stream_policy: Policy) -> None:
        """Open the writer and begin to take results.

        Raises:
            SinkError: it cannot be opened.
            ThreadLimitError: the system starts no more threads.
        """
        policy = self._spec.policy or (stream_policy if self._spec.recording else "latest")
        self._slot = Slot(policy, depth=self._depth)
        writer = self._spec.open(context)
        thread = threading.Thread(target=self._run, args=(writer,), name=f"sink {self.name}", daemon=True)
        forks.watch(self)
        try:
            threads.start(thread)
        except threads.ThreadLimitError:
            writer.close()
            raise
        self._thread = thread

    @property
    def wants_pictures(self) -> bool:
        """Whether it has a use for `Item.drawing`."""
        return self._spec.pictures and self._state == "open"

    def put(self, item: Item) -> None:
        """Hand over a result. Never raises; waits for a recording that is behind, but not for one that hangs."""
        self._offered += 1
        if self._slot.put(item, timeout=0.0 if self._state == "hung" else self._patience):
            if self._state == "hung":
                self._state = "open"
            return
        self._refused += 1
        if self._state == "open":
            self._give_up("hung", f"took nothing for {self._patience:g} s")

    def close(self) -> None:
        """Let the writer finish, for as long as it gets on. Twice is fine."""
        self._slot.close()
        thread = self._thread
        if thread is None or thread is threading.current_thread():  # a writer that closes its stream goes on writing
            return
        seen, since = self._progress, time.monotonic()
        while thread.is_alive() and time.monotonic() - since < self._patience:
            thread.join(0.05)
            if self._progress != seen:
                seen, since = self._progress, time.monotonic()
        if thread.is_alive():
            self._slot.discard()
            self._give_up("hung", f"did not finish within {self._patience:g} s")
        elif self._state == "open":
            self._state = "closed"

    def after_fork(self) -> None:
        """See `forks`: a child writes nothing; what the parent has yet to write, the parent writes."""
        self._slot.after_fork()

    @property
    def status(self) -> SinkStatus:
        """State and counters now."""
        counts = self._slot.counts
        busy = self._busy_since
        hung = self._state == "open" and busy is not None and time.monotonic() - busy > self._patience
        return SinkStatus(
            name=self.name,
            state="hung" if hung else self._state,
            offered=self._offered,
            written=self._written,
            dropped=counts.dropped + self._refused,
            failed=self._failed,
            waiting=counts.waiting,
            error=self._error,
            keeps=self._slot.policy == "block",
        )

    @property
    def _progress(self) -> int:
        return self._written + self._failed

    def _run(self, writer: Writer) -> None:
        failures = 0
        while (item := self._slot.take(None)) is not None:
            self._busy_since = time.monotonic()
            try:
                _write(writer, item)
            except Exception as error:  # whatever a writer raises is its own affair, and must not end the stream
                self._failed += 1
                failures += 1
                self._error = _describe(error)
                if failures == 1:
                    LOG.warning("%s: %s", self.name, self._error)
            else:
                self._written += 1
                failures = 0
            self._busy_since = None
            if failures >= GIVE_UP_AFTER:
                self._give_up("failed", self._error)
                self._slot.close()
                self._slot.discard()
                break
        try:
            writer.close()
        except Exception as error:  # as above
            self._give_up("failed", _describe(error))

    def _give_up(self, state: str, why: str) -> None:
        self._state = state
        self._error = why
        LOG.error("%s: %s: %s", self.name, state, why)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@nvtx_range("sink")
def _write(writer: Writer, item: Item) -> None:
    writer.write(item)
