"""What reading an input may not do: open files that were not named, run anything, or take more than its share.

Python's own doings are seen by an audit hook, those of native code by inotify on canaries, which are files that lie
where a careless reader would look.
"""

from __future__ import annotations

import ctypes
import io
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from fuzz.mutate import CANARIES
from fuzz.target import printable

SPARE = 2 << 30  # bytes of address space beyond the memory, as allocators take more than they use
MESSAGE = 2000  # characters

_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn", "subprocess.Popen")
_FORKS = ("os.fork", "os.forkpty")
_TALKS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request", "ftplib.connect")
_LOADS = ("pickle.find_class", "ctypes.dlopen", "ctypes.dlsym")
_FLAGGED = frozenset((*_RUNS, *_FORKS, *_TALKS, *_LOADS))
_CHANGES = frozenset(
    (
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.chmod",
        "os.link",
        "os.symlink",
        "os.truncate",
        "shutil.rmtree",
    )
)
_IN_OPEN = 0x20


class Finding(NamedTuple):
    """Something that must not happen."""

    kind: str
    where: str  # what tells it from others of its kind
    detail: str


class ForbiddenError(RuntimeError):
    """What an input tried to have run; it was not."""


class Watch:
    """Watches a folder whose input is read: `input` is what was named, all around it are canaries."""

    def __init__(self, root: Path, repository: Path, *, memory: int) -> None:
        self.root = root
        self._memory = memory
        self.input = root / "input"
        self._found: list[Finding] = []
        self._armed = False
        self._allowed: frozenset[str] = frozenset()
        own = (
            repository / "python",
            *(repository / room for room in ("engine", "model", "plugins", "export", "build")),
        )
        packages = {Path(path).resolve() for path in (sys.prefix, sys.base_prefix, *sys.path) if path}
        system = ("/dev", "/proc", "/sys", "/usr", "/lib", "/etc/localtime", "/etc/ssl")
        tests = repository / "tests"
        self._free = tuple(str(path) for path in (*own, *packages, tests, *system, root / "out"))
        self._modules = frozenset(sys.stdlib_module_names) | {name.partition(".")[0] for name in sys.modules}
        self._inotify = _Inotify()
        for folder in (root, self.input, Path.cwd()):
            for name in CANARIES:
                (folder / name).write_bytes(b"canary")
                self._inotify.add(folder / name)
        if os.path.exists("/etc/hostname"):
            self._inotify.add(Path("/etc/hostname"))
        self._stderr = sys.stderr = io.StringIO()
        sys.unraisablehook = lambda caught: self._uncaught("a destructor", caught.exc_value)
        threading.excepthook = lambda caught: self._uncaught("a thread", caught.exc_value)
        sys.addaudithook(self._audit)

    @contextmanager
    def watching(self, allowed: frozenset[str]) -> Iterator[list[Finding]]:
        """What is found while an input is read."""
        self._found = []
        self._allowed = allowed
        self._inotify.read()
        before = _status("VmRSS")
        _reset_peak()
        self._armed = True
        try:
            yield self._found
        finally:
            self._armed = False
            if (taken := _status("VmHWM") - before) > self._memory:
                self._found.append(Finding("memory", "over the limit", f"{taken / 2**30:.1f} GB"))
            for name in self._inotify.read():
                self._found.append(Finding("opened", name, "a native library opened a file that was not named"))
            if "Traceback" in (said := self._stderr.getvalue()):
                self._found.append(Finding("traceback", said.rstrip().rpartition("\n")[2][:100], said[-2000:]))
            self._stderr.seek(0)
            self._stderr.truncate()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed or event in self._allowed:
            return
        if event == "open":
            path = arguments[0]
            if isinstance(path, (str, bytes)) and not self._may_open(os.fsdecode(path)):
                self._found.append(Finding("opened", os.path.basename(os.fsdecode(path))[:80], repr(path)[:200]))
        elif event == "import":
            if str(arguments[0]).partition(".")[0] not in self._modules:
                self._found.append(Finding("import", str(arguments[0])[:80], repr(arguments[1])[:200]))
        elif event in _CHANGES:
            paths = [os.fsdecode(path) for path in arguments if isinstance(path, (str, bytes))]
            if not all(map(self._may_open, paths)):
                self._found.append(Finding("changed", event, repr(arguments)[:200]))
        elif event in _FLAGGED:
            self._found.append(Finding("event", event, repr(arguments)[:200]))
            if event in _RUNS:
                raise ForbiddenError(event)

    def _may_open(self, path: str) -> bool:
        absolute = os.path.normpath(os.path.join(os.getcwd(), path))
        if absolute.startswith(f"{self.input}{os.sep}") or absolute == str(self.input):
            return os.path.basename(absolute) not in CANARIES
        return any(absolute == free or absolute.startswith(free + os.sep) for free in self._free)

    def _uncaught(self, where: str, error: BaseException | None) -> None:
        self._found.append(Finding("uncaught", f"{type(error).__name__} in {where}", repr(error)[:1000]))


def judge_message(message: str, *, lines: int) -> Iterator[Finding]:
    """What is wrong with the text of an error."""
    if len(message) > MESSAGE:
        yield Finding("message", "too long", f"{len(message)} characters: {message[:300]!a}")
    elif message.count("\n") >= lines:
        yield Finding("message", "too many lines", f"{message[:600]!a}")
    bad = next((character for character in message if character != "\n" and not printable(character)), None)
    if bad is not None:
        yield Finding("message", "unprintable", f"{bad!a} in {message[:600]!a}")
    if not message.strip():
        yield Finding("message", "empty", "")


def origin(trace: TracebackType | None, repository: Path) -> str:
    """The last place of the product in a traceback, as file:line."""
    place = "?"
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if repository in path.parents and path.relative_to(repository).parts[0] not in ("tests", ".venv"):
            place = f"{path.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is memory that could not be had."""
    for _ in range(20):
        if error is None:
            return False
        if isinstance(error, MemoryError) or any(word in str(error) for word in ("bad_alloc", "Insufficient memory")):
            return True
        error = error.__cause__ or error.__context__
    return False


def limit_memory(memory: int) -> None:
    """Let this process have so much more memory than it has now, and some more addresses than that."""
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        return  # its shadow is larger than any limit
    soft = _status("VmSize") + memory + SPARE
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _status(name: str) -> int:
    """A size of this process in bytes."""
    with open("/proc/self/status", "rb") as file:
        content = file.read()
    at = content.index(name.encode() + b":")
    return int(content[at : content.index(b"kB", at)].split()[1]) * 1024


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class _Inotify:
    """Files of which it is noticed when anybody in this process or elsewhere opens them."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        self._add = libc.inotify_add_watch
        self._descriptor: int = libc.inotify_init1(os.O_NONBLOCK)
        self._names: dict[int, str] = {}

    def add(self, path: Path) -> None:
        self._names[self._add(self._descriptor, os.fsencode(path), _IN_OPEN)] = str(Path(*path.parts[-2:]))

    def read(self) -> list[str]:
        """Which were opened since the last look."""
        try:
            events = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return []
        numbers = {int.from_bytes(events[at : at + 4], "little") for at in range(0, len(events), 16)}
        return sorted(self._names[number] for number in numbers if number in self._names)
