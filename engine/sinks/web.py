"""A live page: the annotated stream, its classes, rate and age; for a browser on this machine or another.

Images are encoded only while there are viewers, once for all of them. Slow viewers receive fewer images.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

import cv2

from panrt.engine import forks
from panrt.engine.sinks.address import Address
from panrt.engine.sinks.clients import Clients
from panrt.engine.sinks.drawing import annotated
from panrt.engine.sinks.http import announce, common_pages
from panrt.engine.sinks.request import RejectedError
from panrt.engine.sinks.server import Page, Response, Server
from panrt.engine.sinks.sink import Context, Item
from panrt.errors import SinkError

MOST_VIEWERS = 16
_BOUNDARY = "panrt-frame"
_QUALITY = 80
_SOURCE = re.compile(r"\d{1,4}", re.ASCII)
_VIEW = re.compile(r"[A-Za-z0-9-]{0,40}", re.ASCII)


class _Seen(NamedTuple):
    """The newest result of a source, in brief."""

    captured_at: float
    segments: Counter[int]  # by the id of their category


class WebWriter:
    """Serves the page, the stream of each source (/stream.mjpg?source=0), /status.json, /metrics and /healthz."""

    def __init__(self, address: Address, context: Context) -> None:
        self._context = context
        self._changed = threading.Condition()  # guards the next five
        self._seen: dict[str, _Seen] = {}
        self._parts: dict[str, tuple[int, bytes]] = {}  # by source: a growing number, the image as it is sent
        self._viewers: Counter[str] = Counter()
        self._feeds: set[_Feed] = set()
        self._closed = False
        self._instance = secrets.token_hex(8)  # shows the page that the server was restarted
        clients = Clients()
        pages = common_pages(context, clients.counts) | {
            "/": page_of(files(__package__).joinpath("page.html").read_text("utf-8")),
            "/stream.mjpg": self._stream_page,
            "/status.json": self._status_page,
        }
        self._server = Server(address, pages, clients)
        forks.watch(self)
        self._most_viewers = min(MOST_VIEWERS, clients.limits.connections // 2)
        self.port = self._server.port
        self._server.start()
        announce(address, self._server, "/")

    def write(self, item: Item) -> None:
        """Send one result to its viewers."""
        source = item.frame.source
        segments = Counter(segment.category_id for segment in item.result.map_segments)
        with self._changed:
            self._seen[source] = _Seen(item.frame.captured_at, segments)
            if not self._viewers[source]:
                return
        good, jpeg = cv2.imencode(".jpg", annotated(item), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if not good:
            raise SinkError(f"a frame of {source} could not be encoded as JPEG")
        head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        part = head.encode() + jpeg.tobytes() + b"\r\n"
        with self._changed:
            number, _ = self._parts.get(source, (0, b""))
            self._parts[source] = number + 1, part
            self._changed.notify_all()

    def close(self) -> None:
        """End the streams and the server."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.close()

    def after_fork(self) -> None:
        """Replace the lock in a forked child, where its holder does not exist; see `forks`."""
        self._changed = threading.Condition()

    def _stream_page(self, query: Mapping[str, str]) -> Response:
        names = [source.name for source in self._context.status().sources]
        number, view = query.get("source", "0"), query.get("view", "")
        if _SOURCE.fullmatch(number) is None or int(number) >= len(names):
            raise RejectedError(404, f"source: expected a number from 0 to {len(names) - 1}")
        if _VIEW.fullmatch(view) is None:
            raise RejectedError(400, "view: expected up to 40 letters, digits and hyphens")
        feed = _Feed(self, names[int(number)], view)
        with self._changed:
            if len(self._feeds) >= self._most_viewers:
                raise RejectedError(503, f"there are {self._most_viewers} viewers already")
            self._feeds.add(feed)
            self._viewers[feed.source] += 1
            feed.seen = self._parts.get(feed.source, (0, b""))[0]  # an old image is not sent as a new one
        return Response(feed, f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    def take(self, feed: _Feed, timeout: float) -> bytes | None:
        """Return the newest image that a viewer has not received yet; see `Feed`."""

        def newest() -> tuple[int, bytes]:
            return self._parts.get(feed.source, (0, b""))

        with self._changed:
            self._changed.wait_for(lambda: self._closed or newest()[0] > feed.seen, timeout)
            number, part = newest()
            if self._closed:
                return b""
            if number <= feed.seen:
                return None
            feed.seen = number
            return part

    def leave(self, feed: _Feed) -> None:
        """Remove a viewer."""
        with self._changed:
            if feed in self._feeds:
                self._feeds.remove(feed)
                self._viewers[feed.source] -= 1
                if not self._viewers[feed.source]:
                    self._parts.pop(feed.source, None)

    def _status_page(self, _: Mapping[str, str]) -> Response:
        return Response(json.dumps(self._facts()).encode(), "application/json")

    def _facts(self) -> dict[str, Any]:
        """Return the content of the page: status, the model's classes, and each source's age and segments by class."""
        status = self._context.status()
        now = time.monotonic()
        with self._changed:
            seen = dict(self._seen)
            views = sorted(feed.view for feed in self._feeds if feed.view)
        model = self._context.model
        shown = [seen.get(source.name) for source in status.sources]
        classes = []
        for c in (*model.things, *model.stuff):
            counts = [each.segments[c.id] if each else 0 for each in shown]  # segments in view, by source
            facts = {"name": c.name, "color": c.color, "is_thing": c.is_thing, "count": sum(counts), "counts": counts}
            classes.append(facts)
        return {
            "instance": self._instance,
            "model": model.name,
            "classes": classes,
            "ages": [now - each.captured_at if each else None for each in shown],  # seconds since capture
            "views": views,
            "status": status.redacted().to_json(),
        }


class _Feed:
    """A viewer of one source."""

    def __init__(self, writer: WebWriter, source: str, view: str) -> None:
        self.source = source
        self.view = view  # the page's own name for it, by which it checks that it is still served
        self.seen = 0
        self._writer = writer

    def take(self, timeout: float) -> bytes | None:
        """Return the newest image, once."""
        return self._writer.take(self, timeout)

    def close(self) -> None:
        """Remove this viewer."""
        self._writer.leave(self)


def page_of(text: str) -> Page:
    """Return the page of a document; its content security policy allows only its inline script and style."""
    hashes = {}
    for tag in ("script", "style"):
        inline = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        hashes[tag] = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    response = Response(text.encode(), "text/html; charset=utf-8", headers={"Content-Security-Policy": policy})
    return lambda _: response
