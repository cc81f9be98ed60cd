"""The process that reads hostile inputs; it may die of one, `campaign` starts another and knows which it was.

A command is a line of JSON on standard input: {"target", "seed", "first", "count", "seconds"} for inputs made from
numbers, or {"target", "replay": FOLDER} for one that was saved. A report is a line of JSON on what was standard output:
["ready", folder], ["begin", number], ["end", number, outcome, findings], ["done"].
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any, TextIO

from fuzz import targets, watch
from fuzz.target import BrokenError, Files, Target
from fuzz.watch import Finding
from panrt.errors import PanrtError

REPOSITORY = Path(__file__).resolve().parents[2]
SAVED = 2  # inputs of the same finding


class Reader:
    """Makes inputs and has them read."""

    def __init__(self, root: Path, saved: Path, *, memory: int) -> None:
        self._watch = watch.Watch(root, REPOSITORY, memory=memory)
        self.memory = memory
        self._input = root / "input"
        self._saved = saved
        self._seen: dict[tuple[str, ...], int] = {}

    def read(self, target: Target, files: Files) -> tuple[str, list[Finding]]:
        """The outcome of one input, and what was found."""
        written = place(self._input, files)
        with self._watch.watching(target.allowed) as found:
            outcome, wrong = self._check(target)
        for path in written:
            path.unlink(missing_ok=True)
        return outcome, [*wrong, *found]

    def save(self, target: Target, findings: list[Finding], files: Files, label: str) -> None:
        """Keep an input with its findings, unless there are enough like it."""
        for finding in findings:
            key = (target.name, finding.kind, finding.where)
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] <= SAVED:
                folder = self._saved / f"{target.name}-{label}"
                place(folder, files)

    def _check(self, target: Target) -> tuple[str, list[Finding]]:
        try:
            said = target.check(self._input)
        except PanrtError as error:
            findings = list(watch.judge_message(str(error), lines=target.lines))
            if watch.out_of_memory(error):
                findings.append(Finding("memory", f"MemoryError behind {type(error).__name__}", str(error)[:500]))
            place = watch.origin(error.__traceback__, REPOSITORY)
            return "rejected", [finding._replace(where=f"{finding.where} at {place}") for finding in findings]
        except BrokenError as error:
            return "finding", [Finding("invariant", str(error).partition(":")[0], str(error)[:1000])]
        except target.refusals:
            return "rejected", []
        except (Exception, SystemExit) as error:
            where = f"{type(error).__name__} at {watch.origin(error.__traceback__, REPOSITORY)}"
            return "finding", [
                Finding("memory" if watch.out_of_memory(error) else "exception", where, repr(error)[:1000])
            ]
        return "accepted", [] if said is None else list(watch.judge_message(said, lines=target.lines))


def place(folder: Path, files: Files) -> list[Path]:
    """Write an input into a folder; its paths."""
    written = []
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written.append(path)
    return written


def load(folder: Path) -> Files:
    """An input that was saved."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("finding.txt",))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def make(target: Target, seed: int, number: int) -> Files:
    """An input by its number."""
    rng = Random(f"{target.name}/{seed}/{number}")
    seeds = target.seeds()
    return target.mutate(rng, dict(rng.choice(seeds)))


def warm_up(target: Target, folder: Path) -> None:
    """Have what is imported and set up with valid inputs done before anything is watched."""
    for files in target.seeds():
        written = place(folder, files)
        with contextlib.suppress(PanrtError, *target.refusals):
            target.check(folder)
        for path in written:
            path.unlink(missing_ok=True)


def serve(reader: Reader, reports: TextIO) -> None:
    """Answer commands until there are no more."""

    def report(*what: Any) -> None:
        reports.write(json.dumps(what) + "\n")
        reports.flush()

    for line in sys.stdin:
        command = json.loads(line)
        target = targets.load(command["target"])
        target.seeds()
        watch.limit_memory(reader.memory)
        until = time.monotonic() + (command.get("seconds") or 1e9)
        first = command.get("first", 0)
        for number in range(first, first + command.get("count", 1)):
            files = load(Path(command["replay"])) if "replay" in command else make(target, command["seed"], number)
            report("begin", number)
            outcome, findings = reader.read(target, files)
            if findings and "seed" in command:
                reader.save(target, findings, files, f"{command['seed']}-{number}")
            report("end", number, outcome, findings)
            if time.monotonic() > until:
                break
        report("done")


def main() -> None:
    """Serve on this process' standard streams; native code that prints does so into nothing."""
    reports = os.fdopen(os.dup(1), "w")
    crash = Path(sys.argv[1])
    root = Path(tempfile.mkdtemp(prefix="panrt-fuzz-"))
    for name in ("input", "elsewhere", "out"):
        (root / name).mkdir()
    os.chdir(root / "elsewhere")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    stacks = crash.open("w")
    faulthandler.enable(file=stacks)
    faulthandler.register(signal.SIGUSR1, file=stacks)
    try:
        for name in sys.argv[4:]:
            warm_up(targets.load(name), root / "input")
        reader = Reader(root, Path(sys.argv[2]), memory=int(sys.argv[3]))
        reports.write(json.dumps(["ready", str(root)]) + "\n")
        reports.flush()
        serve(reader, reports)
    except Exception:
        traceback.print_exc(file=stacks)
        raise
    finally:
        os.chdir("/")
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
