"""A sink: a writer behind a bounded queue, in its own thread.

A writer cannot disturb the stream: its errors are counted and reported, and a writer that hangs is abandoned after
`patience` seconds. A recording ("block") makes the stream wait for it and so misses no result; a view ("latest") drops
old results in favour of new ones.

    open ◀──▶ hung        accepts no results; open again when it does
    open ◀──▶ waiting     a recording that failed, for example on a full disk; it retries automatically
    open ───▶ failed      a view after five failures in a row, or a recording that did not recover before the end
    open ───▶ left        its output is not read any more
    open ───▶ closed
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from panrt.engine import forks, threads
from panrt.engine.frame import Frame
from panrt.engine.nvtx_ranges import nvtx_range
from panrt.engine.results.painter import Drawing
from panrt.engine.results.result import PanopticResult
from panrt.engine.slot import Policy, Slot
from panrt.engine.status import SinkStatus, StreamStatus
from panrt.errors import ReaderLeftError, SinkError, ThreadLimitError
from panrt.formats.metadata import ModelFile
from panrt.formats.records import legible

LOG = logging.getLogger("panrt.sinks")
GIVE_UP_AFTER = 5  # failures in a row
RETRY = 1.0, 10.0  # seconds until a recording retries: first and longest; doubles
_LOOK_EVERY = 0.5  # seconds between calls of `BufferedWriter.idle` while no result comes
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO})


class Item(NamedTuple):
    """A result with its frame, as a sink receives it."""

    frame: Frame
    result: PanopticResult
    drawing: Drawing | None = None  # if the session's GPU draws the result


@dataclass(frozen=True)
class Context:
    """The properties of the stream that a writer belongs to."""

    model: ModelFile
    status: Callable[[], StreamStatus]


class Writer(Protocol):
    """The output of a sink. Opened by the thread that starts the stream, then used only by the sink's thread."""

    def write(self, item: Item) -> None:
        """Write a result; an exception counts as the failure of this result only."""
        ...

    def close(self) -> None:
        """Finish and close the output."""
        ...


@runtime_checkable
class BufferedWriter(Writer, Protocol):
    """A writer with work to do while no result comes."""

    @property
    def pending(self) -> int:
        """The number of written results that cannot be read back yet."""
        ...

    def idle(self) -> None:
        """Do work that is due, such as a flush; called periodically while no result comes."""
        ...


@dataclass(frozen=True)
class SinkSpec:
    """A sink as its URI specifies it."""

    uri: str
    open: Callable[[Context], Writer]  # raises SinkError
    recording: bool  # takes the policy of its stream, so that it misses nothing under "block"
    policy: Policy | None = None  # if the URI sets it
    overlays: bool = False  # shows frames with their segments, in the frames' size
    target: Path | None = None  # the file or folder that it writes; "-" for standard output
    is_folder: bool = False


class Sink:
    """Writes the results of one stream. Created by `open_sink`, started and closed by the stream."""

    def __init__(
        self, spec: SinkSpec, *, depth: int = 8, patience: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = legible(spec.uri)
        self.spec = spec
        self._depth = depth
        self._patience = patience
        self._clock = clock
        self._slot: Slot[Item] = Slot("latest")
        self._thread: threading.Thread | None = None
        self._context: Context | None = None
        self._writer: Writer | None = None
        self._state = "open"
        self._error = ""
        self._offered = self._refused = self._handled = self._failed = self._gaps = 0
        self._failures = 0  # in a row
        self._retry_at, self._pause = 0.0, RETRY[0]
        self._busy_since: float | None = None  # when the writer began with its current result

    def start(self, context: Context, *, stream_policy: Policy) -> None:
        """Open the writer and begin to accept results.

        Raises:
            SinkError: it cannot be opened. A recording that lacks disk space or descriptors waits instead.
            ThreadLimitError: the system starts no more threads.
        """
        policy = self.spec.policy or (stream_policy if self.spec.recording else "latest")
        self._slot = Slot(policy, depth=self._depth)
        self._context = context
        try:
            self._writer = self.spec.open(context)
        except SinkError as error:
            cause = error.__cause__
            if not (self.spec.recording and isinstance(cause, OSError) and cause.errno in _PASSING):
                raise
            self._wait(error)
        thread = threading.Thread(target=self._run, name=f"sink {self.name}", daemon=True)
        forks.watch(self)
        try:
            threads.start(thread)
        except ThreadLimitError:
            if self._writer is not None:
                self._writer.close()
            raise
        self._thread = thread

    @property
    def wants_overlays(self) -> bool:
        """Whether it has a use for `Item.drawing`."""
        return self.spec.overlays and self._state == "open"

    @property
    def runs_here(self) -> bool:
        """Whether the calling thread is that of the writer."""
        return self._thread is threading.current_thread()

    @property
    def state(self) -> str:
        """Like `SinkStatus.state`, but without the check of a writer that hangs now."""
        return self._state

    def put(self, item: Item) -> None:
        """Queue a result. Never raises; waits for a recording that is behind, but not for one that hangs."""
        self._offered += 1
        if self._state == "waiting" and self._clock() < self._retry_at:
            self._refused += 1
            return
        if self._slot.put(item, timeout=0.0 if self._state == "hung" else self._patience):
            if self._state == "hung":
                self._state = "open"
            return
        self._refused += 1
        if self._state == "open":
            self._give_up("hung", f"accepted no results for {self._patience:g} s")

    def close(self) -> None:
        """Wait for the writer to finish, as long as it makes progress. Idempotent."""
        self._slot.close()
        thread = self._thread
        if thread is None or self.runs_here:  # called by its own writer, which continues
            return
        seen, since = self._handled, time.monotonic()
        while thread.is_alive() and time.monotonic() - since < self._patience:
            thread.join(0.05)
            if self._handled != seen:
                seen, since = self._handled, time.monotonic()
        if thread.is_alive():
            self._slot.discard()
            self._give_up("hung", f"did not finish within {self._patience:g} s")
        elif self._state == "open":
            self._state = "closed"
        elif self._state == "waiting":
            self._state = "failed"

    def after_fork(self) -> None:
        """Discard queued results in a forked child, which the parent writes; see `forks`."""
        self._slot.after_fork()

    @property
    def status(self) -> SinkStatus:
        """State and counters now."""
        counts, pending = self._slot.counts, self._pending
        busy = self._busy_since
        hung = self._state == "open" and busy is not None and time.monotonic() - busy > self._patience
        return SinkStatus(
            name=self.name,
            state="hung" if hung else self._state,
            offered=self._offered,
            written=self._handled - self._failed - pending,
            dropped=counts.dropped + self._refused,
            failed=self._failed,
            waiting=counts.waiting + pending,
            error=self._error,
            keeps=self._slot.policy == "block",
            gaps=self._gaps,
            files=tuple(map(legible, getattr(self._writer, "files", ()))),
        )

    @property
    def _pending(self) -> int:
        return self._writer.pending if isinstance(self._writer, BufferedWriter) else 0

    def _run(self) -> None:
        while not self._slot.exhausted:
            writer = self._writer
            idle = writer.idle if isinstance(writer, BufferedWriter) else None
            item = self._slot.take(_LOOK_EVERY if idle else None)
            if item is not None:
                self._take(item)
            elif idle is not None:
                self._attempt(idle)
        if self._writer is not None:
            self._attempt(self._writer.close, last=True)

    def _take(self, item: Item) -> None:
        self._busy_since = time.monotonic()
        self._attempt(lambda: self._write(item), results=1)
        self._busy_since = None

    def _write(self, item: Item) -> None:
        if self._writer is None:
            assert self._context is not None
            self._writer = self.spec.open(self._context)
        _write(self._writer, item)

    def _attempt(self, action: Callable[[], None], *, results: int = 0, last: bool = False) -> None:
        """Run an action of the writer that handles this many new results, and count the results that it loses."""
        before = self._pending
        try:
            action()
        except ReaderLeftError as error:
            self._failed += before + results - self._pending
            self._handled += results
            self._state, self._error = "left", str(error)
            self._slot.close()
            self._slot.discard()
        except Exception as error:  # no error of a writer may end the stream
            self._failed += before + results - self._pending
            self._handled += results
            self._failures += 1
            if last:
                self._give_up("failed", _describe(error))
            elif self._failures == 1:
                self._error = _describe(error)
                LOG.warning("%s: %s", self.name, self._error)
            elif self._failures < GIVE_UP_AFTER:
                self._error = _describe(error)
            elif self.spec.recording:
                self._wait(error)
                self._slot.discard()
            else:
                self._give_up("failed", _describe(error))
                self._slot.close()
                self._slot.discard()
        else:
            self._handled += results
            if before + results > self._pending:  # more results can be read back now
                self._go_on()

    def _go_on(self) -> None:
        if self._failures:
            self._gaps += 1
        if self._state == "waiting":
            LOG.warning("%s: continues, with a gap", self.name)
            self._state = "open"
        self._failures, self._pause = 0, RETRY[0]

    def _wait(self, error: Exception) -> None:
        """Accept no results for a while, longer after each failure."""
        self._failures = max(self._failures, GIVE_UP_AFTER)
        self._retry_at = self._clock() + self._pause
        self._pause = min(2 * self._pause, RETRY[1])
        if self._state != "waiting":
            LOG.error("%s: waits and retries: %s", self.name, _describe(error))
        self._state, self._error = "waiting", _describe(error)

    def _give_up(self, state: str, why: str) -> None:
        self._state = state
        self._error = why
        LOG.error("%s: %s: %s", self.name, state, why)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@nvtx_range("sink")
def _write(writer: Writer, item: Item) -> None:
    writer.write(item)
