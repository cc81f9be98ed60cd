"""Weights: detectron2's pickles, PyTorch's zip files and old pickles, safetensors with and without PanRT's header."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch

from fuzz import mutate
from fuzz.target import Files, Target, printable, require
from panrt.model import checkpoints
from panrt.model.config import make_config, to_json

# What a hostile pickle says. Each leaves a value on the stack, or does something to the one that is there.
OPCODES = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"),
    *(b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n", b"cnumpy.core.multiarray\n_reconstruct\n"),
    *(b"cnumpy.core.multiarray\nscalar\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"),
    *(b"X\x0c\x00\x00\x00touch canary\x85R", b"\x8c\x02os\x8c\x06system\x93", b"(S'canary.bin'\nios\nremove\n"),
    *(
        b"R",
        b"b",
        b"\x81",
        b"\x92",
        b"s",
        b"u",
        b"e",
        b"a",
        b"0",
        b"1",
        b"2",
        b"(",
        b"t",
        b")",
        b"}",
        b"]",
        b"N",
        b"\x88",
    ),
    *(
        b"\x85",
        b"\x86",
        b"\x87",
        b".",
        b"Q",
        b"\x97",
        b"\x98",
        b"\x94",
        b"h\x00",
        b"q\x00",
        b"\x82\x01",
        b"\x8f",
        b"\x91",
    ),
    *(b"r\xff\xff\xff\x7f", b"r\xff\xff\xff\xff", b"j\xff\xff\xff\x7f", b"p99999999999\n", b"g7\n", b"Pcanary\n"),
    *(
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x8d\x00\x00\x00\x00\x01\x00\x00\x00",
        b"B\xff\xff\xff\x7f",
        b"T\xff\xff\xff\xff",
    ),
    *(
        b"\x8b\xff\xff\xff\x7f",
        b"L1" + b"0" * 5000 + b"L\n",
        b"I-1\n",
        b"F1e999\n",
        b"J\xff\xff\xff\x7f",
        b"V\\ud800\n",
    ),
    *(
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\x7f",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x00",
        b"(" * 3000,
        b"]" * 9000,
    ),
    *(b"K\x01\x85", b"J\x00\x00\x00\x40\x85", b"U\x01O", b"U\x02O8", b"X\x02\x00\x00\x00O8", b"X\x03\x00\x00\x00V80"),
    *(b"2" * 20 + b"\x86" * 20, b"]q\x63h\x63a" * 2, b"X\x05\x00\x00\x00model}s"),
)


def spoil_pickle(rng: Random, old: bytes) -> bytes:
    """A pickle with opcodes changed, dropped, repeated, moved or put in."""
    if rng.random() < 0.1:
        return mutate.data(rng, old)
    starts = [at for _, _, at in pickletools.genops(old) if at is not None]
    codes = [old[a:b] for a, b in zip(starts, [*starts[1:], len(old)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.4:
            codes.insert(rng.randrange(len(codes) + 1), rng.choice(OPCODES))
        else:
            codes = mutate.pieces(rng, codes, lambda code: _argument(rng, code)) or [b"."]
    return b"".join(codes)


def _argument(rng: Random, code: bytes) -> bytes:
    """An opcode with another argument, or another opcode."""
    body = code[1:]
    if not body or rng.random() < 0.2:
        return rng.choice(OPCODES)
    if code[:1] in b"JMKrjqhBXTU\x8b\x8c\x8d\x8e\x95" and rng.random() < 0.5:  # begins with a number or a length
        width = {b"K": 1, b"q": 1, b"h": 1, b"U": 1, b"\x8c": 1, b"M": 2, b"\x8d": 8, b"\x8e": 8, b"\x95": 8}
        size = width.get(code[:1], 4)
        return code[:1] + mutate.packed(rng, f"<{'BHIQ'[size.bit_length() - 1]}") + body[size:]
    return code[:1] + mutate.data(rng, body, most=2)


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    """Weights of several types and ranks."""
    rng = np.random.default_rng(0)
    return {
        "backbone.bottom_up.stem.conv1.weight": rng.normal(size=(2, 3, 3, 3)).astype(np.float32),
        "conv1.weight": np.asfortranarray(rng.normal(size=(3, 4)).astype(np.float64)),
        "half": rng.normal(size=(5,)).astype(np.float16),
        "steps": np.array(7, np.int64),
        "mask": np.array([[True, False]]),
        "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
    }


@lru_cache
def pickles() -> tuple[Files, ...]:
    """Of every protocol, in the ways in which detectron2 nests them."""
    contents: tuple[Any, ...] = (
        {"model": arrays(), "__author__": "Detectron2 Model Zoo", "matching_heuristics": True},
        {"blobs": OrderedDict(arrays())},
        arrays(),
    )
    return tuple({"weights.pkl": pickle.dumps(content, protocol)} for content in contents for protocol in (2, 3, 4, 5))


def mutate_pickle(rng: Random, files: Files) -> Files:
    return {"weights.pkl": spoil_pickle(rng, files["weights.pkl"])}


def _tensors() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays().items()}


@lru_cache
def torch_files() -> tuple[Files, ...]:
    """Written by `torch.save`: nested as people do it, new and old."""
    base = torch.arange(12.0)
    contents: tuple[Any, ...] = (
        _tensors(),
        {"model": OrderedDict(_tensors()), "epoch": 3},
        {"state_dict": {"view": base[::2], "turned": base.reshape(3, 4).T, "bf16": base.bfloat16()}},
    )
    made = []
    for content in contents:
        for new in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=new)
            made.append({"weights.pth": file.getvalue()})
    return tuple(made)


@lru_cache
def _bomb() -> bytes:
    return bytes(64 << 20)


def mutate_torch(rng: Random, files: Files) -> Files:
    old = files["weights.pth"]
    if not zipfile.is_zipfile(io.BytesIO(old)) or rng.random() < 0.15:
        return {"weights.pth": mutate.data(rng, old, tokens=OPCODES)}
    with zipfile.ZipFile(io.BytesIO(old)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]

    def change(member: tuple[str, bytes]) -> tuple[str, bytes]:
        name, content = member
        if name.endswith("data.pkl"):
            return name, spoil_pickle(rng, content)
        if rng.random() < 0.2:
            changed = mutate.text(rng, name)[:16000].encode("utf-8", "replace").decode() or "x"
            return changed, content
        return name, mutate.data(rng, content) if rng.random() < 0.98 else _bomb()

    places = [i for i, (name, _) in enumerate(members) if name.endswith("data.pkl")]
    if places and rng.random() < 0.6:
        members[places[0]] = change(members[places[0]])
    else:
        members = mutate.pieces(rng, members, change)
    file = io.BytesIO()
    method = zipfile.ZIP_STORED if rng.random() < 0.8 else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        for name, content in members:
            kind = zipfile.ZIP_DEFLATED if len(content) > 1 << 20 else None
            info = zipfile.ZipInfo(name)
            info.compress_type = method if kind is None else kind
            archive.writestr(info, content)
    new = file.getvalue()
    return {"weights.pth": new if rng.random() < 0.9 else mutate.data(rng, new, most=2)}


@lru_cache
def safetensors_files() -> tuple[Files, ...]:
    """Weights alone, and with the header of a PanRT model."""
    tensors = {name: tensor.contiguous() for name, tensor in _tensors().items()}
    header = {"schema": 1, "config": to_json(make_config("panoptic_fpn_lite")), "provenance": "nobody"}
    own = {"panrt": json.dumps(header)}
    return (
        {"model.safetensors": safetensors.torch.save(tensors)},
        {"model.safetensors": safetensors.torch.save({"x": tensors["half"]}, own)},
        {"model.safetensors": _only_a_header(own)},  # which older safetensors writes wrongly
    )


def _only_a_header(metadata: dict[str, str]) -> bytes:
    header = json.dumps({"__metadata__": metadata}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def mutate_safetensors(rng: Random, files: Files) -> Files:
    old = files["model.safetensors"]
    (length,) = struct.unpack_from("<Q", old)
    header, rest = old[8 : 8 + length].decode(), old[8 + length :]
    tree = json.loads(header)
    own = tree.get("__metadata__", {}).get("panrt")
    if rng.random() < 0.1:
        return {"model.safetensors": mutate.data(rng, old)}
    if own is not None and rng.random() < 0.8:
        tree["__metadata__"]["panrt"] = mutate.json_text(rng, own).decode("utf-8", "replace")
        changed = json.dumps(tree).encode()
    else:
        changed = mutate.json_text(rng, header)
    changed += b" " * (-len(changed) % 8)
    size = struct.pack("<Q", len(changed)) if rng.random() < 0.9 else mutate.packed(rng, "<Q")
    rest = rest if rng.random() < 0.8 else rest[: rng.randrange(len(rest) + 1)] + rng.randbytes(rng.randrange(9))
    return {"model.safetensors": size + changed + rest}


def check_weights(folder: Path) -> None:
    """Read what there is; every byte of every tensor is there, and they are no larger than the file pays for."""
    (path,) = (path for path in folder.glob("weights.*"))
    _check_tensors(checkpoints.read_weights(path), path)


def check_safetensors(folder: Path) -> None:
    """Read as weights of others, then as a model of PanRT."""
    path = folder / "model.safetensors"
    _check_tensors(checkpoints.read_weights(path), path)
    header = checkpoints.read_header(path)
    require(printable(header.config.name), "a name can be printed")
    checkpoints.load(path)


def _check_tensors(weights: checkpoints.Weights, path: Path) -> None:
    size = path.stat().st_size
    total = 0
    for name, tensor in weights.tensors.items():
        require(isinstance(name, str), "names are text")
        total += tensor.numel() * tensor.element_size()
        require(total <= 64 * size + (1 << 20), "tensors are as large as their file")
        if tensor.numel():
            zlib.crc32(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


TARGETS = (
    Target(
        name="pickle",
        seeds=pickles,
        mutate=mutate_pickle,
        check=check_weights,
        lines=12,
        short=400,
        refusals=(OSError,),
    ),
    Target(
        name="torch",
        seeds=torch_files,
        mutate=mutate_torch,
        check=check_weights,
        lines=12,
        short=300,
        refusals=(OSError,),
    ),
    Target(
        name="safetensors",
        seeds=safetensors_files,
        mutate=mutate_safetensors,
        check=check_safetensors,
        lines=12,
        short=200,
        refusals=(OSError,),
    ),
)
