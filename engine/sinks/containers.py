"""MP4, QuickTime and Matroska files of one H.264 stream that can be played however they end.

    header, fragment, fragment, ..., ending

A file is only ever appended to, a whole fragment at a time, so that everything before the last complete fragment plays
after a power cut; a fragment that is cut off is not seen. FFmpeg's muxers are not used: they cannot be asked to write
out what they hold, and PyAV crashes the process when it closes a container whose disk is full. Layouts: ISO/IEC
14496-12 (fragments: 8.8), 14496-15 (avcC), Matroska RFC 9559.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

TICKS = 90_000  # per second, of `Sample.ticks`
_GAP = TICKS // 30  # assumed after a sample whose successor is unknown


class Sample(NamedTuple):
    """An encoded frame."""

    ticks: int  # when it is shown; decoding and display order are the same
    data: bytes  # NAL units, each behind its length in four bytes
    key: bool


class Fragment(NamedTuple):
    """Samples as they stand in the file."""

    data: bytes
    seal: bytes  # once all of `data` is in the file, its first bytes are to become these; until then players skip it


class Container(Protocol):
    """The layout of a file."""

    def header(self) -> bytes:
        """Return what stands before the first fragment."""
        ...

    def fragment(self, samples: Sequence[Sample], *, offset: int) -> Fragment:
        """Return samples, at least one, for the file at `offset`."""
        ...

    def ending(self, *, length: int) -> tuple[bytes, bytes]:
        """Return what follows the last fragment of a file of `length` bytes, and the header with its gaps filled."""
        ...


class Mp4:
    """Fragmented MP4, or QuickTime of the same structure.

    Args:
        hw: height and width of the frames.
        config: the `avcC` record, as the encoder gives it.
        quicktime: for the name .mov.
    """

    def __init__(self, hw: tuple[int, int], config: bytes, *, quicktime: bool = False) -> None:
        self._hw = hw
        self._config = config
        self._quicktime = quicktime
        self._count = 0
        self._gap = _GAP
        self._end = 0  # ticks, of the last frame shown

    def header(self) -> bytes:
        """Return `ftyp` and a `moov` without samples."""
        return self._header(None)

    def _header(self, duration: int | None) -> bytes:
        height, width = self._hw
        brands = b"qt  \0\0\0\0qt  " if self._quicktime else b"isom\0\0\2\0isomiso5iso6avc1mp41"
        matrix = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
        movie = struct.pack(">4IIH10x", 0, 0, TICKS, 0, 1 << 16, 0x0100) + matrix + bytes(24) + struct.pack(">I", 2)
        track = (
            struct.pack(">5I8x4H", 0, 0, 1, 0, 0, 0, 0, 0, 0) + matrix + struct.pack(">2I", width << 16, height << 16)
        )
        entry = struct.pack(">6xH16x2H2I4xH32x2H", 1, width, height, 72 << 16, 72 << 16, 1, 24, 0xFFFF)
        samples = _box(
            b"stbl",
            _full(b"stsd", 0, struct.pack(">I", 1), _box(b"avc1", entry, _box(b"avcC", self._config))),
            *(_full(kind, 0, bytes(4)) for kind in (b"stts", b"stsc", b"stco")),
            _full(b"stsz", 0, bytes(8)),
        )
        data = _box(b"dinf", _full(b"dref", 0, struct.pack(">I", 1), _full(b"url ", 1)))
        names = (b"mhlr", b"\x05video") if self._quicktime else (bytes(4), b"video\0")
        handler = names[0], b"vide", bytes(12), names[1]
        media = _box(
            b"mdia",
            _full(b"mdhd", 0, struct.pack(">4I2H", 0, 0, TICKS, 0, 0x55C4, 0)),  # language: undetermined
            _full(b"hdlr", 0, *handler),
            _box(b"minf", _full(b"vmhd", 1, bytes(8)), data, samples),
        )
        # The duration is known at the end; until then its box is one that readers skip.
        length = _box(b"free", bytes(12)) if duration is None else _full(b"mehd", 1 << 24, struct.pack(">Q", duration))
        extends = _box(b"mvex", length, _full(b"trex", 0, struct.pack(">5I", 1, 1, 0, 0, 0)))
        return _box(b"ftyp", brands) + _box(
            b"moov",
            _full(b"mvhd", 0, movie),
            _box(b"trak", _full(b"tkhd", 3, track), media),
            extends,
        )

    def fragment(self, samples: Sequence[Sample], *, offset: int) -> Fragment:
        """Return a `moof` and its `mdat`."""
        del offset
        self._count += 1
        gaps = [after.ticks - before.ticks for before, after in pairwise(samples)]
        self._gap = gaps[-1] if gaps else self._gap  # the next fragment says when it begins, so a guess does no harm
        rows = b"".join(
            struct.pack(">3I", gap, len(sample.data), 0x02000000 if sample.key else 0x01010000)
            for gap, sample in zip((*gaps, self._gap), samples, strict=True)
        )
        self._end = samples[-1].ticks + self._gap

        def moof(data_offset: int) -> bytes:
            run = _full(b"trun", 0x701, struct.pack(">Ii", len(samples), data_offset), rows)
            start = _full(b"tfdt", 1 << 24, struct.pack(">Q", samples[0].ticks))
            track = _box(b"traf", _full(b"tfhd", 0x020000, struct.pack(">I", 1)), start, run)
            return _box(b"moof", _full(b"mfhd", 0, struct.pack(">I", self._count)), track)

        index = moof(len(moof(0)) + 8)
        data = _box(b"free", index[8:]) + _box(b"mdat", *(sample.data for sample in samples))
        return Fragment(data, seal=index[:8])

    def ending(self, *, length: int) -> tuple[bytes, bytes]:
        """Return nothing, and the header with the duration."""
        del length
        return b"", self._header(self._end)


class Matroska:
    """Matroska whose clusters are the fragments; arguments as of `Mp4`."""

    _SCALE = 9  # 90,000 ticks per second become timestamps of 0.1 ms, which tell any two frames apart

    def __init__(self, hw: tuple[int, int], config: bytes) -> None:
        self._hw = hw
        self._config = config
        self._end = 0  # as `Mp4`
        self._gap = _GAP
        self._cues: list[tuple[int, int]] = []  # timestamp of a key frame, where its cluster begins

    def header(self) -> bytes:
        """Return the EBML header, and the beginning of a segment of unknown size."""
        return self._header(None, None)

    def _header(self, length: int | None, cues: int | None) -> bytes:
        height, width = self._hw
        kind = _element("1a45dfa3", _element("4282", b"matroska"), _number("4287", 4), _number("4285", 2))
        size = _UNKNOWN if length is None else _size(length - len(kind) - 12, width=8)
        seek = b""
        if cues is not None:
            target = struct.pack(">Q", cues - len(kind) - 12)
            seek = _element(
                "114d9b74", _element("4dbb", _element("53ab", bytes.fromhex("1c53bb6b")), _element("53ac", target))
            )
        duration = b""
        if length is not None:
            duration = _element("4489", struct.pack(">d", self._end / self._SCALE))
        scale = _number("2ad7b1", 1_000_000_000 * self._SCALE // TICKS)
        makers = _element("4d80", b"PanRT") + _element("5741", b"PanRT")
        video = _element("e0", _number("b0", width), _number("ba", height))
        track = (_number("d7", 1), _number("73c5", 1), _number("83", 1), _number("9c", 0))
        codec = _element("86", b"V_MPEG4/ISO/AVC"), _element("63a2", self._config)
        return b"".join(
            (
                kind,
                bytes.fromhex("18538067") + size,
                _padded(seek, 40),
                _element("1549a966", scale, makers, _padded(duration, 16)),
                _element("1654ae6b", _element("ae", *track, *codec, video)),
            )
        )

    def fragment(self, samples: Sequence[Sample], *, offset: int) -> Fragment:
        """Return one or more clusters: a block's time is told in 16 bits from where its cluster begins."""
        clusters = b""
        rest = [(sample.ticks // self._SCALE, sample) for sample in samples]
        while rest:
            start = rest[0][0]
            count = next((i for i, (time, _) in enumerate(rest) if time - start > 0x7FFF), len(rest))
            blocks = (
                _element("a3", b"\x81", struct.pack(">hB", time - start, 0x80 * sample.key), sample.data)
                for time, sample in rest[:count]
            )
            key = next((time for time, sample in rest[:count] if sample.key), None)
            if key is not None:
                self._cues.append((key, offset + len(clusters)))
            clusters += _element("1f43b675", _number("e7", start), *blocks)
            rest = rest[count:]
        if len(samples) > 1:
            self._gap = samples[-1].ticks - samples[-2].ticks
        self._end = samples[-1].ticks + self._gap
        return Fragment(clusters, seal=b"")

    def ending(self, *, length: int) -> tuple[bytes, bytes]:
        """Return the cues, for seeking, and the header with duration, size and the place of the cues."""
        first = self.header().index(bytes.fromhex("18538067")) + 12
        cues = _element(
            "1c53bb6b",
            *(
                _element("bb", _number("b3", time), _element("b7", _number("f7", 1), _number("f1", where - first)))
                for time, where in self._cues
            ),
        )
        return cues, self._header(length + len(cues), length)


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full(kind: bytes, version_and_flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version_and_flags), *parts)


_UNKNOWN = bytes.fromhex("01ffffffffffffff")


def _size(size: int, *, width: int) -> bytes:
    """A length of EBML in 1, 4 or 8 bytes."""
    return (size | 1 << 7 * width).to_bytes(width, "big")


def _element(name: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    width = 1 if len(body) < 0x7F else 4 if len(body) < 0xFFFFFFF else 8
    return bytes.fromhex(name) + _size(len(body), width=width) + body


def _number(name: str, value: int) -> bytes:
    return _element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _padded(element: bytes, size: int) -> bytes:
    """An element, which may be empty, followed by one that readers skip, `size` bytes in all."""
    return element + _element("ec", bytes(size - len(element) - 2))
