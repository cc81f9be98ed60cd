"""What comes over a network or from another process: live streams, requests to the web server, shared memory."""

from __future__ import annotations

import math
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random

import cv2
import numpy as np

from fuzz import mutate
from fuzz.target import BrokenError, Files, Target, printable, require
from fuzz.targets.media import PLAYLISTS, check_source, clip, spoil_clip
from panrt.engine.frame import Frame
from panrt.engine.results.result import PanopticResult, Timings
from panrt.engine.results.segment import Segment
from panrt.engine.sinks import Context, Item, SharedMemoryReader, open_sink
from panrt.engine.sinks.shared_memory import SharedMemoryWriter, memory_path
from panrt.engine.sources import SourceError
from panrt.engine.status import Meter
from support.plans import MODEL
from tools.streams import free_port

Answer = Callable[[socket.socket], None]


class Listener:
    """A server on the loopback interface that answers one connection after the other."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.answer: Answer = lambda _: None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                connection.settimeout(5.0)
                try:
                    self.answer(connection)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    continue  # the client has gone


def _request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request and (piece := connection.recv(65536)):
        request += piece
    return request


@lru_cache
def _listener() -> Listener:
    return Listener()


def _check_live(uri: str, answer: Answer) -> str | None:
    """A live stream that gave frames may end as it likes, but for what it says."""
    frames: list[int] = []
    _listener().answer = answer
    try:
        check_source(uri, counts=frames)
    except SourceError as error:
        if not frames[-1:] > [0]:
            raise
        return str(error)
    return None


# Streams over HTTP ----------------------------------------------------------------------------------------------------

_MJPEG = b"multipart/x-mixed-replace; boundary=frame"


def _http(kind: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nConnection: close\r\n\r\n" + body


@lru_cache
def live_files() -> tuple[Files, ...]:
    """Whole answers of a web server: MJPEG in parts, MPEG-TS, Matroska, and lists of other streams."""
    _listener()
    parts = []
    for index in range(4):
        image = np.full((24, 32, 3), 40 * index, np.uint8)
        jpeg = cv2.imencode(".jpg", image)[1].tobytes()
        parts.append(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg))
    transport = clip("mpegts", "libx264")
    return (
        {"answer": _http(_MJPEG, b"".join(parts))},
        {"answer": _http(_MJPEG, re.sub(rb"Content-Length: \d+\r\n", b"", b"".join(parts)))},
        {"answer": _http(b"video/mp2t", transport)},
        {"answer": _http(b"application/octet-stream", clip("mpegts", "mpeg2video"))},
        {"answer": _http(b"video/x-matroska", clip("matroska", "mpeg4"))},
        {"answer": _http(b"application/vnd.apple.mpegurl", PLAYLISTS[3])},
    )


_HEADERS = (
    *(
        b"Location: file:///etc/hostname\r\n",
        b"Location: canary.mp4\r\n",
        b"Content-Length: -1\r\n",
        b"\r\n\r\n",
        b"\r\n",
    ),
    *(
        b"Content-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Icy-MetaInt: 1\r\n",
        b"icy-name: \xff\xfe\r\n",
    ),
    *(
        b"--frame\r\n",
        b"--frame--\r\n",
        b"HTTP/1.1 302 Found\r\n",
        b"HTTP/1.1 401 No\r\n",
        b"Content-Range: bytes 9-1/0\r\n",
    ),
    *(
        b'WWW-Authenticate: Digest realm="\xff"\r\n',
        b"Set-Cookie: " + b"a" * 9000 + b"\r\n",
        b"X: " + b"x" * 70000,
        b"\x1b[2J",
    ),
)


def mutate_live(rng: Random, files: Files) -> Files:
    old = files["answer"]
    head, _, body = old.partition(b"\r\n\r\n")
    if rng.random() < 0.35:
        lines = mutate.pieces(rng, head.split(b"\r\n"), lambda line: mutate.data(rng, line, tokens=_HEADERS, most=2))
        if rng.random() < 0.5:
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(_HEADERS).rstrip())
        head = b"\r\n".join(lines)
    elif b"multipart" in head:
        parts = re.split(rb"(?=--frame)", body)
        changed: list[bytes] = mutate.pieces(rng, parts, lambda part: mutate.data(rng, part, tokens=_HEADERS))
        body = b"".join(changed)
    else:
        body = spoil_clip(rng, body)
    return {"answer": head + b"\r\n\r\n" + body}


def check_live(folder: Path) -> str | None:
    content = (folder / "answer").read_bytes()

    def answer(connection: socket.socket) -> None:
        _request(connection)
        connection.sendall(content)

    return _check_live(f"http://user:secret@127.0.0.1:{_listener().port}/live", answer)


# RTSP -----------------------------------------------------------------------------------------------------------------

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=A\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:trackID=1\r\n"
)


@lru_cache
def rtsp_files() -> tuple[Files, ...]:
    """What a camera answers, request by request, and then sends: RTP in the same connection."""
    _listener()
    units = [unit for unit in re.split(rb"\x00?\x00\x00\x01", clip("h264", "libx264")) if unit]
    media = b""
    for number, unit in enumerate(units):
        clock = 3600 * sum(other[0] & 31 in (1, 5) for other in units[:number])
        last = 0x80 if unit[0] & 31 in (1, 5) else 0
        packet = struct.pack(">BBHII", 0x80, last | 96, number, clock, 7) + unit
        media += b"$\0" + struct.pack(">H", len(packet)) + packet
    base = "Content-Base: rtsp://127.0.0.1:PORT/a/\r\n"
    answers = (
        "Public: OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY\r\n\r\n",
        f"{base}Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n\r\n{_SDP}",
        "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 12345678;timeout=60\r\n\r\n",
        "Session: 12345678\r\nRTP-Info: url=trackID=1;seq=0;rtptime=0\r\n\r\n",
    )
    first = "RTSP/1.0 200 OK\r\nCSeq: SAME\r\n"
    files = {f"{number}.answer": f"{first}{text}".encode() for number, text in enumerate(answers)}
    return ({**files, "media": media},)


_RTSP_WORDS = (
    *(b"Content-Length: 99999999\r\n", b"Content-Length: -5\r\n", b"Transport: RTP/AVP;unicast;client_port=1-2\r\n"),
    *(b"m=video 0 RTP/AVP 26\r\n", b"a=rtpmap:96 H265/90000\r\n", b"a=fmtp:96 sprop-parameter-sets=AAAA,!!!!;\r\n"),
    *(b"s=\xff\xfe\r\n", b"RTSP/1.0 401 No\r\n", b'WWW-Authenticate: Basic realm=""\r\n', b"RTSP/1.0 302 Moved\r\n"),
    *(
        b"Location: file:///etc/hostname\r\n",
        b"a=control:file:///etc/hostname\r\n",
        b"m=audio 0 RTP/AVP 0\r\n",
        b"$\0\0\0",
    ),
    *(
        b"a=rtpmap:96 MPEG4-GENERIC/90000/-1\r\n",
        b"a=framesize:96 99999-99999\r\n",
        b"c=IN IP4 8.8.8.8\r\n",
        b"\r\n\r\n",
    ),
)


def mutate_rtsp(rng: Random, files: Files) -> Files:
    name = rng.choice([*files, "1.answer", "media"])
    old = files[name]
    if name == "media":
        packets, at = [], 0
        while at + 4 <= len(old):
            size = 4 + struct.unpack_from(">H", old, at + 2)[0]
            packets.append(old[at : at + size])
            at += size
        changed: list[bytes] = mutate.pieces(rng, packets, lambda packet: mutate.data(rng, packet, most=2))
        return {**files, name: b"".join(changed)}
    lines = mutate.pieces(rng, old.split(b"\r\n"), lambda line: mutate.data(rng, line, tokens=_RTSP_WORDS, most=2))
    if rng.random() < 0.4:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_RTSP_WORDS).rstrip())
    new = b"\r\n".join(lines)
    if rng.random() < 0.8:  # as long as it says it is, so that what was changed is read
        head, separator, body = new.partition(b"\r\n\r\n")
        new = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + separator + body
    return {**files, name: new}


def check_rtsp(folder: Path) -> str | None:
    answers = [path.read_bytes() for path in sorted(folder.glob("*.answer"))]
    media = (folder / "media").read_bytes()

    def answer(connection: socket.socket) -> None:
        for content in answers:
            number = re.search(rb"CSeq: *(\d+)", _request(connection))
            same = content.replace(b"SAME", number[1] if number else b"1", 1)
            connection.sendall(same.replace(b"PORT", b"%d" % _listener().port))
        connection.sendall(media)

    return _check_live(f"rtsp://user:secret@127.0.0.1:{_listener().port}/a", answer)


# Requests -------------------------------------------------------------------------------------------------------------


@lru_cache
def _server() -> int:
    """A live page of a stream without sources; its port."""
    port = free_port()
    meter = Meter()
    sink = open_sink(f"web://127.0.0.1:{port}")
    sink.start(Context(MODEL, lambda: meter.status((), (sink.status,))), stream_policy="latest")
    return port


def requests() -> tuple[Files, ...]:
    _server()
    host = b"Host: 127.0.0.1:PORT\r\n"
    paths = (b"/", b"/status.json", b"/metrics", b"/healthz", b"/stream.mjpg?source=0", b"/nothing", b"/page.html")
    asked = tuple({"request": b"GET " + path + b" HTTP/1.1\r\n" + host + b"Accept: */*\r\n\r\n"} for path in paths)
    more = b"POST /metrics HTTP/1.0\r\n" + host + b"Content-Length: 3\r\nConnection: keep-alive\r\n\r\nabc"
    return (*asked, {"request": more}, {"request": 2 * asked[2]["request"]})


_REQUEST_WORDS = (
    *(
        b"/../canary.bin",
        b"/%2e%2e/canary.bin",
        b"//etc/hostname",
        b"?source=" + b"9" * 5000,
        b"?source=-1",
        b"?source=\xc2\xb2",
    ),
    *(
        b"?source=%0d%0aX-Canary:%201",
        b"\r\nX-Canary: 1\r\n",
        b"http://[::1",
        b"http://a:b@c/",
        b"Content-Length: -1\r\n",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Host: evil.example\r\n",
        b" HTTP/9.9",
        b" HTTP/0.9",
        b"PRI *",
    ),
    *(
        b"Range: bytes=0-\r\n",
        b"Connection: Upgrade\r\n",
        b"X: y\r\n" * 200,
        b"A" * 70000,
        b"\0",
        b"\x1b[2J",
        b"\xff\xfe",
        b"\r\n\r\n",
    ),
    *(b"HEAD ", b"PUT ", b"CONNECT ", b"OPTIONS * ", b"GET  "),
)


def mutate_request(rng: Random, files: Files) -> Files:
    old = files["request"]
    if rng.random() < 0.5:
        return {"request": mutate.data(rng, old, tokens=_REQUEST_WORDS)}
    words = re.split(rb"([ \r\n?:/]+)", old)
    words = mutate.pieces(rng, words, lambda word: mutate.data(rng, word, tokens=_REQUEST_WORDS, most=2))
    return {"request": b"".join(words)}


def check_request(folder: Path) -> None:
    """The server answers, or hangs up; it repeats nothing and goes on."""
    content = (folder / "request").read_bytes()
    response = _ask(content.replace(b"PORT", b"%d" % _server()))
    if response:
        require(re.match(rb"HTTP/1\.[01] \d{3} |<!DOCTYPE|.", response, re.DOTALL) is not None, "an answer is HTTP")
        require(b" 500 " not in response.partition(b"\r\n")[0], "a request is not the server's fault")
        head = response.partition(b"\r\n\r\n")[0]
        require(b"\nX-Canary" not in head, "a request adds no header")
        require(b"canary\n" not in response and response != b"canary", "a request reads no file")
    health = _ask(f"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1:{_server()}\r\n\r\n".encode())
    require(re.match(rb"HTTP/1\.[01] (200|503) ", health) is not None, "a server goes on after any request")


def _ask(content: bytes) -> bytes:
    response = b""
    with socket.create_connection(("127.0.0.1", _server()), timeout=20.0) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            while len(response) < 1 << 20 and (piece := connection.recv(65536)):
                response += piece
                if b"multipart/x-mixed-replace" in response and b"\r\n\r\n" in response:
                    break  # of a stream the rest has no end
        except TimeoutError as error:
            raise BrokenError("a server answers or hangs up") from error
        except OSError:
            pass  # it hung up
    return response


# Shared memory --------------------------------------------------------------------------------------------------------


@lru_cache
def _name() -> str:
    return f"fuzz-{os.getpid()}"


def memory_files() -> tuple[Files, ...]:
    return (_memory(),)


@lru_cache
def _memory() -> Files:
    """What a writer leaves in memory after two results."""
    panoptic = np.zeros((6, 8), np.int32)
    panoptic[:3], panoptic[3:, :4] = 1, 2
    segments = (
        Segment(1, 9, "floor", False, 0.0, 24, (0, 0, 8, 3)),
        Segment(2, 1, "mug", True, 0.75, 12, (0, 3, 4, 6)),
    )
    colors = {1: (0, 0, 255), 2: (255, 0, 0)}
    writer = SharedMemoryWriter(_name())
    frame = Frame(np.zeros((6, 8, 3), np.uint8), 3, 1.5, 0.1, "camera")
    for index in range(2):
        result = PanopticResult(panoptic, segments, Timings(0.1, 0.2, 0.3), index, 1.5, 0.1, "camera", colors)
        writer.write(Item(frame, result))
    content = memory_path(_name()).read_bytes()
    writer.close()
    return {"memory": content}


def mutate_memory(rng: Random, files: Files) -> Files:
    """Its numbers, the JSON of the newest result, or its length."""
    old = bytearray(files["memory"])
    (slot_bytes,) = struct.unpack_from("<Q", old, 16)
    slot = 64 + 2 * slot_bytes
    match rng.randrange(5):
        case 0:
            at = rng.choice((0, 8, 12, 16, 24, 32))
            packed = mutate.packed(rng, "<Q" if at in (16, 24) else "<I")
            old[at : at + len(packed)] = packed
        case 1:
            at = slot + rng.choice((0, 8, 16, 20, 24))
            packed = mutate.packed(rng, "<Q" if at < slot + 16 else "<I")
            old[at : at + len(packed)] = packed
        case 2:
            del old[rng.choice((0, 1, 35, 36, 63, 64, slot, slot + 20, rng.randrange(len(old)))) :]
        case 3:
            old[slot + 28 + 65536 :][:64] = mutate.data(rng, bytes(old[slot + 28 + 65536 :][:64]))
            at = slot + 28 + 65536 + 4 * rng.randrange(48)
            old[at : at + 4] = mutate.packed(rng, "<I")
        case _:
            (length,) = struct.unpack_from("<I", old, slot + 24)
            text = bytes(old[slot + 28 : slot + 28 + length]).decode()
            new = mutate.json_text(rng, text)[:65536]
            old[slot + 28 : slot + 28 + len(new)] = new
            struct.pack_into("<I", old, slot + 24, len(new))
    return {"memory": bytes(old)}


def check_memory(folder: Path) -> None:
    path = memory_path(_name())
    path.unlink(missing_ok=True)
    path.write_bytes((folder / "memory").read_bytes())
    path.chmod(0o600)
    try:
        with SharedMemoryReader(_name()) as reader:
            began = time.monotonic()
            result = reader.read(0.0)
            require(time.monotonic() - began < 30, "a reader does not wait longer than it is told to")
            if result is not None:
                _check_types(result)
    finally:
        path.unlink(missing_ok=True)


def _check_types(result: PanopticResult) -> None:
    """Whether map and segments agree is up to the writer; that they are what they are said to be is not."""
    require(result.panoptic.dtype == np.int32 and result.panoptic.ndim == 2, "the map is int32 (H, W)")
    require(printable(result.source), "a source's name can be printed")
    for id_, category, name, is_thing, score, area, box in result.segments:
        require(all(type(number) is int for number in (id_, category, area, *box)), "numbers are whole")
        require(printable(name), "a class's name can be printed")
        require(type(is_thing) is bool and type(score) in (int, float) and math.isfinite(score), "a score is a number")
        require(len(box) == 4, "a box has four sides")


TARGETS = (
    Target(
        name="live",
        seeds=live_files,
        mutate=mutate_live,
        check=check_live,
        short=60,
        allowed=frozenset({"socket.getaddrinfo"}),
    ),
    Target(
        name="rtsp",
        seeds=rtsp_files,
        mutate=mutate_rtsp,
        check=check_rtsp,
        short=60,
        allowed=frozenset({"socket.getaddrinfo"}),
    ),
    Target(
        name="http",
        seeds=requests,
        mutate=mutate_request,
        check=check_request,
        short=200,
        allowed=frozenset({"socket.connect", "socket.getaddrinfo"}),
    ),
    Target(name="memory", seeds=memory_files, mutate=mutate_memory, check=check_memory, short=400, refusals=(OSError,)),
)
