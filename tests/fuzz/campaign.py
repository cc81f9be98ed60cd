"""Fuzzing in worker processes: each is watched from outside for death, time and memory, and replaced when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.watch import Finding

REPOSITORY = Path(__file__).resolve().parents[2]
SLICE = 5.0  # seconds of one target before the next one's turn
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Limits(NamedTuple):
    """What an input may take."""

    seconds: float = 10.0  # of a processor
    wait: float = 60.0  # seconds, on a busy machine or when it waits for what never comes
    memory: int = 2 << 30  # bytes


@dataclass
class Tally:
    """What became of a target's inputs."""

    outcomes: Counter[str] = field(default_factory=Counter)  # accepted, rejected, finding
    findings: dict[tuple[str, str], list[tuple[Path | None, Finding]]] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def inputs(self) -> int:
        """All of them."""
        return self.outcomes.total()


class Campaign:
    """Inputs for targets, and what was found.

    Args:
        names: of targets.
        seed: with a number it makes an input.
        saved: folder for inputs with findings.
        limits: of each input.
    """

    def __init__(self, names: Sequence[str], *, seed: int, saved: Path, limits: Limits | None = None) -> None:
        self.names = tuple(names)
        self.tallies = {name: Tally() for name in names}
        self._seed = seed
        self._saved = saved
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._next = dict.fromkeys(names, 0)
        self._turn = 0
        self._error: BaseException | None = None

    @property
    def findings(self) -> int:
        """How many different ones there are."""
        return sum(len(tally.findings) for tally in self.tallies.values())

    def run_counts(self, counts: dict[str, int]) -> None:
        """Read so many inputs of each target in one worker, always the same ones."""
        with Worker(self.names, self._saved, self._limits) as worker:
            for name in self.names:
                self._read(worker, name, 0, counts[name], None)

    def run_minutes(self, minutes: float, *, jobs: int) -> None:
        """Let targets take turns on some workers until the time is over."""
        until = time.monotonic() + 60 * minutes
        threads = [threading.Thread(target=self._work, args=(until,)) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(1.0)
            for thread in threads[1:]:
                thread.join(0.1)
            self._show(until)
        if self._error is not None:
            raise self._error

    def replay(self, name: str, folders: Sequence[Path]) -> list[Event]:
        """Read inputs that were saved."""
        with Worker((name,), self._saved, self._limits) as worker:
            events = [event for folder in folders for event in worker.ask({"target": name, "replay": str(folder)})]
        for event in events:
            self._note(name, event, None)
        return events

    def _work(self, until: float) -> None:
        try:
            with Worker(self.names, self._saved, self._limits) as worker:
                while (left := until - time.monotonic()) > 0 and self._error is None:
                    with self._lock:
                        name = self.names[self._turn % len(self.names)]
                        self._turn += 1
                        first = self._next[name]
                        self._next[name] += 1_000_000  # numbers of this turn; not all are used
                    self._read(worker, name, first, 1_000_000, min(SLICE, left))
        except BaseException as error:
            self._error = error
            raise

    def _read(self, worker: Worker, name: str, first: int, count: int, seconds: float | None) -> None:
        until = None if seconds is None else time.monotonic() + seconds
        last = first + count
        while first < last:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            command = {"target": name, "seed": self._seed, "first": first, "count": last - first, "seconds": left}
            died = False
            for event in worker.ask(command):
                self._note(name, event, f"{self._seed}")
                first = event.number + 1
                died = event.outcome == "died"
            if not died:
                return

    def _note(self, name: str, event: Event, seed: str | None) -> None:
        with self._lock:
            tally = self.tallies[name]
            tally.outcomes["finding" if event.findings else event.outcome] += 1
            for finding in event.findings:
                key = finding.kind, finding.where
                tally.counts[key] += 1
                examples = tally.findings.setdefault(key, [])
                if len(examples) < 2:
                    folder = None if seed is None else self._saved / f"{name}-{seed}-{event.number}"
                    examples.append((folder, finding))

    def _show(self, until: float) -> None:
        if not sys.stderr.isatty() and int(time.monotonic()) % 30:
            return
        left = max(until - time.monotonic(), 0)
        with self._lock:
            inputs = sum(tally.inputs for tally in self.tallies.values())
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"  {inputs:,} inputs, {self.findings} findings, {left / 60:.1f} minutes left ", end=end, file=sys.stderr)

    def table(self) -> str:
        """A row for each target."""
        rows: list[tuple[str, ...]] = [("target", "inputs", "accepted", "rejected", "findings", "kinds")]
        for name, tally in self.tallies.items():
            kinds = Counter(kind for kind, _ in tally.findings)
            told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            outcomes = tally.outcomes
            numbers = (tally.inputs, outcomes["accepted"], outcomes["rejected"], outcomes["finding"])
            rows.append((name, *(f"{number:,}" for number in numbers), told or "-"))
        totals = [sum(int(row[column].replace(",", "")) for row in rows[1:]) for column in range(1, 5)]
        rows.append(("all", *(f"{total:,}" for total in totals), ""))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 5)), row[5]]).rstrip()
            for row in rows
        )

    def report(self) -> str:
        """Every finding once, with how to see it again."""
        lines = []
        for name, tally in self.tallies.items():
            for key, examples in tally.findings.items():
                lines.append(f"{name}: {key[0]}: {key[1]} ({tally.counts[key]} times)")
                for folder, finding in examples[:1]:
                    lines.append(f"    {finding.detail.strip()[:400]}".replace("\n", "\n    "))
                    if folder is not None:
                        lines.append(f"    again:  make fuzz REPLAY={os.path.relpath(folder, REPOSITORY)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Event:
    """An input was read."""

    number: int
    outcome: str
    findings: tuple[Finding, ...]


class Worker:
    """A worker process, started again when it died."""

    def __init__(self, names: Sequence[str], saved: Path, limits: Limits) -> None:
        self._names = tuple(names)
        self._saved = saved
        self._limits = limits
        self._home = Path(tempfile.mkdtemp(prefix="panrt-fuzz-stacks-"))
        self._stacks = self._home / "stacks"
        self._process: subprocess.Popen[bytes] | None = None
        self._root = Path()
        self._buffer = b""

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._end()
        shutil.rmtree(self._home, ignore_errors=True)

    def ask(self, command: dict[str, Any]) -> Iterator[Event]:
        """Have a command done; after an event whose outcome is "died" the rest of it was not."""
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        process.stdin.flush()
        number: int | None = None
        begun = used = base = 0.0
        while True:
            report = self._next_report(0.05)
            if report is not None:
                match report:
                    case ["begin", int(number)]:
                        begun, used, base = time.monotonic(), -1.0, 0.0
                    case ["end", int(done), str(outcome), findings]:
                        number = None
                        yield Event(done, outcome, tuple(Finding(*finding) for finding in findings))
                    case ["done"]:
                        return
                continue
            if process.poll() is not None and self._next_report(0.0) is None:
                if number is None:
                    raise RuntimeError(f"worker: it ended by {process.returncode} between inputs: {self._stack()}")
                yield self._died(command, number, "signal", f"exit {process.returncode}")
                return
            if number is None:
                continue
            now, memory = _usage(process.pid)
            if used < 0:
                used, base = now, memory
            for over, kind in (
                (now - used > self._limits.seconds or time.monotonic() - begun > self._limits.wait, "hang"),
                (memory - base > self._limits.memory, "memory"),
            ):
                if over:
                    process.send_signal(signal.SIGUSR1)  # tells where it is
                    time.sleep(0.5)
                    yield self._died(command, number, kind, f"{now - used:.1f} s of a processor")
                    return

    def _died(self, command: dict[str, Any], number: int, kind: str, detail: str) -> Event:
        stack = self._stack()
        if "seed" in command:
            saved = self._saved / f"{command['target']}-{command['seed']}-{number}"
            for path in (self._root / "input").rglob("*"):
                if path.is_file() and not path.name.startswith("canary."):
                    kept = saved / path.relative_to(self._root / "input")
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, kept)
        self._end()
        return Event(number, "died", (Finding(kind, _place(stack), f"{detail}\n{stack[:1500]}"),))

    def _stack(self) -> str:
        return self._stacks.read_text(errors="replace") if self._stacks.exists() else ""

    def _start(self) -> None:
        path = os.pathsep.join(
            [str(REPOSITORY / "tests"), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-m", "fuzz.worker", str(self._stacks), str(self._saved)]
        command += [str(self._limits.memory), *self._names]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=self._home
        )
        os.set_blocking(self._process.stdout.fileno(), False)  # type: ignore[union-attr]
        self._buffer = b""
        while (report := self._next_report(1.0)) is None:
            if self._process.poll() is not None:
                raise RuntimeError(f"worker: it did not start: {self._stack()}")
        self._root = Path(report[1])

    def _end(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        if self._root.name.startswith("panrt-fuzz-"):
            shutil.rmtree(self._root, ignore_errors=True)

    def _next_report(self, timeout: float) -> list[Any] | None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        if b"\n" not in self._buffer and select.select([process.stdout], [], [], timeout)[0]:
            self._buffer += process.stdout.read() or b""
        if b"\n" not in self._buffer:
            return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        report: list[Any] = json.loads(line)
        return report


def _place(stack: str) -> str:
    """Where the product was, as far as the stacks of all threads tell; threads that wait for others were nowhere."""
    threads = [thread.splitlines()[1:] for thread in re.split(r"(?m)^(?=Current thread|Thread)", stack)]
    busy = [lines for lines in threads if lines and "threading.py" not in lines[0]]
    for line in (line.strip() for lines in busy for line in lines):
        if f'"{REPOSITORY}/' in line and f'"{REPOSITORY}/tests/fuzz/' not in line:
            return line.replace(f"{REPOSITORY}/", "")
    return "?"


def _usage(pid: int) -> tuple[float, float]:
    """Seconds of a processor that a process has had, and bytes of memory that it has."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0, 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS, float(resident)
