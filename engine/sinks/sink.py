"""A sink: a writer behind a bounded queue, on a thread of its own.

Nothing that a writer does reaches the stream: what it raises is counted and shown, and a writer that hangs is given up
after `patience` seconds. A recording ("block") makes the stream wait while it works and so misses nothing; a view
("latest") lets old results give way to new ones.

    open ◀──▶ hung        it takes nothing; open again when it does
    open ◀──▶ waiting     a recording that failed, for want of room on the disk for example; it tries again by itself
    open ───▶ failed      a view that failed five times in a row, or what was not mended until the end
    open ───▶ left        nobody reads it any more
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
from panrt.engine.results.result import PanopticResult
from panrt.engine.session import Drawing
from panrt.engine.slot import Policy, Slot
from panrt.engine.status import SinkStatus, StreamStatus
from panrt.errors import ReaderLeftError, SinkError, ThreadLimitError
from panrt.formats.metadata import ModelFile
from panrt.formats.records import legible

LOG = logging.getLogger("panrt.sinks")
GIVE_UP_AFTER = 5  # failures in a row
RETRY = 1.0, 10.0  # seconds until a recording tries again: the first time, and at most; doubles
_LOOK_EVERY = 0.5  # seconds between looks at a writer that has something to do while no result comes
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO})


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


@runtime_checkable
class BufferedWriter(Writer, Protocol):
    """A writer that has something to do also when no result comes."""

    @property
    def pending(self) -> int:
        """Results that it took and that cannot be read back yet."""
        ...

    def idle(self) -> None:
        """Do what is due although no result came; called now and then."""
        ...


@dataclass(frozen=True)
class SinkSpec:
    """What a URI means."""

    uri: str
    open: Callable[[Context], Writer]  # raises SinkError
    recording: bool  # misses nothing where its stream misses nothing
    policy: Policy | None = None  # that was asked for
    pictures: bool = False  # shows frames with their segments, in the frames' size
    target: Path | None = None  # the file or folder that it writes; "-" for standard output
    is_folder: bool = False


class Sink:
    """Takes results from one stream. Made by `open_sink`, started and closed by the stream."""

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
        self._busy_since: float | None = None  # when the writer was given what it has

    def start(self, context: Context, *, stream_policy: Policy) -> None:
        """Open the writer and begin to take results.

        Raises:
            SinkError: it cannot be opened. A recording that lacks room or handles begins to wait instead.
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
    def wants_pictures(self) -> bool:
        """Whether it has a use for `Item.drawing`."""
        return self.spec.pictures and self._state == "open"

    @property
    def runs_here(self) -> bool:
        """Whether this is the thread of its writer."""
        return self._thread is threading.current_thread()

    @property
    def state(self) -> str:
        """As `SinkStatus.state`, without a look at the clock."""
        return self._state

    def put(self, item: Item) -> None:
        """Hand over a result. Never raises; waits for a recording that is behind, but not for one that hangs."""
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
            self._give_up("hung", f"took nothing for {self._patience:g} s")

    def close(self) -> None:
        """Let the writer finish, for as long as it gets on. Twice is fine."""
        self._slot.close()
        thread = self._thread
        if thread is None or self.runs_here:  # a writer that closes its stream goes on writing
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
        """See `forks`: a child writes nothing; what the parent has yet to write, the parent writes."""
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
        """Have the writer do something with so many new results. Whatever is lost is counted."""
        before = self._pending
        try:
            action()
        except ReaderLeftError as error:
            self._failed += before + results - self._pending
            self._handled += results
            self._state, self._error = "left", str(error)
            self._slot.close()
            self._slot.discard()
        except Exception as error:  # whatever a writer raises is its own affair, and must not end the stream
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
            if before + results > self._pending:  # some can be read back now
                self._go_on()

    def _go_on(self) -> None:
        if self._failures:
            self._gaps += 1
        if self._state == "waiting":
            LOG.warning("%s: goes on, with a gap", self.name)
            self._state = "open"
        self._failures, self._pause = 0, RETRY[0]

    def _wait(self, error: Exception) -> None:
        """Take nothing for a while, longer from time to time."""
        self._failures = max(self._failures, GIVE_UP_AFTER)
        self._retry_at = self._clock() + self._pause
        self._pause = min(2 * self._pause, RETRY[1])
        if self._state != "waiting":
            LOG.error("%s: waits, and tries again: %s", self.name, _describe(error))
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
