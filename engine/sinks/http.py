"""The pages for programs that every server of a stream has: /metrics for Prometheus and /healthz."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from panrt.engine.sinks.address import Address
from panrt.engine.sinks.clients import Clients, Counts
from panrt.engine.sinks.server import Page, Response, Server
from panrt.engine.sinks.sink import Context, Item
from panrt.engine.sources.source import State
from panrt.engine.status import StreamStatus

Thing = TypeVar("Thing")

METRICS = "text/plain; version=0.0.4; charset=utf-8"


class MetricsWriter:
    """Serves /metrics for Prometheus and /healthz for a supervisor; writes no results."""

    def __init__(self, address: Address, context: Context) -> None:
        clients = Clients()
        self._server = Server(address, common_pages(context, clients.counts), clients)
        self.port = self._server.port
        self._server.start()
        announce(address, self._server, "/metrics")

    def write(self, item: Item) -> None:
        """Ignore a result: the pages show the stream's status."""

    def close(self) -> None:
        """Close the server."""
        self._server.close()


def announce(address: Address, server: Server, path: str) -> None:
    """Print the URL to open to standard error; its token is shown nowhere else."""
    print(f"{address.uri}: open {server.access.url(path)}{server.access.note}", file=sys.stderr, flush=True)


def common_pages(context: Context, counts: Counts) -> dict[str, Page]:
    """Return the pages that report the status of the stream and the server to machines."""

    def metrics(_: Mapping[str, str]) -> Response:
        text = prometheus(context.status().redacted(), counts)
        return Response(text.encode(errors="backslashreplace"), METRICS)  # file names may hold lone surrogates

    def health(_: Mapping[str, str]) -> Response:
        trouble = context.status().redacted().trouble
        return Response(
            json.dumps({"healthy": not trouble, "trouble": trouble}).encode() + b"\n",
            "application/json",
            503 if trouble else 200,
        )

    return {"/metrics": metrics, "/healthz": health}


def prometheus(status: StreamStatus, counts: Counts | None = None) -> str:
    """Return the status in Prometheus' text format."""
    return "\n".join(_lines(status, counts or Counts())) + "\n"


def _lines(status: StreamStatus, counts: Counts) -> Iterator[str]:
    def family(name: str, kind: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> Iterator[str]:
        yield f"# HELP panrt_{name} {text}"
        yield f"# TYPE panrt_{name} {kind}"
        for labels, value in samples:
            inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
            yield f"panrt_{name}{{{inner}}} {value}" if labels else f"panrt_{name} {value}"

    sources = _unique((source.name for source in status.sources), status.sources)
    sinks = _unique((sink.name for sink in status.sinks), status.sinks)
    yield from family("results_total", "counter", "Results so far.", [({}, status.results)])
    yield from family("results_per_second", "gauge", "Recent rate of results.", [({}, status.fps)])
    yield from family("inference_seconds", "gauge", "Inference, mean of the last results.", [({}, status.inference)])
    if status.age is not None:
        quantiles = (("0.5", status.age.median), ("0.99", status.age.p99), ("1", status.age.worst))
        ages = [({"quantile": name}, value) for name, value in quantiles]
        yield from family("frame_age_seconds", "gauge", "From capture to result, of the last results.", ages)
    frames = [
        ({"source": name, "outcome": outcome}, float(getattr(source, outcome)))
        for name, source in sources
        for outcome in ("captured", "delivered", "dropped", "damaged")
    ]
    yield from family("source_frames_total", "counter", "Frames of a source.", frames)
    states = [
        ({"source": name, "state": state.value}, float(source.state is state))
        for name, source in sources
        for state in State
    ]
    yield from family("source_state", "gauge", "1 for the current state of a source.", states)
    attempts = [({"source": name}, float(source.reconnects)) for name, source in sources]
    yield from family("source_reconnects_total", "counter", "Attempts to reconnect.", attempts)
    results = [
        ({"sink": name, "outcome": outcome}, float(getattr(sink, outcome)))
        for name, sink in sinks
        for outcome in ("written", "dropped", "failed")
    ]
    yield from family("sink_results_total", "counter", "Results offered to a sink.", results)
    answers = [({"code": str(code)}, float(count)) for code, count in sorted(counts.requests.items())]
    closed = [({"reason": reason}, float(count)) for reason, count in sorted(counts.closed.items())]
    yield from family("server_connections", "gauge", "Connections to this server.", [({}, counts.connections)])
    yield from family("server_requests_total", "counter", "Requests that were answered.", answers)
    yield from family("server_closed_total", "counter", "Connections that were ended early.", closed)
    yield from family("server_errors_total", "counter", "Pages that raised an exception.", [({}, counts.errors)])


def _unique(names: Iterable[str], things: Iterable[Thing]) -> list[tuple[str, Thing]]:
    """Return items with unique names, repeated ones numbered: Prometheus rejects equal labels."""
    seen: Counter[str] = Counter()
    pairs = []
    for name, thing in zip(names, things, strict=True):
        seen[name] += 1
        pairs.append((f"{name}#{seen[name]}" if seen[name] > 1 else name, thing))
    return pairs


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
