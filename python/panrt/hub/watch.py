"""Report the progress of downloads and exports."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

# Without a terminal a line is due after this share of a file, so many bytes of one of unknown size, or seconds.
_SHARE, _BYTES, _SECONDS = 0.25, 32 << 20, 15.0


class Watch(Protocol):
    """A receiver of progress."""

    def line(self, text: str) -> None:
        """Take a line of text."""
        ...

    def received(self, done: int, total: int | None) -> None:
        """Take the progress of a download in bytes; None: its size is unknown."""
        ...

    def finished(self) -> None:
        """Take the end of a download, successful or not."""
        ...


class StandardError:
    """Lines on standard error, with a bar on a terminal; nothing if the caller closed it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar: Progress | None = None
        self._clock = clock
        self._last: tuple[int, float] | None = None  # bytes and moment of the last line

    def line(self, text: str) -> None:
        """Print a line."""
        if sys.stderr is not None:  # None: the caller closed it
            print(f"  {text}", file=sys.stderr, flush=True)

    def received(self, done: int, total: int | None) -> None:
        """Move the bar, or print a line if one is due."""
        if sys.stderr is None:
            return
        if sys.stderr.isatty():
            self._show(done, total)
            return
        now = self._clock()
        before, since = self._last = self._last or (done, now)
        step = _SHARE * total if total else _BYTES
        if done >= before + step or now >= since + _SECONDS or done == total:
            share = f" of {total / 1e6:.0f} MB, {100 * done / total:.0f} %" if total else " MB"
            self.line(f"downloaded  {done / 1e6:.0f}{share}")
            self._last = done, now

    def finished(self) -> None:
        """Remove the bar."""
        self._last = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, done: int, total: int | None) -> None:
        from rich.console import Console  # noqa: PLC0415  # on a terminal alone
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        if self._bar is None:
            columns = ("  download   ", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("download")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)
