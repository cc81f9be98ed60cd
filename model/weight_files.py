"""Files of weights, PanRT's and others', as tensors: `.pkl`, `.pth`, `.pt`, `.ckpt`, `.bin` and `.safetensors`.

A file is read as data, never as code. Pickles are read by `pickles`, which returns inert descriptions; arrays and
tensors are built from them here, after type, shape and place in the file were checked, so that nothing takes more
memory than the file is long, give or take a factor. PyTorch's own reader is not used: `weights_only` keeps code out,
but a file of 33 bytes can make it take 2 GB, and one of 1 MB can make it overflow the C stack.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from panrt.errors import CheckpointError
from panrt.formats import records
from panrt.model import pickles
from panrt.model.header import OTHERS, read_tensors_header
from panrt.model.pickle_values import STORAGES, Array, Dtype, Encoded, PickleProblem, Scalar, Storage, TensorView

SUFFIXES = (*OTHERS, ".safetensors")
SHOWN = 8  # names listed in a message before "and n more"


class Weights(NamedTuple):
    tensors: dict[str, Tensor]  # under the file's own names, without what wrappers put before every one of them
    author: str  # "__author__" of a detectron2 file, else ""
    kind: str = "safetensors file"  # of file
    prefix: str = ""  # of every name
    meta: Mapping[str, Any] = MappingProxyType({})  # mmdetection's, beside the weights; unchecked


def read_weights(path: str | os.PathLike[str], *, key: str | None = None) -> Weights:
    """Read all tensors of a file of weights, without running anything in it.

    Training checkpoints hold their weights among other things, under "model", "state_dict" or another name; what
    DistributedDataParallel, torch.compile or Lightning put before every name is cut off.

    Args:
        path: a file whose suffix is one of `SUFFIXES`, in capitals or not. Its content decides how it is read.
        key: the entry that holds the weights, for a file that holds several sets of them.

    Raises:
        CheckpointError: unknown suffix, a damaged file, a pickle that asks for more than arrays, or no weights, or
            several sets of them.
        OSError: from the file system.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f"{path}: suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}.")
    with _Mapped(path) as data:
        if data[:4] == b"PK\x03\x04" or path.suffix.lower() != ".safetensors":
            content, build = _unpickled(path, data)
            table, author, meta = _weights_in(path, content, key), _author(content), _meta(content)
            tensors = {name: build(name, value) for name, value in table.items()}
            kind = "PyTorch checkpoint" if build.of_torch else "detectron2 pickle"
        else:
            if key is not None:
                raise CheckpointError(f"{path}: a safetensors file has no entries to choose from, got {key!r}.")
            tensors, author, meta, kind = _read_safetensors(path), "", {}, "safetensors file"
    prefix = _common_prefix(tensors)
    short = {_without_wrappers(name.removeprefix(prefix)): tensor for name, tensor in tensors.items()}
    return Weights(short if len(short) == len(tensors) else tensors, author, kind, prefix, meta)


def load_torch(path: Path) -> Any:
    """Read everything in a file that `torch.save` wrote: tensors, numbers, texts and containers of these.

    Raises:
        CheckpointError: a damaged file, or one that asks for anything else; OSError from the file system.
    """
    with _Mapped(path) as data:
        content, build = _unpickled(path, data)
        return _Resolver(build).resolve(content)


class _Mapped:
    """The bytes of a file, which are read from disk on access."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> pickles.Buffer:
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{self.path}: not a regular file.")
            if status.st_size == 0:
                raise CheckpointError(f"{self.path}: the file is empty.")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __exit__(self, *_: object) -> None:
        """Do nothing: the file is unmapped when the last description that points into it is deleted."""


# Pickles and PyTorch's archives ---------------------------------------------------------------------------------------

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before 1.6
_GROWTH = 4  # times its size is what a file may say it holds: archives may be compressed, bytes named twice


class _Builder:
    """Builds the tensors that `pickles` describes, each once, and no more than the file has bytes for."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.storages: dict[str, memoryview | Callable[[], memoryview]] = {}
        self.of_torch = False
        self.little_endian = True
        self._left = limit
        self._built: dict[int, Tensor] = {}
        self._loaded: dict[str, Tensor] = {}

    def __call__(self, name: str, value: Array | TensorView) -> Tensor:
        if id(value) not in self._built:
            try:
                tensor = self._array(name, value) if isinstance(value, Array) else self._view(name, value)
            except (ValueError, TypeError, RuntimeError, OverflowError) as error:
                if isinstance(error, CheckpointError):
                    raise
                raise self._wrong(name, "is damaged") from error  # what NumPy or PyTorch will not have
            self._built[id(value)] = tensor
        return self._built[id(value)]

    def _wrong(self, name: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {records.shown(name)[1:-1]}: {what}.")

    def _spend(self, name: str, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise self._wrong(name, "with it the tensors take more room than the file has bytes")

    def _array(self, name: str, array: Array) -> Tensor:
        dtype, shape, raw = array.dtype, array.shape, array.raw
        if not isinstance(dtype, Dtype) or dtype.order not in ("<", ">", "|", "="):
            raise self._wrong(name, "an array without a type")
        code = dtype.code.tobytes().decode("latin1") if isinstance(dtype.code, memoryview) else dtype.code
        if not isinstance(code, str) or re.fullmatch(r"[iu][1248]|f[248]|b1", code) is None:
            kind = "object" if code in ("O", "O8") else records.shown(code)
            raise self._wrong(name, f"got {kind} array, expected an array of numbers")
        if not _are_sizes(shape):
            raise self._wrong(name, f"an array of shape {records.shown(shape)}")
        if isinstance(raw, Encoded | str):
            raw = memoryview((raw.text if isinstance(raw, Encoded) else raw).encode("latin1"))
        size = math.prod(shape) * int(code[1:])
        if not isinstance(raw, memoryview) or raw.nbytes != size:
            found = f"{raw.nbytes} bytes" if isinstance(raw, memoryview) else "no bytes"
            raise self._wrong(name, f"{found} for an array of {size}")
        self._spend(name, size)
        order = "<" if dtype.order in ("|", "=") else str(dtype.order)
        flat: NDArray[Any] = np.frombuffer(raw, f"{order}{code}") if size else np.empty(0, code)
        shaped = flat.reshape(shape, order="F" if array.fortran is True else "C")
        return torch.from_numpy(np.array(shaped, dtype=np.dtype(code), order="C"))

    def _view(self, name: str, view: TensorView) -> Tensor:
        storage, offset, size, stride = view.storage, view.offset, view.size, view.stride
        if not isinstance(storage, Storage) or not isinstance(offset, int) or offset < 0:
            raise self._wrong(name, "a tensor without a storage")
        if not _are_sizes(size) or not _are_sizes(stride) or len(size) != len(stride):
            raise self._wrong(name, f"a tensor of shape {records.shown(size)} and strides {records.shown(stride)}")
        count = math.prod(size)
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        if count and (last >= storage.count or count > storage.count):
            raise self._wrong(name, f"a tensor of shape {records.shown(size)} in a storage of {storage.count} numbers")
        if not count:
            return torch.empty(tuple(size), dtype=_dtype(storage))
        return torch.as_strided(self._storage(name, storage), size, stride, offset)

    def _storage(self, name: str, storage: Storage) -> Tensor:
        """Return the numbers, in the byte order of this machine; two tensors may share them."""
        dtype = _dtype(storage)
        if storage.key not in self._loaded:
            raw = self.storages.get(storage.key, memoryview(b""))
            raw = raw if isinstance(raw, memoryview) else raw()
            self._spend(name, raw.nbytes)
            empty = torch.empty(0, dtype=torch.uint8)
            self._loaded[storage.key] = torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw.nbytes else empty
        stored = self._loaded[storage.key]
        size = storage.count * dtype.itemsize
        if stored.numel() < size:
            raise self._wrong(name, f"its storage declares {size} bytes, the file has {stored.numel()}")
        numbers = stored[:size]
        if not self.little_endian and dtype.itemsize > 1:
            numbers = numbers.view(-1, dtype.itemsize).flip(1).flatten()
        return numbers != 0 if dtype is torch.bool else numbers.view(dtype)


def _dtype(storage: Storage) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, STORAGES[storage.kind])
    return dtype


def _are_sizes(value: object) -> TypeGuard[Sequence[int]]:
    """Return whether a value is a shape or strides; the product of the sides must fit NumPy's index type."""
    if not isinstance(value, tuple | list) or len(value) > 32:
        return False
    return all(type(x) is int and x >= 0 for x in value) and math.prod(max(x, 1) for x in value) < 2**58


def _unpickled(path: Path, data: pickles.Buffer) -> tuple[Any, _Builder]:
    """Return a description of what is pickled in the file, and the builder of its tensors."""
    build = _Builder(path, _GROWTH * len(data) + 2**20)
    try:
        if data[:4] == b"PK\x03\x04":
            return _archive(path, data, build), build
        content, end = pickles.load(data)
        if type(content) is int and content == _LEGACY_MAGIC:
            content = _legacy(data, end, build)
        return content, build
    except PickleProblem as problem:
        raise CheckpointError(
            f"{path}: not unpickled: {problem}. Expected weights: dictionaries of arrays or tensors, as "
            "detectron2 writes them or torch.save(model.state_dict(), ...)."
        ) from problem


def _archive(path: Path, data: pickles.Buffer, build: _Builder) -> Any:
    """Read PyTorch's zip: `<name>/data.pkl`, and each storage in a file `<name>/data/<key>`, uncompressed."""
    try:
        return _read_archive(path, data, build)
    except CheckpointError:
        raise
    except _ZIP_ERRORS as error:
        raise CheckpointError(f"{path}: its zip archive is damaged or cut short.") from error


# What `zipfile` raises for damaged archives: offsets before the beginning, names that are not text, encryption, ...
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def _read_archive(path: Path, data: pickles.Buffer, build: _Builder) -> Any:
    many = 100_000
    if next(itertools.islice(re.finditer(b"PK\x01\x02", data), many, None), None) is not None:
        raise CheckpointError(f"{path}: a zip archive of more than {many} entries; weights have some hundreds.")
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise CheckpointError(f"{path}: its zip archive has a name twice.")
        if sum(entry.file_size for entry in entries.values()) > _GROWTH * len(data) + 2**20:
            raise CheckpointError(f"{path}: a zip archive that declares more than {_GROWTH} times its own size.")

        def content(entry: zipfile.ZipInfo) -> memoryview:
            if entry.compress_type == zipfile.ZIP_STORED:
                return _stored(data, entry)
            if entry.compress_type != zipfile.ZIP_DEFLATED:
                raise zipfile.BadZipFile
            with zipfile.ZipFile(path) as reopened:
                return memoryview(reopened.read(entry))

        roots = [name.removesuffix("data.pkl") for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise CheckpointError(f"{path}: a zip archive, but not of torch.save: it holds {_some(entries)}.")
        root, build.of_torch = roots[0], True
        if root + "byteorder" in entries:
            build.little_endian = bytes(content(entries[root + "byteorder"])[:6]) == b"little"
        for name, entry in entries.items():
            if name.startswith(root + "data/"):
                build.storages[name.removeprefix(root + "data/")] = _later(path, content, entry)
        return pickles.load(bytes(content(entries[root + "data.pkl"])))[0]


def _later(
    path: Path, content: Callable[[zipfile.ZipInfo], memoryview], entry: zipfile.ZipInfo
) -> Callable[[], memoryview]:
    def read() -> memoryview:
        try:
            return content(entry)
        except _ZIP_ERRORS as error:
            raise CheckpointError(f"{path}: {records.shown(entry.filename)} in its zip archive is damaged.") from error

    return read


def _stored(data: pickles.Buffer, entry: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of an uncompressed entry, not copied."""
    start = entry.header_offset
    if start < 0 or data[start : start + 4] != b"PK\x03\x04" or entry.flag_bits & 1:
        raise zipfile.BadZipFile
    start += 30 + sum(struct.unpack("<HH", data[start + 26 : start + 30]))
    if entry.compress_size != entry.file_size or start + entry.file_size > len(data):
        raise zipfile.BadZipFile
    return memoryview(data)[start : start + entry.file_size]


def _legacy(data: pickles.Buffer, position: int, build: _Builder) -> Any:
    """Read the format of torch.save before 1.6: version, system, content, keys, each storage after its length."""
    version, position = pickles.load(data, position)
    system, position = pickles.load(data, position)
    content, position = pickles.load(data, position)
    keys, position = pickles.load(data, position)
    build.of_torch = True
    if type(version) is not int or type(system) is not dict or type(keys) is not list:
        raise PickleProblem("it is damaged")
    build.little_endian = system.get("little_endian") is not False
    sizes = dict(_storage_sizes(content))
    for key in keys:
        if type(key) is not str or key not in sizes:
            raise PickleProblem("it is damaged")
        length = int.from_bytes(data[position : position + 8], "little") * sizes[key]
        if length > len(data) - position - 8:
            raise PickleProblem("it is cut short")
        build.storages[key] = memoryview(data)[position + 8 : position + 8 + length]
        position += 8 + length
    return content


def _storage_sizes(content: Any) -> Iterable[tuple[str, int]]:
    """Return key and bytes per number of every storage that the content names."""
    seen, left = set(), [content]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            left.extend(value)
        elif isinstance(value, TensorView):
            left.append(value.storage)
        elif isinstance(value, Storage):
            yield value.key, _dtype(value).itemsize


class _Resolver:
    """Replaces descriptions by what they describe, recursively; shared values are built once."""

    def __init__(self, build: _Builder) -> None:
        self.build = build
        self.resolved: dict[int, Any] = {}

    def resolve(self, value: Any, depth: int = 0) -> Any:
        if depth > 50:
            raise CheckpointError(f"{self.build.path}: its content is nested too deeply.")
        if isinstance(value, Array | TensorView):
            return self.build("a tensor", value)
        if isinstance(value, dict | list | tuple):
            if id(value) not in self.resolved:
                if isinstance(value, dict):
                    made: Any = {key: self.resolve(item, depth + 1) for key, item in value.items()}
                else:
                    made = type(value)(self.resolve(item, depth + 1) for item in value)
                self.resolved[id(value)] = made
            return self.resolved[id(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise CheckpointError(f"{self.build.path}: holds a {_describe(value)}, expected tensors, numbers and texts.")


# safetensors ----------------------------------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    read_tensors_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file, or a damaged one: {error}") from error


# Weights among other things -------------------------------------------------------------------------------------------

_MAIN_KEYS = ("model", "state_dict", "model_state_dict", "blobs")
_NOT_WEIGHTS = re.compile(r"(?i).*(optim|sched|scaler|trainer|callback|loops|metric|hyper|config|args|rng|random).*")
_Table = Mapping[str, "Array | TensorView"]


def _author(content: Any) -> str:
    author = content.get("__author__") if isinstance(content, dict) else None
    return author if isinstance(author, str) and records.line(author) else ""


def _meta(content: Any) -> dict[str, Any]:
    meta = content.get("meta") if isinstance(content, dict) else None
    return {key: value for key, value in meta.items() if isinstance(key, str)} if isinstance(meta, dict) else {}


def _weights_in(path: Path, content: Any, key: str | None) -> _Table:
    """Return the dictionary of names and tensors that is the file's weights."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {_describe(content)}, expected a dictionary of names and tensors.")
    sets = _sets_of_tensors(content)
    if key is not None:
        if key not in sets:
            raise CheckpointError(f"{path}: no tensors under {key!r}; it holds {_contents(content, sets)}.")
        return _checked(path, sets[key])
    main = [name for name in _MAIN_KEYS if name in sets]
    if len(main) == 1 or (len(main) > 1 and all(sets[name] is sets[main[0]] for name in main)):
        return _checked(path, sets[main[0]])
    flat = [name for name, value in content.items() if isinstance(value, Array | TensorView)]
    if not main and any(isinstance(name, str) and not _NOT_WEIGHTS.fullmatch(name) for name in flat):
        return _checked(path, {name: x for name, x in content.items() if not isinstance(x, dict | list | tuple)})
    if not main and len(sets) == 1:
        return _checked(path, next(iter(sets.values())))
    if not sets:
        raise CheckpointError(f"{path}: holds no tensors, but {_contents(content, sets)}.")
    chosen = next(reversed(main or sets))
    raise CheckpointError(
        f"{path}: holds {len(main or sets)} sets of weights ({_contents(content, sets)}); say which, for example "
        f"--key {chosen}, in Python read_weights(path, key={chosen!r})."
    )


def _sets_of_tensors(content: dict[Any, Any]) -> dict[str, dict[Any, Any]]:
    """Return the entries that hold tensors themselves, or in an entry under which weights are usually stored."""
    found = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, dict) or _NOT_WEIGHTS.fullmatch(name):
            continue
        inner = [value, *(value[key] for key in _MAIN_KEYS if isinstance(value.get(key), dict))]
        for table in inner:
            if any(isinstance(item, Array | TensorView) for item in table.values()):
                found[name] = table
                break
    return found


def _checked(path: Path, table: dict[Any, Any]) -> _Table:
    """Return the tensors of a table without its counters and remarks."""
    tensors = {}
    for name, value in table.items():
        if isinstance(name, str) and isinstance(value, Array | TensorView):
            if records.line(name) is None:
                raise CheckpointError(
                    f"{path}: {records.shown(name)} as the name of a tensor, expected a line of text."
                )
            tensors[name] = value
        elif not isinstance(name, str) or isinstance(value, dict | list | tuple | memoryview | Encoded):
            if isinstance(name, str) and (name.startswith("__") or name.endswith("_extra_state")):
                continue
            raise CheckpointError(f"{path}: {records.shown(name)}: got {_describe(value)}, expected a tensor.")
    return tensors


def _contents(content: dict[Any, Any], sets: Mapping[str, dict[Any, Any]]) -> str:
    """Return the entries of a file, for a message."""
    rows = []
    for name, value in itertools.islice(content.items(), SHOWN):
        count = sum(isinstance(item, Array | TensorView) for item in sets.get(name, {}).values())
        rows.append(f"{records.shown(name)}: {f'{count} tensors' if count else _describe(value)}")
    return ", ".join(rows) + (", ..." if len(content) > SHOWN else "") if rows else "nothing"


def _describe(value: object) -> str:
    names = {Array: "array", TensorView: "tensor", Scalar: "number", memoryview: "bytes", Encoded: "bytes"}
    return names.get(type(value), type(value).__name__)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(records.shown(name)[1:-1] for name in listed[:SHOWN])
    return shown + (", ..." if len(listed) > SHOWN else "") if listed else "nothing"


# What wrappers put before names: DistributedDataParallel, torch.compile, Lightning, an average of the weights.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "ema_model.")


def _common_prefix(names: Iterable[str]) -> str:
    """Return the prefix that wrappers have given every name."""
    listed, prefix = list(names), ""
    while listed:
        found = next((w for w in _WRAPPERS if all(name.startswith(prefix + w) for name in listed)), None)
        if found is None:
            break
        prefix += found
    return prefix


def _without_wrappers(name: str) -> str:
    """Return a name without wrappers; torch.compile may also wrap a part of a network."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
