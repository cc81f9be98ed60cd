"""Recordings beside a live page under a load of idle, slow and stuck clients. Linux only.

    python -m benchmarks.slow_clients                          2,000 clients for five minutes
    python -m benchmarks.slow_clients --clients 500 --seconds 30

One process records a moving pattern (COCO, NumPy, JSON lines, mp4) and serves its page, with 1,024 file descriptors and
a session of no cost. This one keeps so many clients at it, a fifth each of: connected without a word; a request at a
byte every five seconds; complete but for the last line; viewers of the stream who take nothing; and viewers who take a
little each second. Who is dropped comes again at once. Beside them an ordinary client asks for the status.
The bar: no recording loses a result, no sink fails, and descriptors and threads stay bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import panrt
from panrt.engine.sinks.clients import Limits
from tools.null_session import NullSession

FILES = 1024  # descriptors of the process that is besieged
THREADS = 2 * Limits.connections  # of the clients, and as many for all the rest
RATE = 10  # frames per second
KINDS = "idle", "slow", "unfinished", "stuck viewer", "slow viewer"
_HOST = "Host: localhost"
_VIEW = f"GET /stream.mjpg HTTP/1.1\r\n{_HOST}\r\n\r\n".encode()


@dataclass
class Siege:
    """The observations from outside."""

    answers: list[float] = field(default_factory=list)  # seconds that the ordinary client waited
    unanswered: int = 0
    over: bool = False
    connected: Counter[str] = field(default_factory=Counter)  # by kind
    most: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("descriptors", "threads", "memory_mb"), 0))


def serve(port: int, folder: Path, seconds: float) -> None:
    """Record and serve; print how it went as JSON."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    sinks = [
        f"web://127.0.0.1:{port}",
        f"coco://{folder / 'coco'}?policy=block",
        f"npy://{folder / 'npy'}?policy=block",
        f"{folder / 'out.jsonl'}?policy=block",
        f"{folder / 'out.mp4'}?policy=block",
    ]
    uri = f"test://320x240@{RATE}?frames={round(seconds * RATE)}"
    stream = panrt.stream(uri, NullSession(), sinks=sinks, tracker=None)
    for _ in stream:
        pass
    print(json.dumps(stream.status.to_json()))


async def client(kind: str, port: int, siege: Siege) -> None:
    """Run a client that misbehaves repeatedly."""
    while not siege.over:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 12)
        except OSError:
            await asyncio.sleep(0.5)
            continue
        siege.connected[kind] += 1
        try:
            await misbehave(kind, reader, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()


async def misbehave(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the server closes the connection."""
    if kind == "idle":
        await reader.read()
    elif kind == "slow":
        for byte in b"GET / HTTP/1.1\r\n" + _HOST.encode() + b"\r\n" + b"A" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(5)
    elif kind == "unfinished":
        writer.write(f"GET / HTTP/1.1\r\n{_HOST}\r\n".encode())
        await reader.read()
    elif kind == "stuck viewer":
        writer.write(_VIEW)
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        if b" 200 " in await reader.readline():
            await asyncio.sleep(60)  # the reader's small limit keeps it from taking more
        else:
            await asyncio.sleep(1)
    else:
        writer.write(_VIEW)
        while await reader.read(1 << 10):
            await asyncio.sleep(1)


async def ask(port: int, process: subprocess.Popen[str], siege: Siege) -> None:
    """An ordinary client: the status every second."""
    while not siege.over:
        begun = time.monotonic()
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 30)
            writer.write(f"GET /status.json HTTP/1.1\r\n{_HOST}\r\nConnection: close\r\n\r\n".encode())
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            if b" 200 " not in answer[:20]:
                raise ConnectionError
            siege.answers.append(time.monotonic() - begun)
        except (OSError, asyncio.TimeoutError):
            siege.unanswered += process.poll() is None
        await asyncio.sleep(1)


async def besiege(port: int, process: subprocess.Popen[str], clients: int, siege: Siege) -> None:
    """Until the process has ended."""
    tasks = [asyncio.create_task(client(KINDS[n % len(KINDS)], port, siege)) for n in range(clients)]
    tasks.append(asyncio.create_task(ask(port, process, siege)))
    while process.poll() is None:
        for name, value in measured(process.pid).items():
            siege.most[name] = max(siege.most[name], value)
        await asyncio.sleep(1)
    siege.over = True  # beside the cancellation, which `wait_for` loses before Python 3.12
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def measured(pid: int) -> dict[str, int]:
    """Descriptors, threads and resident memory of a process; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        return {
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": int(facts["Threads"]),
            "memory_mb": int(facts["VmRSS"].split()[0]) // 1024,
        }
    except (OSError, KeyError):
        return {}


def run(clients: int, seconds: float) -> bool:
    """Run one siege; return whether the stream withstood it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < clients + 100:
        raise SystemExit(f"{clients} clients need {clients + 100} file descriptors, this process may have {hard}.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="panrt-slow-clients-"))
    command = [sys.executable, "-m", "benchmarks.slow_clients", "--serve", str(port), str(folder), str(seconds)]
    siege = Siege()
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.1)
            asyncio.run(besiege(port, process, clients, siege))
            assert process.stdout is not None
            status: dict[str, Any] = json.loads(process.stdout.read())
    finally:
        shutil.rmtree(folder)
    print(f"{clients} clients, {status['elapsed']:.0f} s, {status['results']} results")
    for sink in status["sinks"]:
        print(
            f"  {sink['state']:7} {sink['written']:6} written, {sink['dropped'] + sink['failed']} lost  {sink['name']}"
        )
    print(f"  most    {', '.join(f'{count} {name}' for name, count in siege.most.items())}")
    print(f"  clients {', '.join(f'{siege.connected[kind]} x {kind}' for kind in KINDS)}")
    if siege.answers:
        print(
            f"  status  {len(siege.answers)} answers, median {statistics.median(siege.answers):.2f} s, "
            f"longest {max(siege.answers):.2f} s; {siege.unanswered} times none within 30 s"
        )
    recordings = status["sinks"][1:]
    kept = all(sink["state"] == "closed" and sink["written"] == status["results"] for sink in recordings)
    return kept and siege.most["descriptors"] < FILES // 2 and siege.most["threads"] <= THREADS


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--serve", nargs=3, metavar=("PORT", "FOLDER", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        port, folder, seconds = options.serve
        serve(int(port), Path(folder), float(seconds))
    elif not run(options.clients, options.seconds):
        raise SystemExit("a recording lost results, or descriptors or threads ran away")


if __name__ == "__main__":
    main()
