"""A live page: the annotated stream, its classes, rate and age; for a browser on this machine or another.

Pictures are encoded only while somebody looks, once for all who do. Who is slow sees fewer of them.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import cv2

from panrt.engine.sinks.drawing import annotated
from panrt.engine.sinks.errors import SinkError
from panrt.engine.sinks.http import Response, Server, common_pages
from panrt.engine.sinks.sink import Context, Item

MOST_VIEWERS = 16
_BOUNDARY = "panrt-frame"
_QUALITY = 80


class WebWriter:
    """Serves the page, the stream of each source (/stream.mjpg?source=0), /status.json, /metrics and /healthz."""

    def __init__(self, host: str, port: int, context: Context, *, uri: str) -> None:
        self._context = context
        self._changed = threading.Condition()  # guards all below
        self._last: dict[str, Item] = {}
        self._jpeg: dict[str, tuple[int, bytes]] = {}  # by source: a number that grows, the picture
        self._viewers: Counter[str] = Counter()
        self._closing = False
        page = files(__package__).joinpath("page.html").read_bytes()
        pages = common_pages(context) | {
            "/": lambda _: Response(page, "text/html; charset=utf-8"),
            "/stream.mjpg": self._stream_page,
            "/status.json": lambda _: Response(json.dumps(self._facts()).encode(), "application/json"),
        }
        self._server = Server(host, port, pages, uri=uri)
        self.port = self._server.port

    def write(self, item: Item) -> None:
        """Show one result to whoever looks."""
        source = item.frame.source
        with self._changed:
            self._last[source] = item
            if not self._viewers[source]:
                return
        good, jpeg = cv2.imencode(".jpg", annotated(item), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if not good:
            raise SinkError(f"a frame of {source} could not be encoded as JPEG")
        with self._changed:
            number, _ = self._jpeg.get(source, (0, b""))
            self._jpeg[source] = number + 1, jpeg.tobytes()
            self._changed.notify_all()

    def close(self) -> None:
        """End the streams and the server."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.close()

    def _stream_page(self, query: Mapping[str, str]) -> Response:
        names = [source.name for source in self._context.status().sources]
        number = query.get("source", "0")
        if not number.isdecimal() or int(number) >= len(names):
            return Response(f"there is no source {number}, the last is {len(names) - 1}\n".encode(), code=404)
        if self._viewers.total() >= MOST_VIEWERS:
            return Response(f"{MOST_VIEWERS} are looking already\n".encode(), code=503)
        return Response(self._parts(names[int(number)]), f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    def _parts(self, source: str) -> Iterator[bytes]:
        with self._changed:
            self._viewers[source] += 1
            seen = self._jpeg.get(source, (0, b""))[0]
        try:
            while True:
                with self._changed:
                    while not self._closing and self._jpeg.get(source, (0, b""))[0] <= seen:
                        self._changed.wait()
                    if self._closing:
                        return
                    seen, jpeg = self._jpeg[source]
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                yield head.encode() + jpeg + b"\r\n"
        finally:
            with self._changed:
                self._viewers[source] -= 1

    def _facts(self) -> dict[str, Any]:
        """What the page shows: the status, and for each class of the model its colour and its segments in view."""
        with self._changed:
            seen = Counter(segment.name for item in self._last.values() for segment in item.result.segments)
        model = self._context.model
        classes = [
            {"name": c.name, "color": c.color, "is_thing": c.is_thing, "count": seen[c.name]}
            for c in (*model.things, *model.stuff)
        ]
        return {"model": model.name, "classes": classes, "status": self._context.status().to_json()}
