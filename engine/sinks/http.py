"""A small web server on threads of its own, and the pages that every stream has: /metrics and /healthz."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from panrt.engine.sinks.errors import SinkError
from panrt.engine.sinks.sink import Context, Item
from panrt.engine.sources.source import State
from panrt.engine.status import StreamStatus

_SILENT_CLIENT = 10.0  # seconds after which a client that takes nothing is left


class Response(NamedTuple):
    """An answer: a body, or pieces of it as they come."""

    body: bytes | Iterable[bytes]
    kind: str = "text/plain; charset=utf-8"
    code: int = 200


Page = Callable[[Mapping[str, str]], Response]


class Server:
    """Serves pages by path until it is closed.

    Raises:
        SinkError: the address cannot be had.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Page], *, uri: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _SILENT_CLIENT
            server_version = "panrt"
            sys_version = ""

            def do_GET(self) -> None:
                """Answer with the page of that path."""
                parts = urlsplit(self.path)
                page = pages.get(parts.path)
                query = dict(parse_qsl(parts.query))
                response = page(query) if page else Response(b"there is no such page\n", code=404)
                try:
                    self._send(response)
                except (ConnectionError, TimeoutError):
                    self.close_connection = True  # the client has gone

            def _send(self, response: Response) -> None:
                self.send_response(response.code)
                self.send_header("Content-Type", response.kind)
                self.send_header("Cache-Control", "no-store")
                if isinstance(response.body, bytes):
                    self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                for piece in (response.body,) if isinstance(response.body, bytes) else response.body:
                    self.wfile.write(piece)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: a page that is asked for twice a second is no news."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise SinkError(f"{uri}: cannot listen on {host or '*'}:{port}: {error.strerror}.") from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name=uri, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that hangs must not keep us


class MetricsWriter:
    """/metrics for Prometheus and /healthz for whatever restarts what is ill; takes no results."""

    def __init__(self, host: str, port: int, context: Context, *, uri: str) -> None:
        self._server = Server(host, port, common_pages(context), uri=uri)
        self.port = self._server.port

    def write(self, item: Item) -> None:
        """Nothing: what there is to tell, the stream's status tells."""

    def close(self) -> None:
        """Answer no more."""
        self._server.close()


def common_pages(context: Context) -> dict[str, Page]:
    """The pages that tell machines how the stream does."""

    def metrics(_: Mapping[str, str]) -> Response:
        return Response(prometheus(context.status()).encode(), "text/plain; version=0.0.4; charset=utf-8")

    def health(_: Mapping[str, str]) -> Response:
        trouble = context.status().trouble
        return Response(
            json.dumps({"healthy": not trouble, "trouble": trouble}).encode() + b"\n",
            "application/json",
            503 if trouble else 200,
        )

    return {"/metrics": metrics, "/healthz": health}


def prometheus(status: StreamStatus) -> str:
    """The status in Prometheus' text format."""
    return "\n".join(_lines(status)) + "\n"


def _lines(status: StreamStatus) -> Iterator[str]:
    def family(name: str, kind: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> Iterator[str]:
        yield f"# HELP panrt_{name} {text}"
        yield f"# TYPE panrt_{name} {kind}"
        for labels, value in samples:
            inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
            yield f"panrt_{name}{{{inner}}} {value}" if labels else f"panrt_{name} {value}"

    yield from family("results_total", "counter", "Results so far.", [({}, status.results)])
    yield from family("results_per_second", "gauge", "Rate of results of late.", [({}, status.fps)])
    yield from family("inference_seconds", "gauge", "Inference, mean of the last results.", [({}, status.inference)])
    if status.age is not None:
        quantiles = (("0.5", status.age.median), ("0.99", status.age.p99), ("1", status.age.worst))
        ages = [({"quantile": name}, value) for name, value in quantiles]
        yield from family("frame_age_seconds", "gauge", "From capture to result, of the last results.", ages)
    frames = [
        ({"source": source.name, "outcome": outcome}, float(getattr(source, outcome)))
        for source in status.sources
        for outcome in ("captured", "delivered", "dropped", "damaged")
    ]
    yield from family("source_frames_total", "counter", "Frames of a source.", frames)
    states = [
        ({"source": source.name, "state": state.value}, float(source.state is state))
        for source in status.sources
        for state in State
    ]
    yield from family("source_state", "gauge", "1 for the state that a source is in.", states)
    attempts = [({"source": source.name}, float(source.reconnects)) for source in status.sources]
    yield from family("source_reconnects_total", "counter", "Attempts to connect again.", attempts)
    results = [
        ({"sink": sink.name, "outcome": outcome}, float(getattr(sink, outcome)))
        for sink in status.sinks
        for outcome in ("written", "dropped", "failed")
    ]
    yield from family("sink_results_total", "counter", "Results that a sink was given.", results)


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
