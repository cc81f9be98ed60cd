"""A loopback server that plays the hub that models are downloaded from, with the misfortunes of real ones."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

Play = Callable[["Request"], None]


class Request:
    """One request, and the means to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.path = handler.path
        self.headers = dict(handler.headers.items())

    def answer(
        self,
        status: int,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        announced: bool = True,
    ) -> None:
        """Answer; a Content-Length among the headers replaces the true one, unannounced there is none."""
        given = {"Content-Length": str(len(content))} if announced else {}
        given |= headers or {}
        self._handler.send_response(status)
        for name, value in given.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()
        with suppress(ConnectionError):  # the client has seen enough
            self._handler.wfile.write(content)

    def cut(self) -> None:
        """Close the connection after this answer."""
        self._handler.close_connection = True
        self._handler.wfile.flush()

    @property
    def start(self) -> int:
        """Where the asked part begins."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


class Hub:
    """A server with one file under every address; `plays` answer its first requests, one each."""

    def __init__(self, content: bytes, tag: str = '"v1"') -> None:
        self.content, self.tag = content, tag
        self.requests: list[Request] = []
        self.plays: list[Play] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, request: Request, *, until: int | None = None, length: int | None = None) -> None:
        """Answer as a real server does: the rest of the file if it is the version that was asked for.

        Args:
            request: to answer.
            until: where in the file the connection is cut.
            length: announced in place of the true one.
        """
        headers = {"ETag": self.tag} if self.tag else {}
        start = request.start if request.headers.get("If-Range") == self.tag else 0
        if start > len(self.content) - 1:
            request.answer(416, headers=headers)
            return
        body = self.content[start:until]
        headers["Content-Length"] = str(len(self.content) - start if length is None else length)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        request.answer(206 if start else 200, body, headers)
        if until is not None or length is not None:
            request.cut()

    def serve_encoded(self, request: Request) -> None:
        """Answer with compressed content, as some proxies do."""
        request.answer(200, b"?", {"Content-Encoding": "gzip"})

    def _handler(hub) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                request = Request(self)
                with hub._lock:
                    hub.requests.append(request)
                    play = hub.plays.pop(0) if hub.plays else hub.serve
                play(request)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator[Hub]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class Heard:
    """A watch that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.progress: list[tuple[int, int | None]] = []
        self.ends = 0

    def line(self, text: str) -> None:
        self.lines.append(text)

    def received(self, done: int, total: int | None) -> None:
        self.progress.append((done, total))

    def finished(self) -> None:
        self.ends += 1


def zoo_pickle(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A file as detectron2's model zoo has them."""
    content = {"model": dict(arrays), "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    return pickle.dumps(content, protocol=2)


def md5_prefix(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()[:6]


def write_mirror(folder: Path, path: str, content: bytes) -> None:
    """Put a file into a folder that stands for the hub."""
    file = folder / path
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
