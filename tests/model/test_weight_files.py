"""Files of weights are data: whatever is in them is read as tensors or refused in a line, in bounded memory."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import os
import pickle
import resource
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from panrt.errors import CheckpointError
from panrt.model import build, load, save
from panrt.model.config import from_json, make_config, to_json
from panrt.model.header import LONGEST_HEADER, read_header, read_tensors_header
from panrt.model.weight_files import load_torch, read_weights

ROOM = 512 * 2**20  # of address space that reading a small hostile file may take


def refused(path: Path, match: str) -> None:
    """Reading ends in one line that names the file."""
    with pytest.raises(CheckpointError, match=match) as caught, limited_memory():
        read_weights(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Allocations beyond `ROOM` fail, whether they would be touched or not."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def pickled(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def name(dotted: str) -> bytes:
    module, _, last = dotted.rpartition(".")
    return b"c" + module.encode() + b"\n" + last.encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def data(value: bytes) -> bytes:
    return b"C" + bytes([len(value)]) + value


def dtype(code: str, order: str = "<") -> bytes:
    built = name("numpy.dtype") + text(code) + b"\x89\x88\x87R"
    return built + b"(K\x03" + text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def array(shape: bytes, raw: bytes, kind: bytes | None = None) -> bytes:
    """An array as NumPy writes it."""
    empty = name("numpy.core.multiarray._reconstruct") + name("numpy.ndarray") + b"K\x00\x85" + data(b"b") + b"\x87R"
    return empty + b"(K\x01" + shape + (dtype("f4") if kind is None else kind) + b"\x89" + raw + b"tb"


def model(entry: bytes) -> bytes:
    """{"model": {"a": entry}}."""
    return b"\x80\x02}" + text("model") + b"}" + text("a") + entry + b"ss."


def long(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


# Arrays


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_type_and_order_are_read(tmp_path: Path, protocol: int) -> None:
    plain = np.arange(-3, 3).reshape(2, 3)
    arrays = {code: plain.astype(code) for code in ("f2", ">f4", "f8", "i1", ">i2", "i4", "i8", "u1", "?")}
    arrays |= {"fortran": np.asfortranarray(plain), "empty": np.zeros((0, 3), np.float32), "zero-d": np.array(7.0)}
    arrays |= {"strided": plain[:, ::2], "read-only": np.frombuffer(b"\1\2\3", np.uint8)}
    path = pickled(tmp_path / "all.pkl", pickle.dumps({"model": arrays}, protocol=protocol))
    found = read_weights(path).tensors
    assert list(found) == list(arrays)
    for key, expected in arrays.items():
        assert found[key].shape == expected.shape
        assert np.array_equal(found[key].numpy(), expected)


def test_both_numpys_names_are_known(tmp_path: Path) -> None:
    content = pickle.dumps({"model": {"a": np.ones(3, np.float32)}}, protocol=2)
    for written in (content.replace(b"numpy._core", b"numpy.core"), content.replace(b"numpy.core", b"numpy._core")):
        assert torch.equal(read_weights(pickled(tmp_path / "a.pkl", written)).tensors["a"], torch.ones(3))


@pytest.mark.parametrize("module", ["numpy.core.numeric", "numpy._core.numeric"])
def test_both_names_of_protocol_5s_arrays_are_known(tmp_path: Path, module: str) -> None:
    built = text(module) + text("_frombuffer") + b"\x93(\x96" + struct.pack("<Q", 8) + struct.pack("<2f", 1, 2)
    path = pickled(tmp_path / "a.pkl", model(built + dtype("f4") + b"K\x02\x85" + text("C") + b"tR"))
    assert torch.equal(read_weights(path).tensors["a"], torch.tensor([1.0, 2.0]))


def test_an_array_that_is_named_twice_is_built_once(tmp_path: Path) -> None:
    shared = np.arange(1000.0)
    path = pickled(tmp_path / "a.pkl", pickle.dumps({f"a{i}": shared for i in range(1000)}))
    with limited_memory():
        tensors = read_weights(path).tensors
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == 1
    assert torch.equal(tensors["a7"], torch.from_numpy(shared))


# Pickles that attack

NDARRAY = name("numpy.ndarray")
HOSTILE = {
    # real NumPy callables would make pointers of the file's choice
    "pointers": (NDARRAY + b"(K\x01\x85" + text("O") + data(b"\x40AAAAA\0\0") + b"tR", "it calls numpy.ndarray"),
    "view": (NDARRAY + b"(K\x08\x85" + text("u1") + b"h\x00tR", "recalls a number that it never stored"),
    "state of a function": (name("_codecs.encode") + b"}" + text("__defaults__") + b"Nsb", "a state is set"),
    "state of a type": (NDARRAY + b"}b", "a state is set"),
    "state of a number": (b"K\x05}b", "a state is set"),
    "state twice": (array(b"K\x01\x85", data(b"\0" * 4)) + b"(K\x01K\x01\x85N\x89Ntb", "a state is set"),
    "item of an array": (array(b"K\x01\x85", data(b"\0" * 4)) + b"K\x00K\x01s", "is set in something other than"),
    "append to a dictionary": (b"}K\x01a", "appended to something other than a list"),
    "subarrays": (name("numpy.dtype") + text("f4") + b"\x85R(K\x03" + text("<") + b"}NNK\x04K\x04K\x00tb", "records"),
    # names
    "getattr": (name("builtins.getattr") + NDARRAY + text("data") + b"\x86R", "it asks for builtins.getattr"),
    "dots": (text("numpy") + text("core.multiarray.scalar") + b"\x93", "it asks for numpy.core.multiarray.scalar"),
    "unprintable": (text("os\n\x1b[31m\ud800".encode("utf-8", "ignore").decode()) + text("x") + b"\x93", "it asks for"),
    "object": (name("collections.OrderedDict") + b")\x81", "it builds an object"),
    "instance": (b"(iposix\nsystem\n", "it builds an object"),
    "extension": (b"\x82\x01", "extension"),
    "persistent": (b"Pevil\n", "outside the file"),
    "buffer": (b"\x97", "its buffers are not in the file"),
    "set": (b"\x8f", "it holds a set"),
    # memory that the file has no bytes for
    "huge shape": (array(long(10**12) + b"\x85", data(b"\0" * 4)), "a: 4 bytes for an array of 4000000000000"),
    "huge product": (array(b"(" + long(2**31) * 4 + b"t", data(b"")), "a: an array of shape"),
    "empty and huge": (array(b"(" + long(2**40) * 2 + b"K\x00t", data(b"")), "a: an array of shape"),
    "negative shape": (array(b"J\xff\xff\xff\xff\x85", data(b"\0" * 4)), "a: an array of shape"),
    "33 sides": (array(b"(" + b"K\x01" * 33 + b"t", data(b"\0" * 4)), "a: an array of shape"),
    "objects": (array(b"K\x01\x85", b"]", dtype("O8", "|")), "a: got object array, expected an array of numbers"),
    "times": (array(b"K\x01\x85", data(b"\0" * 8), dtype("M8")), "expected an array of numbers"),
    "long doubles": (array(b"K\x01\x85", data(b"\0" * 16), dtype("f16")), "expected an array of numbers"),
    "wide text": (array(b"K\x01\x85", data(b"\0" * 16), dtype("U999999999")), "expected an array of numbers"),
    "unknown order": (array(b"K\x01\x85", data(b"\0" * 4), dtype("f4", "!")), "an array without a type"),
    "a type is none": (array(b"K\x01\x85", data(b"\0" * 4), b"N"), "an array without a type"),
    "memo index": (b"K\x01r\xff\xff\xff\xff0", "under the number 4294967295"),
    "memo index in digits": (b"K\x01p99999999999\n0", "under the number 99999999999"),
    "bytes": (b"\x8e" + struct.pack("<Q", 2**62), "cut short"),
    "bytearray": (b"\x96" + struct.pack("<Q", 2**62), "cut short"),
    "unicode": (b"\x8d" + struct.pack("<Q", 2**62), "cut short"),
    "frame": (b"\x95" + struct.pack("<Q", 2**62), "cut short"),
    "bytearray of a number": (name("builtins.bytearray") + b"J\xff\xff\xff\x7f\x85R", "bytes are built"),
    "tensor of a number": (name("torch.Tensor") + b"J\xff\xff\xff\x7f\x85R", "it asks for torch.Tensor"),
    "integer": (b"\x8b" + struct.pack("<i", 2**30), "it holds an integer of 1073741824 bytes"),
    "digits": (b"L" + b"9" * 100_000 + b"L\n", "a line without an end"),
    # recursion, at load and when what was loaded goes
    "deep tuples": (b")" + b"\x85" * 120_000, "holds no tensors"),
    "deep lists": (b"]" * 60_000 + b"a" * 59_999, "holds no tensors"),
    "deep dictionaries": (b"}" + (text("k") + b"}") * 30_000 + b"s" * 30_000, "holds no tensors"),
    "deep arrays": (
        name("numpy.core.multiarray._reconstruct") + b"q\x010" + NDARRAY + b"q\x020" + data(b"b") + b"q\x030"
        + b"h\x01h\x02K\x00\x85h\x03\x87R(K\x01NNN" * 20_000 + b"N" + b"tb" * 20_000,
        "an array without a type",
    ),
    "key that recurses": (b"})" + b"\x85" * 120_000 + b"K\x01s", "keys are neither names nor small numbers"),
    "keys that collide": (b"}" + long(2**61 - 1) + b"Ns", "keys are neither names nor small numbers"),
    # what grows by naming things again
    "laughs": (
        b"]q\x00" + b"".join(b"0(" + b"h%c" % (i - 1) * 9 + b"lq%c" % i for i in range(1, 200)),
        "holds no tensors",
    ),
    "pairs again": (
        b"](" + (text("k") + b"N\x86") * 1000 + b"eq\x000" + name("collections.OrderedDict") + b"q\x010"
        + b"h\x01h\x00\x85R0" * 2000 + b"N",
        "more than 400,000 steps",
    ),
    "steps": (b"N0" * 200_001 + b"N", "more than 400,000 steps"),
    "marks": (b"(" * 399_990, "more than 400,000 steps|damaged|cut short"),
}  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_a_pickle_that_attacks_is_refused_in_a_line(tmp_path: Path, attack: str, suffix: str) -> None:
    entry, match = HOSTILE[attack]
    refused(pickled(tmp_path / f"evil{suffix}", model(entry)), match)
    inside = tmp_path / "archive.pth"
    archive(inside, model(entry))
    refused(inside, match)


def test_bytes_that_are_named_again_and_again_are_no_memory(tmp_path: Path) -> None:
    raw = bytes(2**20)
    kind = dtype("u1", "|") + b"q\x010"
    first = b"B" + struct.pack("<I", len(raw)) + raw + b"q\x000"
    empty = name("numpy.core.multiarray._reconstruct") + NDARRAY + b"K\x00\x85" + data(b"b") + b"\x87R"
    entries = b"".join(text(f"a{i}") + empty + b"(K\x01" + long(2**20) + b"\x85h\x01\x89h\x00tbs" for i in range(2000))
    refused(pickled(tmp_path / "a.pkl", b"\x80\x02" + first + kind + b"}" + entries + b"."), "more room than the file")


@pytest.mark.parametrize("cut", [1, 2, 10, 100, 1000])
def test_what_is_left_of_a_pickle_is_refused(tmp_path: Path, cut: int) -> None:
    whole = pickle.dumps({"model": {"a": np.zeros(500, np.float32), "b": np.ones(3)}}, protocol=4)
    refused(pickled(tmp_path / "a.pkl", whole[:-cut]), "cut short|damaged")


def test_bytes_that_are_changed_never_end_in_anything_else(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    whole = pickle.dumps({"model": {"a": np.zeros(5, np.float32), "b": np.ones(3)}}, protocol=2)
    stream = io.BytesIO()
    torch.save({"model": {"a": torch.zeros(5), "b": torch.ones(3)}}, stream)
    for original in (whole, stream.getvalue()):
        for _ in range(300):
            changed = bytearray(original)
            for place in random.integers(len(changed), size=random.integers(1, 5)):
                changed[place] = random.integers(256)
            with contextlib.suppress(CheckpointError):  # it may as well be read
                read_weights(pickled(tmp_path / "a.pth", bytes(changed)))


# PyTorch's archives


def archive(path: Path, content: bytes, *others: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip as torch.save writes it, around a pickle of our own."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for entry, value in (("a/data.pkl", content), *others):
            file.writestr(entry, value)
    return path


def storage(count: int, key: str = "0", kind: str = "torch.FloatStorage") -> bytes:
    return b"(" + text("storage") + name(kind) + text(key) + text("cpu") + long(count) + b"tQ"


def tensor(stored: bytes, offset: int, size: list[int], stride: list[int]) -> bytes:
    sizes = b"".join(b"(" + b"".join(map(long, sides)) + b"t" for sides in (size, stride))
    hooks = name("collections.OrderedDict") + b")R"
    return name("torch._utils._rebuild_tensor_v2") + b"(" + stored + long(offset) + sizes + b"\x89" + hooks + b"tR"


FLOATS = ("a/data/0", struct.pack("<6f", *range(6)))
VIEWS = {
    "beyond the end": (tensor(storage(6), 1, [6], [1]), "shape .* in a storage of 6 numbers"),
    "beyond by strides": (tensor(storage(6), 0, [2, 2], [5, 2]), "shape .* in a storage of 6 numbers"),
    "before the beginning": (tensor(storage(6), -1, [2], [1]), "a tensor without a storage"),
    "negative stride": (tensor(storage(6), 5, [2], [-1]), "strides"),
    "stride 0": (tensor(storage(1), 0, [10**12], [0]), r"shape \[?\(?1000000000000"),
    "overflow": (tensor(storage(6), 0, [2**62, 2**62], [0, 0]), "a tensor of shape"),
    "no strides": (tensor(storage(6), 0, [2, 2], [1]), "strides"),
    "storage beyond the file": (tensor(storage(10**12), 0, [6], [1]), "declares 4000000000000 bytes, the file has 24"),
    "no such storage": (tensor(storage(6, key="7"), 0, [6], [1]), "declares 24 bytes, the file has 0"),
    "sparse": (name("torch._utils._rebuild_sparse_tensor"), "asks for torch._utils._rebuild_sparse_tensor"),
    "quantized": (name("torch._utils._rebuild_qtensor"), "asks for torch._utils._rebuild_qtensor"),
    "meta": (name("torch._utils._rebuild_meta_tensor_no_storage"), "asks for"),
    "complex": (tensor(storage(3, kind="torch.ComplexFloatStorage"), 0, [3], [1]), "asks for torch.ComplexFloat"),
    "storage of a type": (tensor(storage(3, kind="torch.float32"), 0, [3], [1]), "numbers of an unknown kind"),
    "storage is a number": (tensor(b"K\x01", 0, [3], [1]), "a tensor without a storage"),
}


@pytest.mark.parametrize("attack", VIEWS)
def test_a_tensor_that_is_not_in_the_file_is_refused(tmp_path: Path, attack: str) -> None:
    entry, match = VIEWS[attack]
    refused(archive(tmp_path / "a.pth", model(entry), FLOATS), match)


def test_a_tensor_that_is_in_the_file_is_read(tmp_path: Path) -> None:
    entry = tensor(storage(6), 1, [2, 2], [2, 1])
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = archive(tmp_path / "a.pth", model(entry), FLOATS, compression=compression)
        assert read_weights(path).tensors["a"].tolist() == [[1, 2], [3, 4]]
    big = ("a/data/0", struct.pack(">6f", *range(6))), ("a/byteorder", b"big")
    assert read_weights(archive(tmp_path / "b.pth", model(entry), *big)).tensors["a"].tolist() == [[1, 2], [3, 4]]


def test_an_archive_that_is_no_archive_of_torch_is_refused(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.pth", b"N.", ("a/data/0", bytes(2**27)), compression=zipfile.ZIP_DEFLATED)
    refused(bomb, "declares more than 4 times its own size")
    refused(archive(tmp_path / "other.pth", b"", ("b/data.pkl", b"")), "not of torch.save: it holds a/data.pkl, b/data")
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(tmp_path / "twice.pth", b"N.", ("a/data.pkl", b"N."))
    refused(tmp_path / "twice.pth", "has a name twice")
    refused(archive(tmp_path / "lzma.pth", b"N.", compression=zipfile.ZIP_LZMA), "damaged")
    whole = archive(tmp_path / "whole.pth", model(tensor(storage(6), 0, [6], [1])), FLOATS).read_bytes()
    for cut in range(1, len(whole) - 4, 7):
        refused(pickled(tmp_path / "cut.pth", whole[:-cut]), "damaged")
    for place in range(0, 30, 2):  # the first local header
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        with contextlib.suppress(CheckpointError):  # some of its fields nobody reads
            read_weights(pickled(tmp_path / "changed.pth", bytes(changed)))
    claimed = whole.replace(struct.pack("<II", 24, 24), struct.pack("<II", 2**31, 2**31))
    refused(pickled(tmp_path / "claimed.pth", claimed), "more than 4 times|damaged")


def test_torch_save_of_every_kind_is_read(tmp_path: Path) -> None:
    numbers = torch.arange(-4, 4)
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32)
    tensors = {str(kind): numbers.to(kind) for kind in (*kinds, torch.int64, torch.uint8, torch.bool)}
    tensors |= {"view": numbers.view(2, 4).t(), "slice": numbers[3:5], "empty": torch.empty(0, 3), "0": torch.tensor(5)}
    tensors |= {"parameter": torch.nn.Parameter(torch.ones(2)), "tied": numbers}
    for zipped in (True, False):
        torch.save(tensors, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        found = read_weights(tmp_path / "a.pth").tensors
        assert list(found) == list(tensors)
        assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in tensors.items())


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {"optimizer": optimizer.state_dict(), "config": {"sizes": (1, 2), "name": "a", "rate": 0.5, "none": None}}
    torch.save(content, tmp_path / "a.pt")
    found, expected = load_torch(tmp_path / "a.pt"), content["optimizer"]
    assert found["config"] == content["config"]
    assert found["optimizer"]["param_groups"] == expected["param_groups"]
    assert torch.equal(found["optimizer"]["state"][0]["exp_avg"], expected["state"][0]["exp_avg"])
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    torch.save(deep, tmp_path / "deep.pt")
    with pytest.raises(CheckpointError, match="nested too deeply"):
        load_torch(tmp_path / "deep.pt")


def test_a_file_without_weights_in_it_is_refused_by_name(tmp_path: Path) -> None:
    refused(pickled(tmp_path / "empty.pkl", b""), "the file is empty")
    os.mkfifo(tmp_path / "pipe.pth")
    descriptor = os.open(tmp_path / "pipe.pth", os.O_RDWR)  # or opening would wait for a writer
    refused(tmp_path / "pipe.pth", "not a regular file")
    refused(tmp_path / "pipe.pth", "not a regular file")
    os.close(descriptor)
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(IsADirectoryError):
        read_weights(tmp_path / "folder.pth")


# Weights among other things

SET = {"a.weight": torch.ones(2), "b.weight": torch.zeros(3)}
OTHER = {"c.weight": torch.ones(4)}
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(9)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def _mean(self: object) -> float:
    return 0.0


_mean.__module__, _mean.__qualname__ = "mmengine.logging", "HistoryBuffer.mean"


class _Framework:
    """Classes as mmengine's and addict's are pickled: by name, state and items."""

    def __init__(self) -> None:
        self.modules = {name: types.ModuleType(name) for name in ("mmengine", "mmengine.logging", "mmengine.config")}
        self.log: Any = type("HistoryBuffer", (), {"__module__": "mmengine.logging", "mean": _mean})
        self.config: Any = type("ConfigDict", (dict,), {"__module__": "mmengine.config"})
        vars(self.modules["mmengine.logging"])["HistoryBuffer"] = self.log
        vars(self.modules["mmengine.config"])["ConfigDict"] = self.config

    def content(self) -> dict[str, Any]:
        buffer = self.log()
        buffer.__dict__.update(
            max_length=5, _log_history=np.arange(3.0), _count_history=np.ones(3), method=self.log.mean
        )
        config = self.config(a=[1, 2], b=self.config(c=3))
        config.attribute = 5
        return {
            "meta": {
                "cfg": "model = dict()",
                "epoch": 12,
                "config_dict": config,
                "dataset_meta": {"classes": ("a", "b")},
            },
            "state_dict": collections.OrderedDict(weight=torch.arange(4.0)),
            "message_hub": {"log_scalars": collections.OrderedDict(loss=buffer), "runtime_info": {"iter": 3}},
            "param_schedulers": [config],
        }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_of_mmengine_beside_the_weights_are_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    framework = _Framework()
    path = tmp_path / "epoch_12.pth"
    with monkeypatch.context() as patched:
        for name, module in framework.modules.items():
            patched.setitem(sys.modules, name, module)
        torch.save(framework.content(), path, pickle_protocol=protocol)
    weights = read_weights(path)  # where there is no mmengine
    assert torch.equal(weights.tensors["weight"], torch.arange(4.0))
    assert weights.meta["cfg"] == "model = dict()"
    assert weights.meta["dataset_meta"] == {"classes": ("a", "b")}
    assert "mmengine" not in sys.modules
    with pytest.raises(CheckpointError, match="expected tensors, numbers and texts"):
        load_torch(path)


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (b"cbuiltins\ngetattr\n(cposix\nsystem\n", "posix.system"),
        (b"cbuiltins\ngetattr\n(cnumpy\nndarray\nVx\ntR.", "builtins.getattr"),
        (b"cbuiltins\ngetattr\n(cmmengine\nX\nVx\nVy\ntR.", "builtins.getattr"),
        (b"ccollections\nOrderedDict\n)\x81.", "builds an object"),
        (b"cmmengineering\nX\n)\x81.", "mmengineering.X"),
        (b"cposix\nmmengine\n)\x81.", "posix.mmengine"),
        (b"cmmengine\nX\nN\x81.", "builds an object"),
    ],
)
def test_no_other_object_is_let_through(tmp_path: Path, program: bytes, named: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02" + program)
    with pytest.raises(CheckpointError, match=named):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".PTH", ".pt", ".ckpt", ".bin", ".Ckpt"])
@pytest.mark.parametrize(
    "content",
    [
        SET,
        {"model": SET},
        {"state_dict": SET, "epoch": 3, "optimizer_states": [OPTIMIZER]},
        {"model_state_dict": SET, "optimizer_state_dict": OPTIMIZER, "lr_scheduler": {"a": torch.ones(1)}},
        {"params": SET},
        {"ema": SET, "iteration": np.int64(5), "best": np.float64(41.5)},
        {"checkpoint": {"state_dict": SET, "meta": "x"}},
        {"model": {"model": SET, "optimizer": OPTIMIZER}},
        {"model": SET, "ema_state": OTHER, "optimizer": {"model": OTHER}, "rng_state": torch.ones(5)},
        {"network": SET, "rng_state": torch.ones(5)},
        SET | {"epoch": 3, "optimizer": OPTIMIZER},
        {"model": collections.OrderedDict(SET) | {"steps": 5, "last": None, "a._extra_state": {}}},
    ],
    ids="+".join,
)
def test_the_weights_are_found_among_other_things(tmp_path: Path, content: dict[str, Any], suffix: str) -> None:
    torch.save(content, tmp_path / f"a{suffix}")
    found = read_weights(tmp_path / f"a{suffix}").tensors
    assert list(found) == list(SET)
    assert all(torch.equal(found[key], value) for key, value in SET.items())


def test_a_file_with_several_sets_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"params": SET, "params_ema": OTHER, "epoch": 3}, path)
    refused(path, r"2 sets of weights \('params': 2 tensors, 'params_ema': 1 tensors, 'epoch': int\).*--key params_ema")
    assert list(read_weights(path, key="params_ema").tensors) == list(OTHER)
    with pytest.raises(CheckpointError, match="no tensors under 'ema'; it holds 'params': 2 tensors"):
        read_weights(path, key="ema")
    torch.save({"model": SET, "state_dict": OTHER}, path)
    refused(path, "2 sets of weights")
    torch.save({"epoch": 3, "optimizer": OPTIMIZER}, path)
    refused(path, "holds no tensors, but 'epoch': int, 'optimizer': dict")
    torch.save([torch.ones(1)], path)
    refused(path, "holds a list, expected a dictionary")
    torch.save({"model": SET | {"b": {"c": torch.ones(1)}}}, path)
    refused(path, "'b': got dict, expected a tensor")


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module.model.", "model._orig_mod.module.", "ema_model.module."]
)
def test_what_wrappers_put_before_every_name_is_cut_off(tmp_path: Path, prefix: str) -> None:
    wrapped = {prefix + key: value for key, value in SET.items()}
    torch.save({"model": wrapped}, tmp_path / "a.pth")
    save_file(wrapped, tmp_path / "a.safetensors")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({key: value.numpy() for key, value in wrapped.items()}))
    for suffix in (".pth", ".safetensors", ".pkl"):
        found = read_weights(tmp_path / f"a{suffix}")
        assert (set(found.tensors), found.prefix) == (set(SET), prefix)


def test_a_prefix_of_some_names_stays(tmp_path: Path) -> None:
    names = ["module.a", "b", "part._orig_mod.c"]
    torch.save({key: torch.ones(1) for key in names}, tmp_path / "a.pth")
    assert list(read_weights(tmp_path / "a.pth").tensors) == ["module.a", "b", "part.c"]
    torch.save({"_orig_mod.a": torch.ones(1), "a": torch.ones(1)}, tmp_path / "a.pth")  # which of them would a be?
    assert list(read_weights(tmp_path / "a.pth").tensors) == ["_orig_mod.a", "a"]


# safetensors


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("lite") / "lite.safetensors"
    save(build("panoptic_fpn_lite"), path, half=True)
    return path.read_bytes()


def rewritten(path: Path, whole: bytes, change: Callable[[dict[str, Any]], object]) -> Path:
    """The file with another header."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    changed = change(header)
    encoded = changed if isinstance(changed, bytes) else json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + whole[8 + length :])
    return path


FIRST = "backbone.fpn.lateral.0.norm.bias"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda h: h[FIRST].update(shape=[2**62, 4]), "shape: got .*expected a list of whole numbers|do not agree"),
        (lambda h: h[FIRST].update(shape=[-1]), "shape: got"),
        (lambda h: h[FIRST].update(shape=[80.5]), "shape: got"),
        (lambda h: h[FIRST].update(shape=[True]), "shape: got"),
        (lambda h: h[FIRST].update(shape=[1] * 40), "do not agree"),
        (lambda h: h[FIRST].update(data_offsets=[10, 5]), "do not agree"),
        (lambda h: h[FIRST].update(data_offsets=[0, 2**70]), "data_offsets: got"),
        (lambda h: h[FIRST].update(data_offsets=[0]), "do not agree"),
        (lambda h: h[FIRST].update(data_offsets=[x + 4 for x in h[FIRST]["data_offsets"]]), "begins at byte"),
        (lambda h: h[FIRST].update(dtype="F128"), "dtype: got 'F128', expected one of BOOL"),
        (lambda h: h[FIRST].update(dtype=["F32"]), "dtype: got"),
        (lambda h: h.update({FIRST: 5}), "got 5, expected an object"),
        (lambda h: h.pop(FIRST), "begins at byte"),
        (lambda h: h.update(x={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}), "x: not part of the network"),
        (lambda h: h.update(__metadata__={"panrt": 5}), "__metadata__: expected an object of texts"),
        (lambda h: h.update(__metadata__=[]), "no 'panrt' entry"),
        (lambda h: h.update({"a\x1b[31m": h.pop(FIRST)}), "the name .* is not a line of text"),
        (lambda h: b"[]", "got .*expected an object"),
        (lambda h: b"[" * 100_000, "nested too deeply"),
        (lambda h: b'{"a": NaN}', "NaN"),
        (lambda h: b'{"__metadata__": {}, "__metadata__": {}}', "repeated name '__metadata__'"),
        (lambda h: b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_safetensors_header_that_lies_is_refused_in_a_line(
    tmp_path: Path, lite: bytes, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    path = rewritten(tmp_path / "a.safetensors", lite, change)
    with pytest.raises(CheckpointError, match=match) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("length", [0, 1, 7, 2**31, 2**63, 2**64 - 1])
def test_a_header_that_is_longer_than_the_file_is_refused(tmp_path: Path, lite: bytes, length: int) -> None:
    path = pickled(tmp_path / "a.safetensors", length.to_bytes(8, "little") + lite[8:])
    with pytest.raises(CheckpointError, match=r"not a safetensors file|invalid JSON"):
        load(path)
    for size in (0, 5, 8, 9):
        with pytest.raises(CheckpointError, match="not a safetensors file, or cut short"):
            load(pickled(path, lite[:size]))
    pickled(path, (LONGEST_HEADER + 1).to_bytes(8, "little") + bytes(LONGEST_HEADER + 8))
    with pytest.raises(CheckpointError, match="its header has 4194305 bytes"):
        read_tensors_header(path)


def set_in(path: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(header: dict[str, Any]) -> None:
        content = json.loads(header["__metadata__"]["panrt"])
        *parents, last = path.split(".")
        node = content
        for parent in parents:
            node = node[parent]
        node[last] = value
        header["__metadata__"]["panrt"] = json.dumps(content)

    return change


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("config.fpn.width", 10**9, "FpnConfig.width: got 1000000000, expected 1 to 8192"),
        ("config.fpn.width", 8192, "of its tensors do not fit"),  # seen before memory is taken
        ("config.fpn.width", 0, "FpnConfig.width: got 0"),
        ("config.fpn.norm", "group", "a multiple of 32"),
        ("config.semantic.width", 2**62, "semantic.width: got .*, expected an integer"),
        ("config.instance.box.hidden", 10**7, "BoxHeadConfig.hidden"),
        ("config.instance.box.pooled_size", 10**5, "BoxHeadConfig.pooled_size"),
        ("config.instance.mask.convolutions", 10**6, "MaskHeadConfig.convolutions"),
        ("config.instance.rpn.anchor_sizes", [], "got 0 values, expected 5"),
        ("config.instance.rpn.aspect_ratios", [1.0] * 1000, "got 1000 values, expected 1 to 32"),
        ("config.instance.rpn.pre_nms_top_k", 2**40, "RpnConfig.pre_nms_top_k"),
        ("config.pixel_mean", [10**400, 1, 1], r"config: pixel_mean\[0\]: got"),
        ("config.pixel_std", [0, 1, 1], "pixel_std: got"),
        ("config.input_hw", [10**6, 10**6], "PanopticFPNConfig.input_hw"),
        ("config.name", "\ud800", "config: name: got"),
        ("config.name", "a\nb", "config: name: got"),
        ("config.classes.stuff", [{"id": 1, "name": "a", "is_thing": False, "color": [1, 2, 3]}] * 300, "at most 254"),
        ("config.classes.things", [{"id": 1, "name": "a\0", "is_thing": True, "color": [1, 2, 3]}], "name: got"),
        ("config.classes.things", [{"id": 1, "name": "a", "is_thing": True, "color": [1, 2, 300]}], "color: got"),
        ("config.trunk.type", ["x"], "config: trunk: got type"),
        ("config", [], "expected an object with the fields"),
        ("schema", "x", "schema 'x', expected 1"),
        ("schema", True, "schema True, expected 1"),
        ("schema", 1.0, "schema 1.0, expected 1"),
        ("provenance", {}, "provenance: got"),
        ("provenance", "\x1b[31m", "provenance: got"),
    ],
)
def test_a_configuration_that_no_network_has_is_refused_by_field(
    tmp_path: Path, lite: bytes, path: str, value: object, match: str
) -> None:
    file = rewritten(tmp_path / "a.safetensors", lite, set_in(path, value))
    with pytest.raises(CheckpointError, match=match) as caught, limited_memory():
        load(file)
    assert str(caught.value).startswith(str(file))


def test_damaged_metadata_of_any_depth_is_refused(tmp_path: Path, lite: bytes) -> None:
    for content in ("[" * 100_000, '{"schema": 1, "config": ' + "[" * 50_000, "null", "5", '{"a": 1e999}', "{}"):

        def change(header: dict[str, Any], content: str = content) -> None:
            header["__metadata__"]["panrt"] = content

        with pytest.raises(CheckpointError, match="metadata 'panrt'"):
            read_header(rewritten(tmp_path / "a.safetensors", lite, change))


def test_whole_numbers_that_json_wrote_as_floats_are_whole() -> None:
    data = to_json(make_config("panoptic_fpn_lite"))
    data["fpn"]["width"] = 80.0
    assert from_json(data) == make_config("panoptic_fpn_lite")
