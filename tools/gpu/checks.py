"""The checks of a phase: one JSON line each, written at once, so that a crash loses nothing.

    with checks.check("copy bandwidth") as check:
        check.figures["GB/s"] = measure()

A check that raises has failed, and the next one runs, unless the device is lost: a sticky CUDA error of one check would
be blamed on all that follow.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped", "noted"]
LOST = 3  # how a phase's process ends after a sticky error


class MissingError(Exception):
    """Something that a check needs is missing; the text says what."""


class DeviceLostError(Exception):
    """No call of this process succeeds any more."""


@dataclass
class Record:
    """One line of the report."""

    phase: int
    check: str
    status: Status = "passed"
    seconds: float = 0.0
    detail: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    def note(self, detail: str) -> None:
        """Report a fact that is neither right nor wrong."""
        self.status, self.detail = "noted", detail


class Checks:
    """Runs the checks of one phase and appends their records to a file."""

    def __init__(
        self, phase: int, report: Path, *, seconds: float, lost: Callable[[], str | None] = lambda: None
    ) -> None:
        """Report a phase.

        Args:
            phase: its number.
            report: the file of JSON lines; beside it `<name>.running` holds the name of the check that runs.
            seconds: that the phase has.
            lost: asked after a failure: the sticky error of the device, or None.
        """
        self.phase = phase
        self.lost = lost
        self._report = report
        self._running = running_file(report)
        self._end = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Until the phase is killed."""
        return self._end - time.monotonic()

    @contextmanager
    def check(self, name: str) -> Iterator[Record]:
        """Run one check; nothing leaves this block but DeviceLostError and what ends a process."""
        record = Record(self.phase, name)
        self._running.write_text(name)
        started = time.perf_counter()
        try:
            yield record
        except MissingError as reason:
            record.status, record.detail = "skipped", str(reason)
        except Exception as error:  # a check may fail in any way
            record.status, record.detail = "failed", _describe(error)
        record.seconds = round(time.perf_counter() - started, 3)
        self.write(record)
        self._running.write_text("")
        if record.status == "failed" and (sticky := self.lost()) is not None:
            text = f"after {name!r} every CUDA call fails with {sticky}; the rest of this phase did not run"
            self.write(Record(self.phase, "the device survives", "failed", 0.0, text))
            raise DeviceLostError(text)

    def write(self, record: Record) -> None:
        """Append a record."""
        append(self._report, record)


def append(report: Path, record: Record) -> None:
    """Write a record as one line; several processes may do so at once."""
    line = json.dumps(asdict(record)) + "\n"
    with report.open("a") as file:
        file.write(line)


def read(report: Path) -> list[Record]:
    """Return the records so far; a line that a dying process cut off is left out."""
    if not report.exists():
        return []
    whole = [line for line in report.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [Record(**json.loads(line)) for line in whole]


def running_file(report: Path) -> Path:
    """Return the file that names the check that runs."""
    return report.with_suffix(".running")


def _describe(error: Exception) -> str:
    """Say in a line what was raised and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:600]} ({Path(place.filename).name}:{place.lineno})"
